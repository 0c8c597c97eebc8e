"""A GPU that is not there: tensors that say they are on it, with their values, and what is waited for.

Everything runs with its real values, so that whole trainings do. Tensors of different devices do not mix, and
values of the pretended device cannot be looked at without being noted, as on a real one.
"""

import collections
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
LOOKS = {  # answers of a shape, or values in Python, that depend on values
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.is_nonzero.default,
}
MOVES = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default, aten.set_.source_Tensor}
INDICES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
REAL_GENERATOR = torch.Generator


class OnDevice(Tensor):
    """A tensor on `device`, whose numbers are those of `inner`. To C++ it is on the device "meta"."""

    inner: Tensor
    where: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, where: torch.device) -> "OnDevice":
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            inner.stride(),
            inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
            requires_grad=False,
        )

    def __init__(self, inner: Tensor, where: torch.device) -> None:
        self.inner, self.where = inner, where

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.where

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.inner}, {self.where})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} ran outside of the pretended machine")


class Machine:
    """What happened on it: how often each line of pgrad waited for the device, or sent something to it."""

    def __init__(self) -> None:
        self.waits: collections.Counter[str] = collections.Counter()
        self.sent: collections.Counter[str] = collections.Counter()

    def clear(self) -> None:
        self.waits.clear()
        self.sent.clear()

    def waited(self, what: str) -> None:
        self.waits[f"{line()} {what}"] += 1


def line() -> str:
    """The innermost line of pgrad that is being run."""
    frame = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if "/pgrad/" in name:
            return f"{name.rpartition('/pgrad/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def named(device: Any) -> torch.device | None:
    """The pretended device that is meant, if one is."""
    if device is None or isinstance(device, int):
        return None
    device = torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else None


