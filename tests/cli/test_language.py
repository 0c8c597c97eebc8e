"""Language models from the command line: train, eval, play, chat, export, doctor, list."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

import pgrad as pg
from pgrad.cli import COMMANDS
from pgrad.models.language import LanguageNetwork
from pgrad.training.disk.checkpoint import checkpoints
from pgrad.training.disk.log import read
from tests.cli.tools import Answer, cli, start
from tests.run.texts import pretrained

SMALL = "--model scratch:tiny --total-timesteps 200 --n-prompts 4 --num-generations 4 --seed 3"
RUN = Path("runs/grpo/copy-seed3")


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short GRPO run on copy; tests only read it."""
    path = tmp_path_factory.mktemp("runs") / "spoken"
    assert cli(f"train grpo copy {SMALL} --quiet --run-dir", path) == (0, "", "")
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(run: Path) -> dict[str, object]:
    return json.loads((run / "config.json").read_text())["config"]  # type: ignore[no-any-return]


def test_a_training_says_how_it_went(here: Path) -> None:
    answer = cli(f"train grpo copy {SMALL}")
    assert (answer.code, answer.err) == (0, "")
    assert "tokens/s" in answer.out
    assert "20 prompts, greedy (95% interval of the mean" in answer.out
    for command in ("play", "chat", "export", "eval", "resume"):
        assert f"pgrad {command} {RUN}" in answer.out
    lines = (RUN / "completions.jsonl").read_text().splitlines()
    steps = read(RUN / "metrics.csv")["time/total_timesteps"]
    assert sorted({json.loads(line)["timesteps"] for line in lines}) == steps
    again = cli("resume --total-timesteps 300", RUN)
    assert (again.code, again.err) == (0, "")
    assert len((RUN / "completions.jsonl").read_text().splitlines()) > len(lines)


@pytest.mark.parametrize("order", ["parity {}", "{} parity", "--env parity {}", "--n-prompts 2 parity"])
def test_prompts_may_stand_anywhere(order: str, here: Path) -> None:
    options = "--total-timesteps 20 --num-generations 2 --quiet --run-dir run"
    extra = options if "{}" in order else ""
    assert cli(f"train grpo {order.format(extra)} {'' if extra else options}") == (0, "", "")
    assert config(here / "run")["world"] == "parity"
    assert config(here / "run")["agent"]["model"] == "scratch:small"  # type: ignore[index]


def test_imitation_then_a_file_of_prompts_with_a_reward(here: Path) -> None:
    """A file's own options: column, reward, held-out prompts; without any, there is no evaluation."""
    rows = [{"question": text, "answer": text} for text in ("ab", "ba", "aab", "bb", "abb", "a")]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("r.py").write_text(
        "def right(completions, answer, **_):\n"
        "    return [float(x == y) for x, y in zip(completions, answer)]\n"
    )
    text = "p.jsonl --column question --model scratch:tiny --reward r.py:right --max-completion-length 5"
    answer = cli(f"train imitate {text} --held-out-prompts 2 --total-timesteps 40 --run-dir a")
    assert (answer.code, answer.err) == (0, "")
    assert "over 2 prompts, greedy" in answer.out
    start = "--init-from a --num-generations 2 --total-timesteps 40"
    answer = cli(f"train grpo {text} {start} --run-dir b")
    assert (answer.code, answer.err) == (0, "")
    assert "evaluation     none: no prompts were set aside to evaluate on" in answer.out
    assert "pgrad eval b --split train --episodes 100\n" in answer.out
    assert config(here / "b")["reward"] == [f"{here / 'r.py'}:right"]
    assert "grpo · p.jsonl · prompts trained on · latest agent" in cli("eval --split train b").out
    Path("r.py").unlink()  # to write with the model, no reward is needed
    assert cli("chat --prompt ab b").code == 0
    assert cli("eval b").err.startswith(f"pgrad: error: there is no file {here / 'r.py'}")


def test_a_file_of_demonstrations_and_several_rewards(here: Path) -> None:
    """No reward to imitate, and no evaluation to suggest; then two with weights and a length."""
    rows = [{"prompt": text + "=", "completion": text} for text in ("ab", "ba", "aab", "bb", "abb", "a")]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = cli("train imitate p.jsonl --model scratch:tiny --total-timesteps 40 --run-dir a")
    assert (answer.code, answer.err) == (0, "")
    assert "pgrad chat a\n" in answer.out
    assert "pgrad eval" not in answer.out
    assert "evaluation     none: p.jsonl has no reward of its own" in answer.out
    Path("r.py").write_text("def two(completions, **_):\n    return [2.0] * len(completions)\n")
    rewards = "--reward r.py:two length:5 --reward-weights 1 .5 --reward-timeout 9 --n-prompts 2"
    start = "--model scratch:tiny --init-from a --num-generations 2 --total-timesteps 40"
    answer = cli(f"train grpo p.jsonl {start} {rewards} --run-dir b")
    assert (answer.code, answer.err) == (0, "")
    assert "completions have at most 256 tokens, as nobody said" in answer.out
    assert config(here / "b")["world_kwargs"] == {"reward_weights": [1.0, 0.5], "reward_timeout": 9.0}
    assert cli("chat --prompt ab= --max-completion-length 3 b")[::2] == (0, "")  # none of both is needed
    assert cli("export b model") == (0, "model\n", "")


