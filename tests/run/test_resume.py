"""Stopping and continuing changes nothing, bit for bit, through files: for every algorithm and kind of
world."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

import pgrad as pg
from pgrad.errors import CheckpointError, UsageError
from pgrad.training.disk.checkpoint import checkpoints, load_checkpoint
from pgrad.training.disk.rundir import RunDir
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

LINEAR: dict[str, Any] = {"learning_rate_schedule": "linear"}
ALGORITHMS: dict[str, Any] = {
    "ppo": pg.PPO(n_steps=16, batch_size=16, n_epochs=2, clip_range_schedule="linear", **LINEAR),
    "ppo-kl": pg.PPOKL(n_steps=16, batch_size=16, n_epochs=2, **LINEAR),
    "trpo": pg.TRPO(n_steps=16, batch_size=16, n_critic_updates=2, **LINEAR),
    "sac": pg.SAC(n_steps=4, learning_starts=20, batch_size=8, gradient_steps=2, **LINEAR),
    "sac, replay full": pg.SAC(
        n_steps=4, buffer_size=25, learning_starts=20, batch_size=8, gradient_steps=2, **LINEAR
    ),
    "discrete-sac": pg.DiscreteSAC(n_steps=4, learning_starts=20, batch_size=8, gradient_steps=2, **LINEAR),
    "discrete-sac, replay full": pg.DiscreteSAC(
        n_steps=4, buffer_size=25, learning_starts=20, batch_size=8, gradient_steps=2, **LINEAR
    ),
    "a2c": pg.A2C(n_steps=16, **LINEAR),
    "grpo": pg.GRPO(n_prompts=2, num_generations=2, batch_size=3, n_epochs=2, beta=0.1, **LINEAR),
    "actor-critic": pg.ActorCritic(n_steps=16, n_critic_updates=2, **LINEAR),
    "online": pg.ActorCritic(n_steps=1, n_critic_updates=1, **LINEAR),
    "reinforce": pg.Reinforce(n_episodes=3, n_critic_updates=2, **LINEAR),
    "reinforce, optimal": pg.Reinforce(n_episodes=3, baseline="optimal", **LINEAR),
}
BY_EPISODES = ("reinforce", "reinforce, optimal", "grpo")
PLAIN = pg.AgentSpec(net_arch=(8,))
NORMALIZED = pg.AgentSpec(net_arch=(8,), normalize_obs=True, normalize_reward=True)

# World, agent, steps of the whole run.
WORLDS = {"cartpole": (PLAIN, 130), "CartPole-v1": (PLAIN, 130), "pendulum": (NORMALIZED, 700)}
EXTRAS = {"LunarLander-v3": "Box2D", "HalfCheetah-v5": "mujoco"}
EXPENSIVE = {"LunarLander-v3": (NORMALIZED, 160), "HalfCheetah-v5": (NORMALIZED, 96)}
DISCRETE = ("cartpole", "CartPole-v1")
CASES = [(world, name) for world in WORLDS for name in ALGORITHMS]
CASES += [(world, name) for world in EXPENSIVE for name in ALGORITHMS if name not in BY_EPISODES]
CASES += [("LunarLander-v3", "reinforce")]  # an episode of HalfCheetah-v5 has 1000 steps
CASES = [
    (world, name)
    for world, name in CASES
    if "sac" not in name or name.startswith("discrete") == (world in (*DISCRETE, "LunarLander-v3"))
]


def stop_after(timesteps: int) -> Callable[[dict[str, float]], bool]:
    return lambda row: row["time/total_timesteps"] < timesteps


def in_mid_episode(world: dict[str, Any]) -> bool:
    """Whether the state of a world shows an episode that has begun and not ended."""
    begun = world["steps"] if "steps" in world else world["length"]
    return bool((begun[~world["ended"]] > 0).any())


@pytest.mark.parametrize(("world", "name"), CASES)
def test_a_run_that_stopped_ends_where_it_would_have(world: str, name: str, tmp_path: Path) -> None:
    """train(2N) = train(N) + resume: every tensor of the last checkpoint, every number, every row of
    metrics."""
    if world in EXTRAS:
        pytest.importorskip(EXTRAS[world])
    agent, total = (WORLDS | EXPENSIVE)[world]
    agent = replace(agent, normalize_reward=agent.normalize_reward and "sac" not in name)
    if name in BY_EPISODES and world != "cartpole" and world != "CartPole-v1":
        total = 1300 if world == "pendulum" else 1000
    if name == "grpo":
        total *= 3
    setting: dict[str, Any] = {
        "total_timesteps": total,
        "n_envs": 2,
        "seed": 3,
        "agent": agent,
        "log_every": 1,
    }
    if name == "online" and world == "pendulum":
        setting["total_timesteps"] = total = 420  # past the end of an episode
    whole = pg.train(ALGORITHMS[name], world, run_dir=tmp_path / "whole", **setting)
    half = pg.train(
        ALGORITHMS[name], world, run_dir=tmp_path / "half", callback=stop_after(total // 2), **setting
    )
    assert half.timesteps < whole.timesteps
    stopped = final_state(tmp_path / "half")
    if "sac" in name:
        replay = stopped["learner"]["replay"]
        assert stopped["learner"]["n_updates"] > 0
        assert (replay["rows"] == 12) == name.endswith("full")
        assert replay["next"] != replay["rows"] or not name.endswith("full"), "the ring has wrapped around"
    if name not in BY_EPISODES:  # between updates its episodes are whole
        assert in_mid_episode(stopped["collector"]["world"])
    rest = pg.resume(tmp_path / "half")
    assert rest.timesteps == whole.timesteps
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert differences(stopped, final_state(tmp_path / "half")) != [], "the comparison can fail"
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")
    for name_, p in whole.agent.state_dict().items():
        assert torch.equal(p, rest.agent.state_dict()[name_])


def test_a_tensor_world_with_other_numbers_continues_with_them(tmp_path: Path) -> None:
    """They are in config.json; with the usual ones the run would be another."""
    setting: dict[str, Any] = {"total_timesteps": 192, "n_envs": 2, "agent": PLAIN, "log_every": 1}
    other: dict[str, Any] = {"world_kwargs": {"speed": 3, "max_episode_steps": 40}}
    pg.train(ALGORITHMS["ppo"], "bicycle", run_dir=tmp_path / "whole", **setting, **other)
    pg.train(
        ALGORITHMS["ppo"], "bicycle", run_dir=tmp_path / "half", callback=stop_after(96), **setting, **other
    )
    pg.resume(tmp_path / "half")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    pg.train(ALGORITHMS["ppo"], "bicycle", run_dir=tmp_path / "usual", **setting)
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "usual")) != []
    speed = final_state(tmp_path / "half")["collector"]["world"]["state"][:, 2]
    assert ((speed >= 2.0) & (speed <= 4.0)).all()


def test_what_the_state_holds(tmp_path: Path) -> None:
    """Parameters, moments, normalisers, three generators, the world, β, the counts: all that moves."""
    pg.train(
        ALGORITHMS["ppo-kl"],
        "pendulum",
        total_timesteps=64,
        n_envs=2,
        agent=NORMALIZED,
        run_dir=tmp_path / "a",
    )
    state = final_state(tmp_path / "a")
    assert {"normalizer.moments.mean", "reward_scaler.running", "network.actor.0.0.weight"} <= state[
        "agent"
    ].keys()
    assert state["learner"]["optimizers"].keys() == {"actor", "critic"}
    assert state["learner"]["optimizers"]["actor"].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert state["learner"]["variables"].keys() == {"beta"}
    for generator in (state["learner"]["generator"], state["collector"]["generator"]):
        assert generator.dtype == torch.uint8
    assert state["collector"]["world"]["generator"].dtype == torch.uint8
    assert state["timesteps"] == 64


def test_stopping_twice_and_crashing_in_between(tmp_path: Path) -> None:
    """Three legs, the second cut off by an exception after a checkpoint: still the same run."""
    setting: dict[str, Any] = {
        "total_timesteps": 300,
        "n_envs": 2,
        "seed": 1,
        "agent": NORMALIZED,
        "log_every": 1,
    }
    pg.train(ALGORITHMS["ppo"], "cartpole", run_dir=tmp_path / "whole", save_every=50, **setting)
    pg.train(
        ALGORITHMS["ppo"],
        "cartpole",
        run_dir=tmp_path / "b",
        save_every=50,
        callback=stop_after(60),
        **setting,
    )

    def crash(row: dict[str, float]) -> None:
        if row["time/total_timesteps"] > 200:
            raise SystemExit("power failure")

    with pytest.raises(SystemExit, match="power failure"):
        pg.resume(tmp_path / "b", callback=crash)
    newest = int(checkpoints(tmp_path / "b" / "checkpoints")[-1].name)
    assert max(int(float(row["time/total_timesteps"])) for row in rows(tmp_path / "b")) > newest, (
        "rows ran ahead"
    )
    pg.resume(tmp_path / "b")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "b")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "b")


def test_stopping_between_two_reports(tmp_path: Path) -> None:
    """What is to be averaged in the next row is part of the state: rows are the same after any stop."""
    setting: dict[str, Any] = {"total_timesteps": 200, "n_envs": 2, "agent": PLAIN, "log_every": 90}
    pg.train(ALGORITHMS["a2c"], "cartpole", run_dir=tmp_path / "a", **setting)
    pg.train(ALGORITHMS["a2c"], "cartpole", run_dir=tmp_path / "b", save_every=30, keep=9, **setting)
    kept = checkpoints(tmp_path / "b" / "checkpoints")
    middle = next(path for path in kept if load_checkpoint(path)[0]["averages"])  # saved between two reports
    pg.resume(tmp_path / "b", checkpoint=middle)
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_larger_budget(tmp_path: Path) -> None:
    """Without a schedule, training on equals having trained longer; the new budget is written down."""
    algorithm = replace(ALGORITHMS["a2c"], learning_rate_schedule="constant")
    setting: dict[str, Any] = {"n_envs": 2, "agent": PLAIN, "log_every": 1}
    pg.train(algorithm, "cartpole", total_timesteps=100, run_dir=tmp_path / "a", **setting)
    pg.resume(tmp_path / "a", 200)
    pg.train(algorithm, "cartpole", total_timesteps=200, run_dir=tmp_path / "b", **setting)
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []
    assert RunDir(tmp_path / "a").config()["options"]["total_timesteps"] == 200


def test_a_run_that_is_finished_stays_as_it_is(tmp_path: Path) -> None:
    pg.train(ALGORITHMS["a2c"], "cartpole", total_timesteps=64, n_envs=2, agent=PLAIN, run_dir=tmp_path / "a")
    before = final_state(tmp_path / "a"), rows(tmp_path / "a")
    assert pg.resume(tmp_path / "a").history == []
    assert differences(before[0], final_state(tmp_path / "a")) == []
    assert rows(tmp_path / "a") == before[1]
    with pytest.raises(UsageError, match="timesteps already: total_timesteps must be at least that, got 10"):
        pg.resume(tmp_path / "a", 10)
    assert RunDir(tmp_path / "a").config()["options"]["total_timesteps"] == 64


def test_workers_and_this_process_take_turns(tmp_path: Path) -> None:
    """The state of a world does not depend on how many processes step it: here two, then one."""
    setting: dict[str, Any] = {"total_timesteps": 128, "n_envs": 2, "agent": PLAIN, "log_every": 1}
    begun = setting | {"callback": lambda row: row["time/total_timesteps"] < 64}
    pg.train(ALGORITHMS["a2c"], "CartPole-v1", run_dir=tmp_path / "a", workers=2, **begun)
    assert 64 <= pg.load(tmp_path / "a").timesteps < 128
    assert pg.resume(tmp_path / "a", workers=1).config.options.workers == 1
    pg.train(ALGORITHMS["a2c"], "CartPole-v1", run_dir=tmp_path / "b", **setting)
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []


def test_damaged_checkpoints(tmp_path: Path) -> None:
    """Nothing starts over in silence: the damage is told, and the newest intact one is named."""
    pg.train(
        ALGORITHMS["a2c"], "cartpole", total_timesteps=120, n_envs=2, run_dir=tmp_path / "a", save_every=40
    )
    kept = checkpoints(tmp_path / "a" / "checkpoints")
    assert len(kept) == 3
    tensors = kept[-1] / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-5] ^= 1
    tensors.write_bytes(bytes(data))
    for attempt in (pg.resume, pg.load):
        with pytest.raises(CheckpointError) as error:
            attempt(tmp_path / "a")
        assert "damaged: the checksum of tensors.safetensors does not match" in str(error.value)
        assert f"newest intact one: {kept[-2]}" in str(error.value)
        with pytest.raises(CheckpointError, match=f"no checkpoint 'newest' .*{kept[-2].name}.*a path"):
            attempt(tmp_path / "a", checkpoint="newest")
    assert pg.load(tmp_path / "a", kept[-2]).timesteps == int(kept[-2].name)
    assert pg.load(tmp_path / "a", kept[-2].name).timesteps == int(kept[-2].name)
    pg.resume(tmp_path / "a", checkpoint=kept[-2])
    pg.train(
        ALGORITHMS["a2c"], "cartpole", total_timesteps=120, n_envs=2, run_dir=tmp_path / "b", save_every=40
    )
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []


class Tweaked(pg.A2C):
    """An algorithm of the user's own."""


