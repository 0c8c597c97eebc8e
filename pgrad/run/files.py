"""Files that a run reads beside its own folder: found from anywhere, and known by what is in them."""

import dataclasses
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.config import RunConfig
from pgrad.worlds.language.files import READERS
from pgrad.worlds.language.load import split_reward

FILES = "files"
"""Where config.json keeps the SHA-256 of each file."""


def located(config: RunConfig) -> RunConfig:
    """The configuration with files and folders by their whole path: it goes on from anywhere."""
    agent, options, kwargs = config.agent, config.options, config.world_kwargs
    if isinstance(agent, LanguageSpec) and not agent.is_scratch:
        agent = dataclasses.replace(agent, model=_folder(agent.model))
    if options.init_from is not None:
        options = dataclasses.replace(options, init_from=_folder(options.init_from))
    if "held_out" in kwargs:
        kwargs = {**kwargs, "held_out": whole_path(kwargs["held_out"])}
    world, reward = whole_path(config.world), whole_reward(config.reward)
    return dataclasses.replace(
        config, world=world, reward=reward, agent=agent, options=options, world_kwargs=kwargs
    )


def whole_path(source: Any) -> Any:
    """The whole path of a file of prompts that is there; anything else as it is."""
    if not isinstance(source, str | Path) or Path(source).suffix not in READERS:
        return source
    path = Path(source).expanduser()
    return str(path.absolute() if path.is_file() else source)


def whole_reward(reward: Any) -> Any:
    """The same in "file.py:function", and in each of several."""
    if isinstance(reward, list | tuple):
        return [whole_reward(one) for one in reward]
    path, name = split_reward(reward) if isinstance(reward, str) else ("", "")
    if not path or not Path(path).expanduser().is_file():
        return reward
    return f"{Path(path).expanduser().absolute()}:{name}"


def digests(config: RunConfig) -> dict[str, str]:
    """The SHA-256 of every file of prompts or rewards."""
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in sorted(_named(config))}


def require_files(config: RunConfig, saved: Mapping[str, str]) -> None:
    """Compare the files of a run with those that it began with.

    Raises UsageError where one is not there any more, or prompts have changed; warns of other rewards.
    """
    for path in sorted(_named(config, missing=True)):
        if path not in saved:
            continue
        if not Path(path).is_file():
            raise UsageError(f"{path}, which this run reads, is not there any more: put it back")
        if hashlib.sha256(Path(path).read_bytes()).hexdigest() == saved[path]:
            continue
        if Path(path).suffix in READERS:
            raise UsageError(f"{path} has changed since this run began: its prompts are not the same")
        told = f"{path} has changed since this run was saved: it goes on with other rewards"
        warnings.warn(told, stacklevel=3)


def warn_of_changes(config: RunConfig, saved: Mapping[str, str]) -> None:
    """Warn of every file of a run that is another than when it was trained."""
    now = digests(config)
    for path in sorted(saved.keys() & now.keys()):
        if saved[path] != now[path]:
            warnings.warn(
                f"{path} has changed since this run was trained (SHA-256 {saved[path][:8]} then, "
                f"{now[path][:8]} now): answers are to what it is now",
                stacklevel=3,
            )


def _named(config: RunConfig, missing: bool = False) -> set[str]:
    """Every file that is named, unless it is not there and `missing` ones are not asked for."""
    rewards = config.reward if isinstance(config.reward, list | tuple) else [config.reward]
    found = [split_reward(one)[0] for one in rewards if isinstance(one, str)]
    sources = [config.world, config.world_kwargs.get("held_out")]
    found += [one for one in sources if isinstance(one, str) and Path(one).suffix in READERS]
    return {path for path in found if path and (missing or Path(path).is_file())}


def _folder(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else name
