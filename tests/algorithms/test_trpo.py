"""TRPO's update against dense linear algebra, its bound on real runs, and line searches that fail."""

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.algorithms.trpo import divergence
from pgrad.data import Batch, map_tree
from pgrad.errors import TrainingError, UsageError
from pgrad.math.distributions import Categorical
from pgrad.math.natural import fisher_vector_product
from pgrad.training.learner import Learner
from tests.algorithms.tools import Table, gaussian_table, table, window

TABLES = {"categorical": table, "Gaussian": gaussian_table}
SMALL: dict[str, Any] = {"batch_size": 64, "n_critic_updates": 1}


def learner(agent: nn.Module, algorithm: Any) -> Learner:
    made = Learner(agent, algorithm, Generator().manual_seed(0))  # type: ignore[arg-type]
    made.begin(0.0)
    return made


def actor(agent: nn.Module) -> Tensor:
    """The policy's parameters as one vector, in the learner's order."""
    named = [(name, p) for name, p in agent.named_parameters() if not name.startswith("critic")]
    return torch.cat([p.detach().clone().flatten() for _, p in named])


def kl_of(agent: Any, batch: Batch, theta: Tensor) -> Tensor:
    """E[KL(π_old‖π_θ)] of a table, in double precision and written out."""
    weight = batch.mask.double() / batch.mask.double().sum()
    assert batch.policy is not None
    if isinstance(batch.policy, Categorical):
        old = batch.policy.logits.double().log_softmax(-1)
        new = theta.view(4, 3).log_softmax(-1)[batch.obs]
        return weight @ (old.exp() * (old - new)).sum(-1)
    mean, log_std = theta[:8].view(4, 2)[batch.obs], theta[8:]
    old_mean, old_log_std = batch.policy.mean.double(), batch.policy.log_std.double()
    variance = (2 * log_std).exp()
    terms = log_std - old_log_std + ((2 * old_log_std).exp() + (old_mean - mean) ** 2) / (2 * variance) - 0.5
    return weight @ terms.sum(-1)


@pytest.mark.parametrize("sub_sampling_factor", [1, 7])
@pytest.mark.parametrize("kind", TABLES)
def test_the_step_is_that_of_dense_algebra(kind: str, sub_sampling_factor: int) -> None:
    """θ moves by c·√(2δ/xᵀFx)·x with x = (F + damping)⁻¹g, F the Hessian of the KL in double precision, and
    c the first fraction that both improves the surrogate and keeps the KL.
    """
    algorithm = pg.TRPO(
        target_kl=0.05,
        cg_max_steps=40,
        cg_damping=0.02,
        line_search_max_iter=60,
        sub_sampling_factor=sub_sampling_factor,
        **SMALL,
    )
    agent = TABLES[kind](3, dtype=torch.float32)
    traj = window(agent, T=40, B=5)
    batch = algorithm.credit(agent, traj).flatten()
    before = actor(agent)
    g = -torch.autograd.grad(algorithm.loss(agent, batch)[0], list(agent.parameters())[:-1])[0]
    if kind == "Gaussian":
        grads = torch.autograd.grad(algorithm.loss(agent, batch)[0], [agent.mean, agent.log_std])
        g = -torch.cat([x.flatten() for x in grads])
    seen = batch
    if sub_sampling_factor > 1:  # as the learner's generator draws them
        seen = algorithm.sub_sample(batch, Generator().manual_seed(0))
        assert len(seen.mask) == 200 // 7
    F = torch.autograd.functional.hessian(lambda theta: kl_of(agent, seen, theta), before.double())
    F = F + 0.02 * torch.eye(len(F), dtype=torch.float64)
    x = torch.linalg.solve(F, g.flatten().double())
    full = (2 * 0.05 / (x @ F @ x)).sqrt() * x

    metrics = algorithm.update(learner(agent, algorithm), traj)
    c = float(metrics["train/step_fraction"])
    assert 0 < c <= 1
    moved = (actor(agent) - before).double()
    assert (moved - c * full).norm() < 2e-3 * (c * full).norm()
    assert metrics["train/cg_residual"] < 1e-3
    assert metrics["train/policy_grad_norm"] == pytest.approx(float(g.norm()), rel=1e-4)

    # Every larger fraction failed for one of the two reasons; this one has both.
    old_loss = float(algorithm.loss(table_at(agent, before), batch)[0].detach())
    for k in range(60):
        trial = table_at(agent, before + 0.8**k * (moved / c).float())
        gain = old_loss - float(algorithm.loss(trial, batch)[0].detach())
        kl = float(kl_of(agent, batch, actor(trial).double()))
        if 0.8**k == pytest.approx(c):
            break
        assert gain <= 1e-6 or kl > 0.05 * (1 - 1e-4)
    assert gain == pytest.approx(float(metrics["train/surrogate_gain"]), abs=1e-5)
    assert gain > 0
    assert kl == pytest.approx(float(metrics["train/kl"]), rel=1e-3)
    assert kl <= 0.05 * (1 + 1e-5)


