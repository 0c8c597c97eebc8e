"""What a language run settles by itself: lengths, threads, rewards, reading prompts once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pgrad as pg
import pgrad.worlds.language.world
from pgrad.errors import UsageError
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.config import RunConfig, RunOptions
from pgrad.run.language import cannot_be_judged, completion_length, opening
from pgrad.run.threads import torch_threads
from pgrad.training.teacher import Teacher
from pgrad.worlds.language.tokenizer import character_tokenizer
from tests.run.texts import CHAT, GRPO, ROWS, SETTING, TASK, TINY, length, made, pretrained, written

pytestmark = pytest.mark.usefixtures("no_plots")


class TestImitation:
    """A file of demonstrations trains as it is."""

    @pytest.mark.parametrize("kind", ["completion", "messages"])
    def test_no_reward_is_asked_for(self, kind: str, tmp_path: Path) -> None:
        rows: list[Any] = ROWS
        agent = TINY
        if kind == "messages":
            folder = pretrained(tmp_path / "model", letters="ab=<user>:")
            tokenizer = character_tokenizer("ab=<user>:")
            tokenizer.chat_template = CHAT
            tokenizer.save_pretrained(folder)
            agent = LanguageSpec(str(folder))
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": row["prompt"]},
                        {"role": "assistant", "content": row["completion"]},
                    ]
                }
                for row in ROWS
            ]
        file = written(tmp_path / "p.jsonl", rows)
        run = pg.train(
            pg.Imitate(batch_size=16, learning_rate=1e-2),
            str(file),
            agent=agent,
            total_timesteps=1500,
            run_dir=tmp_path / "run",
        )
        assert run.history[-1]["train/accuracy"] > 0.9
        (said,) = zip(*run.complete([row["prompt"] for row in ROWS], greedy=True), strict=True)
        if kind == "completion":
            assert list(said) == [row["completion"] for row in ROWS]
        assert cannot_be_judged(run.config) == "there is no reward"
        with pytest.raises(UsageError, match="has no reward of its own"):
            run.evaluate(3)
        assert [sample["reward"] for sample in pg.load(tmp_path / "run").answers(3)] == [None] * 3
        with pytest.raises(UsageError, match=r"eval_every: .* no reward of its own"):
            pg.train(pg.Imitate(), str(file), agent=agent, total_timesteps=9, eval_every=2)

    def test_demonstrations_may_be_longer_than_answers_usually_are(self) -> None:
        long = [{"prompt": "a", "completion": "ab" * 200}]
        teacher = made(pg.Imitate(), long).collector
        assert isinstance(teacher, Teacher)
        assert teacher.world.max_completion_length == 256
        assert int(teacher.collect(made(pg.Imitate(batch_size=1), long).request).mask.sum()) == 401
        with pytest.raises(
            UsageError, match="completion of row 0 has 401 tokens, more than max_completion_l"
        ):
            made(pg.Imitate(), long, max_completion_length=300).iterate()
        with pytest.raises(UsageError, match=r"has 2401 tokens, more than its prompt leaves .*: 2046"):
            made(pg.Imitate(), [{"prompt": "a", "completion": "ab" * 1200}]).iterate()

    def test_where_rewards_are_learned_from_one_is_needed(self) -> None:
        with pytest.raises(UsageError, match="no reward of its own"):
            made(GRPO, ROWS)


def flaky(completions: list[str], **_: Any) -> list[float]:
    if any(text.startswith("aba") for text in completions):
        raise ValueError("no aba please\nand so on")
    return [1.0] * len(completions)


def test_a_reward_that_fails_now_and_then_is_named_once() -> None:
    """And counted over all rounds of a collection; what it failed on is left out."""
    kwargs = {"max_completion_length": 3}
    with pytest.warns(UserWarning, match="reward flaky failed on a completion") as caught:
        run = pg.train(
            replace(GRPO, n_prompts=30), ROWS, agent=TINY, reward=flaky, world_kwargs=kwargs,
            total_timesteps=2000, log_every=1, seed=1,
        )  # fmt: skip
    told = [str(warning.message) for warning in caught if "flaky" in str(warning.message)]
    assert len(told) == 1
    where = f"test_language_settings.py:{flaky.__code__.co_firstlineno + 2}"
    assert f"(rewards/flaky/failed): ValueError: no aba please ({where}), on 'aba" in told[0]
    assert "\n" not in told[0]
    failed = [row["rewards/flaky/failed"] for row in run.history]
    assert sum(failed) > 1
    unscored = [row["completions/unscored_ratio"] * 120 for row in run.history]
    assert unscored == pytest.approx(failed)


class TestThreads:
    """Narrow models take one, wide ones all that there are, or what is asked for."""

    @pytest.fixture(autouse=True)
    def _four_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pgrad.training.versions.cores", lambda: 4)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def threads(self, agent: LanguageSpec, threads: int = 0) -> int:
        config = RunConfig(GRPO, "copy", agent, RunOptions(threads=threads))
        with torch_threads(config, pg.AgentSpec):  # type: ignore[arg-type]
            return torch.get_num_threads()

    def of_width(self, folder: Path, width: int) -> LanguageSpec:
        transformers.LlamaConfig(hidden_size=width, num_attention_heads=4).save_pretrained(folder)
        return LanguageSpec(str(folder))

    def test_by_width(self, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        assert self.threads(LanguageSpec("scratch:medium")) == 1
        assert self.threads(self.of_width(tmp_path / "narrow", 64)) == 1
        assert self.threads(self.of_width(tmp_path / "wide", 1024)) == 4
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize(("limit", "expected"), [("2", 2), ("3,1", 3), ("64", 4), ("0", 4), ("x", 4)])
    def test_a_limit_holds(
        self, limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert self.threads(self.of_width(tmp_path, 1024)) == expected
        assert self.threads(LanguageSpec("scratch:tiny")) == 1
        assert self.threads(LanguageSpec("scratch:tiny"), threads=3) == 3


class TestLength:
    """Of completions where nobody says."""

    def test_tasks_know_and_files_take_the_usual_one(self, tmp_path: Path) -> None:
        config = made_config("copy", **TASK["world_kwargs"])
        assert (completion_length(config), opening(config)) == (9, [])
        config = made_config("copy", max_completion_length=3, **TASK["world_kwargs"])
        assert (completion_length(config), opening(config)) == (3, [])
        config = made_config(ROWS)
        assert completion_length(config) == made(GRPO, ROWS, reward=length).world.max_completion_length == 256
        assert opening(config)[0].startswith("completions have at most 256 tokens, as nobody said")

    def test_half_of_a_small_context(self, tmp_path: Path) -> None:
        folder = pretrained(tmp_path / "model")
        settings = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 50}
        (folder / "config.json").write_text(json.dumps(settings))
        config = replace(made_config(ROWS), agent=LanguageSpec(str(folder)))
        assert completion_length(config) == 25
        world = made(GRPO, ROWS, LanguageSpec(str(folder)), length).world
        assert (world.max_completion_length, world.context) == (25, 50)
        with pytest.raises(UsageError, match="a context of 50 and max_completion_length 25 leave 25"):
            made(GRPO, [{"prompt": "a" * 25}], LanguageSpec(str(folder)), length)


def made_config(world: Any, **kwargs: Any) -> RunConfig:
    return RunConfig(GRPO, world, TINY, RunOptions(), kwargs)


@pytest.mark.parametrize("world", ["copy", ROWS])
def test_prompts_are_read_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again for the length to average by, nor to see whether some were set aside, nor to evaluate."""
    count = 0
    original = pgrad.worlds.language.world.find_source

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return original(*args, **kwargs)

    kwargs = TASK["world_kwargs"] if world == "copy" else {"held_out": 2, "max_completion_length": 3}
    given = {"world_kwargs": kwargs, "reward": None if world == "copy" else length}
    setting = {
        **SETTING,
        "agent": TINY,
        "total_timesteps": 300,
        "eval_every": 100,
        "eval_episodes": 2,
        **given,
    }
    monkeypatch.setattr(pgrad.worlds.language.world, "find_source", counted)
    run = pg.train(replace(GRPO, average="constant"), world, **setting)
    assert sum("eval/mean_reward" in row for row in run.history) >= 2
    assert count == 1
    # The same numbers as in worlds of their own, and as without evaluations.
    apart = pg.train(replace(GRPO, average="constant"), world, **{**setting, "eval_every": 0})
    for name, x in apart.agent.state_dict().items():
        assert torch.equal(x, run.agent.state_dict()[name])
    assert run.history[-1]["eval/mean_reward"] == evaluated_apart(run, setting)


