"""Imitation as a run: stopped and continued bit for bit, and the beginning of any other."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import pgrad as pg
from pgrad.errors import CheckpointError, UsageError
from pgrad.run.conduct import conduct
from tests.run.test_masks import Tempting
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

SPEC = pg.AgentSpec(net_arch=(16,), normalize_obs=True)
WORLDS = {"discrete": "cartpole", "continuous": "pendulum", "masked": Tempting}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Episodes of barely trained agents: what they are like does not matter here."""
    folder = tmp_path_factory.mktemp("recorded")
    for name, world in WORLDS.items():
        run = pg.train(pg.PPO(n_steps=32, batch_size=64), world, total_timesteps=512, n_envs=2, agent=SPEC)
        run.demonstrate(folder / name, episodes=10, deterministic=False)
    return {name: folder / name for name in WORLDS}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_run_that_stopped_ends_where_it_would_have(
    name: str, memory: Any, recorded: dict[str, Path], tmp_path: Path
) -> None:
    imitate = pg.Imitate(
        str(recorded[name]),
        batch_size=32,
        n_steps=1 if memory == "none" else 8,
        learning_rate_schedule="linear",
    )
    agent = pg.AgentSpec(net_arch=(8,), normalize_obs=True, memory=memory, memory_size=8)
    setting: dict[str, Any] = {"total_timesteps": 640, "agent": agent, "log_every": 1, "seed": 2}
    pg.train(imitate, WORLDS[name], run_dir=tmp_path / "whole", **setting)
    pg.train(
        imitate,
        WORLDS[name],
        run_dir=tmp_path / "half",
        callback=lambda row: row["time/total_timesteps"] < 300,
        **setting,
    )
    stopped = final_state(tmp_path / "half")
    pg.resume(tmp_path / "half", world=None if isinstance(WORLDS[name], str) else WORLDS[name])
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert differences(stopped, final_state(tmp_path / "half")) != []
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")


