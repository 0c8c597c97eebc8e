"""Agents with a memory through whole runs: windows, episodes, evaluation, stopping, a task that needs one."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.data import Episodes, Sequence, Steps, Trajectory, map_tree
from pgrad.math.distributions import Categorical
from pgrad.models import build_agent
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions
from pgrad.training.collect import Collector
from pgrad.worlds import make
from tests.cli.tools import cli
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

KINDS = ("gru", "lstm")


@dataclass(frozen=True)
class Echo:
    """A bit is shown once; `wait` steps later, and only there, the action that repeats it earns 1.

    The last observation is the same for both bits, so that a policy of the present observation, π, earns
    ½·π(0) + ½·π(1) = ½ whatever it is. With a memory 1 is possible.
    """

    wait: int = 3
    name: str = "echo"
    noise: int = 1
    max_episode_steps: int | None = None
    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def start(self, noise: Tensor) -> Tensor:
        bit = (noise[:, :1] >= 0.5).to(noise.dtype) * 2 - 1
        return torch.cat([bit, torch.zeros_like(bit)], 1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bit, t = state.unbind(1)
        over = t >= self.wait
        right = over & (2 * action - 1 == bit)
        return torch.stack([bit, t + 1], 1), right.to(bit.dtype), over

    def observe(self, state: Tensor) -> Tensor:
        bit, t = state.unbind(1)
        return torch.stack([bit * (t == 0), (t >= self.wait).to(bit.dtype)], 1).float()

    def draw(self, state: Tensor, i: int) -> Any:
        raise NotImplementedError


SMALL = {"net_arch": (16,), "memory_size": 16}
PPO = pg.PPO(n_steps=32, batch_size=64, n_epochs=4, learning_rate=0.01, learning_rate_schedule="linear")


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_needs_a_memory(kind: str) -> None:
    """Evaluation too carries the memory through an episode and empties it at the next."""
    spec = pg.AgentSpec(memory=kind, **SMALL)  # type: ignore[arg-type]
    run = pg.train(PPO, Echo(), total_timesteps=6_000, agent=spec)
    assert run.evaluate(100).mean == 1.0


def test_the_same_task_without_a_memory() -> None:
    """One half, by the symmetry of the world: the answer cannot depend on the bit."""
    run = pg.train(PPO, Echo(), total_timesteps=6_000, agent=pg.AgentSpec(net_arch=(16,)))
    result = run.evaluate(400, deterministic=False)
    assert abs(result.mean - 0.5) < 5 * 0.5 / 400**0.5


def collector(kind: str, world: Any = "cartpole", n_envs: int = 3, seed: int = 0) -> Collector:
    made = make(world, n_envs=n_envs, seed=seed)
    agent = build_agent(
        made.observation_space,
        made.action_space,
        pg.AgentSpec(net_arch=(8,), memory=kind, memory_size=6, normalize_obs=True),  # type: ignore[arg-type]
        gamma=0.99,
        critic="value",
        generator=Generator().manual_seed(seed),
    )
    with torch.no_grad():
        for p in agent.parameters():
            p.mul_(3.0)
    return Collector(made, agent, Generator().manual_seed(seed + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_goes_on_where_the_window_ends(kind: str) -> None:
    """Windows one after another are one long sequence: nothing is forgotten between them, and everything on
    the row after the one that only resets, which itself still remembers the episode that ended."""
    c = collector(kind)
    windows = [map_tree(torch.clone, c.collect(Steps(7))) for _ in range(9)]
    whole: Trajectory = map_tree(lambda *x: torch.cat(x), *windows)
    seen: Sequence = map_tree(lambda *x: torch.cat(x), *(w.decisions for w in windows))
    resets = whole.mask == 0
    assert resets.sum() > 5
    assert torch.equal(seen.start, torch.cat([torch.ones(1, 3, dtype=torch.bool), resets[:-1]]))
    with torch.no_grad():
        logp, value = c.agent.policy(seen).log_prob(whole.action), c.agent.value(seen)
    assert torch.allclose(logp, whole.logp, atol=1e-5)
    for k, window in enumerate(windows):
        here = slice(7 * k, 7 * k + 7)
        with torch.no_grad():
            assert torch.allclose(c.agent.value(window.obs)[:-1], value[here], atol=1e-5)
            empty = replace(window.obs, state=map_tree(torch.zeros_like, window.obs.state))
            forgetful = c.agent.policy(map_tree(lambda x: x[:-1], empty)).log_prob(window.action)
        goes_on = ~window.obs.start[0]
        assert k == 0 or not torch.allclose(forgetful[0, goes_on], window.logp[0, goes_on], atol=1e-4)
        if k:
            for name, state in window.obs.state.items():
                assert torch.equal(state[0], windows[k - 1].obs.state[name][-1])
    # The value of a row that only resets is that of the true last observation, with the episode's memory.
    t, i = resets.nonzero()[3].tolist()
    first = max(s for s in range(t) if seen.start[s, i])
    episode = map_tree(lambda x: x[first : t + 1, i : i + 1], seen)
    with torch.no_grad():
        alone = c.agent.value(replace(episode, state=map_tree(torch.zeros_like, episode.state)))
    assert torch.allclose(alone[-1, 0], value[t, i], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_episodes_begin_with_an_empty_memory(kind: str) -> None:
    """In every round; what was padded has no weight and disturbs nothing."""
    c = collector(kind)
    for _ in range(2):
        traj = c.collect(Episodes(7))
        assert traj.obs.start[0].all()
        for state in traj.obs.state.values():
            assert not state[0].any()
        with torch.no_grad():
            logp = c.agent.policy(traj.decisions).log_prob(traj.action)
            value = c.agent.value(traj.obs)
        assert torch.allclose(logp[traj.mask > 0], traj.logp[traj.mask > 0], atol=1e-5)
        for i in range(7):
            length = int(traj.mask[:, i].sum())
            assert not traj.obs.start[1 : length + 1, i].any(), "the last observation belongs to the episode"
            own = map_tree(lambda x, i=i, n=length: x[: n + 1, i : i + 1], traj.obs)
            with torch.no_grad():
                assert torch.allclose(c.agent.value(own)[:, 0], value[: length + 1, i], atol=1e-5)


ALGORITHMS: dict[str, Any] = {
    "ppo": pg.PPO(n_steps=16, batch_size=16, n_epochs=2, recompute_advantage=True),
    "ppo-kl": pg.PPOKL(n_steps=16, batch_size=16, n_epochs=2, recompute_advantage=True),
    "trpo": pg.TRPO(n_steps=16, batch_size=16, n_critic_updates=2, sub_sampling_factor=2),
    "a2c": pg.A2C(n_steps=5),
    "actor-critic": pg.ActorCritic(n_steps=7, n_critic_updates=2),
    "online": pg.ActorCritic(n_steps=1, n_critic_updates=1),
    "reinforce": pg.Reinforce(n_episodes=3, n_critic_updates=2),
    "reuse": pg.Reinforce(n_episodes=3, baseline="none", reuse=2),
    "optimal": pg.Reinforce(n_episodes=4, baseline="optimal"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_stops_and_continues_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    """The memory in mid-episode is part of the state; every first step finds the ratio 1, or would raise."""
    spec = pg.AgentSpec(
        net_arch=(4,),
        memory=kind,
        memory_size=4,
        sequence_length=8,
        normalize_obs=True,  # type: ignore[arg-type]
    )
    setting: dict[str, Any] = {"total_timesteps": 160, "n_envs": 2, "agent": spec, "log_every": 1}
    pg.train(ALGORITHMS[name], "cartpole", run_dir=tmp_path / "a", **setting)
    pg.train(
        ALGORITHMS[name],
        "cartpole",
        run_dir=tmp_path / "b",
        callback=lambda row: row["time/total_timesteps"] < 70,
        **setting,
    )
    pg.resume(tmp_path / "b")
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    memory = final_state(tmp_path / "a")["collector"]["memory"]
    assert memory["state"]["cells"].any()


def test_advantages_are_computed_anew_with_the_memory_of_the_agent_that_moved() -> None:
    """The memories stored with the rows are of the agent that acted: they serve the first pass alone."""
    algorithm = pg.PPO(n_steps=32, batch_size=32, n_epochs=3, recompute_advantage=True, learning_rate=0.1)
    spec = pg.AgentSpec(memory="gru", sequence_length=8)
    training = make_training(RunConfig(algorithm, "cartpole", spec, RunOptions(n_envs=4, seed=3)))
    traj, found = training.collector.collect(training.request), []
    compute = training.learner.compute

    def watched(function: Any, *inputs: Any) -> Any:
        made = compute(function, *inputs)
        if inputs[0] is traj:
            with torch.no_grad():
                found.append((made.value, training.agent.value(traj.obs)[:-1]))
        return made

    training.learner.compute = watched  # type: ignore[method-assign]
    training.learner.begin(0.0)
    algorithm.update(training.learner, traj)
    assert len(found) == 3
    for credited, unrolled in found:
        assert torch.allclose(credited, unrolled, atol=1e-5)
    assert not torch.allclose(found[0][0], found[1][0], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_data_has_the_ratio_one(kind: str) -> None:
    """To rounding, on every sequence of the first pass, not only the first: all begin with their memories."""
    spec = pg.AgentSpec(memory=kind, sequence_length=8)  # type: ignore[arg-type]
    algorithm = pg.PPO(n_steps=32, batch_size=32, n_epochs=1)
    training = make_training(RunConfig(algorithm, "cartpole", spec, RunOptions(n_envs=4, seed=3)))
    training.iterate()
    traj = training.collector.collect(training.request)
    batch = algorithm.credit(training.agent, traj).flatten()
    seen = list(training.learner.minibatches(batch, 32))
    assert [part.mask.shape for part in seen] == [(8, 4)] * 4
    for part in seen:
        logp = training.agent.policy(part.obs).log_prob(part.action)
        assert torch.allclose(logp, part.logp, atol=1e-5)
    order = torch.cat([part.advantage for part in seen], 1)
    assert sorted(map(tuple, order.T.tolist())) == sorted(map(tuple, batch.advantage.T.tolist()))


class Everything(gymnasium.Env[Any, Any]):
    """Dict observations, product actions and masks; the parity of the step says which button is allowed."""

    observation_space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,)), "k": spaces.Discrete(3)})
    action_space = spaces.Dict({"button": spaces.Discrete(2), "push": spaces.Box(-1.0, 1.0, (1,))})

    def look(self) -> tuple[Any, dict[str, Any]]:
        allowed = np.array([1, 0] if self.t % 2 else [0, 1], np.int8)
        return {"x": self.np_random.uniform(-1, 1, 2).astype(np.float32), "k": self.t % 3}, {
            "action_mask": allowed
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.look()

    def step(self, action: Any) -> Any:
        assert action["button"] == (self.t + 1) % 2
        self.t += 1
        obs, info = self.look()
        return obs, float(action["push"][0]), self.t == 5, False, info


@pytest.mark.parametrize("name", ["ppo", "trpo", "optimal"])
def test_with_structured_observations_actions_and_masks(name: str, tmp_path: Path) -> None:
    """One class each, for all of it together; saved, loaded, evaluated."""
    spec = pg.AgentSpec(net_arch=(8,), memory="gru", memory_size=8, sequence_length=8, normalize_obs=True)
    run = pg.train(
        ALGORITHMS[name], Everything, total_timesteps=150, n_envs=2, agent=spec, run_dir=tmp_path / "a"
    )
    loaded = pg.load(tmp_path / "a", world=Everything)
    assert loaded.evaluate(4).returns == run.evaluate(4).returns


class Counter(nn.Module):
    """A memory of one's own: counts the steps of an episode and plays their number modulo 3."""

    sequence_length = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {"count": torch.zeros(n, 1)}

    def step(self, seen: Sequence) -> tuple[Categorical, dict[str, Tensor]]:
        count = seen.state["count"] * (~seen.start).unsqueeze(-1)
        hot = nn.functional.one_hot(count[:, 0].long() % 3, 3)
        return Categorical(50.0 * self.scale * hot), {"count": count + 1}

    def policy(self, seen: Sequence) -> Categorical:
        if seen.start.ndim == 1:
            return self.step(seen)[0]
        state, logits = map_tree(lambda x: x[0], seen.state), []
        for t in range(len(seen.start)):
            policy, state = self.step(Sequence(None, seen.start[t], state, 4))
            logits.append(policy.logits)
        return Categorical(torch.stack(logits))

    def value(self, seen: Sequence) -> Tensor:
        return self.scale * torch.zeros(seen.start.shape)


