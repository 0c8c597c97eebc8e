"""The gradient of every loss is the one written out by hand: signs, coefficients, weights, and what is held
fixed."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgrad.algorithms import A2C, PPO, PPOKL, ActorCritic, Reinforce
from pgrad.algorithms.critic import value_loss
from pgrad.data import Batch, Trajectory
from pgrad.math.distributions import Categorical
from tests.algorithms.tools import GaussianTable, Table, gaussian_table, gradients, table, window
from tests.math import oracles

GAMMA, LAMBDA, C1, C2 = 0.9, 0.8, 0.7, 0.3

LOSSES: dict[str, Any] = {
    "a2c": A2C(gamma=GAMMA, gae_lambda=LAMBDA, vf_coef=C1, ent_coef=C2),
    "ppo": PPO(gamma=GAMMA, gae_lambda=LAMBDA, vf_coef=C1, ent_coef=C2, normalize_advantage=False),
    "ppo-kl": PPOKL(gamma=GAMMA, gae_lambda=LAMBDA, vf_coef=C1, ent_coef=C2, normalize_advantage=False),
}


def advantages(agent: Any, traj: Trajectory, gae_lambda: float = LAMBDA) -> Tensor:
    """Generalised advantage estimation from the textbook's double sum, [T, B]."""
    value = agent.value(traj.obs).detach()
    columns = [
        oracles.gae(
            traj.reward[:, i].tolist(),
            value[:, i].tolist(),
            traj.terminated[:, i].tolist(),
            traj.done[:, i].tolist(),
            GAMMA,
            gae_lambda,
        )
        for i in range(traj.reward.shape[1])
    ]
    return torch.tensor(columns, dtype=torch.float64).T


def softmax_gradient(agent: Table, traj: Trajectory, weight: Tensor, c2: float) -> Tensor:
    """Σ mask·(weight·∇log π + c₂·∇H), decision by decision: ∇log π = 1ₐ − π and ∂H/∂θₖ = −πₖ(log πₖ + H)."""
    total = torch.zeros_like(agent.theta)
    pi = agent.theta.detach().softmax(1)
    for t, b in (traj.mask > 0).nonzero().tolist():
        s, a = int(traj.obs[t, b]), int(traj.action[t, b])
        entropy = -sum(p * math.log(p) for p in pi[s].tolist())
        for k in range(3):
            p = float(pi[s, k])
            score = (k == a) - p
            total[s, k] += float(weight[t, b]) * score - c2 * p * (math.log(p) + entropy)
    return total


def gaussian_gradient(
    agent: GaussianTable, traj: Trajectory, weight: Tensor, c2: float
) -> tuple[Tensor, Tensor]:
    """The same for a Gaussian: (a − μ)/σ² for μ, ((a − μ)/σ)² − 1 for log σ, and ∂H/∂log σ = 1."""
    mean, log_std = torch.zeros_like(agent.mean), torch.zeros_like(agent.log_std)
    for t, b in (traj.mask > 0).nonzero().tolist():
        s = int(traj.obs[t, b])
        for k in range(2):
            sigma = math.exp(float(agent.log_std.detach()[k]))
            z = (float(traj.action[t, b, k]) - float(agent.mean.detach()[s, k])) / sigma
            mean[s, k] += float(weight[t, b]) * z / sigma
            log_std[k] += float(weight[t, b]) * (z * z - 1.0) + c2
    return mean, log_std


def critic_gradient(agent: Any, traj: Trajectory, target: Tensor) -> Tensor:
    """Σ mask·∇(V − target)² with the target fixed."""
    total = torch.zeros_like(agent.critic)
    for t, b in (traj.mask > 0).nonzero().tolist():
        s = int(traj.obs[t, b])
        total[s] += 2.0 * (agent.critic.detach()[s] - target[t, b])
    return total


