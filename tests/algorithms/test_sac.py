"""Soft actor-critics: targets by hand, who teaches whom, the soft optimum, how replay and steps alternate."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.algorithms.soft import temperature_loss
from pgrad.data import Batch, Masked, Transition
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.math.distributions import Categorical
from pgrad.models import Agent, build_agent
from pgrad.training.learner import Learner
from pgrad.worlds.tensors.tabular import REFERENCE
from tests.run.tools import differences, final_state
from tests.training.tools import training

BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
OBS = spaces.Box(-1.0, 1.0, (3,))
SPACES: dict[str, spaces.Space[Any]] = {"sac": BOX, "discrete-sac": spaces.Discrete(3)}
ALGORITHMS: dict[str, Any] = {"sac": pg.SAC, "discrete-sac": pg.DiscreteSAC}
SPEC = pg.AgentSpec(net_arch=(16, 16), activation="relu")


def soft_agent(name: str, seed: int = 0) -> Agent:
    draw = Generator().manual_seed(seed)
    agent = build_agent(OBS, SPACES[name], SPEC, gamma=0.9, critic="q", generator=draw)
    with torch.no_grad():
        for p in agent.parameters():  # a policy that is not uniform, slow copies that are not the critics
            p.add_(0.2 * torch.randn(p.shape, generator=draw))
    return agent


def learner(agent: nn.Module, algorithm: Any) -> Learner:
    made = Learner(agent, algorithm, Generator().manual_seed(0))  # type: ignore[arg-type]
    made.begin(0.0)
    return made


def replayed(name: str, n: int = 64, seed: int = 0) -> Transition:
    draw = Generator().manual_seed(seed)
    obs, after = torch.randn(2, n, 3, generator=draw)
    action = torch.rand(n, 2, generator=draw) * torch.tensor([4.0, 1.0]) - torch.tensor([2.0, 0.0])
    if name == "discrete-sac":
        action = torch.randint(3, (n,), generator=draw)
    reward = torch.randn(n, generator=draw)
    terminated = torch.rand(n, generator=draw) < 0.3
    mask = (torch.rand(n, generator=draw) < 0.8).float()
    return Transition(obs, action, torch.zeros(n), reward, terminated, after, mask)


def credit(algorithm: Any, agent: Any, rows: Transition) -> Batch:
    noise = (Generator().manual_seed(5),) if isinstance(algorithm, pg.SAC) else ()
    return algorithm.credit(agent, rows, *noise)


def actor_loss(algorithm: Any) -> Any:
    if isinstance(algorithm, pg.DiscreteSAC):
        return algorithm.actor_loss
    return lambda agent, batch: algorithm.actor_loss(agent, batch, Generator().manual_seed(6))


def parameters(agent: Agent) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in agent.named_parameters()}


def changed(agent: Agent, before: dict[str, Tensor]) -> set[str]:
    """The networks of which a parameter is another."""
    moved = [name for name, p in agent.named_parameters() if not torch.equal(p, before[name])]
    return {name.removeprefix("network.").split(".")[0] for name in moved}


# ---------------------------------------------------------------- targets and losses, written out


class Told(nn.Module):
    """Q's and a policy that are told, for one row of two actions: α = exp(0.5)."""

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(torch.tensor([[0.25, 0.75]]).log().expand(len(obs), 2))

    def q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        return torch.tensor([[[1.0, 4.0]], [[2.0, 3.0]]]).expand(2, len(obs), 2)

    def target_q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        return torch.tensor([[[5.0, -1.0]], [[3.0, 2.0]]]).expand(2, len(obs), 2)

    def log_temperature(self) -> Tensor:
        return torch.tensor(0.5)


