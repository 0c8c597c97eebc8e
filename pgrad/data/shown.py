"""Tensors as arrays, without asking twice."""

from typing import Any

from numpy.typing import NDArray
from torch import Tensor


class Numpy:
    """x ↦ x.numpy(force=True), remembered until another tensor comes, where it is the tensor's own memory.

    Most who answer with tensors do so with the same ones every time, and right after a simulator a call of
    torch takes several times as long as it would else.
    """

    __slots__ = ("_array", "_tensor")

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._array: Any = None

    def __call__(self, x: Tensor) -> NDArray[Any]:
        """The numbers of x."""
        if x is not self._tensor:
            self._tensor, self._array = x if x.is_cpu else None, x.numpy(force=True)
        array: NDArray[Any] = self._array
        return array
