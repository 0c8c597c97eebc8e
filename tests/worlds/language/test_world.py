import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import TrainingError, UsageError, WorldError
from pgrad.worlds.language import prompts, world
from pgrad.worlds.language.builtin import exact_match
from pgrad.worlds.language.rewards import Rewards
from pgrad.worlds.language.sequences import parity
from pgrad.worlds.language.tokenizer import character_tokenizer
from pgrad.worlds.language.world import LanguageWorld, usual_length

pytest.importorskip("transformers")

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(5)]
CHATS = [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]} for row in ROWS]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m['content'] }}>{% endfor %}{% if add_generation_prompt %}!{% endif %}"
)
TOKENIZER = character_tokenizer("0123456789+=<>!")


def listed(rows: Any = ROWS, **arguments: Any) -> LanguageWorld:
    arguments = {"rewards": exact_match, "max_completion_length": 4, **arguments}
    return LanguageWorld(rows, arguments.pop("tokenizer", TOKENIZER), **arguments)


def chatty() -> Any:
    tokenizer = character_tokenizer("0123456789+=<>!")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab \n,.'<é漢", max_size=40))
def test_what_is_encoded_is_decoded_character_by_character(text: str) -> None:
    ids = AWKWARD(text)["input_ids"]
    assert len(ids) == len(text) + 1
    assert AWKWARD.decode(ids, skip_special_tokens=True) == text


AWKWARD = character_tokenizer("ab \n,.'<é漢a")


def test_a_character_tokenizer_is_saved_and_loaded(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    AWKWARD.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == AWKWARD.get_vocab()
    assert [loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id] == [
        0,
        1,
        2,
        3,
    ]
    text = "a  b\n, '<é"
    assert loaded(text)["input_ids"] == AWKWARD(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    assert character_tokenizer("ba").get_vocab() == {**SPECIAL, "b": 4, "a": 5}
    assert AWKWARD("z")["input_ids"] == [1, 3]
    with pytest.raises(UsageError, match="at least one character"):
        character_tokenizer("")


SPECIAL = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3}


def test_an_epoch_shows_every_prompt_once() -> None:
    world = listed(seed=3)
    orders = [[prompt.index for prompt in world.next(len(ROWS))] for _ in range(3)]
    assert all(sorted(order) == list(range(len(ROWS))) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    across = [prompt.index for prompt in world.next(50)]
    assert Counter(Counter(across).values()) == {2: 10, 3: 10}
    assert (
        [p.index for p in listed(seed=3).next(20)] == orders[0] != [p.index for p in listed(seed=4).next(20)]
    )


@pytest.mark.parametrize("source", [ROWS, "countdown"])
@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 60), after=st.integers(1, 60), step=st.integers(1, 7))
def test_stopped_and_continued_is_uninterrupted(source: Any, before: int, after: int, step: int) -> None:
    def world(seed: int) -> LanguageWorld:
        return listed(seed=seed) if source is ROWS else LanguageWorld(source, seed=seed)

    whole = world(5).next(before + after)
    first, second = world(5), world(6)
    found = first.next(before)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    while len(found) < before + after:
        found += second.next(min(step, before + after - len(found)))
    assert found == whole
    assert second.state_dict() == {**second.state_dict(), "seed": 5}


def test_a_state_of_other_prompts_is_refused() -> None:
    state = listed().state_dict()
    for other in (listed(ROWS[::-1]), LanguageWorld("parity")):
        with pytest.raises(WorldError, match="other prompts"):
            other.load_state_dict(state)
    with pytest.raises(WorldError, match="other options"):
        LanguageWorld(parity(chain=0.5)).load_state_dict(LanguageWorld("parity").state_dict())
    twice = LanguageWorld("sort", n_prompts=3)
    assert len({p.index for p in twice.next(30)}) == 3