@dataclass(frozen=True)
class Rhythm:
    """Shows nothing; 0, 1, 2, 0, 1, 2, … earns 1 a step, for 4 to 9 steps."""

    name: str = "rhythm"
    noise: int = 1
    max_episode_steps: int | None = None
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(3)

    def start(self, noise: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(noise), (4 + 6 * noise).floor()], 1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t, length = state.unbind(1)
        return torch.stack([t + 1, length], 1), (action == t % 3).to(t.dtype), t + 1 >= length

    def observe(self, state: Tensor) -> Tensor:
        return torch.zeros(len(state), 1)

    def draw(self, state: Tensor, i: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("n_envs", [1, 4])
def test_evaluation_counts_from_the_start_of_each_episode(n_envs: int) -> None:
    """A module's own memory trains too; every step of every episode is in time only if it was reset right."""
    run = pg.train(pg.A2C(n_steps=6, learning_rate=0.0), Rhythm(), total_timesteps=60, agent=Counter())
    result = run.evaluate(12, n_envs=n_envs)
    assert result.returns == tuple(map(float, result.lengths))
    assert len(set(result.lengths)) > 2


def test_flags_of_the_command_line(tmp_path: Path) -> None:
    """Trained, resumed, evaluated and loaded; acting goes step by step."""
    flags = "--memory gru --memory-size 8 --sequence-length 8 --n-steps 32 --batch-size 64 --quiet"
    where = tmp_path / "run"
    assert cli(f"train ppo t-maze {flags} --total-timesteps 512 --run-dir", where) == (0, "", "")
    assert cli("resume --total-timesteps 1024 --quiet", where).code == 0
    assert cli("eval --episodes 3", where).code == 0
    agent = pg.load(where).agent
    memory = agent.memory()
    assert memory.state["cells"].shape == (1, 2, 8), "the actor's and the critic's"
    actions = [agent.act([0.0, 1.0, 0.0], memory=memory) for _ in range(3)]
    assert set(actions) <= {0, 1, 2, 3}


def test_what_a_memory_cannot_be_trained_with() -> None:
    """In one line each, before anything is built."""
    gru = pg.AgentSpec(memory="gru", sequence_length=8)
    for algorithm, world in ((pg.SAC(), "pendulum"), (pg.OffPolicyActorCritic(), "cartpole")):
        name = type(algorithm).__name__
        with pytest.raises(pg.UsageError, match=f"{name} replays decisions of older agents") as error:
            pg.train(algorithm, world, total_timesteps=100_000, agent=gru)
        assert "\n" not in str(error.value)
    for numbers, what in (
        (
            {"n_steps": 16, "batch_size": 4},
            "batch_size 4 does not hold whole sequences of 8 decisions, .* 8 does",
        ),
        ({"n_steps": 24, "batch_size": 12}, "the nearest that do are 8 and 16"),
        ({"n_steps": 20, "batch_size": 8}, "sequence_length 8 does not divide n_steps 20; .* are 5 and 10"),
    ):
        with pytest.raises(pg.UsageError, match=what):
            pg.train(pg.PPO(**numbers), "cartpole", total_timesteps=100, n_envs=4, agent=gru)  # type: ignore[arg-type]
    answer = cli("train ppo cartpole --memory rnn")
    assert answer.code == 2
    assert re.search("gru", answer.err)
