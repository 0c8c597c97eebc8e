"""What `update` does with credit and loss: hand-computed steps, epochs, schedules, and what stops them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad.algorithms import A2C, PPO, PPOKL, ActorCritic, Reinforce
from pgrad.algorithms.protocol import Loss, Metrics
from pgrad.data import Batch, Episodes, Steps, Trajectory
from tests.algorithms.tools import Descent, Table, gaussian_table, table, window

RATE = 0.1


def transition(s: int, a: int, r: float, after: int, terminated: bool, agent: Table) -> Trajectory:
    """One step of one environment."""
    action = torch.tensor([[a]])
    return Trajectory(
        obs=torch.tensor([[s], [after]]),
        action=action,
        logp=agent.policy(torch.tensor([[s]])).log_prob(action).detach(),
        reward=torch.tensor([[r]], dtype=torch.float64),
        terminated=torch.tensor([[terminated]]),
        done=torch.tensor([[terminated]]),
        mask=torch.ones(1, 1, dtype=torch.float64),
    )


@pytest.mark.parametrize("terminated", [True, False])
def test_online_actor_critic_by_hand(terminated: bool) -> None:
    """One transition (M-37): V(s) moves to r + γV(s′); then θ moves along δ·∇log π, δ of the critic that
    moved."""
    agent = Table(torch.tensor([[0.0, 1.0], [0.5, 0.0]]).double(), torch.tensor([2.0, 4.0]).double())
    gamma, r = 0.9, 1.5
    after = 0.0 if terminated else 4.0
    value = 2.0 + RATE * (r + gamma * after - 2.0)
    delta = r + gamma * after - value
    p = torch.tensor([0.0, 1.0]).double().softmax(0)
    expected = torch.tensor([0.0, 1.0]) + RATE * delta * (torch.tensor([1.0, 0.0]) - p)
    traj = transition(0, 0, r, 1, terminated, agent)
    ActorCritic(n_steps=1, n_critic_updates=1, gamma=gamma, ent_coef=0.0).update(Descent(agent, RATE), traj)
    assert agent.critic.detach() == pytest.approx(torch.tensor([value, 4.0]).double())
    assert agent.theta.detach()[0] == pytest.approx(expected)
    assert agent.theta.detach()[1].tolist() == [0.5, 0.0]


def test_batch_actor_critic_by_hand() -> None:
    """Two critic steps on fresh targets, then the actor's on the fitted critic (M-36): the loop written
    out."""
    agent = table(0)
    traj = window(agent, T=6, B=3, seed=3)
    gamma, n = 0.9, float(traj.mask.sum())
    v, theta = agent.critic.detach().clone(), agent.theta.detach().clone()

    def deltas() -> list[tuple[int, int, float]]:
        out = []
        for t, b in traj.mask.nonzero().tolist():
            s, after = int(traj.obs[t, b]), int(traj.obs[t + 1, b])
            future = 0.0 if traj.terminated[t, b] else gamma * float(v[after])
            out.append((s, int(traj.action[t, b]), float(traj.reward[t, b]) + future - float(v[s])))
        return out

    for _ in range(2):
        step = torch.zeros_like(v)
        for s, _, delta in deltas():
            step[s] += RATE * delta / n
        v += step
    pi = theta.softmax(1)
    for s, a, delta in deltas():
        theta[s] += RATE * delta / n * (torch.eye(3, dtype=torch.float64)[a] - pi[s])
    algorithm = ActorCritic(n_steps=6, n_critic_updates=2, gamma=gamma, ent_coef=0.0)
    algorithm.update(Descent(agent, RATE), traj)
    assert torch.allclose(agent.critic.detach(), v, atol=1e-14)
    assert torch.allclose(agent.theta.detach(), theta, atol=1e-14)


def test_reinforce_steps_first_and_fits_after() -> None:
    """The learned baseline never saw the returns it judges: actor, then critic steps on the targets of
    before."""
    agent = table(1)
    traj = replace(window(agent, T=3, B=4, seed=1), mask=torch.ones(3, 4, dtype=torch.float64))
    learner = Descent(agent, RATE)
    algorithm = Reinforce(n_critic_updates=3)
    before = algorithm.credit(agent, traj)
    algorithm.update(learner, traj)
    assert [group for group, _ in learner.steps] == ["actor", "critic", "critic", "critic"]
    for _, batch in learner.steps:
        assert torch.equal(batch.advantage, before.advantage)
        assert torch.equal(batch.target, before.target)
    for baseline in ("none", "mean", "leave-one-out", "optimal"):
        learner = Descent(agent, RATE)
        Reinforce(baseline=baseline).update(learner, traj)
        assert [group for group, _ in learner.steps] == ["actor"]


def test_a2c_is_one_step_on_everything() -> None:
    learner = Descent(table(1), RATE)
    traj = window(learner.agent)
    A2C().update(learner, traj)
    ((group, batch),) = learner.steps
    assert group is None
    assert batch.mask.shape == traj.mask.shape


def counted(batch: Batch) -> list[float]:
    """Decisions told apart by their advantage, which no two share."""
    return batch.advantage.flatten().tolist()


@pytest.mark.parametrize("algorithm", [PPO(batch_size=15, n_epochs=3), PPOKL(batch_size=15, n_epochs=3)])
def test_every_decision_once_an_epoch(algorithm: Any) -> None:
    """K = 3 epochs of 60 / 15 minibatches (M-72), from credit that was computed once."""
    learner = Descent(table(2), RATE)
    traj = window(learner.agent)
    once = counted(algorithm.credit(learner.agent, traj))
    algorithm.update(learner, traj)
    assert len(learner.steps) == 12
    for epoch in range(3):
        seen = [x for _, batch in learner.steps[4 * epoch : 4 * epoch + 4] for x in counted(batch)]
        assert sorted(seen) == sorted(once)


@pytest.mark.parametrize("kind", [PPO, PPOKL])
def test_recomputed_advantages(kind: Any) -> None:
    """With recompute_advantage the second epoch sees the credit of the critic as it is by then; what
    acted stays: log π and, where it is kept, the whole policy."""
    traj = window(table(3))
    first: dict[bool, list[Batch]] = {}
    for recompute in (False, True):
        learner = Descent(table(3), RATE)
        kind(batch_size=60, n_epochs=2, recompute_advantage=recompute).update(learner, traj)
        first[recompute] = [batch for _, batch in learner.steps]
    same, anew = first[False], first[True]
    assert torch.equal(same[0].advantage, anew[0].advantage)
    assert torch.equal(same[0].advantage, same[1].advantage)
    assert torch.equal(same[1].logp, anew[1].logp)
    if kind is PPOKL:
        before, after = (batch.policy for batch in anew)
        assert before is not None
        assert after is not None
        assert torch.equal(before.kl(after), torch.zeros(60))
    moved = table(3)
    kind(batch_size=60, n_epochs=1).update(Descent(moved, RATE), traj)
    assert torch.equal(anew[1].advantage, kind().credit(moved, traj).advantage.flatten())
    assert torch.equal(anew[1].target, kind().credit(moved, traj).target.flatten())
    assert not torch.allclose(anew[1].advantage, anew[0].advantage)


def test_target_kl_ends_the_epochs() -> None:
    """No further step once approx_kl has passed 1.5 times the target; without a target all are made."""
    traj = window(table(4))
    free, held = Descent(table(4), 3.0), Descent(table(4), 3.0)
    PPO(batch_size=60, n_epochs=8).update(free, traj)
    PPO(batch_size=60, n_epochs=8, target_kl=0.01).update(held, traj)
    assert len(free.steps) == 8
    assert 1 < len(held.steps) < 8


class Recorder(Descent):
    """Remembers the loss functions it was given."""

    def __init__(self, agent: Table, rate: float, progress: float = 0.0) -> None:
        super().__init__(agent, rate, progress)
        self.losses: list[Any] = []

    def descend(self, loss: Loss, batch: Batch, group: str | None = None) -> Metrics:
        self.losses.append(loss)
        return super().descend(loss, batch, group)


@pytest.mark.parametrize(("schedule", "expected"), [("constant", 0.2), ("linear", 0.05)])
def test_clip_range_schedule(schedule: Any, expected: float) -> None:
    """At three quarters of the budget the linear schedule leaves a quarter of ε, in the loss and in the
    metrics."""
    learner = Recorder(table(5), RATE, progress=0.75)
    metrics = PPO(batch_size=60, n_epochs=1, clip_range_schedule=schedule).update(
        learner, window(learner.agent)
    )
    assert float(learner.losses[0].keywords["clip_range"]) == pytest.approx(expected)
    assert metrics["train/clip_range"] == pytest.approx(expected)
    learner = Recorder(table(5), RATE, progress=1.0)
    PPO(batch_size=60, n_epochs=1, clip_range_schedule=schedule).update(learner, window(learner.agent))


@pytest.mark.parametrize(("rate", "factor"), [(0.0, 0.5), (3.0, 2.0)])
def test_beta_adapts(rate: float, factor: float) -> None:
    """β halves after an update whose KL stayed below target/1.5, doubles above 1.5·target, for the next
    update."""
    learner = Recorder(table(6), rate)
    algorithm = PPOKL(batch_size=60, n_epochs=2, beta=0.8, target_kl=0.01)
    metrics = algorithm.update(learner, window(learner.agent))
    assert metrics["train/beta"] == pytest.approx(0.8)
    assert float(learner.variables["beta"]) == pytest.approx(0.8 * factor)
    assert (float(metrics["train/kl_after"]) > 0.015) == (factor > 1)
    algorithm.update(learner, window(learner.agent))
    assert [float(loss.keywords["beta"]) for loss in learner.losses] == pytest.approx(
        [0.8, 0.8, 0.8 * factor, 0.8 * factor]
    )


def test_beta_stays_within_the_band_and_without_a_target() -> None:
    for target in (None, 0.008):
        learner = Recorder(table(6), 0.9)
        metrics = PPOKL(batch_size=60, n_epochs=3, beta=0.8, target_kl=target).update(
            learner, window(learner.agent)
        )
        if target is not None:
            assert target / 1.5 < float(metrics["train/kl_after"]) < 1.5 * target, "choose another rate"
        assert float(learner.variables["beta"]) == pytest.approx(0.8)


def test_the_old_policy_is_a_copy() -> None:
    """π_old is the whole policy that acted, and stays so while σ, of which it is a view, is trained."""
    agent = gaussian_table(7)
    traj = window(agent)
    algorithm = PPOKL(batch_size=60, n_epochs=3)
    batch = algorithm.credit(agent, traj)
    before = batch.policy.log_std.clone()
    learner = Descent(agent, 0.5)
    algorithm.update(learner, traj)
    assert torch.equal(batch.policy.log_std, before)
    assert not torch.equal(agent.log_std.detach(), before[0, 0])
    for _, minibatch in learner.steps:
        assert torch.equal(minibatch.policy.log_std, before.flatten(0, 1))


def test_what_is_asked_of_the_collector() -> None:
    assert PPO(n_steps=8, batch_size=16).collects(4) == Steps(8)
    assert PPOKL(n_steps=8, batch_size=16).collects(4) == Steps(8)
    assert A2C(n_steps=3).collects(7) == Steps(3)
    assert ActorCritic(n_steps=1).collects(7) == Steps(1)
    assert Reinforce(n_episodes=5).collects(3) == Episodes(5)


def metric_names(algorithm: Any) -> Iterator[str]:
    agent = table(8)
    traj = window(agent)
    batch = algorithm.credit(agent, replace(traj, mask=torch.ones_like(traj.mask)))
    yield from algorithm.loss(agent, batch)[1]


@pytest.mark.parametrize("algorithm", [A2C(), PPO(), PPOKL(), ActorCritic(), Reinforce()])
def test_metrics_under_their_usual_names(algorithm: Any) -> None:
    usual = {"train/approx_kl", "train/entropy_loss", "train/policy_gradient_loss", "train/loss"}
    assert usual <= set(metric_names(algorithm))
    assert ("train/clip_fraction" in set(metric_names(algorithm))) == isinstance(algorithm, PPO)


def test_values_of_the_metrics() -> None:
    """approx_kl is mean((r − 1) − log r) ≥ 0, clip_fraction counts |r − 1| > ε, entropy_loss is −H: by
    hand."""
    agent = table(9)
    traj = window(agent)
    shift = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    batch = PPO().credit(agent, replace(traj, logp=traj.logp - shift))
    _, metrics = PPO().loss(agent, batch)
    on = traj.mask > 0
    ratio = shift[on].exp()
    pi = agent.theta.detach().softmax(1)
    entropy = -(pi * pi.log()).sum(1)[traj.obs[:-1][on]]
    assert float(metrics["train/approx_kl"]) == pytest.approx(float((ratio - 1 - shift[on]).mean()))
    assert float(metrics["train/clip_fraction"]) == pytest.approx(
        float(((ratio - 1).abs() > 0.2).double().mean())
    )
    assert float(metrics["train/entropy_loss"]) == pytest.approx(-float(entropy.mean()))
    assert float(metrics["train/max_log_ratio"]) == pytest.approx(float(shift[on].abs().max()))


def explained(batch: Batch) -> Tensor:
    assert batch.target is not None
    assert batch.value is not None
    on = batch.mask > 0
    y, v = batch.target[on], batch.value[on]
    return 1.0 - (y - v).var(correction=0) / y.var(correction=0)


@pytest.mark.parametrize(
    "algorithm", [A2C(), PPO(batch_size=60), PPOKL(batch_size=60), ActorCritic(), Reinforce()]
)
def test_explained_variance_is_of_the_critic_before_it_learned(algorithm: Any) -> None:
    learner = Descent(table(10), RATE)
    traj = window(learner.agent)
    traj = replace(traj, mask=torch.ones_like(traj.mask)) if isinstance(algorithm, Reinforce) else traj
    expected = explained(algorithm.credit(learner.agent, traj))
    metrics = algorithm.update(learner, traj)
    assert float(metrics["train/explained_variance"]) == pytest.approx(float(expected))