def test_what_is_the_users_own_must_be_given_again(tmp_path: Path) -> None:
    """Algorithm, world and agent: missing, they are asked for by name; given again, the run goes on
    exactly."""

    def factory() -> Any:
        import gymnasium

        return gymnasium.make("CartPole-v1")

    def module() -> torch.nn.Module:
        torch.manual_seed(0)
        return Linear()

    own: dict[str, Any] = {"algorithm": Tweaked(n_steps=16), "world": factory}
    setting: dict[str, Any] = {"total_timesteps": 120, "n_envs": 2, "log_every": 1}
    pg.train(own["algorithm"], factory, agent=module(), run_dir=tmp_path / "a", **setting)
    pg.train(
        own["algorithm"], factory, agent=module(), run_dir=tmp_path / "b", callback=stop_after(60), **setting
    )
    for missing in ("algorithm", "world", "agent"):
        given = {key: x for key, x in (own | {"agent": module()}).items() if key != missing}
        for name, attempt in (("resume", pg.resume), ("load", pg.load)):
            with pytest.raises(UsageError) as error:
                attempt(tmp_path / "b", **given)
            how = f"give it again, in Python: pg.{name}('{tmp_path / 'b'}', {missing}=...)"
            assert str(error.value) == f"this run was made with its own {missing}: {how}"
    with pytest.raises(UsageError, match=r"own world and agent: .* world=\.\.\., agent=\.\.\.\)$"):
        pg.load(tmp_path / "b", algorithm=own["algorithm"])
    pg.resume(tmp_path / "b", agent=module(), **own)
    assert differences(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []
    loaded = pg.load(tmp_path / "b", agent=module(), **own)
    assert loaded.agent.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)