class Dispatch(TorchDispatchMode):
    """Runs every operation on the numbers, and holds the devices apart."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.asked: list[torch.device] = []  # by the Python function that is running

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten._foreach_copy_.default:  # one by one, where devices differ
            for pair in zip(*args[:2], strict=True):
                self.__torch_dispatch__(aten.copy_.default, types, pair)
            return None
        flat = parts((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, OnDevice)]
        target = kwargs.get("device")
        where = None
        if target is not None:
            kwargs["device"] = torch.device("cpu")
            if target.type == "meta":
                where = there[0].where if there and not self.asked else self.asked[-1]
                if where.type == "meta":  # it is what is meant
                    return func(*args, **{**kwargs, "device": target})
        elif there:
            where = there[0].where
        if func not in MOVES:
            self.require_one_device(func, args, tensors, there)
        self.note(func, args, kwargs, there, where, target)
        inside_args, inside_kwargs = tree_map_only(OnDevice, lambda x: x.inner, (args, kwargs))
        answer = func(*inside_args, **inside_kwargs)
        if func is aten.copy_.default:
            return args[0]
        if where is None:
            return answer
        wrapped = tree_map_only(
            Tensor, lambda x: x if isinstance(x, OnDevice) else OnDevice(x, where), answer
        )
        if func in LOOKS or target is not None:
            return wrapped
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    def require_one_device(self, func: Any, args: Any, tensors: list[Any], there: list[Any]) -> None:
        if not there:
            return
        strangers = [x for x in tensors if not isinstance(x, OnDevice) and x.ndim > 0]
        if func in INDICES and isinstance(args[0], OnDevice):
            values = {id(x) for x in parts(args[1])}  # indices may come from the CPU, and are sent
            strangers = [x for x in strangers if id(x) not in values]
            for x in parts(args[1]):
                if isinstance(x, Tensor) and not isinstance(x, OnDevice):
                    self.machine.sent[f"{line()} {func}"] += 1
        changed = args and isinstance(args[0], Tensor) and not isinstance(args[0], OnDevice)
        inplace = func._schema.name.endswith("_") and changed
        places = {str(x.where) for x in there}
        if strangers or len(places) > 1 or inplace:
            shapes = [(list(x.shape), str(x.device)) for x in tensors]
            raise RuntimeError(f"{func}: tensors on different devices: {shapes}, at {line()}")

    def note(self, func: Any, args: Any, kwargs: Any, there: list[Any], where: Any, target: Any) -> None:
        if there and func in LOOKS:
            self.machine.waited(str(func))
        if there and func in INDICES:
            for x in parts(args[1]):
                if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8):
                    self.machine.waited(str(func))
        if func is aten._to_copy.default and target is not None:
            if there and where is None:
                if kwargs.get("non_blocking"):
                    raise RuntimeError(f"nobody waits for a copy to the CPU at {line()}")
                self.machine.waited("to cpu")
            elif where is not None and not there:
                if not (kwargs.get("non_blocking") and hasattr(args[0], "is_pretended_pinned")):
                    self.machine.sent[f"{line()} to {where}"] += 1
            elif there and where != there[0].where:
                self.machine.sent[f"{line()} to {where}"] += 1
        if func is aten.copy_.default:
            target_there, source_there = (isinstance(x, OnDevice) for x in args[:2])
            if source_there and not target_there:
                self.machine.waited("copy_ to cpu")
            elif target_there and not source_there:
                self.machine.sent[f"{line()} copy_"] += 1


def parts(tree: Any) -> list[Any]:
    """The leaves of arguments."""
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in parts(part)]
    return parts(list(tree.values())) if isinstance(tree, dict) else [tree]


class Function(TorchFunctionMode):
    """Turns the device that a Python function is asked for into one that C++ knows."""

    def __init__(self, dispatch: Dispatch) -> None:
        super().__init__()
        self.dispatch, self.machine = dispatch, dispatch.machine

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, OnDevice):
            if func == Tensor.data.__set__:  # type: ignore[attr-defined]
                func(*args, **kwargs)
                first.inner, first.where = args[1].inner, args[1].where
                return None
            copies = name == "numpy" and kwargs.get("force")
            if copies or name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__"):
                self.machine.waited(name)
                return getattr(first.inner, name)(**kwargs)
            if name in ("numpy", "__array__", "pin_memory"):
                raise TypeError(f"{name} of a tensor on {first.where}")
            if name == "is_pinned":
                return False
            if name == "cpu":
                return first.to("cpu")
        if name == "pin_memory":
            pinned = first.clone()
            pinned.is_pretended_pinned = True
            return pinned
        if isinstance(first, Tensor) and name == "cuda":
            return first.to("cuda")
        if (chosen := kwargs.get("generator")) is not None:
            place = first.where if isinstance(first, OnDevice) else named(kwargs.get("device"))
            if chosen.device != (place or torch.device("cpu")):
                raise RuntimeError(f"{name}: a generator on {chosen.device} for tensors on {place or 'cpu'}")
        if name == "tensor" and (where := named(kwargs.get("device"))) is not None:
            self.machine.sent[f"{line()} tensor"] += 1
            with torch._C.DisableTorchFunction():
                made = func(*args, **{**kwargs, "device": "cpu"})
            return OnDevice(made, where)
        asked = None
        if (where := named(kwargs.get("device"))) is not None:
            asked, kwargs["device"] = where, torch.device("meta")
        if name == "to":
            changed = []
            for arg in args[1:]:
                if isinstance(arg, str | torch.device) and (where := named(arg)) is not None:
                    asked, arg = where, torch.device("meta")
                elif isinstance(arg, OnDevice):
                    raise NotImplementedError("to(other)")
                changed.append(arg)
            args = (first, *changed)
            if asked is not None and isinstance(first, OnDevice) and asked == first.where:
                kwargs.pop("device", None)
                args = (first, *[x for x in changed if not isinstance(x, torch.device)])
                if len(args) == 1 and not (set(kwargs) - {"non_blocking"}):
                    return first
                asked = None
        if asked is None:
            if (device := kwargs.get("device")) is not None and torch.device(device).type == "meta":
                asked = torch.device("meta")
            else:
                asked = next((x.where for x in parts((args, kwargs)) if isinstance(x, OnDevice)), None)
        if asked is None:
            return func(*args, **kwargs)
        self.dispatch.asked.append(asked)
        try:
            return func(*args, **kwargs)
        finally:
            self.dispatch.asked.pop()


class Generator(REAL_GENERATOR):
    """A generator on a device that is not there; its state is of another size than a CPU's, as a GPU's is."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._where = named(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._where or torch.device("cpu")

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(seed)
        return self

    def get_state(self) -> Tensor:
        state = super().get_state()
        return state if self._where is None else torch.cat([state, state.new_zeros(1)])

    def set_state(self, state: Tensor) -> "Generator":
        if isinstance(state, OnDevice):
            raise TypeError("a generator's state must be on the CPU")
        if len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size")
        super().set_state(state if self._where is None else state[:-1].clone())
        return self


@contextmanager
def pretended(count: int = 2) -> Iterator[Machine]:
    """As if there were `count` GPUs."""
    machine = Machine()
    dispatch = Dispatch(machine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: count)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**33, 2**34))
        found = SimpleNamespace(name="imaginary", total_memory=2**34)
        patch.setattr(torch.cuda, "get_device_properties", lambda *_: found)
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get("Generator") is REAL_GENERATOR:
                patch.setattr(module, "Generator", Generator)
        with dispatch, Function(dispatch):
            yield machine
