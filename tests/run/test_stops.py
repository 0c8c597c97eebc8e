"""A training that is stopped anywhere in an iteration, saved and continued, is the one that was not."""

import contextlib
import copy
import json
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import pgrad as pg
import pgrad.training.completions
import pgrad.training.restore
from pgrad.data.shared import TOKENS_AT_ONCE
from pgrad.math import vocabulary
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions, settled
from pgrad.stopping import Stop, Stopped
from pgrad.training.disk.packing import for_disk, pack, unpack
from pgrad.training.loop import Training
from pgrad.worlds.language import calls
from pgrad.worlds.language.calls import Outcome, Wait
from tests.run.texts import GRPO, TASK, TINY
from tests.run.tools import differences

LINEAR: dict[str, Any] = {"learning_rate_schedule": "linear"}
PLAIN = pg.AgentSpec(net_arch=(8,))
NORMALIZED = replace(PLAIN, normalize_obs=True, normalize_reward=True)
RECURRENT = replace(PLAIN, memory="gru", memory_size=4, sequence_length=4)

# algorithm, world, agent
CASES: dict[str, tuple[Any, str, Any]] = {
    "grpo, epochs": (replace(GRPO, n_epochs=3, beta=0.1, **LINEAR), "copy", TINY),
    "dapo, refilled": (replace(GRPO, dynamic_sampling=True, average="token", **LINEAR), "copy", TINY),
    "ppo of tokens": (pg.PPO(n_steps=48, batch_size=32, n_epochs=2, target_kl=0.05), "copy", TINY),
    "reinforce of tokens": (pg.Reinforce(n_episodes=8, reuse=1, beta=0.1, baseline="value"), "copy", TINY),
    "imitate": (pg.Imitate(batch_size=16, **LINEAR), "copy", TINY),
    "ppo": (pg.PPO(n_steps=6, batch_size=6, n_epochs=10, **LINEAR), "pendulum", NORMALIZED),
    "ppo, memory": (pg.PPO(n_steps=8, batch_size=8, n_epochs=3), "cartpole", RECURRENT),
    "sac": (pg.SAC(n_steps=4, learning_starts=10, batch_size=8, gradient_steps=3), "pendulum", PLAIN),
    "sac, replay full": (
        pg.SAC(n_steps=4, buffer_size=14, learning_starts=10, batch_size=8, gradient_steps=3),
        "pendulum",
        PLAIN,
    ),
    "ppo-kl": (pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2), "cartpole", NORMALIZED),
    "trpo": (pg.TRPO(n_steps=8, batch_size=8, n_critic_updates=2), "cartpole", PLAIN),
    "reinforce, old data": (
        pg.Reinforce(n_episodes=5, baseline="leave-one-out", reuse=2, learning_rate=1e-4),
        "cartpole",
        PLAIN,
    ),
    "grpo of episodes": (
        pg.GRPO(n_prompts=2, num_generations=2, batch_size=3, n_epochs=2, dynamic_sampling=True),
        "CartPole-v1",
        PLAIN,
    ),
}
WHERE = {
    "grpo, epochs": {"nothing", "collected"},
    "dapo, refilled": {"nothing", "rounds", "collected"},
    "ppo of tokens": {"nothing", "collected"},
    "reinforce of tokens": {"nothing", "collected"},
    "imitate": {"collected"},
    "reinforce, old data": {"rows", "rounds", "collected"},
    "grpo of episodes": {"rows", "rounds", "collected"},
}
"""What a checkpoint kept of the iteration that was stopped: in windows of steps if nothing else is said."""

ITERATIONS = 3
MOST = 9  # places at which each is stopped, spread evenly over all there are


def never() -> None: ...


class At:
    """A `Stop` that counts, and raises at one call."""

    def __init__(self, place: int) -> None:
        self.place, self.calls = place, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.place:
            raise Stopped


