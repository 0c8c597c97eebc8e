"""Checkpoints: every state comes back exactly, in files that others can read, and the latest k stay."""

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pgrad.training.disk.checkpoint import (
    checkpoint_info,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from pgrad.training.disk.packing import MARKERS

DTYPES = {
    torch.float64: 8,
    torch.float32: 4,
    torch.float16: 2,
    torch.bfloat16: 2,
    torch.int64: 8,
    torch.int32: 4,
    torch.int16: 2,
    torch.int8: 1,
    torch.uint8: 1,
    torch.bool: 1,
}


def same(a: Any, b: Any) -> bool:
    """Equal in type, order of keys and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        bits_a, bits_b = (x.contiguous().flatten().view(torch.uint8) if x.numel() else x for x in (a, b))
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits_a, bits_b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a != a and b != b if a != a else struct.pack("d", a) == struct.pack("d", b)
    return bool(a == b)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = int(np.prod(shape, dtype=int)) * DTYPES[dtype]
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype is torch.bool:
        data = bytearray(x & 1 for x in data)
    flat = torch.frombuffer(data, dtype=dtype) if size else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    return tensor.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor


PLAIN = st.none() | st.booleans() | st.integers() | st.integers(-(2**700), 2**700) | st.floats() | st.text()
KEYS = st.text(max_size=5).filter(lambda key: key not in MARKERS)
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        tensors() | PLAIN,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("/~.a$", max_size=4), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(STATES)
@settings(max_examples=80)
def test_every_state_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path = save_checkpoint(folder, state, info={"timesteps": 7, "best": float("-inf")})
    loaded, info = load_checkpoint(path)
    assert same(loaded, state)
    assert info == checkpoint_info(path) == {"timesteps": 7, "best": float("-inf")}
    shutil.rmtree(folder)


def test_a_run_state_with_generators_views_and_shared_memory(tmp_path: Path) -> None:
    flat = torch.arange(10.0)
    numpy_generator = np.random.Generator(np.random.PCG64(3))
    numpy_generator.random(5)
    state = {
        "agent": {"a": flat[:4].view(2, 2), "b": flat[4:], "tied": flat[4:], "all": flat},
        "generator": torch.Generator().manual_seed(5).get_state(),
        "numpy": numpy_generator.bit_generator.state,  # its integers have 128 bits
        "mersenne": list(range(624)),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path, state, info={"timesteps": 0}))
    assert same(loaded["agent"], state["agent"])
    again = np.random.Generator(np.random.PCG64())
    again.bit_generator.state = loaded["numpy"]
    assert again.random() == numpy_generator.random()
    assert torch.equal(loaded["generator"], state["generator"])
    assert torch.equal(loaded["parameter"], torch.ones(2))
    loaded["agent"]["b"].zero_()  # what was shared before is loaded apart
    assert loaded["agent"]["tied"].sum() == flat[4:].sum()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(2), "numpy.ndarray"),
        (np.float64(1.0), "numpy.float64"),
        (np.int64(1), "numpy.int64"),
        ((1, 2), "tuple"),
        ({1: 2}, "the key 1"),
        ({"$tensor": "x"}, "the key '$tensor'"),
        (print, "builtin_function_or_method"),
    ],
)
def test_what_would_not_come_back_is_refused_by_place(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(TypeError) as error:
        save_checkpoint(tmp_path, {"world": [0, {"x": value}]}, info={"timesteps": 0})
    assert "/world/1/x" in str(error.value)
    assert words in str(error.value)
    assert checkpoints(tmp_path) == []


def test_files_are_readable_without_pgrad(tmp_path: Path) -> None:
    path = save_checkpoint(
        tmp_path, {"agent": {"a/b": torch.ones(3)}, "x": float("nan")}, info={"timesteps": 12}
    )
    assert path == tmp_path / "000000000012"
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "tensors.safetensors"]
    strict = {"parse_constant": lambda name: pytest.fail(f"{name} is not JSON")}
    manifest = json.loads((path / "manifest.json").read_text(), **strict)
    data = (path / "tensors.safetensors").read_bytes()
    assert manifest["tensors"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["state"] == {"agent": {"a/b": {"$tensor": "/agent/a~1b"}}, "x": {"$float": "nan"}}
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["/agent/a~1b"]["shape"] == [3]


def small(folder: Path, timesteps: int = 1) -> Path:
    state = {"w": torch.arange(3.0) + timesteps, "n": timesteps}
    return save_checkpoint(folder, state, info={"timesteps": timesteps})


def test_who_may_read_new_files_may_read_these(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    path = small(tmp_path)
    assert {file.stat().st_mode for file in path.iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_the_latest_k_stay(tmp_path: Path) -> None:
    for timesteps in range(0, 600, 100):
        small(tmp_path, timesteps)
    assert [int(p.name) for p in checkpoints(tmp_path)] == [300, 400, 500]
    assert [checkpoint_info(p)["timesteps"] for p in checkpoints(tmp_path)] == [300, 400, 500]


def test_going_back_drops_the_abandoned_future(tmp_path: Path) -> None:
    for timesteps in (100, 200, 300):
        small(tmp_path, timesteps)
    small(tmp_path, 250)
    assert [int(p.name) for p in checkpoints(tmp_path)] == [100, 200, 250]
    assert load_checkpoint(latest_checkpoint(tmp_path))[0]["n"] == 250


def test_other_names_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "123").mkdir()
    for timesteps in range(5):
        save_checkpoint(tmp_path, {}, info={"timesteps": timesteps}, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000000004", "123", "notes"]