def loss_gradients(algorithm: Any, agent: Any, traj: Trajectory) -> dict[str, Tensor]:
    batch = algorithm.credit(agent, traj)
    assert not batch.advantage.requires_grad
    return gradients(agent, algorithm.loss(agent, batch)[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_softmax_policies(name: str, seed: int) -> None:
    """∇loss = −(1/Σm)·Σ m·(Â·∇log π + c₂·∇H) + c₁·(1/Σm)·Σ m·∇(V − V̂)², each coefficient once."""
    agent = table(seed)
    traj = window(agent, seed=seed)
    advantage = advantages(agent, traj)
    target = advantage + agent.value(traj.obs).detach()[:-1]
    n = traj.mask.sum()
    grads = loss_gradients(LOSSES[name], agent, traj)
    assert torch.allclose(grads["theta"], -softmax_gradient(agent, traj, advantage, C2) / n, atol=1e-12)
    assert torch.allclose(grads["critic"], C1 * critic_gradient(agent, traj, target) / n, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_gaussian_policies(name: str, seed: int) -> None:
    agent = gaussian_table(seed)
    traj = window(agent, seed=seed)
    advantage = advantages(agent, traj)
    grads = loss_gradients(LOSSES[name], agent, traj)
    mean, log_std = gaussian_gradient(agent, traj, advantage, C2)
    n = traj.mask.sum()
    assert torch.allclose(grads["mean"], -mean / n, atol=1e-12)
    assert torch.allclose(grads["log_std"], -log_std / n, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_standardised_advantages(name: str) -> None:
    """With normalize_advantage the weight is (Â − mean)/std over the decisions that count."""
    agent = table(1)
    traj = window(agent, seed=1)
    advantage = advantages(agent, traj)
    counted = advantage[traj.mask > 0]
    weight = (advantage - counted.mean()) / counted.std(correction=0)
    grads = loss_gradients(replace(LOSSES[name], normalize_advantage=True), agent, traj)
    expected = -softmax_gradient(agent, traj, weight, C2) / traj.mask.sum()
    assert torch.allclose(grads["theta"], expected, atol=1e-7)


def test_actor_critic_losses() -> None:
    """The actor's has no critic in it; the critic's is ½(V − y)² with the target fixed (semi-gradient,
    E-35)."""
    agent = table(2)
    traj = window(agent, seed=2)
    algorithm = ActorCritic(gamma=GAMMA, ent_coef=C2, bootstrap_steps=1)
    batch = algorithm.credit(agent, traj)
    n = traj.mask.sum()
    td = advantages(agent, traj, 0.0)
    actor = gradients(agent, algorithm.loss(agent, batch)[0])
    assert torch.allclose(actor["theta"], -softmax_gradient(agent, traj, td, C2) / n, atol=1e-12)
    assert not actor["critic"].any()
    critic = gradients(agent, value_loss(agent, batch)[0])
    target = td + agent.value(traj.obs).detach()[:-1]
    assert torch.allclose(critic["critic"], 0.5 * critic_gradient(agent, traj, target) / n, atol=1e-12)
    assert not critic["theta"].any()


@pytest.mark.parametrize("reward_to_go", [True, False])
def test_reinforce(reward_to_go: bool) -> None:
    """(1/N)·Σᵢ Σₜ: summed over decisions, averaged over episodes, whatever their lengths."""
    agent = table(3)
    traj = episodes(agent)
    algorithm = Reinforce(gamma=GAMMA, baseline="none", reward_to_go=reward_to_go)
    credit = oracles.reward_to_go if reward_to_go else oracles.full_return
    columns = [
        credit(traj.reward[:, i].tolist(), traj.done[:, i].tolist(), GAMMA) for i in range(traj.mask.shape[1])
    ]
    weight = torch.tensor(columns, dtype=torch.float64).T
    grads = loss_gradients(algorithm, agent, traj)
    assert torch.allclose(grads["theta"], -softmax_gradient(agent, traj, weight, 0.0) / 4, atol=1e-12)


@pytest.mark.parametrize("baseline", ["mean", "leave-one-out", "optimal"])
def test_baselines_of_whole_returns(baseline: Any) -> None:
    """One number an episode: means of R(τᵢ) over all episodes, long or short, the optimal one by |Σₜ ∇log
    π|²."""
    agent = table(3)
    traj = episodes(agent)
    ret = [sum(GAMMA**t * float(traj.reward[t, i]) for t in range(5)) for i in range(4)]
    one = [softmax_gradient(agent, only(traj, i), torch.ones(5, 4), 0.0).square().sum() for i in range(4)]
    expected = {
        "mean": [sum(ret) / 4] * 4,
        "leave-one-out": [(sum(ret) - r) / 3 for r in ret],
        "optimal": [sum(s * r for s, r in zip(one, ret, strict=True)) / sum(one)] * 4,
    }[baseline]
    batch = Reinforce(gamma=GAMMA, baseline=baseline, reward_to_go=False).credit(agent, traj)
    for t, i in traj.mask.nonzero().tolist():
        assert float(batch.advantage[t, i]) == pytest.approx(ret[i] - float(expected[i]))


@pytest.mark.parametrize("baseline", ["mean", "leave-one-out"])
def test_baselines_of_rewards_to_go(baseline: Any) -> None:
    """One number a time step: means over all episodes, those that have ended with return 0."""
    agent = table(3)
    traj = episodes(agent)
    ret = Reinforce(gamma=GAMMA, baseline="none").credit(agent, traj).advantage
    batch = Reinforce(gamma=GAMMA, baseline=baseline).credit(agent, traj)
    for t, i in traj.mask.nonzero().tolist():
        there = [float(ret[t, j] * traj.mask[t, j]) for j in range(4) if baseline == "mean" or j != i]
        expected = float(ret[t, i]) - sum(there) / len(there)
        assert float(batch.advantage[t, i]) == pytest.approx(expected)


class Bits(nn.Module):
    """π(·|s) = softmax(logits[s]) over two actions."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.logits[obs])


def test_the_mean_baseline_shortens_the_gradient_by_the_same_factor_everywhere() -> None:
    """E[ĝ] = (1 − 1/N)·∇J with episodes of unequal length: two bits, the first may end it (M-15)."""
    logits = torch.tensor([[0.3, -0.2], [-0.5, 0.4]], dtype=torch.float64)
    paths = [(0, None), (1, 0), (1, 1)]  # action 0 ends the episode at once
    rewards = {(0, None): (1.0, 0.0), (1, 0): (0.5, -1.0), (1, 1): (0.5, 2.0)}
    policy = logits.softmax(-1)

    def chance(path: tuple[int, int | None]) -> Tensor:
        return policy[0, path[0]] * (1.0 if path[1] is None else policy[1, path[1]])

    total: dict[str, Tensor] = {}
    for baseline in ("none", "mean", "leave-one-out"):
        agent = Bits(logits)
        grad = torch.zeros_like(logits)
        for one in paths:
            for two in paths:
                action = torch.tensor([[one[0], two[0]], [one[1] or 0, two[1] or 0]])
                over = torch.tensor([[one[1] is None, two[1] is None], [True, True]])
                mask = torch.tensor([[1.0, 1.0], [one[1] is not None, two[1] is not None]]).double()
                reward = torch.tensor([rewards[one], rewards[two]], dtype=torch.float64).T
                obs = torch.tensor([[0, 0], [1, 1], [1, 1]])
                logp = policy.log()[obs[:2], action]
                traj = Trajectory(obs, action, logp, reward, over, over, mask)
                algorithm = Reinforce(gamma=1.0, baseline=baseline)  # type: ignore[arg-type]
                loss = algorithm.loss(agent, algorithm.credit(agent, traj))[0]
                (g,) = torch.autograd.grad(loss, [agent.logits])
                grad -= chance(one) * chance(two) * g
        total[baseline] = grad
    torch.testing.assert_close(total["mean"], 0.5 * total["none"])
    torch.testing.assert_close(total["leave-one-out"], total["none"])
    assert float(total["none"].abs().min()) > 0.01


def only(traj: Trajectory, i: int) -> Trajectory:
    """The decisions of episode i."""
    return replace(traj, mask=traj.mask * (torch.arange(4) == i))


def episodes(agent: Table) -> Trajectory:
    """Four whole episodes of lengths 1, 5, 3 and 2 side by side, padded."""
    traj = window(agent, T=5, B=4, seed=7)
    row = torch.arange(5).unsqueeze(1)
    length = torch.tensor([1, 5, 3, 2])
    mask = (row < length).to(torch.float64)
    done = row >= length - 1
    reward = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * mask
    return replace(traj, mask=mask, done=done, terminated=row == length - 1, reward=reward)


def with_graph(batch: Batch) -> tuple[Batch, list[Tensor]]:
    """The batch with everything that a loss must hold fixed in the graph."""
    parts = {
        name: getattr(batch, name).clone().requires_grad_()
        for name in ("logp", "advantage", "value", "target")
    }
    return replace(batch, **parts), list(parts.values())


@pytest.mark.parametrize(
    "loss",
    [
        lambda agent, batch: A2C().loss(agent, batch),
        lambda agent, batch: PPO(clip_range_vf=0.1).loss(agent, batch),
        lambda agent, batch: PPO(normalize_advantage=False).loss(agent, batch),
        lambda agent, batch: PPOKL().loss(agent, replace(batch, policy=agent.policy(batch.obs))),
        lambda agent, batch: ActorCritic().loss(agent, batch),
        value_loss,
        lambda agent, batch: Reinforce().loss(agent, batch),
    ],
)
def test_credit_gets_no_gradient(loss: Callable[[Any, Batch], tuple[Tensor, Any]]) -> None:
    """Advantages, targets, old values and old log-probabilities are constants, even if a graph hangs on
    them."""
    agent = table(4)
    batch, fixed = with_graph(PPO().credit(agent, episodes(agent)))
    scalar, metrics = loss(agent, batch)
    assert torch.autograd.grad(scalar, fixed, allow_unused=True) == (None,) * 4
    assert not any(value.requires_grad for value in metrics.values())


def test_masked_rows_change_nothing() -> None:
    """Not a bit of the gradient comes from rows that are no decisions."""
    agent = gaussian_table(5)
    traj = window(agent, seed=5)
    for algorithm in LOSSES.values():
        clean = loss_gradients(algorithm, agent, traj)
        batch = algorithm.credit(agent, traj)
        off = traj.mask == 0
        assert off.any()
        dirty = replace(
            batch,
            advantage=batch.advantage.masked_fill(off, 1e9),
            target=batch.target.masked_fill(off, -1e9),
            logp=batch.logp.masked_fill(off, -20.0),
        )
        grads = gradients(agent, algorithm.loss(agent, dirty)[0])
        for name in grads:
            assert torch.equal(grads[name], clean[name])
