"""Language runs that cannot be: one line that says what is wrong and what is allowed, nothing written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.models.language.spec import LanguageSpec
from pgrad.worlds.language.tokenizer import character_tokenizer
from tests.run.texts import GRPO, ROWS, TASK, TINY, made, pretrained


def ones(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def short(completions: list[str], **_: Any) -> list[float]:
    return [1.0]


def nan(completions: list[str], **_: Any) -> list[float]:
    return [float("nan")] * len(completions)


def broken(completions: list[str], **_: Any) -> list[float]:
    raise ValueError("no such column")


def needy(completions: list[str], answer: list[str]) -> list[float]:
    return [1.0]


LENGTH = {"max_completion_length": 3}


def refused(tmp_path: Path, algorithm: Any = GRPO, world: Any = "copy", **given: Any) -> str:
    """The text of the error, one line of exit code 2; no checkpoint is written."""
    given = {"total_timesteps": 60, "agent": TINY, **given}
    with pytest.raises((UsageError, WorldError)) as caught:
        pg.train(algorithm, world, run_dir=tmp_path / "run", **given)
    assert isinstance(caught.value, PgradError)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("run/checkpoints/*"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (short, "reward short returned 1 rewards for 12 completions"),
        (nan, "reward nan returned nan for "),
        (broken, "ValueError: no such column"),
        (needy, "reward needy needs a column 'answer'"),
        (None, "prompts has no reward of its own: give one with reward (--reward FILE.py:FUNCTION)"),
        ("nofile.py:f", "there is no file nofile.py"),
        ("math.py", "there is no file math.py"),
        ("exactmatch", "unknown reward 'exactmatch': did you mean exact-match?"),
        ("length:7", "length:CACHE must be between 1 and max_completion_length (3)"),
        (7, "rewards are functions, at least one, got 7"),
    ],
)
def test_rewards(reward: Any, message: str, tmp_path: Path) -> None:
    prompts = ["ab", "ba", "bb"]
    assert message in refused(tmp_path, world=prompts, reward=reward, world_kwargs=LENGTH)


def test_reward_files(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    given = {"world": ["ab"], "world_kwargs": LENGTH}
    file.write_text("import nothing_of_the_kind\n")
    message = refused(tmp_path, reward=f"{file}:f", **given)
    assert f"{file}, line 1, cannot be imported: ModuleNotFoundError" in message
    file.write_text("def accuracy(completions, **_):\n    return completions\n")
    message = refused(tmp_path, reward=f"{file}:acuracy", **given)
    assert f"{file} has no function 'acuracy': did you mean accuracy?" in message


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (pg.SAC(learning_starts=8), "SAC replays single decisions, which tokens are not: use GRPO, PPO"),
        (pg.DiscreteSAC(learning_starts=8), "DiscreteSAC replays single decisions"),
        (pg.OffPolicyActorCritic(), "OffPolicyActorCritic replays single decisions"),
        (pg.TRPO(), "TRPO needs second derivatives"),
        (pg.PPOKL(), "PPOKL keeps all probabilities of the policy that acted"),
        (pg.Reinforce(baseline="optimal"), "the baseline 'optimal' takes a backward pass per text"),
    ],
)
def test_algorithms_that_are_not_for_tokens(algorithm: Any, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, algorithm)


@pytest.mark.parametrize(
    ("world", "agent", "message"),
    [
        ("CartPole-v1", TINY, "CartPole-v1 is no world of language, for a LanguageSpec (--model): those are"),
        ("party", TINY, "did you mean parity?"),
        ("party", None, "unknown world 'party': did you mean parity?"),
        ("parity", pg.AgentSpec(), "parity is a world of language: its agent is a LanguageSpec(model=…)"),
        ("nowhere.jsonl", TINY, "there is no file nowhere.jsonl"),
        ([], TINY, "there are no prompts"),
    ],
)
def test_worlds_and_agents_that_do_not_fit(world: Any, agent: Any, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, world=world, agent=agent)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_completion_length": 3000}, "leaves no room for a prompt in a context of 2048 tokens"),
        ({"size": (1, 2)}, "copy has no option 'size': did you mean sizes?"),
        ({"held_out": 3}, "copy has its own held-out problems: leave out held_out"),
    ],
)
def test_arguments_of_tasks(kwargs: Any, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, world_kwargs=kwargs)


def test_prompts_from_files(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    given = {"world": str(file), "reward": ones, "world_kwargs": LENGTH}
    file.write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    expected = f"{file}: row 0 has no column 'prompt': did you mean question? (there are: question, answer)"
    assert refused(tmp_path, **given) == f"{expected}; choose one with column (--column NAME)"
    file.write_text("\n")
    assert refused(tmp_path, **given) == f"{file}: there are no prompts"
    file.write_text(json.dumps({"prompt": "ab" * 1100}) + "\n")
    assert "the prompt of row 0 has 2201 tokens; a context of 2048" in refused(tmp_path, **given)
    file.write_text(json.dumps({"prompt": "ab"}) + "\n")
    message = refused(tmp_path, eval_every=20, **given)
    assert message.startswith("eval_every: no prompts were set aside to evaluate on: give held_out")
    kwargs = {"max_completion_length": -1}
    message = refused(tmp_path, world=str(file), reward=ones, world_kwargs=kwargs)
    assert "max_completion_length above 0" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "ab="}, "row 6 has no demonstration"),
        ({"prompt": "ab=", "completion": "abab"}, "row 6 has 5 tokens, more than max_completion_length 4"),
    ],
)
def test_demonstrations_that_come_late(row: Any, message: str) -> None:
    """They are told before anything is trained, wherever they are in the order; held-out ones need none."""
    for seed in range(4):
        with pytest.raises(UsageError, match=message):
            pg.train(
                pg.Imitate(batch_size=4),
                [*ROWS, row],
                agent=TINY,
                seed=seed,
                total_timesteps=4,
                world_kwargs={"max_completion_length": 4},
            )
    aside = [*ROWS * 11, row]  # no more than the first 64 are measured
    made(pg.Imitate(), ROWS, max_completion_length=4, held_out=aside)
    made(pg.Imitate(), "copy", n_prompts=300, **TASK["world_kwargs"])


def test_the_context_that_is_left_to_a_demonstration_is_looked_at_too(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 20}
    (folder / "config.json").write_text(json.dumps(settings))
    long = {"prompt": "ab=", "completion": "a" * 15}
    made(pg.Imitate(), [*ROWS, long], LanguageSpec(str(folder)))  # <bos>ab= are 4, <eos> is 1
    with pytest.raises(
        UsageError, match="row 6 has 17 tokens, more than its prompt leaves of the context: 16"
    ):
        made(pg.Imitate(), [*ROWS, long | {"completion": "a" * 16}], LanguageSpec(str(folder)))


def test_folders_of_models(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    spec = LanguageSpec(str(folder))
    assert f"the folder {folder} has no model weights (model.safetensors)" in refused(tmp_path, agent=spec)
    tokenizer = character_tokenizer("ab=")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(pretrained(folder))
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text()) | {"eos_token_id": None}
        (folder / name).write_text(json.dumps(settings))
    assert "the tokenizer has no EOS token" in refused(tmp_path, agent=spec)
    other = pretrained(tmp_path / "other", letters="xy=")
    message = refused(tmp_path, agent=LanguageSpec(str(other)))
    assert "the tokenizer does not know a part of the prompt" in message


def test_groups_of_one() -> None:
    with pytest.raises(UsageError, match="num_generations must be a whole number ≥ 2"):
        replace(GRPO, num_generations=1)