def contexts(T: int = 32, B: int = 8) -> Batch:
    """Every environment shows its own number; the first two decisions of each weigh nothing."""
    number = torch.arange(B).expand(T, B)
    mask = (torch.arange(T) >= 2).float().unsqueeze(1).expand(T, B)
    zero = torch.zeros(T, B)
    policy = Categorical(torch.zeros(T, B, 3))
    return Batch(number, torch.zeros(T, B), zero, mask, zero, policy=policy).flatten()


@pytest.mark.parametrize("factor", [2, 4, 7, 8, 16, 100, 256])
def test_sub_sampling_draws_decisions_wherever_they_are(factor: int) -> None:
    """One in so many and at least one, each at most once, none without weight; every decision as often."""
    batch, algorithm = contexts(), pg.TRPO(sub_sampling_factor=factor)
    place = replace(batch, logp=torch.arange(256).float())
    draw, times = Generator().manual_seed(0), torch.zeros(256)
    draws = 4000 if factor > 50 else 400
    for _ in range(draws):
        seen = algorithm.sub_sample(place, draw)
        assert len(seen.mask) == max(1, 256 // factor)
        assert (seen.mask > 0).all()
        times += torch.bincount(seen.logp.long(), minlength=256)
    assert not times[:16].any(), "rows that only reset"
    expected = draws * max(1, 256 // factor) / 240
    spread = math.sqrt(expected)  # of a Poisson variable; the largest of 240 is within five of them
    assert (times[16:] - expected).abs().max() < 5 * spread
    by_environment = times[16:].view(-1, 8).sum(0)
    assert (by_environment / by_environment.sum() - 1 / 8).abs().max() < 0.02


def test_the_sub_sampled_fisher_is_the_whole_one_in_the_mean() -> None:
    """Over draws F·v is that of all decisions, where environments differ; one in eight in their order is one
    environment's.
    """
    start = torch.randn(8, 3, generator=Generator().manual_seed(3))
    agent, batch = Table(start, torch.zeros(8)), contexts()
    batch = replace(batch, policy=map_tree(Tensor.detach, agent.policy(batch.obs)))
    algorithm, draw = pg.TRPO(sub_sampling_factor=8), Generator().manual_seed(0)
    v = torch.randn(24, generator=draw)

    def product(seen: Batch) -> Tensor:
        return fisher_vector_product(divergence(agent.policy(seen.obs), seen), [agent.theta])(v)

    whole, mean = product(batch), sum(product(algorithm.sub_sample(batch, draw)) for _ in range(300)) / 300
    assert (mean - whole).norm() < 0.1 * whole.norm()
    stride = batch.select(torch.arange(16, 256, 8))
    assert (product(stride) - whole).norm() > whole.norm()


def test_sub_sampling_keeps_whole_sequences() -> None:
    """With a memory one sequence in so many, at least one; the same for the same generator."""
    rows: list[dict[str, float]] = []
    for factor in (1, 3, 64):
        run = pg.train(
            pg.TRPO(n_steps=32, batch_size=64, sub_sampling_factor=factor, n_critic_updates=1),
            "cartpole",
            total_timesteps=256,
            n_envs=2,
            agent=pg.AgentSpec(net_arch=(8,), memory="gru", memory_size=8, sequence_length=16),
            log_every=1,
            callback=rows.append,
        )
        assert run.timesteps >= 256
    assert all(row["train/kl"] <= 0.01 * (1 + 1e-6) for row in rows)
    assert not all(row["train/line_search_failed"] for row in rows)


def table_at(agent: Any, theta: Tensor) -> Any:
    """A table with other policy parameters."""
    made = (table if hasattr(agent, "theta") else gaussian_table)(3, dtype=torch.float32)
    made.load_state_dict(agent.state_dict())
    start = 0
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name != "critic":
                p.copy_(theta[start : start + p.numel()].view_as(p))
                start += p.numel()
    return made


def test_few_steps_of_conjugate_gradients_leave_a_residual_and_it_is_reported() -> None:
    residuals = []
    for steps in (1, 3, 20):
        algorithm = pg.TRPO(cg_max_steps=steps, cg_damping=1e-3, **SMALL)
        agent = table(3, dtype=torch.float32)
        metrics = algorithm.update(learner(agent, algorithm), window(agent, T=40))
        residuals.append(float(metrics["train/cg_residual"]))
    assert residuals[0] > 0.05
    assert residuals[0] > 10 * residuals[1] or residuals[1] > residuals[2]
    assert residuals[2] < 1e-3


class TurnAndPush(gymnasium.Env[Any, Any]):
    """A product of actions: a choice, two choices, bits and a push, each rewarded where it fits."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Dict(
        {
            "turn": spaces.Discrete(3),
            "gears": spaces.MultiDiscrete([2, 4]),
            "lights": spaces.MultiBinary(2),
            "push": spaces.Box(-1.0, 1.0, (1,)),
        }
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float(action["turn"] == 2) - float(np.abs(action["push"]).sum()) + action["lights"][0]
        return self._observe(), float(reward), False, self.t == 10, {}

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@pytest.mark.parametrize("target_kl", [0.01, 0.3])
@pytest.mark.parametrize(
    ("world", "memory"),
    [("cartpole", "none"), ("pendulum", "none"), (TurnAndPush, "none"), ("cartpole", "gru")],
)
def test_the_bound_holds_after_every_update_of_a_run(world: Any, memory: Any, target_kl: float) -> None:
    """Discrete, Gaussian and product policies, and one with a memory; a large δ, at which steps are to be
    shortened.
    """
    rows: list[dict[str, float]] = []
    algorithm = pg.TRPO(n_steps=32, target_kl=target_kl, cg_damping=1e-3, batch_size=128, n_critic_updates=2)
    agent = pg.AgentSpec(net_arch=(16,), normalize_obs=True, memory=memory, memory_size=8)
    pg.train(
        algorithm,
        world,
        total_timesteps=3000 if memory == "none" else 1500,
        n_envs=8,
        agent=agent,
        log_every=1,
        callback=rows.append,
        seed=1,
    )
    rows = [row for row in rows if "train/kl" in row]
    assert len(rows) >= 5
    for row in rows:
        assert 0.0 <= row["train/kl"] <= target_kl * (1 + 1e-6)
        accepted = not row["train/line_search_failed"]
        assert accepted == (row["train/step_fraction"] > 0) == (row["train/kl"] > 0)
        assert row["train/approx_kl"] == row["train/kl"], "that of the step, not of the policy that acted"
        assert accepted == (row["train/surrogate_gain"] > 0)
        assert row["train/cg_residual"] < 1.0
    assert sum(not row["train/line_search_failed"] for row in rows) > len(rows) / 2
    if target_kl == 0.3 and memory == "none":
        assert any(0 < row["train/step_fraction"] < 1 for row in rows), "the bound was never tried"


@pytest.mark.parametrize("kind", TABLES)
def test_a_line_search_that_fails_changes_no_parameter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trial steps, each taken back: the policy is the same bit for bit; the critic learns as ever."""
    attempt, tried = Learner.attempt, []

    def refused(self: Learner, step: Tensor, group: str, accept: Any) -> bool:
        def judge() -> Tensor:
            accept()
            tried.append(actor(agent))
            return torch.tensor(False)

        return attempt(self, step, group, judge)

    monkeypatch.setattr(Learner, "attempt", refused)
    algorithm = pg.TRPO(**SMALL)
    agent = TABLES[kind](3, dtype=torch.float32)
    before, critic = actor(agent), agent.critic.detach().clone()
    made = learner(agent, algorithm)
    metrics = algorithm.update(made, window(agent))
    assert torch.equal(actor(agent), before)
    assert len(tried) == 10
    assert all(not torch.equal(there, before) for there in tried), "it was elsewhere in between"
    assert not torch.equal(agent.critic, critic)
    assert (float(metrics["train/line_search_failed"]), float(metrics["train/step_fraction"])) == (1.0, 0.0)
    assert float(metrics["train/kl"]) == 0.0
    assert made.n_updates == 1, "the critic's step only"


@pytest.mark.parametrize("kind", TABLES)
def test_a_step_that_gains_nothing_is_refused(kind: str) -> None:
    """Advantages of 0: the surrogate is what it was wherever the step leads, and the bound is kept."""
    algorithm = pg.TRPO(**SMALL)
    agent = TABLES[kind](3, dtype=torch.float32)
    batch = algorithm.credit(agent, window(agent)).flatten()
    batch = replace(batch, advantage=torch.zeros_like(batch.advantage))
    before = actor(agent)
    step = torch.full_like(before, 1e-3) * torch.arange(len(before))
    metrics = algorithm.search(learner(agent, algorithm), batch, step)
    assert torch.equal(actor(agent), before)
    assert metrics["train/line_search_failed"] == 1.0
    moved = kl_of(agent, batch, (before + step).double())
    assert 0 < moved < algorithm.target_kl, "nothing but the gain speaks against it"


class Broken(nn.Module):
    """A policy whose value is finite and whose derivative is not: √x at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.critic = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(4))

    def policy(self, obs: Tensor) -> Categorical:
        x = self.theta[obs.long().flatten() if obs.ndim > 1 and obs.is_floating_point() else obs.long()]
        return Categorical(x + (0 * x).sqrt())

    def value(self, obs: Tensor) -> Tensor:
        return self.critic[obs.long()]


def test_a_gradient_that_is_not_finite_changes_no_parameter_and_is_told() -> None:
    agent = Broken()
    algorithm = pg.TRPO(**SMALL)
    before = actor(agent)
    made = learner(agent, algorithm)
    metrics = algorithm.update(made, window(agent))
    assert not metrics["train/policy_grad_norm"].isfinite()
    assert torch.equal(actor(agent), before)
    with pytest.raises(TrainingError, match="train/policy_grad_norm not finite"):
        made.read(metrics)


def test_nothing_to_climb_is_no_step() -> None:
    """Advantages of 0: no direction, no curvature, no division by zero."""
    algorithm = pg.TRPO(gamma=0.0, gae_lambda=0.0, **SMALL)
    agent = table(3, dtype=torch.float32)
    with torch.no_grad():
        agent.critic.zero_()
    traj = window(agent)
    before = actor(agent)
    metrics = algorithm.update(learner(agent, algorithm), replace(traj, reward=torch.zeros_like(traj.reward)))
    assert torch.equal(actor(agent), before)
    assert all(bool(x.isfinite()) for x in metrics.values())


def test_the_learning_rate_is_the_critics() -> None:
    """The policy's step comes from δ: it is the same for any learning rate, and grows with δ."""
    moved = {}
    for rate, delta in ((1e-3, 0.01), (0.0, 0.01), (1e-3, 0.0001)):
        algorithm = pg.TRPO(learning_rate=rate, target_kl=delta, **SMALL)
        agent = table(3, dtype=torch.float32)
        before, critic = actor(agent), agent.critic.detach().clone()
        algorithm.update(learner(agent, algorithm), window(agent))
        moved[rate, delta] = actor(agent) - before
        assert torch.equal(agent.critic, critic) == (rate == 0.0)
    assert torch.equal(moved[1e-3, 0.01], moved[0.0, 0.01])
    assert moved[1e-3, 0.0001].norm() < 0.2 * moved[1e-3, 0.01].norm()


def test_without_a_line_search_it_is_the_natural_gradient() -> None:
    """The full step is taken, though it costs more than δ."""
    agents = [gaussian_table(3, dtype=torch.float32) for _ in range(2)]
    traj = window(agents[0])
    found = []
    for agent, tries in zip(agents, (0, 30), strict=True):
        algorithm = pg.TRPO(target_kl=0.5, line_search_max_iter=tries, cg_damping=1e-3, **SMALL)
        batch = algorithm.credit(agent, traj).flatten()
        metrics = algorithm.update(learner(agent, algorithm), traj)
        found.append(
            (
                float(metrics["train/step_fraction"]),
                float(divergence(agent.policy(batch.obs), batch).detach()),
            )
        )
    (full, kl), (searched, kept) = found
    assert full == 1.0
    assert kl > 0.5 >= kept
    assert 0 < searched < 1


def test_bad_numbers_are_told() -> None:
    with pytest.raises(UsageError, match=r"sub_sampling_factor must be a whole number ≥ 1, got 0"):
        pg.TRPO(sub_sampling_factor=0)
    with pytest.raises(
        UsageError, match=r"sub_sampling_factor 2049 leaves no decision of n_steps · n_envs = 256 · 8 = 2048"
    ):
        pg.TRPO(sub_sampling_factor=2049).collects(8)
    pg.TRPO(sub_sampling_factor=2048).collects(8)
    with pytest.raises(
        UsageError, match=r"batch_size 100 does not divide .* the nearest that do are 64 and 128"
    ):
        pg.TRPO(batch_size=100).collects(8)