def test_a_task_is_a_world_of_its_own() -> None:
    world = LanguageWorld("addition", options={"sizes": (1, 1), "larger": (2, 2)}, seed=1)
    assert (world.name, world.eos, world.max_completion_length) == ("addition", (2,), 4)
    prompts = world.next(8)
    right = [world.solution(prompt) for prompt in prompts]
    assert world.score(prompts, right).tolist() == [1.0] * 8
    assert world.scored.metrics["rewards/addition/mean"] == 1.0
    assert world.scored.texts == [prompt.columns["answer"] for prompt in prompts]
    assert world.score(prompts, [ids[:-1] for ids in right]).tolist() == [1.0] * 8  # cut off, and right
    assert world.score(prompts, [[2]] * 8).tolist() == [0.0] * 8
    larger = world.held_out(30, "larger")
    assert all(prompt.columns["size"] == 2 for prompt in larger)
    assert (
        world.held_out() == LanguageWorld("addition", options={"sizes": (1, 1), "larger": (2, 2)}).held_out()
    )
    assert not {p.content for p in world.held_out()} & {p.content for p in world.next(500)}


def test_rewards_read_the_text_of_the_very_tokens() -> None:
    seen: dict[str, Any] = {}

    def spy(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0] * len(given["completions"])

    world = listed(rewards=spy)
    prompts = world.next(2) * 2
    ids = [torch.tensor([5, 6, 2]), [0, 5, 1], [2], []]  # an end, special tokens that end nothing, no text
    assert world.score(prompts, ids).tolist() == [0.0] * 4
    assert seen["completions"] == world.scored.texts == ["12", "<pad>1<bos>", "", ""]
    assert seen["completion_ids"] == [[5, 6, 2], [0, 5, 1], [2], []]
    assert seen["prompts"] == [prompt.content for prompt in prompts]
    assert seen["answer"] == [prompt.columns["answer"] for prompt in prompts]
    with pytest.raises(UsageError, match="4 completions need as many prompts, got 2"):
        world.score(prompts[:2], ids)


def test_a_tokenizer_whose_pad_is_its_eos() -> None:
    tokenizer = character_tokenizer("0123456789+=<>!")
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    world, usual = listed(tokenizer=tokenizer), listed()
    prompts = world.next(20)
    assert prompts == usual.next(20)
    assert [world.encode(p) for p in prompts] == [usual.encode(p) for p in prompts]
    assert world.eos == (2,)
    right = [world.solution(prompt) for prompt in prompts]
    assert all(ids.count(2) == 1 and ids[-1] == 2 for ids in right)
    assert world.score(prompts, right).tolist() == [1.0] * 20


def test_a_special_token_inside_is_no_right_answer() -> None:
    """Only the token that ends a text is left out, and only there: verifiers see what was written."""
    world = listed(eos=[10])  # "6" ends too
    assert world.eos == (10, 2)
    (prompt,) = [p for p in world.next(20) if p.columns["answer"] == "7"][:1]
    seven, six, pad = 11, 10, 0
    answers = [[seven, 2], [seven, six], [seven], [seven, pad], [pad, seven, 2], [seven, 2, seven]]
    assert world.score([prompt] * 6, answers).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert world.scored.texts == ["7", "7", "7", "7<pad>", "<pad>7", "7<eos>7"]
    assert world.solution(prompt) == [seven, six]  # what was given first


def test_ends_of_the_world_the_tokenizer_and_the_model_are_one_set() -> None:
    world = listed(eos=10)
    world.fit(None, (1, 2))
    assert world.eos == (10, 2, 1)
    assert listed(tokenizer=without_eos(), eos=[5], rows=ROWS[:3]).eos == (5,)
    assert listed(eos=[]).eos == listed().eos == (2,)


def test_lengths_that_nobody_gave() -> None:
    assert [usual_length(n) for n in (None, 4096, 512, 511, 100, 1)] == [256, 256, 256, 255, 50, 1]
    world = listed(max_completion_length=0)
    assert world.max_completion_length == 256
    world.fit(100)
    assert world.max_completion_length == 50
    fixed = listed()
    fixed.fit(100)
    assert fixed.max_completion_length == 4