@pytest.mark.parametrize("ent_coef", ["auto", 0.1])
def test_discrete_targets_and_losses_by_hand(ent_coef: Any) -> None:
    """y = r + γ·Σ π·(min Q̄ − α log π), r alone where the task ended; and both losses."""
    alpha = math.exp(0.5) if ent_coef == "auto" else 0.1
    p = (0.25, 0.75)
    soft = sum(pi * (q - alpha * math.log(pi)) for pi, q in zip(p, (3.0, -1.0), strict=True))
    algorithm = pg.DiscreteSAC(gamma=0.8, ent_coef=ent_coef)
    rows = Transition(
        obs=torch.zeros(3, 1),
        action=torch.tensor([0, 1, 1]),
        logp=torch.zeros(3),
        reward=torch.tensor([2.0, 5.0, 1e9]),
        terminated=torch.tensor([False, True, False]),
        next_obs=torch.zeros(3, 1),
        mask=torch.tensor([1.0, 1.0, 0.0]),
    )
    batch = algorithm.credit(Told(), rows)
    assert batch.target is not None
    y = (2.0 + 0.8 * soft, 5.0)
    assert batch.target[:2].tolist() == pytest.approx(y)
    loss = ((1 - y[0]) ** 2 + (2 - y[0]) ** 2 + (4 - y[1]) ** 2 + (3 - y[1]) ** 2) / 4
    assert float(algorithm.loss(Told(), batch)[0]) == pytest.approx(loss)
    actor = sum(pi * (alpha * math.log(pi) - q) for pi, q in zip(p, (1.0, 3.0), strict=True))
    found, metrics = algorithm.actor_loss(Told(), batch)
    entropy = -sum(pi * math.log(pi) for pi in p)
    assert float(found) == pytest.approx(actor)
    assert float(metrics["train/entropy"]) == pytest.approx(entropy)
    assert float(metrics["train/entropy_surplus"]) == pytest.approx(entropy - 0.5 * math.log(2))


def test_continuous_targets_and_losses_by_hand() -> None:
    """With the samples that the generator gives: y = r + γ·(min Q̄(s', a') − α log π(a'|s'))."""
    algorithm, agent, rows = pg.SAC(gamma=0.8), soft_agent("sac"), replayed("sac")
    with torch.no_grad():
        agent.network.temperature.fill_(-1.0)  # type: ignore[union-attr]
    batch = credit(algorithm, agent, rows)
    with torch.no_grad():
        action, logp = agent.policy(rows.next_obs).rsample(Generator().manual_seed(5))
        value = agent.target_q(rows.next_obs, action).min(0).values - math.exp(-1.0) * logp
        y = rows.reward + 0.8 * (~rows.terminated) * value
        q = agent.q(rows.obs, rows.action)
        loss = (rows.mask * (0.5 * (q[0] - y) ** 2 + 0.5 * (q[1] - y) ** 2)).sum() / rows.mask.sum()
        new, new_logp = agent.policy(rows.obs).rsample(Generator().manual_seed(6))
        each = math.exp(-1.0) * new_logp - agent.q(rows.obs, new).min(0).values
        climbed = (rows.mask * each).sum() / rows.mask.sum()
        entropy = -(rows.mask * new_logp).sum() / rows.mask.sum()
    assert torch.allclose(batch.target, y, atol=1e-5)  # type: ignore[arg-type]
    assert not batch.target.requires_grad  # type: ignore[union-attr]
    assert torch.allclose(algorithm.loss(agent, batch)[0], loss, rtol=1e-5)
    found, metrics = actor_loss(algorithm)(agent, batch)
    assert torch.allclose(found, climbed, rtol=1e-4)
    # −1 for each action of [−1, 1]; [−2, 2] is twice as wide, [0, 1] half: log 2 + log ½ = 0 more.
    assert torch.allclose(metrics["train/entropy_surplus"], entropy + 2.0, atol=1e-5)


def test_the_entropy_target_follows_the_width_of_the_actions() -> None:
    wide = spaces.Box(-5.0, 5.0, (2,))
    agent = build_agent(OBS, wide, SPEC, gamma=0.9, critic="q", generator=Generator().manual_seed(0))
    target = pg.SAC().entropy_target(agent.policy(torch.zeros(4, 3)))
    assert float(target) == pytest.approx(2 * (math.log(5.0) - 1))
    assert pg.SAC(target_entropy=-0.7).entropy_target(agent.policy(torch.zeros(4, 3))) == -0.7


