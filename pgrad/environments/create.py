"""From an id or a factory to one `gymnasium.Env`, with every way this can fail told in one line."""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, find_highest_version

from pgrad.environments.atari import is_atari, make_atari
from pgrad.environments.spaces import check_action_space, check_observation_space, declared
from pgrad.errors import UsageError, WorldError
from pgrad.extras import nearest

# Packages that register their environments when imported: pattern of the id, module, what to install.
PACKAGES = (
    (re.compile(r"ALE/|.*(NoFrameskip|Deterministic|-ram).*-v[04]$"), "ale_py", "pgrad[atari]"),
    (re.compile(r"MiniGrid-|BabyAI-"), "minigrid", "minigrid"),
)
MUJOCO = "gymnasium.envs.mujoco"
# What a registered environment needs: start of its module, the extra.
EXTRAS = ((MUJOCO, "mujoco"), ("gymnasium.envs.box2d", "box2d"), ("ale_py", "atari"))


@dataclass(frozen=True)
class Recipe:
    """How to make one environment, as often as wanted; sent to worker processes by cloudpickle."""

    source: EnvSpec | Callable[..., gymnasium.Env]
    kwargs: dict[str, Any]
    render: bool

    @property
    def name(self) -> str:
        """The id, or what the factory is called."""
        if isinstance(self.source, EnvSpec):
            return self.source.id
        return getattr(self.source, "__name__", type(self.source).__name__)


def find(name: str, others: tuple[str, ...] = ()) -> EnvSpec:
    """The registered environment `name`, such as "CartPole-v1" or "module:Name-v0".

    The module may lie in the working directory. Raises UsageError for a name that does not exist (with the
    nearest of the registry and of `others`), has been withdrawn or needs a package that is not installed.
    Warns where there is a later version.
    """
    module, _, plain = name.rpartition(":")
    if module.endswith(".py"):
        raise UsageError(f"{name!r} is no world: {_registered(Path(module).stem, plain)} in its folder")
    if module:
        if not {"", here := os.getcwd()} & {*sys.path}:
            sys.path.append(here)  # last, so that nothing there hides what is installed
        _import(module, f"'{module}' of {name!r} cannot be imported")
    for pattern, package, install in PACKAGES:
        if plain not in gymnasium.registry and pattern.match(plain):
            _import(package, f"{plain} needs {package}: pip install '{install}'")
    try:
        spec = gymnasium.spec(plain)
    except (gymnasium.error.DeprecatedEnv, gymnasium.error.VersionNotFound) as error:
        raise UsageError(_line(str(error))) from None
    except gymnasium.error.Error as error:
        if module and hasattr(sys.modules[module], plain):
            raise UsageError(f"{name!r} is no world: {_registered(module, plain)}") from None
        known = gymnasium.registry if module else (*gymnasium.registry, *others)
        near = nearest(plain, known, 3, before=f"{module}:" if module else "")
        raise UsageError(f"unknown world {name!r}: {near or _line(str(error))}") from None
    latest = find_highest_version(spec.namespace, spec.name)
    if latest is not None and spec.version is not None and latest > spec.version:
        warnings.warn(f"{spec.id} is out of date: the latest version is v{latest}", stacklevel=3)
    return spec


def create(recipe: Recipe) -> gymnasium.Env:
    """One environment.

    Raises UsageError for a missing extra or wrong arguments, WorldError where the environment itself fails.
    """
    source, kwargs = recipe.source, dict(recipe.kwargs)
    if recipe.render and (isinstance(source, EnvSpec) or _takes_render_mode(source)):
        kwargs.setdefault("render_mode", "rgb_array")
    try:
        with _quiet(recipe):
            if isinstance(source, EnvSpec) and is_atari(source):
                env = make_atari(source, {"disable_env_checker": True, **kwargs})
            elif isinstance(source, EnvSpec):
                plain = replace(source, order_enforce=False)  # worlds see to it themselves
                env = gymnasium.make(plain, **{"disable_env_checker": True, **kwargs})
            else:
                env = source(**kwargs)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise UsageError(f"{recipe.name} cannot be made: {_missing(recipe, error)}") from error
    except Exception as error:
        kind = UsageError if recipe.kwargs else WorldError
        text = f"{recipe.name} cannot be made: {type(error).__name__}: {_line(str(error))}"
        raise kind(text) from error
    if not isinstance(env, gymnasium.Env):
        raise UsageError(f"{recipe.name} must return a gymnasium.Env, got a {type(env).__name__}")
    return env