def test_rewards_that_changed_are_told_in_one_line(here: Path) -> None:
    Path("r.py").write_text("def two(completions, **_):\n    return [2.0] * len(completions)\n")
    assert cli(f"train grpo copy {SMALL} --reward r.py:two --quiet --run-dir a").code == 0
    Path("r.py").write_text("def two(completions, **_):\n    return [1.0] * len(completions)\n")
    told = f"{here / 'r.py'} has changed since this run was saved: it goes on with other rewards"
    process = start("resume", "a", "--total-timesteps", 300, "--quiet")
    assert process.communicate(timeout=120) == ("", f"pgrad: warning: {told}\n")


def test_adapters_of_the_usual_rank(spoken: Path, here: Path) -> None:
    cli("export", spoken, "model")
    short = "copy --total-timesteps 20 --n-prompts 2 --num-generations 2 --quiet"
    for number, (options, rank) in enumerate({"--lora": 16, "--lora 3": 3, "--lora=4": 4, "": 0}.items()):
        assert cli(f"train grpo --model ./model {options} {short} --run-dir {number}") == (0, "", "")
        agent = config(here / str(number))["agent"]
        assert agent["lora"] == rank  # type: ignore[index]
    begin = "train grpo copy --model ./model --lora --init-from"
    assert "pgrad export 3 FOLDER, and that as the model" in cli(f"{begin} 3").err
    assert "stay so: leave out lora" in cli(f"train grpo {SMALL} copy --lora 2").out


def test_a_run_to_begin_with_brings_its_model(spoken: Path, here: Path) -> None:
    """Unless another is asked for; what is trained is told with its model."""
    again = "train grpo copy --total-timesteps 20 --n-prompts 2 --num-generations 2 --run-dir"
    answer = cli(f"{again} run --init-from", spoken)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("grpo · copy · scratch:tiny · seed 0\n")
    assert config(here / "run")["agent"] == config(spoken)["agent"]
    asked = cli(f"{again} other --model scratch:small --init-from", spoken)
    assert "made with model='scratch:tiny' (here 'scratch:small')" in asked.err
    run = pg.train(pg.GRPO(num_generations=2), "copy", total_timesteps=20, n_envs=4, init_from=spoken)
    assert run.config.agent.model == "scratch:tiny"


def test_larger_problems_can_be_asked(spoken: Path) -> None:
    run = pg.load(spoken)
    told = cli("eval --episodes 12 --split larger", spoken).out.splitlines()
    assert told == [
        f"grpo · copy · larger problems · latest agent, {run.timesteps:,} steps",
        str(run.evaluate(12, split="larger")),
    ]


def test_eval_and_play_show_the_same_prompts(spoken: Path) -> None:
    run = pg.load(spoken)
    assert cli("eval --episodes 12", spoken).out.splitlines()[1] == str(run.evaluate(12))
    answer = cli("play --episodes 3", spoken)
    assert (answer.code, answer.err) == (0, "")
    for line, sample in zip(answer.out.split("prompt ")[1:], run.answers(3), strict=True):
        assert line.endswith(
            f"reward {sample['reward']:g}\n  {sample['prompt']}\n  → {sample['completion']}\n"
        )


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def typed(
    text: str, spoken: Path, monkeypatch: pytest.MonkeyPatch, options: str = "", terminal: bool = False
) -> Answer:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Keyboard(text) if terminal else io.StringIO(text))
        return cli(f"chat {options}", spoken)