def test_the_entropy_target_counts_what_is_allowed() -> None:
    """H̄ = ½·E[log A(s)] over decisions of 2, 1 and 3 allowed actions; a row that only reset is none."""
    allowed = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()
    agent, rows = soft_agent("discrete-sac"), replayed("discrete-sac", n=4)
    rows = replace(
        rows, obs=Masked(rows.obs, allowed), next_obs=Masked(rows.next_obs, allowed), mask=torch.ones(4)
    )
    rows.mask[3] = 0.0
    algorithm = pg.DiscreteSAC()
    batch = algorithm.credit(agent, rows)
    metrics = algorithm.actor_loss(agent, batch)[1]
    target = float(metrics["train/entropy"] - metrics["train/entropy_surplus"])
    assert target == pytest.approx((math.log(2) + 0.0 + math.log(3)) / 6, abs=1e-6)
    single = replace(batch, obs=Masked(rows.obs.obs, allowed[1].expand(4, 3)))
    assert float(algorithm.actor_loss(agent, single)[1]["train/entropy_surplus"]) == pytest.approx(
        0, abs=1e-6
    )


class Narrow(gymnasium.Env[Any, Any]):
    """Of twenty actions the first two are allowed; the first earns 1."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(20)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {"action_mask": np.arange(20) < 2}

    def step(self, action: Any) -> Any:
        self.t += 1
        truncated = self.t == 20
        return (
            np.zeros(2, np.float32),
            float(action == 0),
            False,
            truncated,
            {"action_mask": np.arange(20) < 2},
        )


def test_discrete_sac_learns_where_actions_are_forbidden() -> None:
    """The entropy of two actions cannot reach half of log 20: against that target α grew without end."""
    rows: list[dict[str, float]] = []
    run = pg.train(
        pg.DiscreteSAC(learning_starts=100, batch_size=64, learning_rate=3e-3),
        Narrow,
        total_timesteps=1500,
        n_envs=4,
        agent=pg.AgentSpec(net_arch=(32,)),
        callback=rows.append,
    )
    assert run.evaluate(episodes=3).mean == 20.0
    assert rows[-1]["train/ent_coef"] < 0.7
    assert abs(rows[-1]["train/entropy_surplus"]) < 0.1
    with torch.no_grad():
        policy = run.agent.policy(Masked(torch.zeros(1, 2), (torch.arange(20) < 2).unsqueeze(0)))
    assert float(policy.entropy()) == pytest.approx(0.5 * math.log(2), abs=0.1)
    assert policy.logits.softmax(-1)[0, 0] > 0.8


# ---------------------------------------------------------------- who teaches whom


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_actor_never_sees_actions_of_the_buffer(name: str) -> None:
    """Other actions, log-probabilities, rewards and targets: the same gradient, bit for bit."""
    algorithm, agent = ALGORITHMS[name](), soft_agent(name)
    one = credit(algorithm, agent, replayed(name))
    other = replayed(name, seed=1)
    perturbed = replace(
        one, action=other.action, logp=other.logp + 3.0, target=10 * other.reward, advantage=other.reward
    )
    own = list(agent.network.actor.parameters())  # type: ignore[union-attr]
    first, second = (
        torch.autograd.grad(actor_loss(algorithm)(agent, batch)[0], own) for batch in (one, perturbed)
    )
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert all(x.any() for x in first)
    critics = list(agent.network.critic.parameters())  # type: ignore[union-attr]
    first, second = (
        torch.autograd.grad(algorithm.loss(agent, batch)[0], critics) for batch in (one, perturbed)
    )
    assert not torch.equal(first[0], second[0]), "the critics do: the comparison can fail"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_loss_moves_its_own_networks_only(name: str) -> None:
    """The actor's loss leaves the critics without a gradient, the critics' leaves the actor."""
    algorithm, agent = ALGORITHMS[name](), soft_agent(name)
    batch = credit(algorithm, agent, replayed(name))
    made = learner(agent, algorithm)
    steps = {
        "actor": (actor_loss(algorithm), {"actor"}),
        "critic": (algorithm.loss, {"critic"}),
        "temperature": (partial(temperature_loss, surplus=torch.tensor(0.3)), {"temperature"}),
    }
    for group, (loss, moved) in steps.items():
        before = parameters(agent)
        made._flat.grads.zero_()
        made.descend(loss, batch, group)
        assert changed(agent, before) == moved
        for other in steps.keys() - {group}:
            assert not made._flat.groups[other].grads.any()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rows_that_only_reset_teach_nothing(name: str) -> None:
    """Whatever is in them: the same gradients of the critics and of the actor."""
    algorithm, agent, rows = ALGORITHMS[name](), soft_agent(name), replayed(name)
    junk = replayed(name, seed=1)
    reset = rows.mask == 0
    assert 5 < int(reset.sum()) < 50

    def mixed(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(reset.view(-1, *[1] * (x.ndim - 1)), y, x)

    other = replace(
        rows,
        obs=mixed(rows.obs, 5 * junk.obs),
        reward=mixed(rows.reward, 1e6 * junk.reward),
        next_obs=mixed(rows.next_obs, 7 * junk.next_obs),
        action=mixed(rows.action, junk.action),
    )
    for networks, loss in (("critic", algorithm.loss), ("actor", actor_loss(algorithm))):
        own = list(getattr(agent.network, networks).parameters())
        grads = []
        for part in (rows, other):
            scalar, metrics = loss(agent, credit(algorithm, agent, part))
            grads.append([*torch.autograd.grad(scalar, own), *metrics.values()])
        for x, y in zip(*grads, strict=True):
            assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("target", [-5.0, 5.0])
def test_the_temperature_moves_against_the_surplus(name: str, target: float) -> None:
    """Entropy above its target: α falls; below: α rises; fixed: it stays, and is what the losses use."""
    agent = soft_agent(name)
    algorithm = ALGORITHMS[name](target_entropy=target, learning_rate=0.01)
    batch = credit(algorithm, agent, replayed(name))
    made = learner(agent, algorithm)
    before = float(agent.log_temperature().detach())
    metrics = actor_loss(algorithm)(agent, batch)[1]
    entropy, surplus = (float(metrics[f"train/{key}"]) for key in ("entropy", "entropy_surplus"))
    assert surplus == pytest.approx(entropy - target, abs=1e-5)
    made.descend(partial(temperature_loss, surplus=metrics["train/entropy_surplus"]), batch, "temperature")
    moved = float(agent.log_temperature().detach()) - before
    assert moved == pytest.approx(-math.copysign(0.01, surplus), rel=1e-3), "Adam's first step is its rate"


def test_slow_copies_follow_by_tau() -> None:
    """θ̄ ← (1 − τ)·θ̄ + τ·θ for every parameter of both critics, and nothing else moves."""
    agent = soft_agent("sac")
    made = learner(agent, pg.SAC())
    before = parameters(agent)
    made.follow(0.25)
    assert changed(agent, before) == {"target_critic"}
    after = parameters(agent)
    names = [name for name in after if ".target_critic." in name]
    assert len(names) == 6
    for name in names:
        online = before[name.replace("target_critic", "critic")]
        assert torch.allclose(after[name], 0.75 * before[name] + 0.25 * online, atol=1e-6)
    assert not any(p.requires_grad for p in agent.network.target_critic.parameters())  # type: ignore[union-attr]


# ---------------------------------------------------------------- the soft optimum


class SoftTables(nn.Module):
    """Q₁, Q₂, their slow copies [2, S, A] and log π [S, A], as tables; α is fixed."""

    def __init__(self, S: int, A: int) -> None:
        super().__init__()
        draw = Generator().manual_seed(0)
        self.theta = nn.Parameter(torch.randn(S, A, generator=draw, dtype=torch.float64))
        self.critic = nn.Parameter(torch.randn(2, S, A, generator=draw, dtype=torch.float64))
        self.target = nn.Parameter(self.critic.detach().clone(), requires_grad=False)

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.theta[obs])

    def q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        return self.critic[:, obs]

    def target_q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        return self.target[:, obs]

    def log_temperature(self) -> Tensor:
        raise AssertionError("α is fixed")


def test_the_tabular_soft_optimum_of_m82() -> None:
    """DiscreteSAC's own credit and losses, every (s, a, s') with weight P[s, a, s'], find π* and V*."""
    gamma, alpha, tau = 0.9, 0.5, 0.5
    problem = replace(REFERENCE, horizon=None)
    pi, V = exact.soft_optimum(problem, gamma, alpha)
    assert pi[:, 0].tolist() == pytest.approx([0.8137, 0.6191, 0.0008], abs=5e-5)
    assert V.tolist() == pytest.approx([12.34628, 12.26124, 13.97768], abs=5e-6)
    S, A = pi.shape
    s, a, after = torch.cartesian_prod(*map(torch.arange, (S, A, S))).unbind(1)
    never = torch.zeros(len(s), dtype=torch.bool)
    rows = Transition(s, a, torch.zeros(len(s)), problem.r[s, a], never, after, problem.P[s, a, after])
    algorithm, agent = pg.DiscreteSAC(gamma=gamma, ent_coef=alpha), SoftTables(S, A)
    for _ in range(600):
        batch = algorithm.credit(agent, rows)  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(algorithm.loss(agent, batch)[0], [agent.critic])  # type: ignore[arg-type]
        (rise,) = torch.autograd.grad(algorithm.actor_loss(agent, batch)[0], [agent.theta])  # type: ignore[arg-type]
        with torch.no_grad():
            agent.critic -= S * A * slope  # a mean over S·A pairs: this step is the soft Bellman backup
            agent.theta -= S * rise / agent.policy(torch.arange(S)).logits.softmax(-1).clamp_min(1e-3)
            agent.target.lerp_(agent.critic, tau)
    found = agent.theta.detach().softmax(-1)
    assert (found - pi).abs().max() < 1e-3
    q = agent.critic.detach().amin(0)
    assert ((found * (q - alpha * found.log())).sum(-1) - V).abs().max() < 1e-3


def test_the_density_of_squashed_actions_integrates_to_one() -> None:
    """In the world's units, whatever the bounds, the mean and the width."""
    space = spaces.Box(-2.0, 7.0, (1,))
    agent = build_agent(OBS, space, SPEC, gamma=0.9, critic="q", generator=Generator().manual_seed(0))
    u = torch.linspace(-12.0, 12.0, 40_001, dtype=torch.float64)
    action = (-2.0 + 9.0 * torch.sigmoid(2 * u)).unsqueeze(-1)
    for seed in range(3):
        policy = agent.policy(torch.randn(1, 3, generator=Generator().manual_seed(seed)))
        with torch.no_grad():
            wide = replace(
                policy,
                **{
                    key: getattr(policy, key).double().expand(len(u), 1) + shift
                    for key, shift in (
                        ("mean", 0.3 * seed),
                        ("log_std", -0.5 * seed),
                        ("low", 0),
                        ("high", 0),
                    )
                },
            )
            mass = torch.trapezoid(wide.log_prob(action).exp(), action[:, 0])
        assert float(mass) == pytest.approx(1.0, abs=1e-6)


# ---------------------------------------------------------------- replay and steps take turns


class Counting(gymnasium.Env[Any, Any]):
    """Observations (episode, step); episodes of three steps end by the task, by the clock, by the task, …"""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def __init__(self, discrete: bool = False) -> None:
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (1,))
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over, by_task = self.t == 3, self.episode % 2 == 0
        obs = np.array([self.episode, self.t], np.float32)
        return obs, float(10 * self.episode + self.t), over and by_task, over and not by_task, {}