def test_a_changed_recording_does_not_continue_a_run(recorded: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "d"
    file.write_bytes(recorded["discrete"].read_bytes())
    pg.train(pg.Imitate(str(file)), "cartpole", total_timesteps=640, agent=SPEC, run_dir=tmp_path / "a")
    file.unlink()
    with pytest.raises(UsageError, match="there is no recording at"):
        pg.resume(tmp_path / "a", 1280)
    pg.train(pg.A2C(), "cartpole", total_timesteps=10, agent=SPEC).demonstrate(file, episodes=20)
    with pytest.raises(CheckpointError, match="is not the recording that this run was started with"):
        pg.resume(tmp_path / "a", 1280)


STARTED: dict[str, Any] = {
    "ppo": pg.PPO(n_steps=16, batch_size=32),
    "ppo-kl": pg.PPOKL(n_steps=16, batch_size=32),
    "trpo": pg.TRPO(n_steps=16, batch_size=32),
    "a2c": pg.A2C(),
    "off-policy-actor-critic": pg.OffPolicyActorCritic(n_steps=8),
    "reinforce": pg.Reinforce(n_episodes=2),
    "actor-critic": pg.ActorCritic(n_steps=16),
}


def policy_of(state: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in state.items() if "critic" not in name and "target" not in name}


@pytest.mark.parametrize("name", STARTED)
@pytest.mark.parametrize("world", ["discrete", "continuous"])
def test_any_algorithm_begins_with_the_policy(
    name: str, world: str, recorded: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy and normaliser to the last bit, the critic as without it; then they are trained."""
    imitated = pg.train(
        pg.Imitate(str(recorded[world])),
        WORLDS[world],
        total_timesteps=640,
        agent=SPEC,
        run_dir=tmp_path / "i",
    )
    begun: list[dict[str, Any]] = []

    def seen(config: Any, training: Any, *args: Any, **kwargs: Any) -> Any:
        begun.append({key: x.clone() for key, x in training.agent.state_dict().items()})
        return conduct(config, training, *args, **kwargs)

    monkeypatch.setattr("pgrad.run.carry.conduct", seen)
    setting: dict[str, Any] = {"total_timesteps": 64, "n_envs": 2, "agent": SPEC, "seed": 5}
    once: dict[str, Any] = {"callback": lambda row: False, **setting}
    run = pg.train(STARTED[name], WORLDS[world], init_from=tmp_path / "i", **once)
    pg.train(STARTED[name], WORLDS[world], **once)
    warm, cold = begun
    theirs = policy_of(imitated.agent.state_dict())
    assert policy_of(warm).keys() == policy_of(cold).keys() == theirs.keys()
    assert differences(policy_of(warm), theirs) == []
    assert len(differences(policy_of(cold), theirs)) > len(theirs) / 2, "the comparison can fail"
    assert warm["normalizer.moments.count"] > 600
    critic = {key: x for key, x in warm.items() if "critic" in key}
    assert critic
    assert differences(critic, {key: cold[key] for key in critic}) == []
    assert differences(policy_of(run.agent.state_dict()), theirs) != [], "it is trained from there"


def test_sac_begins_with_a_squashed_policy(recorded: dict[str, Path], tmp_path: Path) -> None:
    for squashed in (False, True):
        pg.train(
            pg.Imitate(str(recorded["continuous"]), squashed=squashed),
            "pendulum",
            total_timesteps=640,
            agent=SPEC,
            run_dir=tmp_path / str(squashed),
        )
    sac = pg.SAC(learning_starts=8, batch_size=8, gradient_steps=1)
    setting: dict[str, Any] = {"total_timesteps": 16, "n_envs": 2, "agent": SPEC}
    run = pg.train(sac, "pendulum", init_from=tmp_path / "True", **setting)
    assert run.timesteps == 16
    with pytest.raises(UsageError, match="for SAC an imitation without squashed"):
        pg.train(sac, "pendulum", init_from=tmp_path / "False", **setting)


def test_an_imitation_for_sac_is_built_as_sac_is(recorded: dict[str, Path], tmp_path: Path) -> None:
    """With the defaults of both: SAC goes on with the squashed policy."""
    imitate = pg.Imitate(str(recorded["continuous"]), squashed=True)
    pg.train(imitate, "pendulum", total_timesteps=64, run_dir=tmp_path / "i")
    sac = pg.SAC(learning_starts=8, batch_size=8, gradient_steps=1)
    run = pg.train(sac, "pendulum", total_timesteps=16, n_envs=2, init_from=tmp_path / "i")
    assert (run.timesteps, run.config.agent.net_arch) == (16, (256, 256))
    assert pg.Imitate("d").agent_defaults == {}
    with pytest.raises(UsageError, match="the policy of SAC has no memory: leave out memory='gru'"):
        pg.train(imitate, "pendulum", total_timesteps=64, agent=pg.AgentSpec(memory="gru"))


class Reach(gymnasium.Env[Any, Any]):
    """Its action space is one object for all."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Box(-5.0, 5.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), float(action[0]), False, False, {}


class Near(Reach):
    action_space = spaces.Box(-1.0, 1.0, (1,))


def test_a_policy_squashed_into_other_bounds_is_refused_and_no_space_changes(tmp_path: Path) -> None:
    sac = pg.SAC(learning_starts=8, batch_size=8, gradient_steps=1)
    setting: dict[str, Any] = {"total_timesteps": 16, "n_envs": 2, "agent": pg.AgentSpec(net_arch=(8,))}
    pg.train(sac, Near, run_dir=tmp_path / "near", **setting)
    with pytest.raises(UsageError, match=r"other bounds: low is \[-1.0\] there, \[-5.0\] here") as error:
        pg.train(sac, Reach, init_from=tmp_path / "near", **setting)
    assert "\n" not in str(error.value)
    run = pg.train(sac, Near, init_from=tmp_path / "near", **setting)
    with torch.no_grad():
        for name, x in run.agent.state_dict().items():
            if name.endswith((".low", ".high")):
                x.fill_(7.0)
    for world, bound in ((Reach, 5.0), (Near, 1.0)):
        assert (float(world.action_space.low[0]), float(world.action_space.high[0])) == (-bound, bound)


def test_discrete_sac_begins_with_an_imitation(recorded: dict[str, Path], tmp_path: Path) -> None:
    imitate = pg.Imitate(str(recorded["masked"]))
    pg.train(imitate, Tempting, total_timesteps=64, agent=SPEC, run_dir=tmp_path / "i")
    sac = pg.DiscreteSAC(learning_starts=8, batch_size=8, gradient_steps=1)
    setting: dict[str, Any] = {"total_timesteps": 16, "n_envs": 2, "agent": SPEC}
    assert pg.train(sac, Tempting, init_from=tmp_path / "i", **setting).timesteps == 16


def test_a_run_that_began_with_another_continues_bit_for_bit(
    recorded: dict[str, Path], tmp_path: Path
) -> None:
    """From a run or from one of its checkpoints; what it began with is not read again."""
    start = pg.train(
        pg.Imitate(str(recorded["discrete"])),
        "cartpole",
        total_timesteps=640,
        agent=SPEC,
        run_dir=tmp_path / "i",
    )
    setting: dict[str, Any] = {"total_timesteps": 128, "n_envs": 2, "agent": SPEC, "log_every": 1}
    checkpoint = tmp_path / "i" / "checkpoints" / f"{start.timesteps:012}"
    for name, source in (("whole", tmp_path / "i"), ("half", checkpoint)):
        stop = 64 if name == "half" else 10**9
        pg.train(
            STARTED["ppo"],
            "cartpole",
            run_dir=tmp_path / name,
            init_from=source,
            callback=lambda row, stop=stop: row["time/total_timesteps"] < stop,  # type: ignore[misc]
            **setting,
        )
    (tmp_path / "i").rename(tmp_path / "gone")
    pg.resume(tmp_path / "half")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []


def test_a_run_to_begin_with_brings_its_networks(recorded: dict[str, Path], tmp_path: Path) -> None:
    """Where no agent is given: all that its policy depends on, from a checkpoint too."""
    pg.train(
        pg.Imitate(str(recorded["discrete"])),
        "cartpole",
        total_timesteps=64,
        agent=pg.AgentSpec(net_arch=(16,), activation="relu", normalize_obs=True, normalize_reward=True),
        run_dir=tmp_path / "i",
    )
    wanted = pg.AgentSpec(net_arch=(16,), activation="relu", normalize_obs=True)
    for source in (tmp_path / "i", next((tmp_path / "i" / "checkpoints").iterdir())):
        run = pg.train(pg.A2C(), "cartpole", total_timesteps=16, n_envs=2, init_from=source)
        assert run.config.agent == wanted


def test_what_cannot_be_begun_with_is_told(recorded: dict[str, Path], tmp_path: Path) -> None:
    pg.train(
        pg.Imitate(str(recorded["discrete"])),
        "cartpole",
        total_timesteps=64,
        agent=SPEC,
        run_dir=tmp_path / "i",
    )
    a2c: Any = pg.A2C()
    cases: list[tuple[Any, str, Any, str]] = [
        ("i", "cartpole", pg.AgentSpec(), "net_arch=[16] (here [64, 64]), normalize_obs=True (here False)"),
        ("i", "pendulum", SPEC, "does not fit: network.actor.0.0.weight is [16, 4] there, [16, 3] here"),
        ("nothing", "cartpole", SPEC, "there is no run at"),
    ]
    for source, world, spec, what in cases:
        with pytest.raises((UsageError, CheckpointError)) as error:
            pg.train(a2c, world, total_timesteps=10, agent=spec, init_from=tmp_path / source)
        assert what in str(error.value)
        assert "\n" not in str(error.value)