def test_chat(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt, or the lines of standard input: what the run completes."""
    run = pg.load(spoken)
    (said,) = run.complete("ab=", 3, temperature=0.7, seed=4)
    asked = cli("chat --prompt ab= --n 3 --temperature 0.7 --seed 4", spoken)
    assert asked == (0, "\n".join(said) + "\n", "")
    greedy = [run.complete(text, greedy=True)[0][0] for text in ("ab=", "hh=")]
    assert typed("ab=\n\nhh=\n", spoken, monkeypatch, "--greedy") == (0, "\n".join(greedy) + "\n", "")
    assert typed("", spoken, monkeypatch) == (0, "", "")


def test_chat_goes_on_after_a_line_that_cannot_be_read(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal and in a pipe, which ends with an error then; what is unknown is named, and the line."""
    said = pg.load(spoken).complete("ab=", greedy=True)[0][0]
    answer = typed("xaz=\nab=\n", spoken, monkeypatch, "--greedy", terminal=True)
    assert (answer.code, answer.out) == (0, f"> > {said}\n> ")
    answer = typed("\nxaz=\nab=\n", spoken, monkeypatch, "--greedy")
    told = "the tokenizer does not know a part of the prompt of row 2: 'xaz=' (unknown: 'x', 'z')"
    assert answer == (2, f"{said}\n", f"line 2: {told}\n")


def test_texts_of_any_checkpoint(spoken: Path, here: Path) -> None:
    first = checkpoints(spoken / "checkpoints")[0].name
    (said,) = pg.load(spoken, first).complete("ab=", seed=4)
    asked = cli("chat --prompt ab= --seed 4 --checkpoint", first, spoken)
    assert asked == (0, "\n".join(said) + "\n", "")
    assert cli("export --checkpoint", first, spoken, "model").code == 0


def test_export(spoken: Path, here: Path) -> None:
    assert cli("export", spoken, "model") == (0, "model\n", "")
    transformers.AutoModelForCausalLM.from_pretrained("model")
    answer = cli("doctor --model ./model")
    assert (answer.code, answer.err) == (0, "")
    again = cli("train ppo copy --model ./model --total-timesteps 40 --n-steps 64 --threads 1 --quiet")
    assert again == (0, "", "")
    assert cli("export", spoken, "model").err == (
        "pgrad: error: model is there already: export into a new folder\n"
    )


def test_doctor_looks_at_a_model(here: Path) -> None:
    answer = cli("doctor --model scratch:tiny")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("scratch:tiny: LlamaForCausalLM\n  end tokens        texts end at 2 '<eos>'")
    assert "PROBLEM" not in answer.out
    folder = pretrained(here / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ nothing.here }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    answer = cli("doctor --model", folder)
    assert answer.code == 1
    assert "chat template     PROBLEM: the chat template fails: UndefinedError" in answer.out


@pytest.mark.parametrize("scratch", [True, False])
def test_doctor_looks_at_a_model_where_it_would_be_trained(
    scratch: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(LanguageNetwork, "to", lambda _, device: found.append(torch.device(device).type))
    assert cli("doctor --model", "scratch:tiny" if scratch else pretrained(here / "model")).code == 0
    assert found == ["cpu" if scratch else "cuda"]


def test_list_shows_the_tasks() -> None:
    assert "parity, copy, reverse, sort, addition" in cli("list").out
    assert "parity" in cli("list parity").out.splitlines()
    assert {"chat", "export"} <= COMMANDS.keys()


BAD = {
    "train grpo copy --num-generations 1": "GRPO: --num-generations must be a whole number ≥ 2",
    "train grpo party --model scratch:tiny": "party is no world of language, for a LanguageSpec (--model)",
    "train grpo party": "unknown world 'party': did you mean parity",
    "train grpo CartPole-v1 --model scratch:tiny": "CartPole-v1 is no world of language",
    "train sac parity": "SAC replays single decisions",
    "train trpo parity": "TRPO needs second derivatives",
    "train grpo copy --model scratch:tinny": "did you mean scratch:tiny?",
    "train grpo copy --model ./nowhere": "model './nowhere': there is no such folder",
    "train grpo nothing.jsonl --reward r.py:f": "there is no file",
    "train grpo copy --reward r.py:f": "there is no file r.py",
    "train grpo copy --reward nonsense": "unknown reward 'nonsense'",
    "train grpo copy --video": "texts make no video: leave out --video",
    "train grpo --model scratch:tiny": "train on which prompts? For example: pgrad train grpo parity",
    "train grpo copy --max-completion-lenght 3": "did you mean --max-completion-length?",
    "train grpo copy --total-timesteps 20 --eval-every 1 --world-kwargs sizes=(1,1)": "eval_every:",
    "chat": "chat with which run?",
    "export": "export which run, and where to?",
    "chat nothing": "there is no run at nothing",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_writes_nothing(command: str, here: Path) -> None:
    answer = cli(command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert BAD[command] in answer.err
    assert list(here.iterdir()) == []


def test_rewards_that_break_are_one_line(here: Path) -> None:
    Path("r.py").write_text("def short(completions, **_):\n    return [1.0]\n")
    answer = cli("train grpo copy --model scratch:tiny --reward r.py:short --quiet")
    expected = "pgrad: error: reward short returned 1 rewards for 256 completions\n"
    assert answer == (2, "", expected)


def test_commands_for_texts_refuse_other_runs(trained: Path, spoken: Path, here: Path) -> None:
    answer = cli("chat --prompt a", trained)
    assert answer == (
        2,
        "",
        f"pgrad: error: {trained} is no run of a language model: its world is cartpole\n",
    )
    assert cli("export", trained, "out").code == 2
    assert cli("play --out a.mp4", spoken).err == "pgrad: error: texts make no video: leave out --out\n"
    assert "column 'solution'" in cli("play --record a", spoken).err
    assert list(here.iterdir()) == []
