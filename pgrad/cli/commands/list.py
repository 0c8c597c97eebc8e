"""`pgrad list [PATTERN]`."""

import textwrap
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

from tyro.conf import Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.parse import parse
from pgrad.cli.summary import summary
from pgrad.errors import UsageError
from pgrad.worlds.language.tasks import TASKS
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS

FAMILIES = (
    ("classic control", "gymnasium.envs.classic_control", "pygame", "pygame-ce"),
    ("toy text", "gymnasium.envs.toy_text", "pygame", "pygame-ce"),
    ("Box2D", "gymnasium.envs.box2d", "Box2D", "pgrad[box2d]"),
    ("MuJoCo", "gymnasium.envs.mujoco", "mujoco", "pgrad[mujoco]"),
    ("Atari", "ale_py", "ale_py", "pgrad[atari]"),
    ("MiniGrid", "minigrid", "minigrid", "minigrid"),
)
"""Name, where its environments are defined, the package it needs, what installs that."""

REASONING_GYM = "reasoning-gym:NAME"
"""The problems of a package, by its own names."""


@dataclass(frozen=True)
class List:
    """The algorithms, the tensor worlds, the tasks and the Gymnasium environments there are."""

    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]", help_behavior_hint="(optional)")] = ""
    """list all worlds whose name contains this, instead"""


def run(args: list[str]) -> int:
    """Print the list."""
    given: List = parse(List, "list", args)
    if given.pattern:
        every = (*TENSOR_WORLDS, *TASKS, REASONING_GYM, *_registered())
        found = [name for name in every if given.pattern.lower() in name.lower()]
        if not found:
            raise UsageError(f"no world has {given.pattern!r} in its name")
        print("\n".join(found))
        return 0
    print("algorithms (pgrad train ALGORITHM WORLD)")
    width = max(map(len, ALGORITHMS))
    for name, algorithm in ALGORITHMS.items():
        print(f"  {name:<{width}} {summary(algorithm)}")
    print("\ntensor worlds (all environments advance in a few tensor operations, on any device)")
    names = ", ".join(TENSOR_WORLDS)
    print(textwrap.fill(names, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    print("\ntasks for language models (pgrad train grpo parity --model scratch:tiny, or a model's folder)")
    tasks = ", ".join([*TASKS, REASONING_GYM])
    print(textwrap.fill(tasks, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    print("  or a file of prompts: .jsonl, .json, .csv, .parquet, with --reward FILE.py:FUNCTION")
    print("\nGymnasium environments")
    registered = _registered()
    for name, module, package, install in FAMILIES:
        ids = _newest([key for key, entry in registered.items() if entry.startswith(module)])
        if find_spec(package) is None:
            print(f"  {name:<16} not installed: pip install '{install}'")
        elif ids:
            print(f"  {name:<16} {', '.join(ids[:4])}{f', ... ({len(ids)})' if len(ids) > 4 else ''}")
    print("\nAll worlds with something in their name: pgrad list cart. In Python, factories are worlds too.")
    return 0


def _registered() -> dict[str, str]:
    """Every id that Gymnasium knows, with the module that defines it."""
    import gymnasium

    for package in ("ale_py", "minigrid"):
        if find_spec(package):
            gymnasium.register_envs(import_module(package))
    return {key: str(spec.entry_point) for key, spec in gymnasium.registry.items()}


def _newest(ids: list[str]) -> list[str]:
    """One id of each name, with its highest version; of Atari games only those in their own namespace."""
    newest: dict[str, tuple[int, str]] = {}
    for key in [key for key in ids if key.startswith("ALE/")] or ids:
        name, _, version = key.rpartition("-v")
        newest[name] = max(newest.get(name, (-1, "")), (int(version) if version.isdigit() else 0, key))
    return [key for _, key in newest.values()]
