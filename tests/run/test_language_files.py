"""Files that a run reads: found from anywhere, known by what is in them."""

from hashlib import sha256
from pathlib import Path

import pytest

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.models.language.spec import LanguageSpec
from pgrad.training.disk.rundir import RunDir
from tests.run.texts import GRPO, ROWS, TINY, length, pretrained, written
from tests.run.tools import differences, final_state

pytestmark = pytest.mark.usefixtures("no_plots")


class TestFiles:
    """A run goes on from anywhere, with the files that it began with."""

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A run that was begun with names as one writes them, in the folder of its files."""
        monkeypatch.chdir(tmp_path)
        written(Path("p.jsonl"))
        written(Path("held.json").with_suffix(".jsonl"), ROWS[:2])
        Path("r.py").write_text("def long(completions, **_):\n    return [len(x) for x in completions]\n")
        pretrained(Path("model"))
        kwargs = {"max_completion_length": 3, "held_out": "held.jsonl"}
        given = {"agent": LanguageSpec("model"), "reward": ["r.py:long"], "world_kwargs": kwargs, "seed": 1}
        pg.train(GRPO, "p.jsonl", total_timesteps=200, run_dir="whole", **given)
        pg.train(GRPO, "p.jsonl", total_timesteps=100, run_dir="run", **given)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        return tmp_path / "run"

    def test_it_goes_on_from_anywhere(self, run: Path) -> None:
        config, home = RunDir(run).config(), run.parent
        assert config["world"] == str(home / "p.jsonl")
        assert config["reward"] == [f"{home / 'r.py'}:long"]
        assert config["agent"]["model"] == str(home / "model")
        assert config["world_kwargs"]["held_out"] == str(home / "held.jsonl")
        assert set(config["files"]) == {str(home / name) for name in ("p.jsonl", "held.jsonl", "r.py")}
        assert pg.load(run).config.world_name == "p.jsonl"
        pg.resume(run, 200)
        assert differences(final_state(run), final_state(home / "whole")) == []
        assert RunDir(run).config() == RunDir(home / "whole").config()

    def test_it_may_be_told_again_by_any_path(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(run.parent)
        pg.resume("run", 150, world="p.jsonl", reward=["r.py:long"])
        with pytest.raises(UsageError, match="started with another configuration"):
            pg.resume("run", 200, world="held.jsonl")

    def test_files_that_are_gone_or_others(self, run: Path) -> None:
        home = run.parent
        written(home / "p.jsonl", [{**ROWS[0], "completion": "b"}, *ROWS[1:]])
        with pytest.raises(UsageError, match=r"p\.jsonl has changed since this run began: its prompts"):
            pg.resume(run, 200)
        written(home / "p.jsonl")
        (home / "r.py").rename(home / "moved.py")
        with pytest.raises(
            UsageError, match=r"r\.py, which this run reads, is not there any more: put it back"
        ):
            pg.resume(run, 200)
        (home / "r.py").write_text("def long(completions, **_):\n    return [0.0 for x in completions]\n")
        with pytest.warns(UserWarning, match=r"r\.py has changed since .* goes on with other rewards"):
            assert pg.resume(run, 200).history[-1]["reward"] == 0.0
        pg.resume(run, 300)  # told once

    def test_without_hashes_of_an_older_run_nothing_is_compared(self, run: Path) -> None:
        directory = RunDir(run)
        old = {name: x for name, x in directory.config().items() if name != "files"}
        directory.write_config(old)
        pg.resume(run, 150)
        assert "files" in RunDir(run).config()

    def test_an_evaluation_tells_what_has_changed_and_goes_on(
        self, run: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        home, loaded = run.parent, pg.load(run)
        loaded.evaluate(2)
        assert not recwarn.list
        was = sha256((home / "p.jsonl").read_bytes()).hexdigest()
        written(home / "p.jsonl", [{**ROWS[0], "prompt": "aba="}, *ROWS[1:]])
        now = sha256((home / "p.jsonl").read_bytes()).hexdigest()
        told = rf"p\.jsonl has changed since this run was trained \(SHA-256 {was[:8]} then, {now[:8]} now\)"
        with pytest.warns(UserWarning, match=told) as found:
            assert len(loaded.evaluate(100, split="train").returns) == len(ROWS)
        assert len(found) == 1
        with pytest.warns(UserWarning, match=told):
            loaded.answers(1)

    def test_writing_needs_neither_prompts_nor_rewards(self, run: Path, tmp_path: Path) -> None:
        asked = {"prompts": ["ab=", "b="], "n": 2, "seed": 4}
        before = pg.load(run).complete(**asked)
        for name in ("p.jsonl", "held.jsonl", "r.py"):
            (run.parent / name).unlink()
        loaded = pg.load(run)
        assert loaded.complete(**asked) == before
        assert (loaded.export(tmp_path / "out") / "tokenizer.json").exists()
        with pytest.raises(UsageError, match=r"there is no file .*r\.py"):
            loaded.evaluate(2)


class TestCharacters:
    """A model from scratch reads by the characters that it was trained with, whatever its file is later."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        kwargs = {"max_completion_length": 3}
        given = {"agent": TINY, "reward": length, "world_kwargs": kwargs, "run_dir": tmp_path / "run"}
        pg.train(GRPO, str(written(tmp_path / "p.jsonl")), total_timesteps=60, **given)
        return tmp_path / "run"

    def test_it_is_read_without_its_prompts(self, run: Path) -> None:
        asked = {"prompts": ["ab=", "b="], "n": 2, "seed": 4}
        assert RunDir(run).config()["alphabet"] == "=ab"
        before = pg.load(run, reward=length).complete(**asked)
        (run.parent / "p.jsonl").unlink()
        assert pg.load(run, reward=length).complete(**asked) == before

    def test_other_characters_are_told_and_not_taken_for_its_own(self, run: Path) -> None:
        """With "c" for "b" a tokenizer of the file would have as many tokens, and another text for each."""
        loaded = pg.load(run, reward=length)
        others = [{**row, "prompt": row["prompt"].replace("b", "c")} for row in ROWS]
        written(run.parent / "p.jsonl", others)
        with (
            pytest.warns(UserWarning, match="has changed since this run was trained"),
            pytest.raises(
                UsageError, match="the tokenizer does not know a part of the prompt of row 0: 'ac='"
            ),
        ):
            loaded.evaluate(2, split="train")
        given = {"agent": TINY, "reward": length, "world_kwargs": {"max_completion_length": 3}}
        told = "reads the characters '=ab', the prompts here '=abc'"
        with pytest.raises(UsageError, match=told):
            pg.train(GRPO, [*others, *ROWS], total_timesteps=60, init_from=run, **given)

    def test_older_runs_are_read_with_their_prompts(self, run: Path) -> None:
        asked = {"prompts": ["ab="], "n": 3, "seed": 1}
        before = pg.load(run, reward=length).complete(**asked)
        directory = RunDir(run)
        directory.write_config({key: x for key, x in directory.config().items() if key != "alphabet"})
        assert pg.load(run, reward=length).complete(**asked) == before
        pg.resume(run, 120, reward=length)
        assert directory.config()["alphabet"] == "=ab"
