"""Several seeds side by side: each as it would be alone, none in the way of another."""

import json
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.run.config import RunOptions
from pgrad.run.scoreboard import Scoreboard
from pgrad.run.seeds import Seeds, Shown, resume_seeds, train_seeds
from pgrad.run.seeds_folder import draw, holds_seeds, read_seeds, seed_folder
from pgrad.run.side_by_side import Job, Outcome, at_once, side_by_side
from pgrad.run.start import configured
from pgrad.training.disk.log import MetricsLog
from pgrad.training.signals import StopOnSignal
from tests.run.tools import differences, final_state, rows

OPTIONS = RunOptions(total_timesteps=200, n_envs=2, log_every=20)
PPO = pg.PPO(n_steps=10, batch_size=10, n_epochs=2)
QUIET = Shown(episodes=3, progress=False)


def seeds_of(folder: Path, seeds: tuple[int, ...], total: int = 200, **options: Any) -> Seeds:
    config = configured(
        PPO, "cartpole", None, RunOptions(**{**vars(OPTIONS), "total_timesteps": total, **options})
    )
    return train_seeds(config, seeds, folder, shown=QUIET)


def alone(folder: Path, seed: int, total: int = 200) -> pg.Run:
    return pg.train(
        PPO,
        "cartpole",
        total_timesteps=total,
        n_envs=2,
        log_every=20,
        seed=seed,
        run_dir=folder,
        progress=False,
    )


def same(a: Path, b: Path) -> bool:
    """The configuration, the rows and the last state, bit for bit."""
    configs = [json.loads((path / "config.json").read_text()) for path in (a, b)]
    return configs[0] == configs[1] and rows(a) == rows(b) and not differences(final_state(a), final_state(b))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    return seeds_of(tmp_path_factory.mktemp("seeds") / "all", (0, 3, 5))