def test_the_users_own_is_named_and_goes_on_by_another_name(tmp_path: Path) -> None:
    """As does a run that was written without names."""

    def factory() -> Any:
        import gymnasium

        return gymnasium.make("CartPole-v1")

    path = tmp_path / "a"
    pg.train(pg.A2C(), factory, agent=Linear(), run_dir=path, total_timesteps=40, n_envs=2, progress=False)
    file = path / "config.json"
    record = json.loads(file.read_text())
    assert record["config"].pop("own") == {"world": "factory", "agent": "Linear"}
    file.write_text(json.dumps(record))
    own: dict[str, Any] = {"world": lambda: factory(), "agent": Linear(), "progress": False}
    pg.resume(path, 80, **own)
    assert json.loads(file.read_text())["config"]["own"] == {"world": "custom", "agent": "Linear"}
    assert pg.resume(path, 120, **own | {"world": factory}).timesteps >= 120


def test_the_folder_of_a_lambda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = lambda: gymnasium.make("CartPole-v1")  # noqa: E731
    run = pg.train(pg.A2C(), world, total_timesteps=10, n_envs=2, run_dir="auto", progress=False)
    assert run.path == Path("runs/a2c/custom-seed0")


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)

    def policy(self, obs: torch.Tensor) -> Any:
        from pgrad.math.distributions import Categorical

        return Categorical(self.actor(obs))

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        return self.critic(obs).squeeze(-1)