def test_without_rewards_there_is_nothing_to_score() -> None:
    world = listed(rewards=None)
    assert world.solution(world.next(1)[0])
    with pytest.raises(UsageError, match=r"no reward of its own: give one with reward \(--reward FILE"):
        world.score(world.next(1), [[2]])
    world.close()


def test_prompts_that_were_trained_on_can_be_asked() -> None:
    world = listed(held_out=5)
    trained = world.held_out(0, "train")
    assert world.held_out(3, "train") == trained[:3]
    assert {p.index for p in trained} == {p.index for p in world.next(15)}
    task = LanguageWorld("sort", n_prompts=3)
    assert task.held_out(3, "train") == sorted(task.next(3), key=lambda p: p.index)


def test_conversations_go_through_the_template() -> None:
    seen: dict[str, Any] = {}

    def spy(completions: list[Any], prompts: list[Any], **_: Any) -> list[float]:
        seen.update(completions=completions, prompts=prompts)
        return [0.0] * len(completions)

    world = listed(CHATS, tokenizer=chatty(), rewards=[exact_match, spy])
    (prompt,) = world.next(1)
    text = prompt.content[0]["content"]
    assert world.encode(prompt) == TOKENIZER(f"<{text}>!", add_special_tokens=False)["input_ids"]
    assert world.score([prompt], [world.solution(prompt)]).tolist() == [1.0]
    assert seen["completions"] == [[{"role": "assistant", "content": prompt.columns["answer"]}]]
    assert seen["prompts"] == [prompt.content]
    with pytest.raises(UsageError, match="no chat template"):
        listed(CHATS)
    tools = [{"prompt": [{"role": "tool", "content": "1"}], "answer": "1"}]
    with pytest.raises(UsageError, match="template refuses the conversation of row 0: no tools"):
        listed(tools, tokenizer=chatty())


def test_an_alphabet_of_the_prompts_and_their_answers() -> None:
    world = listed([{"prompt": "né?", "answer": "oui", "level": "Z"}], tokenizer=None)
    assert set(world.tokenizer.get_vocab()) == {*SPECIAL, *"né?oui"}
    assert listed(CHATS[:0] + ROWS, tokenizer=None).tokenizer("7")["input_ids"] == [1, 12]


def test_prompts_set_aside_are_never_trained_on() -> None:
    world = listed(held_out=5, seed=2)
    aside = world.held_out()
    assert len(aside) == 5
    assert aside == listed(held_out=5, seed=9).held_out()  # the same ones in every run
    assert world.held_out(2) == aside[:2]
    trained = {prompt.index for prompt in world.next(45)}
    assert trained | {p.index for p in aside} == set(range(20))
    assert not trained & {p.index for p in aside}
    other = listed(held_out=[{"prompt": "9+9=", "answer": "18"}])
    assert [p.content for p in other.held_out()] == ["9+9="]
    for world, n, split, words in (
        (listed(), 0, "held_out", "no prompts were set aside"),
        (other, 2, "held_out", "1 prompts were set aside to evaluate on, not 2"),
        (other, 1, "larger", "two splits"),
    ):
        with pytest.raises(UsageError, match=words):
            world.held_out(n, split)


def test_prompts_must_leave_room_for_completions() -> None:
    rows = [*ROWS, {"prompt": "0" * 20, "answer": "0"}]
    world = listed(rows)
    world.fit(None)
    world.fit(25)
    for context, words in (
        (24, r"row 20 has 21 tokens; a context of 24 and max_completion_length 4 leave 20"),
        (4, "leaves no room"),
    ):
        with pytest.raises(UsageError, match=words):
            listed(rows).fit(context)
    endless = LanguageWorld("sort")
    endless.fit(10 + endless.max_completion_length)
    endless.encode(endless.next(1)[0])
    endless.fit(2 + endless.max_completion_length)
    with pytest.raises(UsageError, match="row 1 has"):
        endless.encode(endless.next(1)[0])


