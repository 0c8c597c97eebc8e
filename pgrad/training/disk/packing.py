"""A state as strict JSON beside named tensors, and back, exactly.

Tensors are taken out and named by their JSON pointer (RFC 6901): {"$tensor": "/agent/body.0.weight"}
stands in their place. What JSON cannot say is marked likewise: infinities and NaN {"$float": "inf"},
integers that some JSON readers would round {"$int": "0x..."}.
"""

import math
from pathlib import Path
from stat import S_IMODE
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

EXACT = 2**53  # up to here every JSON reader keeps an integer exactly
MARKERS = ("$tensor", "$float", "$int")


def pack(value: Any, name: str, tensors: dict[str, Tensor] | None) -> Any:
    """`value` as strict JSON, its tensors added to `tensors`; None where tensors are not allowed.

    Raises TypeError, naming the place, for anything but dicts with string keys, lists, tensors and plain
    values: a NumPy number or a tuple would come back as something else.
    """
    if isinstance(value, Tensor) and tensors is not None:
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str or key in MARKERS:
                raise TypeError(
                    f"{name or 'the state'} has the key {key!r}; keys are strings other than {MARKERS}"
                )
        return {key: pack(part, f"{name}/{_escape(key)}", tensors) for key, part in value.items()}
    if type(value) is list:
        return [pack(part, f"{name}/{index}", tensors) for index, part in enumerate(value)]
    if type(value) is float and not math.isfinite(value):
        return {"$float": str(value)}
    if type(value) is int and abs(value) > EXACT:
        return {"$int": hex(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    also = "" if tensors is None else " and tensors"
    raise TypeError(
        f"{name} is a {kind}; allowed are None, bool, int, float, str, dicts and lists of them{also}"
    )


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$float" in value:
        return float(value["$float"])
    if "$int" in value:
        return int(value["$int"], 16)
    return {key: unpack(part, tensors) for key, part in value.items()}


def for_disk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and sharing no memory, which safetensors refuses."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """As safetensors, to be read by whoever may read new files; its own are for their owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(S_IMODE(mode))