def by_first(completions: list[str], **columns: Any) -> list[float]:
    """Rewards that differ within some groups, and not within others."""
    return [float(text.startswith("b")) for text in completions]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards beside which nobody waits for longer on a busy day: as many places to stop at, every time."""

    def start(function: Any, arguments: dict[str, Any], timeout: float) -> Wait:
        def wait(stop: Stop) -> Outcome:
            stop()
            return Outcome(function(**arguments), None)

        return wait

    monkeypatch.setattr(calls, "_thread", start)


def made(name: str, reward: Any = by_first) -> Training:
    algorithm, world, agent = CASES[name]
    options = RunOptions(total_timesteps=2000, n_envs=2, seed=3, threads=1)
    texts = world == "copy"
    given = (TASK["world_kwargs"], reward) if texts else ({}, None)
    training = make_training(RunConfig(settled(algorithm, agent), world, agent, options, *given))
    training.patience = 0.0  # every update is long enough to be stopped
    return training


def advance(training: Training, until: int, stop: Stop = never) -> list[dict[str, float]]:
    """Iterate; what is told of each iteration, clocks aside."""
    found = []
    while training.iterations < until:
        metrics = training.iterate(stop)
        told = metrics | training.collector.episodes.metrics()
        found.append({key: x for key, x in told.items() if not key.startswith("time/")})
    return found


def written(training: Training) -> dict[str, Any]:
    """The state as a checkpoint has it."""
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(pack(training.state_dict(), "", tensors), allow_nan=False)
    state: dict[str, Any] = unpack(json.loads(text), load(save(for_disk(tensors))))
    return state


def kept(state: dict[str, Any]) -> set[str]:
    """What there is in a state of an iteration that was stopped."""
    collector = state["collector"]
    unfinished = collector.get("unfinished", {})
    found = {key for key in ("rounds", "steps", "rows") if unfinished.get(key)}
    found |= {"written"} if collector.get("written") else set()
    found |= {"collected"} if state["collected"] else set()
    return found or {"nothing"}


@pytest.mark.parametrize("name", CASES)
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(name: str) -> None:
    """Parameters, moments, generators, worlds, statistics, metrics and samples, bit for bit."""
    whole, counter = made(name), At(0)
    advance(whole, 1)
    beginning = written(whole)
    told = advance(whole, ITERATIONS, counter)
    end = written(whole)
    places = sorted({1 + i * counter.calls // MOST for i in range(MOST)} | {counter.calls})
    found: set[str] = set()
    first, second = made(name), made(name)
    for place in places:
        first.load_state_dict(copy.deepcopy(beginning))
        rows: list[dict[str, float]] = []
        stop = At(place)
        with contextlib.suppress(Stopped):
            while first.iterations < ITERATIONS:
                rows += advance(first, first.iterations + 1, stop)
        stopped = written(first)
        assert differences(end, stopped) != [], "the comparison can fail"
        second.load_state_dict(stopped)
        found |= kept(stopped)
        rows += advance(second, ITERATIONS)
        assert rows == told
        assert differences(end, written(second)) == [], place
    assert found >= WHERE.get(name, {"steps", "collected"}), "all these were places"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["grpo, epochs", "ppo of tokens", "reinforce of tokens"])
def test_scoring_can_be_left_between_any_two_of_its_parts(
    name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the reference, the critic, the sampler's gap: bodies read few texts at a time, heads score few."""

    def credited(training: Training) -> list[int]:
        """The calls of a `Stop` that come while decisions are judged, of one iteration."""
        stages, found, counter = training.stages, [], At(0)

        def stop() -> None:
            counter()
            if stages._stage == "credit":
                found.append(counter.calls)

        training.iterate(stop)
        return found

    spec = replace(TINY, dtype=dtype)
    monkeypatch.setitem(CASES, name, (*CASES[name][:2], spec))
    together = credited(made(name))
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 24)
    monkeypatch.setattr(vocabulary, "CHUNK", 64)
    whole = made(name)
    places = credited(whole)
    assert len(places) > 4 * len(together)
    after = advance(whole, 2)
    for place in places[:: max(1, len(places) // 5)]:
        training, other = made(name), made(name)
        with pytest.raises(Stopped):
            training.iterate(At(place))
        state = written(training)
        assert kept(state) == {"collected"}
        other.load_state_dict(state)
        assert advance(other, 2)[-1:] == after
        assert differences(written(whole), written(other)) == []
        network: Any = training.agent.network
        tokens = training._collected[0].decisions  # type: ignore[index]
        with torch.no_grad():
            network.policy(tokens).entropy()  # asked by others it does not stop


class From(At):
    """A `Stop` that raises at one call and at all that come after it, as a signal does."""

    def __call__(self) -> None:
        self.calls += 1
        if self.calls >= self.place:
            raise Stopped


@pytest.mark.parametrize("patience", [0.0, float("inf")])
def test_without_room_for_copies_or_time_to_lose_an_update_is_finished(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room it can still be left before its first step: nothing has moved by then."""
    monkeypatch.setattr(pgrad.training.restore, "SHARE", 0.0)
    whole = made("grpo, epochs")
    whole.patience = patience
    tried = At(0)
    advance(whole, 1, tried)
    before, begun = written(whole), tried.calls
    told = advance(whole, 2, tried)
    end = written(whole)
    for place in range(1, tried.calls - begun + 2, 2):
        other = made("grpo, epochs")
        other.patience = patience
        other.load_state_dict(before)
        with contextlib.suppress(Stopped):
            rows = advance(other, 2, From(place))
        stopped = written(other)
        if stopped["iterations"] == 2:
            assert rows == told
        else:
            assert stopped["learner"]["n_updates"] == before["learner"]["n_updates"]
            assert kept(stopped) <= {"nothing", "written"} | (set() if patience else {"collected"})
            assert advance(other, 2) == told
            assert differences(end, written(other)) == []


def test_nothing_is_written_or_paid_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards that are random: those of a stopped iteration are kept, and so are texts that wait for them."""
    paid: list[float] = []
    generated: list[int] = []

    def random_reward(completions: list[str], **columns: Any) -> list[float]:
        paid.extend(float(x) for x in os.urandom(len(completions)))
        return paid[-len(completions) :]

    def generate(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        generated.append(len(found.length))
        return found

    algorithm, *where = CASES["grpo, epochs"]
    monkeypatch.setitem(CASES, "grpo, epochs", (replace(algorithm, n_epochs=2), *where))  # type: ignore[arg-type]
    original = pgrad.training.completions.generate
    monkeypatch.setattr(pgrad.training.completions, "generate", generate)
    training, stop, asked = made("grpo, epochs", random_reward), At(0), set()
    advance(training, 1, stop)
    assert (len(paid), generated) == (12, [12])
    for place in range(1, stop.calls + 1):
        with contextlib.suppress(Stopped):
            training.iterate(At(place))
        state = written(training)
        asked |= kept(state)
        if state["collected"]:
            reward = state["collected"]["traj"]["fields"]["reward"]
            assert reward.sum(0).tolist() == paid[-12:], "these are the ones that are learned from"
        again = made("grpo, epochs", random_reward)
        again.load_state_dict(state)
        advance(again, again.iterations + (kept(state) != {"nothing"}))
        assert len(paid) == 12 * again.iterations == 12 * len(generated)
        training = again
    assert asked == {"nothing", "written", "collected"}
