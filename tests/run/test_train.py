"""Runs from the outside: what is written, seeds, evaluation on the side, callbacks, signals, and loading."""

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

import pgrad as pg
import pgrad.run.conduct
from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import checkpoint_info, checkpoints
from pgrad.training.disk.rundir import RunDir
from pgrad.training.streams import Seeds
from tests.run.tools import differences, final_state
from tests.worlds.fakes import TERMINATED, counting_factory

PPO = pg.PPO(n_steps=16, batch_size=16, n_epochs=2)
SMALL: dict[str, Any] = {"total_timesteps": 100, "n_envs": 2, "agent": pg.AgentSpec(net_arch=(8,))}


def parameters(run: pg.Run) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in run.agent.state_dict().items()}


def equal(a: pg.Run, b: pg.Run) -> bool:
    return differences(parameters(a), parameters(b)) == []


def test_what_a_run_directory_holds(tmp_path: Path) -> None:
    run = pg.train(
        PPO, "CartPole-v1", run_dir=tmp_path / "new" / "run", save_every=30, keep=2, seed=4, **SMALL
    )
    path = tmp_path / "new" / "run"
    assert run.path == path
    kept = checkpoints(path / "checkpoints")
    assert len(kept) == 2, "the latest two, the last state among them"
    assert checkpoint_info(kept[-1]) == {
        "algorithm": "ppo",
        "world": "CartPole-v1",
        "timesteps": run.timesteps,
        "score": run.history[-1]["rollout/ep_rew_mean"],
    }
    config = RunDir(path).config()
    assert config["hyperparameters"]["n_steps"] == 16
    assert (config["world"], config["options"]["seed"], config["agent"]["net_arch"]) == (
        "CartPole-v1",
        4,
        [8],
    )
    for name in ("command.txt", "versions.json", "metrics.csv", "plots/learning_curve.png"):
        assert (path / name).stat().st_size > 0
    assert not (path / "lock").exists()
    with open(path / "metrics.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["time/total_timesteps"]) for row in written] == [
        row["time/total_timesteps"] for row in run.history
    ]
    assert [float(row["train/approx_kl"]) for row in written] == [
        row["train/approx_kl"] for row in run.history
    ]


@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_seeds(world: str) -> None:
    """The same one gives the same numbers, in all; another gives others."""
    runs = [pg.train(PPO, world, seed=seed, **SMALL) for seed in (1, 1, 2)]
    assert equal(runs[0], runs[1])
    counts = ("time/total_timesteps", "time/iterations")
    told = [
        [{k: x for k, x in row.items() if k in counts or not k.startswith("time/")} for row in run.history]
        for run in runs
    ]
    assert told[0] == told[1]
    assert told[0] != told[2]
    assert not equal(runs[0], runs[2])
    first = [pg.train(replace(PPO, learning_rate=0.0), world, seed=seed, **SMALL) for seed in (1, 1, 2)]
    assert equal(first[0], first[1])
    assert not equal(first[0], first[2]), "the first weights come from the seed too"


def test_the_number_of_worlds() -> None:
    """Updates hold n_steps · n_envs rows; an update is the unit in which a run stops."""
    for n_envs in (1, 3):
        run = pg.train(pg.A2C(n_steps=10), "pendulum", total_timesteps=35, n_envs=n_envs)
        assert run.timesteps == {1: 40, 3: 60}[n_envs]
    assert pg.train(pg.A2C(n_steps=5), "pendulum", total_timesteps=1).timesteps == 40, (
        "8 where nothing is said"
    )


