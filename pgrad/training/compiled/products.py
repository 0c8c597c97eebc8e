"""Matrix products that the compiler writes itself, where those of torch's library are slower."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pgrad.processor import cpuinfo

OPTIONS = {
    "max_autotune_gemm": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
    # Blocks of rows, columns and terms; with more than one of columns it multiplies by the wrong ones.
    "cpp.gemm_cache_blocking": "32,1,256",
    "epilogue_fusion": False,  # of what follows a product: fails where that is used twice, gains nothing
    # Beside the flag itself: g++ takes the zeros that sums begin with for a block of memory, and writes every
    # sum there at every step, which more than halves its speed.
    "cpp.enable_floating_point_contract_flag": "fast -fno-tree-loop-distribute-patterns",
}
"""Of the compiler, where products may be its own."""

LARGE = 2**21
"""Multiplications from which on a product is worth the half second that the compiler needs for it."""


def own() -> bool:
    """Whether large products are the compiler's own: on one core of an AMD processor with AVX-512.

    The library is made for Intel's processors, and uses nine tenths of another's at best.
    """
    return torch.get_num_threads() == 1 and _library_is_slow()


def is_large(rows: int, columns: int, terms: int) -> bool:
    """Whether that is so of a product [rows, columns] of sums of so many terms."""
    return rows * columns * terms >= LARGE


def _library_is_slow() -> bool:
    by_amd = any("AuthenticAMD" in line for line in cpuinfo("vendor_id"))
    return by_amd and torch.backends.cpu.get_cpu_capability() == "AVX512"


@contextmanager
def chosen_by_size() -> Iterator[None]:
    """Inside, the compiler chooses by size between its own product and the library's, and not by clock."""
    from torch._inductor.select_algorithm import get_algorithm_selector_cache

    functions = get_algorithm_selector_cache().preprocessing_fns
    functions.append(_chosen)
    try:
        yield
    finally:
        functions.remove(_chosen)


def _chosen(choices: list[Any]) -> list[Any]:
    """The compiler's own product where it has one that is large, else the library's."""
    from torch._inductor.select_algorithm import ExternKernelCaller

    made = [one for one in choices if not isinstance(one, ExternKernelCaller) and is_large(*_size(one))]
    return (made or choices)[:1]


def _size(choice: Any) -> tuple[int, int, int]:
    rows, columns = choice.layout.size[-2:]
    return int(rows), int(columns), int(choice.input_nodes[0].get_size()[-1])