def evaluated_apart(run: pg.Run, setting: dict[str, Any]) -> float:
    from pgrad.run.fresh import evaluate_fresh
    from pgrad.training.streams import Seeds

    seed = Seeds.spawn(setting["seed"]).evaluation
    return evaluate_fresh(run.config, run.agent, episodes=2, deterministic=True, seed=seed, n_envs=2).mean


def test_rewards_have_weights_and_a_time() -> None:
    def two(completions: list[str], **_: Any) -> list[float]:
        return [2.0] * len(completions)

    def ten(completions: list[str], **_: Any) -> list[float]:
        return [10.0] * len(completions)

    kwargs = {"max_completion_length": 3, "reward_weights": [1, 0.5], "reward_timeout": 7}
    training = made(GRPO, ROWS, reward=[two, ten], **kwargs)
    assert training.world.rewards.timeout == 7
    training.iterate()
    assert training.collector.episodes.metrics()["reward"] == 7.0
    for weights, words in (([1], "2 reward functions need as many weights, got 1"), (["1", 2], "be finite")):
        with pytest.raises(UsageError, match=words):
            made(GRPO, ROWS, reward=[two, ten], **{**kwargs, "reward_weights": weights})
    with pytest.raises(UsageError, match="timeout must be above 0"):
        made(GRPO, ROWS, reward=[two, ten], **{**kwargs, "reward_timeout": 0})
    with pytest.raises(UsageError, match="reward_weights and no reward"):
        made(pg.Imitate(), ROWS, **kwargs)


def test_what_an_evaluation_asks() -> None:
    run = pg.train(GRPO, "copy", agent=TINY, total_timesteps=30, **TASK)
    lengths = {split: set[int]() for split in ("held_out", "train", "larger")}

    def size(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [float(len(prompt)) for prompt in prompts]

    asked = replace(run.config, reward=size)
    for split, found in lengths.items():
        found.update(map(int, replace(run, config=asked).evaluate(40, split=split).returns))
    assert lengths["train"] | lengths["held_out"] == {2, 3, 4}
    assert min(lengths["larger"]) > 4
    with pytest.raises(UsageError, match="a split is one of train, held_out, larger"):
        run.evaluate(3, split="largest")
    kwargs = {"max_completion_length": 2, "held_out": 1}
    told = pg.train(GRPO, ROWS, agent=TINY, reward=length, total_timesteps=30, world_kwargs=kwargs)
    assert len(told.evaluate(50).returns) == 1
    assert len(told.evaluate(50, split="train").returns) == 5
    with pytest.raises(UsageError, match="two splits to evaluate on, held_out and train"):
        told.evaluate(3, split="larger")
    with pytest.raises(UsageError, match="cartpole has no split 'train'"):
        pg.train(pg.A2C(), "cartpole", total_timesteps=40, progress=False).evaluate(1, split="train")
