"""What a run is made from, as one record that becomes config.json and back."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pgrad.algorithms import ALGORITHMS, Algorithm, Imitate
from pgrad.algorithms.usual import for_steps, for_text
from pgrad.algorithms.validate import as_whole, require_instance
from pgrad.data.request import SOLUTIONS
from pgrad.errors import CheckpointError, UsageError
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.worlds.language.files import READERS

CUSTOM = "custom"
"""Stands in config.json for what only the caller has: a factory, a module, an algorithm of their own."""

OWN = "own"
"""Where config.json keeps the names of these, by which runs are told apart."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; the numbers that are no algorithm's."""

    total_timesteps: int = 100_000
    """decisions to train on, over all environments; rounded up to whole windows (one an update)"""
    n_envs: int = 8
    """environments side by side"""
    seed: int = 0
    """the one seed that everything random comes from"""
    workers: int = 0
    """processes that step the environments; 0 steps them in this one"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU for images and for large batches of tensor worlds"""
    compile: Literal["auto", "yes", "no"] = "auto"
    """run small networks and their gradient steps as machine code; auto: after 20,000 gradient steps"""
    threads: int = 0
    """threads for PyTorch; 0 takes one for small networks, all cores for images and wide language models"""
    eval_every: int = 0
    """steps between evaluations in fresh worlds while training; 0 for none"""
    eval_episodes: int = 10
    """episodes of each such evaluation"""
    save_every: int = 0
    """steps between checkpoints; 0 for a tenth of the run"""
    log_every: int = 0
    """steps between rows of metrics; 0 for 200 rows (never more than one an update)"""
    keep: int = 3
    """checkpoints to keep"""
    frame_stack: int = 0
    """observations that are shown together; 0 for what is usual: 4 for Atari games, 1 elsewhere"""
    texts_at_once: int = 0
    """completions that one backward pass holds; 0 for a thousand tokens or so (the gradient is the same)"""
    init_from: str | None = None
    """a run (or a checkpoint) whose network, policy and observation normaliser this one begins with"""

    def __post_init__(self) -> None:
        lowest = {"total_timesteps": 1, "n_envs": 1, "eval_episodes": 1, "keep": 1}
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), lowest.get(field.name, 0)
            if field.name == "device":
                if not isinstance(value, str):
                    raise UsageError(f"device must be a name such as 'cpu', 'cuda' or 'auto', got {value!r}")
                continue
            if field.name == "compile":
                if value not in ("auto", "yes", "no"):
                    raise UsageError(f"compile must be 'auto', 'yes' or 'no', got {value!r}")
                continue
            if field.name == "init_from":
                if not isinstance(value, str | None):
                    raise UsageError(f"init_from must be the path of a run or of a checkpoint, got {value!r}")
                continue
            value = as_whole(value)
            object.__setattr__(self, field.name, value)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{field.name} must be a whole number ≥ {least}, got {value!r}")