def test_changed_settings_are_shown_as_a_difference(tmp_path: Path) -> None:
    pg.train(pg.A2C(), "cartpole", total_timesteps=40, n_envs=2, run_dir=tmp_path / "a")
    with pytest.raises(UsageError) as error:
        pg.resume(tmp_path / "a", algorithm=pg.A2C(gamma=0.9, n_steps=7))
    text = str(error.value)
    assert "was started with another configuration" in text
    assert [line.split() for line in text.splitlines() if "hyperparameters" in line] == [
        ["hyperparameters.gamma", "0.99", "0.9"],
        ["hyperparameters.n_steps", "5", "7"],
    ]
    pg.resume(tmp_path / "a", algorithm=pg.A2C())


def test_a_world_with_other_spaces_than_the_run_was_trained_in(tmp_path: Path) -> None:
    pg.train(pg.A2C(), lambda: gymnasium.make("CartPole-v1"), total_timesteps=40, run_dir=tmp_path / "a")
    for again in (partial(pg.resume, total_timesteps=80), pg.load):
        with pytest.raises(UsageError) as error:
            again(tmp_path / "a", world=lambda: gymnasium.make("Acrobot-v1"))
        assert str(error.value) == (
            "the agent of the run does not fit: network.actor.0.0.weight is [64, 4] there, [64, 6] here "
            "(another world, other options)"
        )
    assert pg.load(tmp_path / "a", world=lambda: gymnasium.make("CartPole-v1")).timesteps == 40


