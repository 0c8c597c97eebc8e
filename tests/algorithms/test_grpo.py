"""GRPO and its relatives: the page against loops over episodes and decisions, its identities, its groups."""

import itertools
import math
from dataclasses import replace
from typing import Any

import gymnasium
import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.data import Batch, Trajectory
from pgrad.errors import UsageError
from pgrad.math.distributions import Categorical
from pgrad.training.learner import Learner
from pgrad.worlds import make

F64 = torch.float64
T, B, G, S, A = 5, 6, 3, 4, 3
LENGTHS = (5, 2, 3, 1, 4, 5)


class Speaker(nn.Module):
    """softmax policies over A actions in S states, and a reference."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        noise = Generator().manual_seed(seed)
        self.theta = nn.Parameter(torch.randn(S, A, generator=noise, dtype=F64))
        self.other = torch.randn(S, A, generator=noise, dtype=F64)

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.theta[obs])

    def reference(self, obs: Tensor) -> Categorical:
        return Categorical(self.other[obs].detach())


def trajectory(seed: int, reward: Tensor | None = None) -> Trajectory:
    """Episodes of LENGTHS side by side; old log-probabilities of another policy."""
    noise = Generator().manual_seed(seed)
    place, length = torch.arange(T).unsqueeze(1), torch.tensor(LENGTHS)
    mask = (place < length).to(F64)
    last = place == length - 1
    drawn = torch.randn(T, B, generator=noise, dtype=F64) if reward is None else reward
    return Trajectory(
        torch.randint(S, (T + 1, B), generator=noise),
        torch.randint(A, (T, B), generator=noise),
        -0.5 - torch.rand(T, B, generator=noise, dtype=F64),
        drawn * mask,
        last & (torch.arange(B) % 2 == 0),
        last | (mask == 0),
        mask,
    )


def by_hand(grpo: pg.GRPO, agent: Speaker, traj: Trajectory) -> float:
    """The loss, one episode and one decision after the other."""
    logp = torch.log_softmax(agent.theta.detach(), -1)
    ref = torch.log_softmax(agent.other, -1)
    returns = [sum(float(traj.reward[t, b]) * grpo.gamma**t for t in range(LENGTHS[b])) for b in range(B)]
    everyone = sum(returns) / B
    spread = math.sqrt(sum((r - everyone) ** 2 for r in returns) / B)
    sums, weights, shares = [], [], []
    for b in range(B):
        group = returns[b // G * G : b // G * G + G]
        centre = sum(group) / G
        if grpo.baseline == "leave-one-out":
            centre = (sum(group) - returns[b]) / (G - 1)
        advantage = returns[b] - centre
        if grpo.scale_rewards == "group":
            advantage /= math.sqrt(sum((r - sum(group) / G) ** 2 for r in group) / G) + 1e-4
        if grpo.scale_rewards == "batch":
            advantage /= spread + 1e-4
        rows = range(LENGTHS[b])
        at = [(int(traj.obs[t, b]), int(traj.action[t, b])) for t in rows]
        new = [float(logp[s, a]) for s, a in at]
        old = [float(traj.logp[t, b]) for t in rows]
        anchor = [float(ref[s, a]) for s, a in at]
        ratios = [math.exp(n - o) for n, o in zip(new, old, strict=True)]
        if grpo.ratio == "sequence":
            ratios = [math.prod(ratios) ** (1 / len(rows))] * len(rows)
        total = 0.0
        for t in rows:
            gain = advantage
            if grpo.beta and grpo.kl == "k1-in-reward":
                gain -= grpo.beta * sum(grpo.gamma ** (k - t) * (old[k] - anchor[k]) for k in rows[t:])
            low, high = 1 - grpo.clip_range, 1 + (grpo.clip_range_high or grpo.clip_range)
            cut = min(max(ratios[t], low), high)
            value = min(ratios[t] * gain, cut * gain)
            if grpo.objective == "truncated":
                value = cut * gain * math.log(ratios[t])
            if grpo.beta and grpo.kl != "k1-in-reward":
                x = anchor[t] - new[t]
                k3 = math.exp(x) - x - 1
                value -= (
                    grpo.beta
                    * {"k2": x * x / 2, "k3": k3, "k3-corrected": k3 * math.exp(new[t] - old[t])}[grpo.kl]
                )
            entropy = -float((logp[at[t][0]].exp() * logp[at[t][0]]).sum())
            total += value + grpo.ent_coef * entropy
        cut_off = not bool(traj.terminated[LENGTHS[b] - 1, b])
        if grpo.mask_truncated and cut_off:
            continue
        sums.append(total)
        weights.append(LENGTHS[b])
        shares.append(total / LENGTHS[b])
    match grpo.average:
        case "sequence":
            return -sum(shares) / len(shares)
        case "token":
            return -sum(sums) / sum(weights)
        case "constant":
            return -sum(sums) / (len(sums) * (grpo.max_length or 1))


CHOICES: list[dict[str, Any]] = [
    {"average": average, "max_length": 7, "scale_rewards": scale, "ratio": ratio, "objective": objective}
    for average, scale, ratio, objective in itertools.product(
        ("sequence", "token", "constant"),
        ("group", "batch", "none"),
        ("token", "sequence"),
        ("clipped", "truncated"),
    )
]
CHOICES += [{"beta": 0.3, "kl": name, "gamma": 0.9} for name in ("k2", "k3", "k3-corrected", "k1-in-reward")]
CHOICES += [
    {"baseline": "leave-one-out", "scale_rewards": "none"},
    {"clip_range_high": 0.6, "ent_coef": 0.1},
    {"mask_truncated": True, "average": "token"},
    {"mask_truncated": True},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_loss_is_the_sum_over_decisions(choice: dict[str, Any]) -> None:
    grpo, agent = pg.GRPO(num_generations=G, **choice), Speaker(1)
    for seed in range(3):
        traj = trajectory(seed)
        loss, _ = grpo.loss(agent, grpo.credit(agent, traj))
        assert float(loss.detach()) == pytest.approx(by_hand(grpo, agent, traj), abs=1e-10)


def gradient(grpo: pg.GRPO, agent: Speaker, batch: Batch) -> Tensor:
    (found,) = torch.autograd.grad(grpo.loss(agent, batch)[0], [agent.theta])
    return found


@pytest.mark.parametrize("average", ["sequence", "token", "constant"])
def test_parts_of_a_batch_add_up_to_it(average: Any) -> None:
    """Every split into columns gives the gradient of the whole: one denominator for all parts."""
    grpo, agent = pg.GRPO(num_generations=G, average=average, max_length=9, beta=0.2), Speaker(2)
    batch = grpo.credit(agent, trajectory(0))
    whole = gradient(grpo, agent, batch)
    for size in range(1, B):
        total = sum(gradient(grpo, agent, part) for part in batch.parts(size))
        torch.testing.assert_close(total, whole, rtol=1e-10, atol=1e-12)


def test_on_fresh_data_all_surrogates_pull_alike() -> None:
    """At π = π_old the clipped, the truncated and the sequence's ratio have the score function's gradient."""
    agent = Speaker(3)
    traj = trajectory(1)
    logp = agent.policy(traj.obs[:-1]).log_prob(traj.action).detach()
    traj = replace(traj, logp=logp)
    base = pg.GRPO(num_generations=G)
    expected = gradient(base, agent, base.credit(agent, traj))
    for change in ({"objective": "truncated"}, {"ratio": "sequence"}, {"rho_max": 2.0}):
        grpo = replace(base, **change)  # type: ignore[arg-type]
        torch.testing.assert_close(gradient(grpo, agent, grpo.credit(agent, traj)), expected)


def test_a_sampler_of_other_numbers_is_corrected() -> None:
    """With rho_max π_old is scored anew: the ratio is 1, and π_old/μ, at most ρ̄, is a weight."""
    agent, traj = Speaker(4), trajectory(2)
    logp = agent.policy(traj.obs[:-1]).log_prob(traj.action).detach()
    batch = pg.GRPO(num_generations=G, rho_max=1.5).credit(agent, traj)
    assert batch.weight is not None
    torch.testing.assert_close(batch.logp, logp)
    torch.testing.assert_close(batch.weight, (logp - traj.logp).exp().clamp(max=1.5))


def test_equal_groups_and_unjudged_episodes_teach_nothing() -> None:
    agent = Speaker(5)
    grpo = pg.GRPO(num_generations=G, average="token")
    same = trajectory(0, reward=torch.ones(T, B, dtype=F64))
    mask = same.mask.clone()
    once = replace(same, reward=torch.where(same.done & (mask > 0), 1.0, 0.0).to(F64))
    assert float(gradient(grpo, agent, grpo.credit(agent, once)).abs().max()) == 0.0
    traj = trajectory(3)
    mask[:, 1] = 0.0
    reward = traj.reward.clone()
    reward[:, 1] = math.nan
    batch = grpo.credit(agent, replace(traj, reward=reward, mask=mask))
    found = gradient(grpo, agent, batch)
    assert bool(found.isfinite().all())
    three = replace(grpo, num_generations=G)
    without = three.credit(agent, replace(traj, reward=torch.zeros_like(reward), mask=mask))
    assert not torch.equal(found, gradient(grpo, agent, without))
    assert float(batch.advantage[:, 1].abs().max()) == 0.0


@pytest.mark.parametrize("world", ["cartpole", "lab-3x2x4", "CartPole-v1", "FrozenLake-v1"])
def test_groups_begin_alike_and_meet_the_same_chances(world: str) -> None:
    """Environments of a group that do the same see the same, at every grouped reset; other groups differ."""
    made = make(world, n_envs=6, seed=5)
    firsts = []
    for _ in range(3):
        obs = made.reset(3).clone()
        firsts.append(obs)
        for _ in range(4):
            assert torch.equal(obs[0], obs[1])
            assert torch.equal(obs[3], obs[5])
            action = torch.ones(6, dtype=torch.int64)
            obs = made.step(action).obs.clone()
    if world.lower().startswith("cartpole"):
        starts = torch.stack([x[[0, 3]] for x in firsts]).flatten(0, 1)
        assert len({tuple(row.tolist()) for row in starts}) == 6


def test_workers_and_stacked_frames_keep_groups() -> None:
    """The same numbers whoever steps the environments; a group that two workers would share is refused."""
    plain = make("FrozenLake-v1", n_envs=4, seed=2, frame_stack=2)
    shared = make("FrozenLake-v1", n_envs=4, seed=2, frame_stack=2, workers=2)
    try:
        for _ in range(2):
            assert torch.equal(plain.reset(2), shared.reset(2))
            for k in range(3):
                action = torch.full((4,), k, dtype=torch.int64)
                seen = [world.step(action).obs for world in (plain, shared)]
                assert torch.equal(*seen)
                assert torch.equal(seen[0][0], seen[0][1])
        with pytest.raises(UsageError, match="must not be shared by workers"):
            shared.reset(4)
    finally:
        plain.close()
        shared.close()


def test_worlds_that_cannot_begin_alike_say_so() -> None:
    given = make(gymnasium.make_vec("CartPole-v1", num_envs=4))
    try:
        with pytest.raises(UsageError, match="cannot be made to start alike"):
            given.reset(2)
    finally:
        given.close()
    with pytest.raises(UsageError, match="groups of 4 episodes do not fill 6 environments"):
        pg.train(pg.GRPO(num_generations=4), "cartpole", total_timesteps=100, n_envs=6)


def test_equal_groups_are_replaced() -> None:
    """On a world where most groups agree, those that teach nothing are played and counted, but not kept."""
    grpo = pg.GRPO(n_prompts=4, num_generations=2, dynamic_sampling=True, learning_rate=0.0)
    plain = replace(grpo, dynamic_sampling=False)
    runs = [pg.train(a, "probe-action", total_timesteps=400, n_envs=8, log_every=1) for a in (grpo, plain)]
    share = [[row["train/frac_equal_groups"] for row in run.history] for run in runs]
    assert sum(share[0]) == 0.0
    assert sum(share[1]) > 0.0
    assert runs[0].history[0]["time/total_timesteps"] >= runs[1].history[0]["time/total_timesteps"]


def test_the_reference_stays() -> None:
    """KL to it is 0 at first and grows; a stronger β keeps it lower; it is saved and is not trained."""
    ends = []
    for beta in (0.001, 1.0):
        grpo = pg.GRPO(n_prompts=4, num_generations=4, n_epochs=4, beta=beta, learning_rate=3e-3)
        run = pg.train(grpo, "cartpole", total_timesteps=6_000, n_envs=16, log_every=1)
        assert run.agent.frozen is not None
        assert not any(p.requires_grad for p in run.agent.frozen.parameters())
        ends.append(run.history[-1]["kl"])
    assert ends[0] > abs(ends[1])
    assert ends[0] > 0.01


def test_columns_are_shuffled_and_complete() -> None:
    agent = Speaker(0)
    batch = pg.GRPO(num_generations=G).credit(agent, trajectory(0))
    learner = Learner(nn.Linear(1, 1), pg.PPO(), Generator().manual_seed(0))  # type: ignore[arg-type]
    parts = list(learner.columns(batch, 4))
    assert [part.mask.shape[1] for part in parts] == [4, 2]
    seen = sorted(float(x) for part in parts for x in part.logp[0])
    assert seen == sorted(batch.logp[0].tolist())
    assert all(bool((part.mask[-1] > 0).any()) for part in parts)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_generations": 1}, "num_generations must be a whole number ≥ 2"),
        ({"baseline": "leave-one-out"}, "does not go with scale_rewards 'group'"),
        ({"average": "word"}, "average must be 'sequence' or 'token' or 'constant'"),
    ],
)
def test_bad_settings(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pg.GRPO(**setting)


def test_a_constant_needs_its_length() -> None:
    with pytest.raises(UsageError, match="needs max_length"):
        pg.GRPO(average="constant").collects(8)