def create_alike(recipe: Recipe, n: int, first: int) -> list[gymnasium.Env]:
    """n environments of one kind; `first` is the number of the first one in messages.

    Raises UsageError where some are the same one, where their spaces differ, are missing or not supported,
    and as `create` does.
    """
    envs = [create(recipe) for _ in range(n)]
    if len({id(env.unwrapped) for env in envs}) < n:
        raise UsageError("the factory returns the same environment each time: it must make a new one")
    name = name_of(envs[0])
    kinds = [[declared(env, f"{role}_space", name) for role in ("observation", "action")] for env in envs]
    check_observation_space(kinds[0][0], name)
    check_action_space(kinds[0][1], name)
    for i, kind in enumerate(kinds, first):
        if kind != kinds[0]:
            raise UsageError(f"{name}, environment {i} has other spaces than environment {first}")
    return envs


def name_of(env: gymnasium.Env) -> str:
    """The id of an environment, or the name of its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def error_line(error: BaseException) -> str:
    """An exception as "Type: text" on one line."""
    text = _line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())


def _registered(module: str, plain: str) -> str:
    """How a world of one's own gets an id."""
    known = f"{plain}-v0" if plain.isidentifier() else plain
    return f"register it there, gymnasium.register({known!r}, entry_point=...), and give {module}:{known}"


def _import(module: str, problem: str) -> None:
    try:
        with _ignore_swig():
            importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{problem} ({_line(str(error))})") from None


def _takes_render_mode(factory: Callable[..., Any]) -> bool:
    try:
        return "render_mode" in signature(factory).parameters
    except (TypeError, ValueError):
        return False


def _module(recipe: Recipe) -> str:
    entry = recipe.source.entry_point if isinstance(recipe.source, EnvSpec) else recipe.source
    return entry if isinstance(entry, str) else str(getattr(entry, "__module__", ""))


def simulator(recipe: Recipe) -> tuple[str, ...]:
    """Modules that processes with such environments can share: MuJoCo's, unless it is to be told how to draw
    when it is imported.
    """
    module = _module(recipe).partition(":")[0]
    return (module,) if module.startswith(MUJOCO) and not recipe.render else ()


def _missing(recipe: Recipe, error: Exception) -> str:
    for start, extra in EXTRAS:
        if _module(recipe).startswith(start) and "have been moved" not in str(error):
            return f"pip install 'pgrad[{extra}]' ({_line(str(error))})"
    return _line(str(error))


@contextmanager
def _quiet(recipe: Recipe) -> Iterator[None]:
    """Without third parties' warnings that nobody here can act on; with a way to draw MuJoCo on a server."""
    if not _module(recipe).startswith(MUJOCO):
        with _ignore_swig():
            yield
        return
    if recipe.render and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    mujoco = importlib.import_module("mujoco")
    before = mujoco.get_mju_user_warning()
    # Without a handler MuJoCo writes to the terminal and to a MUJOCO_LOG.TXT in the working directory.
    mujoco.set_mju_user_warning(_mujoco_warning)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _mujoco_warning(text: str) -> None:
    if "settotalmass" not in text:
        print(f"MuJoCo: {text}", file=sys.stderr)


@contextmanager
def _ignore_swig() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"builtin type (SwigPy\w+|swigvarlink) has no __module__", DeprecationWarning
        )
        yield
