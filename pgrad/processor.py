"""What is known of the processor."""

import hashlib
import platform
from functools import cache
from pathlib import Path


@cache
def cpuinfo(*fields: str) -> list[str]:
    """What Linux tells of the processor: its different lines that begin with one of these; else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(fields)})


@cache
def kind() -> str:
    """A name for processors with the same abilities, any of which machine code may use."""
    known = [platform.machine(), *cpuinfo("flags", "Features", "model name")]
    return hashlib.sha256(str(known).encode()).hexdigest()