@pytest.mark.parametrize("capacity", [1000, 17])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_a_run_replays(name: str, capacity: int) -> None:
    """The successor is the true one at every ending, before and after the ring is full; resets weigh 0."""
    algorithm = ALGORITHMS[name](buffer_size=capacity, learning_starts=4, batch_size=4, gradient_steps=1)
    made = training(algorithm, partial(Counting, name == "discrete-sac"), agent=SPEC, n_envs=1)
    for _ in range(40):
        made.iterate()
    rows = made.learner.replay.transitions(2000, Generator().manual_seed(0))
    real = rows.mask == 1
    before, after = rows.obs[real], rows.next_obs[real]
    assert torch.equal(after - before, torch.tensor([[0.0, 1.0]]).expand_as(after))
    assert torch.equal(rows.reward[real], 10 * before[:, 0] + after[:, 1])
    last = after[:, 1] == 3
    assert torch.equal(rows.terminated[real], last & (before[:, 0] % 2 == 0))
    assert (last & ~rows.terminated[real]).any(), "truncations are among them"
    resets = ~real
    assert bool(resets.any())
    assert (rows.obs[resets][:, 1] == 3).all()
    assert (rows.next_obs[resets][:, 1] == 0).all()
    assert not rows.terminated[resets].any()
    episodes = before[:, 0].unique().tolist()
    assert episodes == list(range(int(min(episodes)), 10))
    assert (min(episodes) == 0) == (capacity == 1000), "the ring forgot the oldest"