def test_a_run_in_place_of_its_directory(tmp_path: Path) -> None:
    run = pg.train(pg.A2C(), "cartpole", total_timesteps=40, run_dir=tmp_path / "a")
    for again in (pg.resume, pg.load):
        with pytest.raises(
            UsageError, match=r"the path of a run directory, got Run\(.*: give its path, run.path"
        ):
            again(run)  # type: ignore[operator]
    with pytest.raises(UsageError, match="must be the path of a run directory, got 5"):
        pg.train(pg.A2C(), "cartpole", total_timesteps=40, run_dir=5)  # type: ignore[arg-type]


def test_places_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "cartpole-1").mkdir()
    for attempt in (pg.resume, pg.load):
        with pytest.raises(
            CheckpointError, match=r"there is no run at .*cartpole-2: did you mean .*cartpole-1\?"
        ):
            attempt(tmp_path / "cartpole-2")
        with pytest.raises(CheckpointError, match="not a pgrad run directory"):
            attempt(tmp_path / "cartpole-1")


def test_a_run_from_before_an_option_existed_goes_on(tmp_path: Path) -> None:
    """What a record does not say is at its default; what it says otherwise is still told."""
    run = pg.train(pg.A2C(), "probe-both", total_timesteps=80, n_envs=2, run_dir=tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["options"]["frame_stack"]
    del record["config"]["hyperparameters"]["vf_coef"]
    del record["config"]["agent"]["activation"]
    path.write_text(json.dumps(record))
    assert pg.resume(tmp_path / "run", 160).timesteps > run.timesteps
    with pytest.raises(UsageError, match="vf_coef"):
        pg.resume(tmp_path / "run", 240, algorithm=pg.A2C(vf_coef=0.1))