def test_evaluation_on_the_side_changes_nothing(tmp_path: Path) -> None:
    """The same parameters, generators, normalisers and world with eval_every as without, bit for bit."""
    spec = pg.AgentSpec(net_arch=(8,), normalize_obs=True, normalize_reward=True)
    setting = SMALL | {"agent": spec, "log_every": 1}
    for world in ("cartpole", "CartPole-v1"):
        plain, watched = tmp_path / f"{world}-plain", tmp_path / f"{world}-watched"
        pg.train(PPO, world, run_dir=plain, **setting)
        run = pg.train(PPO, world, run_dir=watched, eval_every=30, eval_episodes=3, **setting)
        assert differences(final_state(plain), final_state(watched)) == []
        evaluated = [row for row in run.history if "eval/mean_reward" in row]
        steps = [row["time/total_timesteps"] for row in evaluated]
        assert len(evaluated) >= 3
        assert all(a // 30 < b // 30 for a, b in zip([0, *steps], steps, strict=False))


def test_evaluating_in_the_middle_changes_nothing_either() -> None:
    """Parameters, statistics, generators and the modes of modules stay; a module that is frozen on its own
    does."""
    run = pg.train(PPO, "cartpole", **SMALL)
    run.agent.train()
    frozen = run.agent.network.actor
    frozen.eval()
    before = parameters(run), torch.get_rng_state()
    modes = [module.training for module in run.agent.modules()]
    first = run.evaluate(5, deterministic=False)
    assert run.evaluate(5, deterministic=False) == first, "the same call gives the same numbers"
    assert run.evaluate(5, deterministic=False, seed=1) != first
    assert differences(before[0], parameters(run)) == []
    assert torch.equal(before[1], torch.get_rng_state())
    assert [module.training for module in run.agent.modules()] == modes


@pytest.mark.parametrize(
    ("algorithm", "world", "texts"),
    [(pg.A2C(n_steps=4), "pendulum", False), (pg.GRPO(n_prompts=2, num_generations=2), "copy", True)],
)
def test_the_picture_knows_of_texts(tmp_path: Path, algorithm: Any, world: str, texts: bool) -> None:
    if texts:
        pytest.importorskip("transformers")
    drawn: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgrad.run.conduct, "learning_curve", lambda *args, **given: drawn.append(given))
        run = pg.train(algorithm, world, total_timesteps=8, run_dir=tmp_path, progress=False)
    assert run.timesteps >= 8
    assert [given["texts"] for given in drawn] == [texts]


def test_the_best_checkpoint(tmp_path: Path) -> None:
    """Of all evaluations the best is kept, with the agent that was evaluated; it loads by name."""
    scores = iter([5.0, 9.0, 7.0, 9.0])
    seen: list[dict[str, torch.Tensor]] = []
    seeds: list[int] = []
    original = pgrad.run.conduct.evaluate_fresh

    def scored(config: Any, agent: Any, **kwargs: Any) -> Any:
        seen.append({name: x.clone() for name, x in agent.state_dict().items()})
        seeds.append(kwargs["seed"])
        return replace(original(config, agent, **kwargs), returns=(next(scores),), lengths=(1,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgrad.run.conduct, "evaluate_fresh", scored)
        patch.setattr(pgrad.run.conduct, "learning_curve", lambda *args, **kwargs: None)
        run = pg.train(
            pg.A2C(n_steps=10),
            "pendulum",
            total_timesteps=80,
            n_envs=2,
            eval_every=20,
            eval_episodes=1,
            run_dir=tmp_path,
        )
    assert [row["eval/mean_reward"] for row in run.history] == [5.0, 9.0, 7.0, 9.0]
    best = pg.load(tmp_path, "best")
    assert best.timesteps == 40, "the first of two equals"
    assert differences(parameters(best), seen[1]) == []
    assert pg.load(tmp_path).timesteps == 80
    streams = Seeds.spawn(0)
    assert seeds == [streams.evaluation] * 4, "always the same episodes"
    assert streams.evaluation not in (streams.world, streams.evaluation + 1)
    assert (
        best.evaluate(2) == best.evaluate(2, seed=streams.evaluation + 1) != best.evaluate(2, seed=seeds[0])
    )


@pytest.mark.usefixtures("no_plots")
def test_load_and_evaluate_reproduce_the_evaluation(tmp_path: Path) -> None:
    """From the file, the agent acts and scores as in memory, normalisers included; the directory is only
    read."""
    spec = pg.AgentSpec(net_arch=(8,), normalize_obs=True, normalize_reward=True)
    for world in ("cartpole", "Pendulum-v1"):
        run = pg.train(PPO, world, run_dir=tmp_path / world, **(SMALL | {"agent": spec}))
        files = {p: p.stat().st_mtime_ns for p in (tmp_path / world).rglob("*")}
        loaded = pg.load(tmp_path / world)
        assert (loaded.timesteps, loaded.config, loaded.path) == (run.timesteps, run.config, run.path)
        assert equal(loaded, run)
        for deterministic in (True, False):
            assert loaded.evaluate(4, deterministic) == run.evaluate(4, deterministic)
        space = run.agent.observation_space
        space.seed(0)
        assert loaded.agent.act(obs := space.sample()) == run.agent.act(obs)
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / world).rglob("*")} == files


@pytest.mark.usefixtures("no_plots")
def test_a_second_run_never_writes_into_the_first(tmp_path: Path) -> None:
    pg.train(PPO, "cartpole", run_dir=tmp_path, **SMALL)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(pg.UsageError, match=r"already holds a run: resume it, .*overwrite=True"):
        pg.train(PPO, "cartpole", run_dir=tmp_path, **SMALL)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    pg.train(PPO, "cartpole", run_dir=tmp_path, overwrite=True, seed=5, **SMALL)
    assert RunDir(tmp_path).config()["options"]["seed"] == 5