@pytest.mark.parametrize(
    ("n_envs", "n_steps", "gradient_steps"), [(1, 1, -1), (3, 2, -1), (3, 2, 2), (2, 1, 5)]
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_steps_per_decision(name: str, n_envs: int, n_steps: int, gradient_steps: int) -> None:
    """−1 is one for every decision of all environments, none for a reset; none before learning_starts."""
    algorithm = ALGORITHMS[name](
        learning_starts=12, n_steps=n_steps, gradient_steps=gradient_steps, batch_size=4
    )
    made = training(algorithm, partial(Counting, name == "discrete-sac"), agent=SPEC, n_envs=n_envs)
    first = {key: p.detach().clone() for key, p in made.agent.named_parameters()}
    for _ in range(30):
        decisions, steps = made.timesteps, made.learner.n_updates
        made.iterate()
        due = made.timesteps - decisions if gradient_steps == -1 else gradient_steps
        assert made.learner.n_updates - steps == (3 * due if made.timesteps >= 12 else 0)
        assert made.learner.replay.seen == made.timesteps <= len(made.learner.replay)
        if made.timesteps < 12:
            assert all(torch.equal(p, first[key]) for key, p in made.agent.named_parameters())
    assert made.learner.n_updates > 30


def test_one_update_step_by_step() -> None:
    """Critics, then the actor by the new critics, then the temperature, then the copies: written out."""
    algorithm = pg.SAC(learning_starts=1, batch_size=8, gradient_steps=2)
    one, two = (training(algorithm, "pendulum", agent=SPEC, n_envs=2) for _ in range(2))
    one.iterate()
    traj = two.collector.collect(two.request)
    made = two.learner
    made.begin(0.0)
    made.replay.add(traj)
    for _ in range(2):
        rows = made.replay.transitions(8, made.generator)
        batch = algorithm.credit(two.agent, rows, made.noise)
        made.descend(algorithm.loss, batch, "critic")
        metrics = made.descend(partial(algorithm.actor_loss, noise=made.noise), batch, "actor")
        surplus = metrics["train/entropy"] - (math.log(2.0) - 1.0)
        made.descend(partial(temperature_loss, surplus=surplus), batch, "temperature")
        made.follow(0.005)
    for p, q in zip(one.agent.parameters(), two.agent.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-7)


def test_learning_starts_counts_decisions(tmp_path: Any) -> None:
    """Not the rows that only reset, one in three here; and it goes on counting in a run that was stopped."""
    algorithm = pg.DiscreteSAC(learning_starts=30, batch_size=4, buffer_size=64, gradient_steps=1)
    setting: dict[str, Any] = {"total_timesteps": 60, "n_envs": 2, "agent": SPEC, "log_every": 1}
    for name, last in (("whole", 60), ("half", 20)):
        rows: list[dict[str, float]] = []

        def keep(row: dict[str, float], rows: Any = rows, last: int = last) -> bool:
            rows.append(row)
            return row["time/total_timesteps"] < last

        pg.train(algorithm, "probe-discount", run_dir=tmp_path / name, callback=keep, **setting)
        begun = [row["time/total_timesteps"] for row in rows if row["train/n_updates"]]
        assert begun[:1] == ([30.0] if name == "whole" else [])
    pg.resume(tmp_path / "half")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []


# ---------------------------------------------------------------- defaults and bad input


@pytest.mark.parametrize(("algorithm", "world"), [(pg.SAC(), "pendulum"), (pg.DiscreteSAC(), "cartpole")])
def test_networks_are_large_unless_told_otherwise(algorithm: Any, world: str) -> None:
    for agent, widths in ((None, [256, 256]), (pg.AgentSpec(), [64, 64])):
        run = pg.train(
            replace(algorithm, learning_starts=8, batch_size=2),
            world,
            total_timesteps=9,
            n_envs=1,
            agent=agent,
        )
        actor = list(run.agent.network.actor.modules())  # type: ignore[union-attr]
        found = [m.out_features for m in actor if isinstance(m, nn.Linear)][:2]
        assert found == widths
        assert any(isinstance(m, nn.ReLU if agent is None else nn.Tanh) for m in actor)
    plain = pg.train(pg.A2C(), world, total_timesteps=9, n_envs=1).agent.network.actor  # type: ignore[union-attr]
    assert not any(isinstance(m, nn.ReLU) for m in plain.modules())


class Two(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space


def refusals() -> Iterator[tuple[Any, Any, str]]:
    unbounded = spaces.Box(-np.inf, 1.0, (2,))
    yield pg.SAC(), "CartPole-v1", r"SAC is for Box .* has Discrete\(2\): use DiscreteSAC \(discrete-sac\)"
    yield pg.DiscreteSAC(), "Pendulum-v1", r"DiscreteSAC is for Discrete .*: use SAC \(sac\)"
    for algorithm in (pg.SAC(), pg.DiscreteSAC()):
        yield algorithm, partial(Two, spaces.MultiDiscrete([2, 3])), r"has MultiDiscrete.*: use PPO or TRPO"
    yield pg.SAC(), partial(Two, unbounded), r"SAC squashes actions into the bounds .* has none"
    flat = spaces.Box(np.array([-1.0, 3.0], np.float32), np.array([1.0, 3.0], np.float32))
    yield (
        pg.SAC(),
        partial(Two, flat),
        r"into the bounds of their space, and dimension 1 has no width: 3 to 3",
    )
    yield pg.SAC(buffer_size=500), "Pendulum-v1", r"buffer_size 500, .* is less than learning_starts = 1000"
    short = pg.SAC(buffer_size=10, learning_starts=0, n_steps=6)
    yield short, "Pendulum-v1", r"in whole rows of 2 environments 10, is less than n_steps · n_envs = 12"
    late = pg.SAC(learning_starts=20_000)
    yield late, "CartPole-v1", r"has Discrete\(2\): use DiscreteSAC"  # which is worth more to know
    yield pg.DiscreteSAC(learning_starts=20_000), "Pendulum-v1", r"DiscreteSAC is for Discrete .*: use SAC"
    yield late, "Pendulum-v1", r"learning_starts must be less than total_timesteps, 10000, .* got 20000"


@pytest.mark.parametrize(("algorithm", "world", "text"), list(refusals()))
def test_what_does_not_fit_is_told(algorithm: Any, world: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text) as error:
        pg.train(algorithm, world, total_timesteps=10_000, n_envs=2)
    assert "\n" not in str(error.value)
