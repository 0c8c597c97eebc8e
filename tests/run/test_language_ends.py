"""Which tokens end a text: one set, whoever names them, used wherever texts end."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.models.language.checks import check_ends
from pgrad.models.language.load import read_ends
from pgrad.models.language.spec import LanguageSpec
from pgrad.training.completions import Completer
from pgrad.worlds.language.tokenizer import character_tokenizer
from tests.run.texts import CHAT, GRPO, ROWS, TASK, length, made, pretrained

pytestmark = pytest.mark.usefixtures("no_plots")

EOS, A, B = 2, 4, 5


def plain(text: str) -> str:
    """Without the special tokens that were written."""
    return re.sub("<[a-z]+>", "", text)


class TestEnds:
    """One set of tokens that end a text, whoever names them."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A model whose settings for generating name an end that its tokenizer lacks: the letter b."""
        folder = pretrained(tmp_path / "model")
        tokenizer = character_tokenizer("ab=")
        tokenizer.eos_token = None
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder)
        for name, ends in (("generation_config.json", [B]), ("config.json", None)):
            settings = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(settings | {"eos_token_id": ends}))
        return folder

    def test_all_who_know_are_asked(self, folder: Path) -> None:
        assert read_ends(str(folder)) == (B,)
        training = made(GRPO, ROWS, LanguageSpec(str(folder)), length, max_completion_length=6)
        assert training.world.eos == training.agent.network.eos == (B,)
        training = made(GRPO, ROWS, LanguageSpec(str(folder)), length, max_completion_length=6, eos=[A])
        assert training.world.eos == (A, B)
        assert training.agent.network.eos == (A, B)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"eos_token_id": [EOS, B]}))
        assert read_ends(str(folder)) == (B, EOS)
        training = made(GRPO, ROWS, LanguageSpec(str(folder)), length, max_completion_length=6)
        assert set(training.world.eos) == set(training.agent.network.eos) == {B, EOS}

    def test_a_tokenizer_without_an_end_is_no_problem_then(self, folder: Path) -> None:
        network = made(GRPO, ROWS, LanguageSpec(str(folder)), length, max_completion_length=6).agent.network
        well, text = check_ends(network)
        assert well
        assert text.startswith(
            "texts end at 5 'b'; the tokenizer itself has no eos_token, the model's is taken"
        )

    @pytest.mark.parametrize("given", [[A], A])
    def test_texts_end_where_the_world_says(self, given: Any) -> None:
        """In sampling, in the flags of truncation, for rewards, for whoever chats, and after a reload."""
        training = made(GRPO, "copy", max_completion_length=4, eos=given, **TASK["world_kwargs"])
        assert set(training.agent.network.eos) == {A, EOS}
        completer = training.collector
        assert isinstance(completer, Completer)
        found = completer.answer(completer.world.next(40), 2)
        traj, tokens = found.traj, found.traj.action
        ends = (tokens == A) | (tokens == EOS)
        assert torch.equal(ends & traj.mask.bool(), traj.terminated & traj.mask.bool())
        last = (traj.done & (traj.mask > 0)).nonzero()
        cut = [int(column) for row, column in last if not traj.terminated[row, column]]
        assert 0 < len(cut) < len(found.lengths)
        assert all(found.lengths[column] == 4 for column in cut)
        for text, n, column in zip(found.texts, found.lengths, range(len(found.texts)), strict=True):
            if column not in cut and n == 1:
                assert text == ""
            assert "a" not in plain(text)

    def test_chat_stops_there_too(self, tmp_path: Path, folder: Path) -> None:
        spec = LanguageSpec(str(folder))
        kwargs = {"max_completion_length": 8, "eos": [A]}
        given = {"agent": spec, "reward": [length], "world_kwargs": kwargs, "total_timesteps": 30}
        run = pg.train(GRPO, ROWS, **given)
        said = [text for texts in run.complete(["=", "==", "b="], 30) for text in texts]
        assert {*"".join(map(plain, said))} == {"="}

    def test_nobody_knows_an_end(self, folder: Path) -> None:
        (folder / "generation_config.json").unlink()
        with pytest.raises(UsageError, match="the tokenizer has no EOS token"):
            made(GRPO, ROWS, LanguageSpec(str(folder)), length, max_completion_length=6)