@pytest.mark.usefixtures("no_plots")
def test_a_run_directory_in_use(tmp_path: Path) -> None:
    """Neither a new run nor a resumed one; reading is allowed."""
    refused = []

    def intrude(row: dict[str, float]) -> bool:
        for attempt in (
            lambda: pg.resume(tmp_path),
            lambda: pg.train(PPO, "cartpole", run_dir=tmp_path, overwrite=True, **SMALL),
        ):
            with pytest.raises(CheckpointError, match=f"in use by pid {os.getpid()}") as error:
                attempt()
            refused.append(str(error.value))
        return False

    run = pg.train(PPO, "cartpole", run_dir=tmp_path, callback=intrude, **SMALL)
    assert len(refused) == 2
    assert pg.load(tmp_path).timesteps == run.timesteps


def test_callbacks_see_rows_and_stop_the_run() -> None:
    seen: list[dict[str, float]] = []

    def callback(row: dict[str, float]) -> bool | None:
        seen.append(row)
        return False if len(seen) == 2 else None

    run = pg.train(
        pg.A2C(n_steps=10), "pendulum", total_timesteps=1000, n_envs=2, log_every=1, callback=callback
    )
    assert run.timesteps == 40
    assert run.history == seen
    assert {
        "time/total_timesteps",
        "time/fps",
        "time/iterations",
        "train/loss",
        "train/learning_rate",
    } <= seen[0].keys()
    assert [row["time/total_timesteps"] for row in seen] == [20.0, 40.0]


def test_rows_are_spread_over_the_run() -> None:
    """One once a multiple of log_every has been passed; 200 where nothing is asked for, never more than
    updates."""
    rare = pg.train(pg.A2C(n_steps=2), "pendulum", total_timesteps=400, n_envs=1, log_every=50)
    assert [row["time/total_timesteps"] // 50 for row in rare.history] == [1, 2, 3, 4, 5, 6, 7, 8]
    usual = pg.train(pg.A2C(n_steps=1), "pendulum", total_timesteps=400, n_envs=1)
    assert len(usual.history) in (199, 200)
    updates = pg.train(pg.A2C(n_steps=50), "pendulum", total_timesteps=600, n_envs=1)
    assert len(updates.history) == updates.history[-1]["train/n_updates"]


def test_a_vector_environment_of_the_users(tmp_path: Path) -> None:
    """Its own number of environments is taken; it can be trained, saved and loaded, not continued."""
    run = pg.train(PPO, gymnasium.make_vec("CartPole-v1", 4), total_timesteps=100)
    assert run.config.options.n_envs == 4
    with pytest.raises(pg.UsageError, match="eval_every needs worlds that can be made anew"):
        pg.train(PPO, gymnasium.make_vec("CartPole-v1", 4), total_timesteps=100, eval_every=10)
    saved = pg.train(PPO, gymnasium.make_vec("CartPole-v1", 4), total_timesteps=100, run_dir=tmp_path / "a")
    loaded = pg.load(tmp_path / "a", world=gymnasium.make_vec("CartPole-v1", 4))
    assert equal(saved, loaded)
    with pytest.raises(pg.CheckpointError, match="this run can be loaded, not continued"):
        pg.resume(tmp_path / "a", 200, world=gymnasium.make_vec("CartPole-v1", 4))
    with pytest.raises(pg.UsageError, match=r"evaluate\(world=\.\.\.\)"):
        run.evaluate(2)
    assert len(run.evaluate(3, world="CartPole-v1").returns) == 3


def test_factories_and_arguments() -> None:
    run = pg.train(PPO, counting_factory((3,), (TERMINATED,)), **SMALL)
    assert run.history[-1]["rollout/ep_len_mean"] == 3.0
    heavy = pg.train(PPO, "Pendulum-v1", world_kwargs={"g": 0.0}, seed=1, **SMALL)
    light = pg.train(PPO, "Pendulum-v1", seed=1, **SMALL)
    assert heavy.history[-1] != light.history[-1]
    assert heavy.evaluate(1).returns != light.evaluate(1).returns


def test_agents_that_were_trained_before_go_on() -> None:
    """An agent of another run, normalisers included, is a start like any other."""
    first = pg.train(PPO, "cartpole", **SMALL)
    before = parameters(first)
    second = pg.train(pg.A2C(), "CartPole-v1", total_timesteps=40, n_envs=2, agent=first.agent)
    assert second.agent is first.agent
    assert not equal(second, pg.train(PPO, "cartpole", **SMALL))
    assert differences(before, parameters(second)) != []
