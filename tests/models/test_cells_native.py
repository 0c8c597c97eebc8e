"""The loops in C++ are those in torch, whatever the shapes, and everything goes on without a compiler."""

import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from pgrad import cache, native
from pgrad.models.cells import CELLS, Cell, gru, lstm
from pgrad.models.cells.native import Loop, library_of
from pgrad.models.cells.row import Row, row
from pgrad.models.cells.steps import Weights, unroll

MODULES = {"gru": gru, "lstm": lstm}
SHAPES = [
    # N, T, B, n, H
    (1, 1, 1, 1, 1),
    (2, 5, 3, 2, 3),
    (2, 4, 9, 70, 8),
    (1, 16, 8, 4, 64),
    (3, 6, 17, 5, 33),
    (2, 3, 20, 3, 100),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_there_is_a_compiler_here() -> None:
    """Else nothing below would be tested."""
    assert all(isinstance(library_of(kind), ctypes.CDLL) for kind in CELLS)


def problem(cell: Cell, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Inputs, where memories go on, first memories and weights, in double precision."""
    N, T, B, n, H = shape
    keep = (torch.rand(T, B, 1) > 0.2).double()
    state = torch.randn(N, B, cell.parts * H, dtype=torch.float64)
    sizes = [(cell.gates * H, n), (cell.gates * H, H), (cell.gates * H,), (cell.gates * H,)]
    weights = [torch.randn(size, dtype=torch.float64) / size[-1] ** 0.5 for _ in range(N) for size in sizes]
    return torch.randn(T, B, n, dtype=torch.float64), keep, state, weights


def as_float(given: object) -> object:
    if given is None:
        return None
    return given.float() if isinstance(given, Tensor) else [x.float() for x in given]  # type: ignore


def close(mine: object, theirs: object) -> None:
    pairs = [(mine, theirs)] if isinstance(mine, Tensor) else zip(mine, theirs, strict=True)  # type: ignore
    for a, b in pairs:
        assert a.dtype is torch.float32
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=2e-5 * (1 + float(b.abs().max())))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_loop_is_the_one_in_torch(kind: str, shape: tuple[int, ...]) -> None:
    """Forwards, back, and forwards again with changes of the weights and, or not, of the inputs' part."""
    cell, module = CELLS[kind], MODULES[kind]
    x, keep, state, weights = problem(cell, shape)
    kept = module.forward(x, keep, weights, state)
    close(module.LAYER.forward(*map(as_float, (x, keep, weights, state))), kept)
    grad = torch.randn_like(kept[0])
    given = grad, keep, weights, x, *kept
    theirs = module.LAYER.pull.written(*given)
    close(module.LAYER.pull(*map(as_float, given)), theirs)
    changes = [torch.randn_like(w) for w in weights]
    for more in (None, torch.randn_like(theirs[0])):
        given = x, keep, weights, changes, more, *kept
        close(module.LAYER.push(*map(as_float, given)), module.LAYER.push.written(*given))


def test_gates_are_exact_to_the_last_digits() -> None:
    """σ from one end to the other, and tanh."""
    x = torch.linspace(-40.0, 40.0, 10_000).view(1, -1, 1)
    n, H = x.shape[1], 16
    weights = [torch.ones(4 * H, 1), torch.zeros(4 * H, H), torch.zeros(4 * H), torch.zeros(4 * H)]
    _, _, c, squashed, gates = lstm.LAYER.forward(x, torch.ones(1, n, 1), weights, torch.zeros(1, n, 2 * H))
    i, _, s, _ = gates.double().chunk(4, -1)
    exactly = x.double().expand_as(i)
    assert float((i - exactly.sigmoid()).abs().max()) < 1.5e-7
    assert float((1 - 2 * s - exactly.tanh()).abs().max()) < 3e-7
    assert float((squashed - c.double().tanh()).abs().max()) < 3e-7


@pytest.mark.parametrize("kind", CELLS)
def test_a_layer_in_single_precision_is_the_plain_steps(kind: str) -> None:
    """Outputs, gradients of weights and inputs, and products with a Gauss-Newton matrix."""
    cell = CELLS[kind]
    x, keep, state, weights = problem(cell, (2, 7, 5, 3, 20))

    def both(function, dtype: torch.dtype) -> list[Tensor]:  # type: ignore[no-untyped-def]
        moving = [w.to(dtype).requires_grad_() for w in (x, *weights)]
        y = function(moving[0], keep.to(dtype), state.to(dtype), *moving[1:])
        draw = Generator().manual_seed(1)
        weight = torch.randn(y.shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
        first = torch.autograd.grad(y, moving, weight, create_graph=True)
        turns = [torch.randn(g.shape, generator=draw, dtype=torch.float64).to(dtype) for g in first]
        (push,) = torch.autograd.grad(first, weight, turns)
        return [y.detach(), *(g.detach() for g in first), push]

    theirs = both(lambda *given: unroll(cell.sequence.step, *given), torch.float64)
    close(both(cell.sequence.apply, torch.float32), theirs)


@pytest.mark.parametrize("kind", CELLS)
def test_columns_do_not_depend_on_their_neighbours(kind: str) -> None:
    """To the last bit, however many there are: minibatches of other sizes give the same numbers."""
    cell, module = CELLS[kind], MODULES[kind]
    x, keep, state, weights = map(as_float, problem(cell, (2, 6, 21, 4, 24)))
    whole = module.LAYER.forward(x, keep, weights, state)  # type: ignore
    part = slice(3, 8)
    alone = module.LAYER.forward(x[:, part], keep[:, part], weights, state[:, part])  # type: ignore
    for a, b in zip(whole, alone, strict=True):
        assert torch.equal(a[:, :, part], b)


@pytest.mark.parametrize("kind", CELLS)
def test_what_is_not_finite_stays_so(kind: str) -> None:
    """NaN spoils its own column only; gates far beyond what exponentials hold are open or closed."""
    cell, module = CELLS[kind], MODULES[kind]
    x, keep, state, weights = map(as_float, problem(cell, (1, 4, 3, 2, 16)))
    keep = torch.ones_like(keep)  # type: ignore
    x[1, 2, 0] = float("nan")  # type: ignore
    y = module.LAYER.forward(x, keep, weights, state)[0]  # type: ignore
    assert y[:, :, :2].isfinite().all()
    assert y[:, :1].isfinite().all()
    assert y[:, 1:, 2].isnan().all()
    huge = [1e4 * w for w in weights]  # type: ignore
    huge[2][:] = float("inf")
    x[1, 2, 0] = 0.0  # type: ignore
    given = x, keep, huge, state
    mine = module.LAYER.forward(*given)
    assert mine[0].isfinite().all()
    double = [[w.double() for w in one] if isinstance(one, list) else one.double() for one in given]  # type: ignore
    assert torch.allclose(mine[0].double(), module.forward(*double)[0], atol=1e-5)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_acting_is_a_row_of_the_sequence(kind: str, shape: tuple[int, ...]) -> None:
    """Memories after a step, those of new episodes from nothing, and what the first cell tells."""
    cell = CELLS[kind]
    x, keep, state, flat = problem(cell, (shape[0], 1, *shape[2:]))
    weights: list[Weights] = [tuple(flat[i : i + 4]) for i in range(0, len(flat), 4)]  # type: ignore
    one = row(cell, [tuple(w.float() for w in own) for own in weights], shape[2])  # type: ignore
    assert isinstance(one, Row)
    before = state.transpose(0, 1)
    found = one(x[0].float().numpy(), before.float(), keep[0, :, 0] == 0)
    theirs = torch.stack(
        [cell.sequence.step(x[0], part * keep[0], *own) for part, own in zip(state, weights, strict=True)], 1
    )
    close(found, theirs)
    H = shape[-1]
    assert torch.equal(one.seen, torch.cat([x[0].float(), found[:, 0, :H]], 1))
    again = one(x[0].float().numpy(), found, keep[0, :, 0] == 2)
    assert again.data_ptr() != found.data_ptr(), "what was seen is still needed"


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new folder, and nothing that was loaded before."""
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path / "kept"))
    native.library.cache_clear()
    yield
    monkeypatch.undo()
    native.library.cache_clear()


@pytest.mark.usefixtures("_elsewhere")
def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where the file was damaged."""
    commands = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: commands.append(args) or run(*args, **more))
    for damaged, runs in ((False, 1), (False, 1), (True, 2)):
        native.library.cache_clear()
        if damaged:
            (path,) = cache.folder().glob("*.so")
            os.replace(_shortened(path), path)
        assert library_of("gru") is not None
        assert len(commands) == runs


def _shortened(path: Path) -> Path:
    other = path.with_suffix(".part")
    other.write_bytes(path.read_bytes()[:-100])
    return other


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("fails", ["no compiler", "no folder", "an error", "no library"])
def test_without_it_torch_takes_the_steps(
    fails: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Said once for each, unless there is just no compiler."""
    expected = {"no folder": "File exists", "an error": "nonsense", "no library": "file too short"}
    if fails == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    elif fails == "no folder":
        (tmp_path / "kept").write_text("a file")
    else:
        text = (
            "echo nonsense >&2; exit 1"
            if fails == "an error"
            else 'while [ "$1" != -o ]; do shift; done; : > "$2"'
        )
        compiler = tmp_path / "compiler"
        compiler.write_text(f"#!/bin/sh\n{text}\n")
        compiler.chmod(0o700)
        monkeypatch.setenv("CXX", str(compiler))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for kind, cell in CELLS.items():
            given = tuple(map(as_float, problem(cell, SHAPES[1])))
            x, keep, state, weights = given
            mine, theirs = (
                f(x, keep, weights, state) for f in (MODULES[kind].LAYER.forward, MODULES[kind].forward)
            )
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
            assert row(cell, [tuple(weights[:4])], 3) is None  # type: ignore
    messages = [str(one.message) for one in told]
    if fails == "no compiler":
        assert not messages
    else:
        assert len(messages) == len(CELLS)
        for kind, message in zip(CELLS, messages, strict=True):
            assert message.startswith(f"{kind}.cpp is not used, and slower steps are taken (")
            assert expected[fails] in message


@pytest.mark.parametrize("kind", CELLS)
def test_a_compiler_that_computes_otherwise_is_not_trusted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answer is compared: told once, and PyTorch's from then on."""
    right = library_of(kind)
    assert right is not None

    class Wrong:
        def __getitem__(self, name: str) -> object:
            def function(*given: ctypes.c_void_p) -> None:
                right[name](*given)
                ctypes.cast(given[-1], ctypes.POINTER(ctypes.c_float))[0] += 1.0

            return function

    wrong = Wrong()
    monkeypatch.setattr(native, "library", lambda _: wrong)
    x, keep, state, weights = map(as_float, problem(CELLS[kind], SHAPES[1]))
    loop, theirs = MODULES[kind].LAYER.forward, MODULES[kind].forward(x, keep, weights, state)
    with pytest.warns(UserWarning, match=f"{kind}.cpp answers otherwise than PyTorch"):
        mine = loop(x, keep, weights, state)
    for found in (mine, loop(x, keep, weights, state)):
        assert all(torch.equal(a, b) for a, b in zip(found, theirs, strict=True))
    monkeypatch.undo()
    assert not torch.equal(loop(x, keep, weights, state)[-1], theirs[-1]), "C++ is back, and rounds otherwise"


def test_importing_it_compiles_nothing() -> None:
    """Who has no memory waits for no compiler."""
    code = "import pgrad; from pgrad import native; print(native.library.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_operations_know_the_shapes_of_their_answers() -> None:
    """What graphs are traced with."""
    for kind, module in MODULES.items():
        x, keep, state, weights = map(as_float, problem(CELLS[kind], SHAPES[1]))
        loop = module.LAYER.forward
        assert isinstance(loop, Loop)
        operation = getattr(torch.ops.pgrad, loop.operation)
        torch.library.opcheck(
            operation, (x, keep, weights, state), test_utils=("test_schema", "test_faketensor")
        )