@dataclass(frozen=True)
class RunConfig:
    """An algorithm, a world, an agent and the options: all that a run starts from."""

    algorithm: Algorithm
    world: Any  # a name, a factory, a vector environment
    agent: Any  # an AgentSpec or a module
    options: RunOptions
    world_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    reward: Any = None  # of prompts: functions, or "file.py:function"

    def __post_init__(self) -> None:
        require_instance(self.algorithm)
        if isinstance(self.agent, type):
            name = self.agent.__name__
            raise UsageError(
                f"agent must be an AgentSpec, a LanguageSpec or a module, got the class {name}: make one, "
                f"{name}()"
            )

    def with_options(self, **changes: Any) -> "RunConfig":
        """The same with some options changed. Raises UsageError as `RunOptions` does."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))

    @property
    def algorithm_name(self) -> str:
        """The command line's name of the algorithm, or its class's where it has none."""
        names = {cls: name for name, cls in ALGORITHMS.items()}
        return names.get(type(self.algorithm), type(self.algorithm).__name__)

    @property
    def world_name(self) -> str:
        """The world's name, of a file without its folder, or the name of whatever makes it."""
        if isinstance(self.world, str):
            return Path(self.world).name if Path(self.world).suffix in READERS else self.world
        return _name(self.world)

    @property
    def own(self) -> dict[str, dict[str, str]]:
        """What is "custom" in `to_json`, with its name: of a function, or of its class; a lambda has none."""
        custom = [key for key, value in self.to_json().items() if value == CUSTOM]
        return {OWN: {key: _name(getattr(self, key)) for key in custom}} if custom else {}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; "custom" stands for what cannot be written. Raises UsageError for such arguments."""
        record = {
            "algorithm": self.algorithm_name,
            "hyperparameters": dataclasses.asdict(self.algorithm),  # type: ignore[call-overload]
            "world": self.world if isinstance(self.world, str) else CUSTOM,
            "world_kwargs": self.world_kwargs,
            "agent": dataclasses.asdict(self.agent)
            if isinstance(self.agent, AgentSpec | LanguageSpec)
            else CUSTOM,
            "options": dataclasses.asdict(self.options),
        }
        if self.reward is not None:
            record["reward"] = self.reward if _named(self.reward) else CUSTOM
        try:
            json.dumps(record)
        except TypeError as error:
            raise UsageError(
                f"the configuration cannot be written into a run directory: {error}; "
                "use plain numbers and strings in world_kwargs and hyperparameters, or a factory as the world"
            ) from None
        return record

    @classmethod
    def from_json(
        cls,
        saved: dict[str, Any],
        algorithm: Any,
        world: Any,
        agent: Any,
        reward: Any = None,
        call: str = "pg.load(DIR",
    ) -> "RunConfig":
        """The record that `to_json` wrote, with what the caller gives in place of what is custom.

        call: how the call begins that is to be made again. Raises UsageError where something custom is not
        given, CheckpointError for an unreadable record.
        """
        try:
            options = RunOptions(**saved["options"])
            found = algorithm  # what was written down is settled
            if algorithm is None and saved["algorithm"] in ALGORITHMS:
                found = ALGORITHMS[saved["algorithm"]](**saved["hyperparameters"])
            if world is None and saved["world"] != CUSTOM:
                world = saved["world"]
            if agent is None and saved["agent"] != CUSTOM:
                agent = _spec(saved["agent"])
            if reward is None and saved.get("reward") != CUSTOM:
                reward = saved.get("reward")
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"config.json does not fit this version of pgrad: {error}") from error
        needed = [("algorithm", found), ("world", world), ("agent", agent)]
        if "reward" in saved:
            needed.append(("reward", reward))
        missing = [name for name, value in needed if value is None]
        if missing:
            given = ", ".join(f"{name}=..." for name in missing)
            raise UsageError(
                f"this run was made with its own {' and '.join(missing)}: give it again, in Python: "
                f"{call}, {given})"
            )
        if algorithm is not None:
            found = settled(algorithm, agent)
        return cls(found, world, agent, options, saved["world_kwargs"], reward)


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """A record with what its pgrad did not know at the defaults, without names. Raises CheckpointError."""
    try:
        full = {key: value for key, value in saved.items() if key != OWN}
        full |= {"options": dataclasses.asdict(RunOptions(**saved["options"]))}
        if saved["algorithm"] in ALGORITHMS:
            algorithm: Any = ALGORITHMS[saved["algorithm"]](**saved["hyperparameters"])
            full["hyperparameters"] = dataclasses.asdict(algorithm)
        if saved["agent"] != CUSTOM:
            full["agent"] = dataclasses.asdict(_spec(saved["agent"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"config.json does not fit this version of pgrad: {error}") from error
    return full


def _spec(saved: dict[str, Any]) -> AgentSpec | LanguageSpec:
    given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in saved.items()}
    return LanguageSpec(**given) if "model" in saved else AgentSpec(**given)


def _name(own: Any) -> str:
    """What a caller's own is called; rewards one after the other."""
    if isinstance(own, list | tuple) and own and all(map(callable, own)):
        return ", ".join(map(_name, own))
    name = getattr(own, "__name__", type(own).__name__)
    return CUSTOM if name == "<lambda>" else str(name)


def _named(reward: Any) -> bool:
    """Whether rewards are given by name, so that they can be written down."""
    return isinstance(reward, str) or (
        isinstance(reward, list | tuple) and all(isinstance(one, str) for one in reward)
    )


def default_spec(algorithm: Algorithm) -> AgentSpec:
    """How an agent is built where nobody says: with the algorithm's own defaults before `AgentSpec`'s."""
    return AgentSpec(**getattr(algorithm, "agent_defaults", {}))


def settled(algorithm: Any, agent: Any) -> Any:
    """The algorithm with what was left open: defaults that are others on text, solutions for texts."""
    require_instance(algorithm)
    if not isinstance(agent, LanguageSpec):
        return for_steps(algorithm)
    if isinstance(algorithm, Imitate) and not algorithm.demonstrations:
        algorithm = dataclasses.replace(algorithm, demonstrations=SOLUTIONS)
    return for_text(algorithm, agent.trained_as)


def resolve_device(name: str, prefers_gpu: bool) -> torch.device:
    """The device to train on. Raises UsageError for one that is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if prefers_gpu and torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:0, ...") from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= available:
        raise UsageError(
            f"device {name!r} is not available: pgrad sees {available} {device.type} device(s); "
            "use cpu or auto"
        )
    return device
