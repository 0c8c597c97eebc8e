"""`pgrad plot`: what it calls runs, which of them it leaves out, and what it says of that."""

import json
from pathlib import Path
from typing import Any

import pytest

from pgrad.algorithms import A2C, PPO, Algorithm, Imitate
from pgrad.cli.commands.plot import grouped, labels
from pgrad.run.config import RunOptions
from pgrad.run.start import configured
from pgrad.training.disk.log import MetricsLog
from pgrad.training.disk.rundir import RunDir
from tests.cli.tools import cli

RETURN, ACCURACY = "rollout/ep_rew_mean", "train/accuracy"


def config_of(algorithm: Algorithm, world: str = "cartpole", **options: Any) -> dict[str, Any]:
    """What config.json says, in its order."""
    config = configured(algorithm, world, None, RunOptions(**options)).to_json()
    return dict(json.loads(json.dumps(config, sort_keys=True)))


def write(path: Path, config: dict[str, Any], metric: str = RETURN, steps: int = 2) -> Path:
    """A run directory as a training leaves it, as far as it is drawn."""
    with RunDir.create(path) as directory:
        directory.write_config(config)
        log = MetricsLog(directory.metrics)
        for step in range(1, steps + 1):
            log.write(step, {metric: float(step)})
        log.close()
    return path


def test_one_seed_counts_once(tmp_path: Path, drawn: dict[str, Any]) -> None:
    """Of the same configuration and seed the longest run is drawn, wherever and however it was computed."""
    first = write(tmp_path / "first", config_of(PPO(), seed=1), steps=3)
    longer = write(tmp_path / "longer", config_of(PPO(), seed=1, total_timesteps=9, device="cpu"), steps=5)
    again = write(tmp_path / "again", config_of(PPO(), seed=1), steps=3)
    other = write(tmp_path / "other", config_of(PPO(), seed=2), steps=4)
    picture = tmp_path / "x.png"
    answer = cli("plot", first, other, longer, again, "--out", picture)
    told = f"left out: {first}, {again}: the configuration and the seed of {longer} again"
    assert answer == (0, f"{picture}\n{told}\n", "")
    *thin, _ = drawn["axes"].get_lines()
    assert sorted(line.get_xdata()[-1] for line in thin) == [4, 5]
    (text,) = drawn["axes"].get_legend().get_texts()
    assert text.get_text() == "ppo (mean of 2, 95% interval)"


@pytest.mark.parametrize("changed", [{"n_envs": 4}, {"frame_stack": 2}, {"init_from": "elsewhere"}])
def test_what_decides_a_result_is_no_copy_and_no_other_seed(
    tmp_path: Path, drawn: dict[str, Any], changed: dict[str, Any]
) -> None:
    a = write(tmp_path / "a", config_of(PPO()))
    b = write(tmp_path / "b", config_of(PPO()) | {"options": config_of(PPO())["options"] | changed})
    assert cli("plot", a, b, "--out", tmp_path / "x.png") == (0, f"{tmp_path / 'x.png'}\n", "")
    key = next(iter(changed))
    told = [text.get_text() for text in drawn["axes"].get_legend().get_texts()]
    assert all(text.startswith(f"ppo {key}=") for text in told)
    assert len(set(told)) == 2


@pytest.mark.parametrize("own", [{"agent": "custom"}, {"world": "custom"}, {"algorithm": "MyOwn"}])
def test_what_is_somebodys_own_is_not_taken_for_a_copy(tmp_path: Path, own: dict[str, Any]) -> None:
    """config.json cannot say whether two of them are the same."""
    a, b = (write(tmp_path / name, config_of(PPO()) | own) for name in "ab")
    assert cli("plot", a, b, "--out", tmp_path / "x.png") == (0, f"{tmp_path / 'x.png'}\n", "")


def test_seeds_that_began_with_a_run_each_are_a_group() -> None:
    configs = [
        config_of(PPO(), seed=seed)
        | {"options": config_of(PPO(), seed=seed)["options"] | {"init_from": f"{seed}"}}
        for seed in (1, 2)
    ]
    assert labels(configs) == ["ppo", "ppo"]


def test_runs_without_the_metric_are_told_what_they_have(tmp_path: Path) -> None:
    a = write(tmp_path / "a", config_of(PPO()))
    b = write(tmp_path / "b", config_of(Imitate()), ACCURACY)
    picture = tmp_path / "x.png"
    told = f"imitate: no {RETURN}; what it has is drawn with --metric {ACCURACY}"
    assert cli("plot", a, b, "--out", picture) == (0, f"{picture}\n{told}\n", "")
    begun = write(tmp_path / "c", config_of(A2C()), "time/fps")
    assert cli("plot", a, begun, "--out", picture) == (0, f"{picture}\n", "")
    assert cli("plot", b, "--out", picture) == (0, f"{picture}\n", "")
    assert cli("plot", a, b, "--out", picture, "--metric", RETURN) == (0, f"{picture}\n", "")


def test_texts_are_recognised(tmp_path: Path, drawn: dict[str, Any]) -> None:
    text = write(tmp_path / "text", config_of(PPO(), "parity"))
    own = write(tmp_path / "own", config_of(PPO(), "parity", seed=1) | {"world": "custom"})
    control = write(tmp_path / "control", config_of(PPO()))
    for runs, unit in (((text,), "tokens"), ((text, own), "tokens"), ((text, control), "steps")):
        assert cli("plot", *runs, "--out", tmp_path / "x.png").code == 0
        assert drawn["axes"].get_xlabel() == unit