def test_prompts_are_tokenized_and_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a model is fitted to them, and a state is asked for."""
    calls: Counter[str] = Counter()

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(world, "encode_prompt", counted("encode", world.encode_prompt))
    monkeypatch.setattr(prompts, "hashlib", SimpleNamespace(sha256=counted("hash", hashlib.sha256)))
    found = listed(held_out=5)
    for context in (25, 25, None, 9):
        found.fit(context, (1,))
        state = found.state_dict()
        found.load_state_dict(state)
    assert calls == {"encode": len(ROWS), "hash": 1}
    with pytest.raises(UsageError, match="row 0 has 5 tokens; a context of 8"):
        found.fit(8)


def without_eos() -> Any:
    tokenizer = character_tokenizer("0123456789+=")
    tokenizer.eos_token = None
    return tokenizer


def adds_eos() -> Any:
    import tokenizers

    tokenizer = character_tokenizer("0123456789+=")
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": "parityy"}, "'parityy' is no task and no file of prompts: did you mean parity"),
        ({"rows": "no.jsonl"}, "there is no file no.jsonl"),
        ({"rows": [{"question": "a"}]}, "did you mean question"),
        ({"rewards": Rewards(lambda completions, level: 0)}, "reward reward needs a column 'level'"),
        ({"max_completion_length": -1}, "above 0 .*, got -1"),
        ({"tokenizer": without_eos()}, "no EOS token"),
        ({"tokenizer": adds_eos()}, "ends the prompt of row 0 with its EOS"),
        ({"eos": [], "tokenizer": without_eos()}, "no EOS token"),
        ({"reward_weights": [1.0, 2.0]}, "1 reward functions need as many weights, got 2"),
        ({"rewards": None, "reward_weights": [1.0]}, "reward_weights and no reward"),
        ({"rewards": Rewards(exact_match), "reward_weights": [1.0]}, "weights of their own"),
        ({"eos": [2, 99]}, "eos 99 is no token of the tokenizer, which has 19"),
        (
            {"rows": [*ROWS, {"prompt": "2·2=", "answer": "4"}]},
            "does not know a part of the prompt of row 20: '2·2='",
        ),
        ({"n_prompts": 3}, "n_prompts is for tasks"),
        ({"options": {"sizes": (1, 2)}}, "options are for tasks"),
        ({"rows": parity(), "options": {"sizes": (1, 2)}}, "given by name: leave out sizes"),
        ({"rows": parity(), "held_out": 3}, "its own held-out problems"),
        ({"held_out": 20}, "leave some of the 20 prompts to train on, got 20"),
        ({"held_out": -1}, "got -1"),
        ({"held_out": ["1+1="]}, "held-out prompts have no column 'answer'"),
        ({"held_out": CHATS}, "conversations or texts as the others are"),
        ({"held_out": [{"prompt": "", "answer": ""}]}, "row 0 is empty"),
    ],
)
def test_bad_worlds_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        listed(**arguments)


def test_demonstrations_that_cannot_be() -> None:
    for rows, words in (
        ([{"prompt": "1"}], "row 0 has no demonstration"),
        (
            [{"prompt": "1", "answer": "12345"}],
            "answer of row 0 has 6 tokens, more than max_completion_length 4",
        ),
        ([{"prompt": "1", "solution": "x"}], "does not know a part of the solution of row 0"),
    ):
        world = listed(rows, rewards=lambda completions: [0.0] * len(completions))
        with pytest.raises(UsageError, match=words):
            world.solution(world.next(1)[0])
    chat = [{"prompt": "1", "completion": [{"role": "assistant", "content": "2"}]}]
    world = listed(chat, rewards=lambda completions: [0.0] * len(completions))
    assert world.solution(world.next(1)[0]) == [6, 2]


def test_a_reward_that_fails_stops_the_world_by_name() -> None:
    def careless(completions: list[str], **_: Any) -> list[float]:
        return [int(one) for one in completions]

    world = listed(rewards=careless)
    with pytest.raises(TrainingError, match=r"reward careless failed on 1 of 1 .*ValueError.*on ''"):
        world.score(world.next(1), [[2]])
    world.close()
