"""What a run is made with: versions, machine, devices. Nothing heavy is imported to find out the versions."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

from pgrad.processor import cpuinfo

PACKAGES = (
    "pgrad",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "box2d",
    "ale-py",
    "opencv-python-headless",
    "minari",
    "envpool",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "jinja2",
    "pyarrow",
    "math-verify",
    "vllm",
    "reasoning-gym",
    "safetensors",
    "tyro",
    "rich",
    "matplotlib",
    "imageio-ffmpeg",
    "tensorboard",
    "wandb",
)


def versions() -> dict[str, str | None]:
    """Python, platform, processor and packages (None where one is not installed)."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(cores()),
    } | {package: _installed(package) for package in PACKAGES}


def hash_of_sources(*patterns: str) -> str:
    """Of the files of this library that match, as they are on the disk now."""
    found, home = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted({path for pattern in patterns for path in home.glob(pattern)}):
        found.update(path.read_bytes())
    return found.hexdigest()


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usual_threads() -> int:
    """Threads for work that is worth all cores: as many, or fewer where OMP_NUM_THREADS says so."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(limit)) if limit.isdecimal() and int(limit) else cores()


def devices() -> dict[str, str]:
    """The devices that PyTorch can use, by the name it gives them, with a description. Imports torch."""
    import torch

    found = {"cpu": f"{_processor()}, {cores()} cores, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU, memory shared with the processor"
    return found


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    named = cpuinfo("model name")
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