def test_of_many_settings_five_are_told_and_that_there_are_more() -> None:
    a = config_of(PPO())
    b = config_of(
        PPO(clip_range=0.3, n_epochs=4, gae_lambda=0.9, gamma=0.98, ent_coef=0.5, n_steps=64, vf_coef=1.0)
    )
    short, other = labels([a, b])
    assert short == "ppo clip_range=0.2 ent_coef=0.01 gae_lambda=0.95 gamma=0.99 n_epochs=10 and 2 more"
    assert other == "ppo clip_range=0.3 ent_coef=0.5 gae_lambda=0.9 gamma=0.98 n_epochs=4 and 2 more"
    alone = {"hyperparameters": a["hyperparameters"] | {"vf_coef": 2.0}}
    told = labels([a, b, a | alone])
    assert all(text.startswith("ppo vf_coef=") for text in told)  # the setting with most values
    assert len(set(told)) == 3


def test_labels_are_longer_where_runs_would_have_the_same() -> None:
    """Seven settings, each another value in one run only: five of them leave three runs alike."""
    base = config_of(A2C())
    names = ("gamma", "gae_lambda", "ent_coef", "learning_rate", "max_grad_norm", "optimizer_eps", "vf_coef")
    configs = [base | {"hyperparameters": base["hyperparameters"] | {name: 0.125}} for name in names]
    told = labels([base, *configs])
    assert len(set(told)) == 8
    assert {text.count("=") for text in told} == {7}


def told(drawn: dict[str, Any]) -> list[str]:
    """What the legend says."""
    return [text.get_text() for text in drawn["axes"].get_legend().get_texts()]


@pytest.mark.parametrize(
    ("names", "legend"),
    [
        ((None, None), ["a2c custom in a", "a2c custom in b", "a2c gridworld"]),
        (("custom", "custom"), ["a2c custom in a", "a2c custom in b", "a2c gridworld"]),
        (("make", "make"), ["a2c make (custom) in a", "a2c make (custom) in b", "a2c gridworld"]),
        (("make", "other"), ["a2c make (custom)", "a2c other (custom)", "a2c gridworld"]),
    ],
)
def test_a_mean_is_of_nothing_that_may_be_of_two_worlds(
    tmp_path: Path, drawn: dict[str, Any], names: tuple[str | None, ...], legend: list[str]
) -> None:
    """Two factories with the same seed; with names or, of older runs, without."""
    runs = []
    for folder, name in zip("ab", names, strict=True):
        own = {} if name is None else {"own": {"world": name}}
        runs.append(write(tmp_path / folder, config_of(A2C()) | {"world": "custom"} | own))
    runs.append(write(tmp_path / "c", config_of(A2C(), "gridworld")))
    assert cli("plot", *runs, "--out", tmp_path / "x.png").code == 0
    assert told(drawn) == legend


def test_seeds_of_a_named_factory_are_a_group(tmp_path: Path, drawn: dict[str, Any]) -> None:
    own = {"world": "custom", "own": {"world": "make"}}
    runs = [write(tmp_path / str(seed), config_of(A2C(), seed=seed) | own) for seed in (0, 1)]
    assert cli("plot", *runs, "--out", tmp_path / "x.png").code == 0
    assert told(drawn) == ["a2c (mean of 2, 95% interval)"]
    assert drawn["axes"].get_title(loc="left") + drawn["axes"].get_title() == "make (custom)"
    unnamed = [write(tmp_path / f"seed{k}", config_of(A2C(), seed=k) | {"world": "custom"}) for k in (0, 1)]
    assert cli("plot", *unnamed, "--out", tmp_path / "x.png").code == 0
    assert told(drawn) == ["a2c in seed0", "a2c in seed1"]


def test_runs_in_folders_of_one_name_are_told_by_their_paths() -> None:
    configs = {Path(one) / "run": config_of(A2C()) | {"agent": "custom"} for one in "ab"}
    assert grouped(configs) == {f"a2c in {path}": [path] for path in configs}


def test_an_own_agent_makes_no_settings_of_the_others_differ() -> None:
    own = config_of(PPO()) | {"agent": "custom", "own": {"agent": "Net"}}
    wide = config_of(PPO()) | {"agent": {**config_of(PPO())["agent"], "net_arch": [8]}}
    assert labels([config_of(PPO()), own]) == ["ppo", "ppo agent=Net (custom)"]
    names = ["ppo net_arch=[64, 64]", "ppo agent=Net (custom)", "ppo net_arch=[8]"]
    assert labels([config_of(PPO()), own, wide]) == names


def test_a_label_names_the_run_that_a_run_began_with() -> None:
    def begun(source: str, seed: int = 0) -> dict[str, Any]:
        return config_of(PPO(), seed=seed, init_from=source)

    one = labels([config_of(PPO()), begun("/runs/first/checkpoints/000000000100")])
    assert one == ["ppo init_from=none", "ppo init_from=first"]
    seeds = [begun(f"/runs/all/seed{seed}", seed) for seed in (0, 1)]
    assert labels([config_of(PPO()), *seeds]) == ["ppo init_from=none", *["ppo init_from=all"] * 2]