@pytest.mark.parametrize(
    ("n", "cores", "together"),
    [(1, 4, 1), (4, 4, 4), (5, 4, 5), (7, 4, 7), (8, 4, 4), (9, 4, 5), (10, 4, 5), (95, 4, 5), (3, 1, 1)],
)
def test_no_core_is_idle_before_the_last_round(n: int, cores: int, together: int) -> None:
    assert at_once(n, cores) == together
    rounds = -(-n // together)
    assert (together < 2 * cores and rounds * together * 4 < 4 * n + 4 * together) or n < cores


def test_each_seed_is_what_it_would_be_alone(three: Seeds, tmp_path: Path) -> None:
    for seed in three.seeds:
        run = alone(tmp_path / str(seed), seed)
        assert same(three.path / f"seed{seed}", tmp_path / str(seed))
        result = three.results[seed]
        assert result["evaluation"] == run.evaluate(3).mean == three.values[seed]
        assert result["text"] == str(run.evaluate(3))
        assert result["timesteps"] == run.timesteps
        assert result["return"] == run.history[-1]["rollout/ep_rew_mean"]


def test_the_folder_knows_its_seeds_and_has_their_picture(three: Seeds) -> None:
    assert holds_seeds(three.path)
    assert read_seeds(three.path)[1] == [0, 3, 5]
    assert (three.path / "learning_curves.png").stat().st_size > 5_000
    assert not list(three.path.glob("seed*/lock"))


@pytest.mark.parametrize(
    ("algorithm", "world", "metric", "texts"),
    [
        (PPO, "cartpole", "rollout/ep_rew_mean", False),
        (pg.Imitate(), "cartpole", "train/log_likelihood", False),
        (pg.Imitate(), "reverse", "train/accuracy", True),
    ],
)
def test_the_picture_is_of_the_seeds_that_have_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Any, world: str, metric: str, texts: bool
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("pgrad.run.seeds_folder.compare", lambda *args, **given: drawn.append((args, given)))
    config = configured(algorithm, world, None, OPTIONS)
    draw(tmp_path, config, (1, 2))
    assert drawn == []
    files = [seed_folder(tmp_path, seed) / "metrics.csv" for seed in (1, 2)]
    for file, row in zip(files, ({metric: 0.5}, {}), strict=True):
        file.parent.mkdir()
        log = MetricsLog(file)
        log.write(8, row)
        log.close()
    draw(tmp_path, config, (1, 2, 3))
    ((groups, picture), given) = drawn[0]
    assert (groups, picture) == ({config.algorithm_name: files[:1]}, tmp_path / "learning_curves.png")
    assert (given["metric"], given["texts"]) == (metric, texts)
    assert given["title"] == f"{world} · {OPTIONS.total_timesteps} {'tokens' if texts else 'steps'}"


def test_resume_goes_on_with_all_and_begins_those_that_never_began(tmp_path: Path) -> None:
    begun = seeds_of(tmp_path / "all", (1, 2), total=100)
    for file in sorted((begun.path / "seed2").rglob("*"), reverse=True):  # as if it had waited for a core
        file.unlink() if file.is_file() else file.rmdir()
    (begun.path / "seed2").rmdir()
    found = resume_seeds(begun.path, 200, shown=QUIET)
    assert set(found.results) == {1, 2}
    for seed in (1, 2):
        alone(tmp_path / str(seed), seed)
        assert not differences(final_state(begun.path / f"seed{seed}"), final_state(tmp_path / str(seed)))
        assert rows(begun.path / f"seed{seed}")[-1] == rows(tmp_path / str(seed))[-1]
    again = resume_seeds(begun.path, shown=QUIET)  # all are complete
    assert again.values == found.values


def test_one_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    begun = seeds_of(tmp_path / "all", (0, 1), total=100)
    damaged = next((begun.path / "seed0" / "checkpoints").rglob("*.safetensors"))
    for file in (begun.path / "seed0" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    found = resume_seeds(begun.path, 200, shown=QUIET)
    assert damaged.exists()
    assert found.outcomes[0].state == "failed"
    assert isinstance(found.outcomes[0].error, pg.CheckpointError)
    assert found.results[1]["timesteps"] >= 200


def test_a_folder_is_not_written_over_by_mistake(three: Seeds, tmp_path: Path) -> None:
    config = configured(PPO, "cartpole", None, OPTIONS)
    with pytest.raises(pg.UsageError, match="already holds runs"):
        train_seeds(config, (0,), three.path, shown=QUIET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(pg.UsageError, match="not empty"):
        train_seeds(config, (0,), tmp_path / "other", overwrite=True, shown=QUIET)
    first = seeds_of(tmp_path / "all", (0, 1), total=20)
    again = train_seeds(config, (1, 2), first.path, overwrite=True, shown=QUIET)
    assert sorted(path.name for path in again.path.glob("seed?")) == ["seed1", "seed2"]
    assert again.results[1]["timesteps"] >= 200


@pytest.mark.parametrize(("worth", "asked", "taken"), [(4, 0, 1), (4, 3, 3), (1, 0, 0)])
def test_large_networks_side_by_side_have_one_thread_each(
    worth: int, asked: int, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cores are shared out among the seeds; who asks for threads gets them."""
    monkeypatch.setattr("pgrad.run.seeds.threads_for", lambda *_: worth)
    given: list[Job] = []
    monkeypatch.setattr("pgrad.run.seeds.side_by_side", lambda jobs, *_: given.extend(jobs) or ())
    made = seeds_of(tmp_path / "all", (0, 1), threads=asked)
    assert [job.arguments[0]["options"]["threads"] for job in given] == [taken, taken]
    assert read_seeds(made.path)[0].options.threads == taken, "when they are resumed too"


def test_what_cannot_be_trained_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(pg.UsageError, match="learning_starts"):
        train_seeds(configured(pg.SAC(), "pendulum", None, OPTIONS), (0, 1), tmp_path / "a", shown=QUIET)
    for seeds, message in (((), "different whole numbers"), ((1, 1), "1 1"), ((-1,), "-1")):
        with pytest.raises(pg.UsageError, match=message):
            seeds_of(tmp_path / "a", seeds)
    own = configured(PPO, lambda: None, None, OPTIONS)
    with pytest.raises(pg.UsageError, match="other processes"):
        train_seeds(own, (0, 1), tmp_path / "a", shown=QUIET)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- processes


def returns(tell: Any, x: int) -> int:
    tell({"time/total_timesteps": 1.0})
    warnings.warn("careful", stacklevel=1)
    print("printed")
    return x * x


def raises(tell: Any, error: BaseException) -> None:
    raise error


def dies(tell: Any) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def waits(tell: Any, seconds: float) -> None:
    tell({"time/total_timesteps": 1.0})
    with StopOnSignal() as signals:
        until = time.monotonic() + seconds
        while time.monotonic() < until and signals.requested is None:
            time.sleep(0.01)
        if signals.requested is not None:
            raise SystemExit(signals.exit_code)


class Heard(Scoreboard):
    """A board that remembers, and can be told to interrupt."""

    def __init__(self, n: int, interrupts: bool = False) -> None:
        super().__init__([str(k) for k in range(n)], [1] * n, enabled=False)
        self.heard: list[tuple[int, dict[str, float]]] = []
        self.messages: list[str] = []
        self._interrupts = interrupts

    def hear(self, k: int, row: Any) -> None:
        self.heard.append((k, dict(row)))
        if self._interrupts:
            self._interrupts = False
            os.kill(os.getpid(), signal.SIGINT)

    def message(self, text: str) -> None:
        self.messages.append(text)


def carried_out(jobs: list[Job], limit: int, board: Scoreboard) -> dict[int, Outcome]:
    with StopOnSignal() as signals:
        return dict(side_by_side(jobs, limit, board, signals))


def test_outcomes_of_every_kind(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [
        Job("fine", 1, returns, (7,)),
        Job("known", 1, raises, (pg.WorldError("no such level"),)),
        Job("unknown", 1, raises, (KeyError("x"),)),
        Job("dead", 1, dies),
    ]
    board = Heard(4)
    found = carried_out(jobs, 2, board)
    assert (found[0].state, found[0].value) == ("done", 49)
    assert [found[k].state for k in (1, 2, 3)] == ["failed"] * 3
    assert isinstance(found[1].error, pg.WorldError)
    assert (str(found[1].error), found[1].traceback) == ("no such level", "")
    assert str(found[2].error) == "KeyError: 'x'"
    assert "Traceback" in found[2].traceback
    assert "killed by signal 9 (SIGKILL, often out of memory): last words" in str(found[3].error)
    assert (0, {"time/total_timesteps": 1.0}) in board.heard
    assert board.messages == ["fine: careful"]
    assert "printed" not in capfd.readouterr().out


def test_an_interrupt_stops_all_and_begins_no_more() -> None:
    jobs = [Job(str(k), 1, waits, (60.0,)) for k in range(3)]
    began = time.monotonic()
    found = carried_out(jobs, 2, Heard(3, interrupts=True))
    assert {k: one.state for k, one in found.items()} == {0: "stopped", 1: "stopped"}
    assert time.monotonic() - began < 30
