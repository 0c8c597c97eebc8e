import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pgrad.errors import UsageError
from pgrad.worlds.language.prompts import load_prompts

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"}]
ROWS = [
    {"prompt": "1+1=", "answer": "2", "level": "easy"},
    {"prompt": "1+1=", "answer": "2", "level": "easy"},
    {"prompt": "2+3=", "answer": "5", "level": "hard"},
]


def write(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"prompts{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8-sig")
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(__import__("pyarrow").Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("kind", [str, Path])
def test_every_file_holds_the_same_prompts(suffix: str, kind: type, tmp_path: Path) -> None:
    found = load_prompts(kind(write(tmp_path, suffix, ROWS)))
    assert found == load_prompts(ROWS)
    assert [row.content for row in found.rows] == ["1+1=", "1+1=", "2+3="]
    assert [row.index for row in found.rows] == [0, 1, 2]  # the double stays, and is another one
    assert found.columns == ("answer", "level")
    assert found.rows[2].columns == {"answer": "5", "level": "hard"}
    assert not found.conversational


def test_a_data_set_is_a_list_of_rows() -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(ROWS)
    assert load_prompts(whole) == load_prompts(ROWS)
    chats = load_prompts(datasets.Dataset.from_list([{"prompt": CHAT}, {"prompt": CHAT[1:]}]))
    assert chats.conversational
    assert chats.rows[0].content == CHAT
    with pytest.raises(UsageError, match="choose one of train, test"):
        load_prompts(datasets.DatasetDict({"train": whole, "test": whole}))
    with pytest.raises(UsageError, match="streamed"):
        load_prompts(whole.to_iterable_dataset())


def test_lists_of_texts_and_of_conversations() -> None:
    assert [row.content for row in load_prompts(["a", "a"]).rows] == ["a", "a"]
    found = load_prompts([CHAT, CHAT[1:]])
    assert found.conversational
    assert found.rows[1].content == CHAT[1:]
    assert load_prompts([{"q": "a", "x": 1}], column="q").rows[0].columns == {"x": 1}


def test_messages_are_a_prompt_and_its_answer() -> None:
    """The last answer is what is demonstrated; a conversation without one has none."""
    turns = [*CHAT, {"role": "assistant", "content": "4"}, {"role": "user", "content": "3+3?"}]
    rows = [
        {"messages": [*turns, {"role": "assistant", "content": "6"}], "level": 1},
        {"messages": turns, "level": 2},
    ]
    found = load_prompts(rows)
    assert [row.content for row in found.rows] == [turns, turns]
    assert [row.columns for row in found.rows] == [
        {"level": 1, "completion": "6"},
        {"level": 2, "completion": None},
    ]
    own = load_prompts([{"prompt": "a", "messages": turns}])
    assert own.rows[0].columns == {"messages": turns}
    for wrong, words in (([], "no column 'prompt'.*there are: messages"), (["a"], "no conversation")):
        with pytest.raises(UsageError, match=words):
            load_prompts([{"messages": wrong}])


def test_a_column_that_a_row_lacks_is_none_there() -> None:
    found = load_prompts([{"prompt": "a", "x": 1}, {"prompt": "b", "y": 2}])
    assert [row.columns for row in found.rows] == [{"x": 1, "y": None}, {"x": None, "y": 2}]


def test_fingerprints_tell_contents_and_orders_apart() -> None:
    prints = [load_prompts(rows).fingerprint for rows in (["a", "b"], ["b", "a"], ["a\nb"], ["a", "b"])]
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "no prompts"),
        (["a", ""], "row 1 is empty"),
        (["a", " \n"], "row 1 is empty"),
        ([{"prompt": "a"}, {"prompt": None}], "row 1 is missing"),
        ([{"prompt": "a"}, {"prompt": float("nan")}], "row 1 is missing"),
        ([{"prompt": 3}], "row 0 is a int: 3"),
        (
            [{"question": "a", "answer": "b"}],
            "no column 'prompt': did you mean question[?] [(]there are: question, answer[)]",
        ),
        ([{"promt": "a", "question": "b"}], "did you mean promt"),
        ([{}], "no column 'prompt' [(]there are: none[)]"),
        ([{"prompt": "a"}, "b"], "row 1 is a str"),
        (["a", {"prompt": "b"}], "row 1 is a dict"),
        (["a", CHAT], "row 1 is a conversation and row 0 is not"),
        ([CHAT, "a"], "row 1 is a text and row 0 is not"),
        (CHAT, "row 0 is a message: give a list of conversations"),
        ([[]], "conversation of row 0 is empty"),
        ([[{"role": "user"}]], "row 0 is no conversation"),
        ([[{"role": "user", "content": None}]], "row 0 is no conversation"),
        ([["a"]], "row 0 is no conversation"),
        ([[*CHAT, {"role": "assistant", "content": "4"}]], "row 0 ends with the assistant"),
        ([{"prompt": "a", "completions": "b"}], "cannot be called 'completions'"),
        (3, "got a int"),
        ({"train": []}, "choose one of train"),
        ([dict, dict], "for environments give one factory, and n_envs"),
    ],
)
def test_bad_prompts_are_named(source: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_prompts(source)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": }\n', "line 2 is not JSON"),
        ("a.json", '{"prompt": "a"}\n{"prompt": "b"}\n', "name it .jsonl"),
        ("a.json", '{"prompt": "a"}', "holds a dict"),
        ("a.csv", "prompt,answer\na,1\nb\n", "line 3 does not have the 2 columns"),
        ("a.csv", "prompt,answer\na,1,2\n", "line 2 does not have the 2 columns"),
        ("a.csv", "question,answer\na,1\n", "did you mean question"),
        ("a.csv", "prompt\n", "no prompts"),
        ("a.jsonl", '{"prompt": NaN}\n', "row 0 is missing"),
        ("a.txt", "a", "none of the files that are read: .jsonl, .json, .csv, .parquet"),
    ],
)
def test_bad_files_are_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        load_prompts(tmp_path / name)


def test_files_that_are_missing_or_not_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"there is no file .*; there are train\.jsonl"):
        load_prompts(tmp_path / "tran.jsonl")
    (tmp_path / "bytes.csv").write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(UsageError, match="cannot read"):
        load_prompts(tmp_path / "bytes.csv")
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="is not Parquet"):
        load_prompts(tmp_path / "a.parquet")
