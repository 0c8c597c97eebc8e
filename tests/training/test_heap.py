"""Memory that was freed is there again without a fault of the processor."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pgrad.training import heap

PROGRAM = """
import resource, runpy, sys
keep = runpy.run_path(sys.argv[1])["keep_freed_memory"]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [bytearray(b"x") * 2**20 for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
keep()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_is_kept() -> None:
    """20 rounds of 8 MB are 40,960 pages of 4 kB."""
    command = [sys.executable, "-c", PROGRAM, str(Path(heap.__file__))]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    before, after = map(int, found.stdout.split())
    assert before > 10_000
    assert after < 1_000
