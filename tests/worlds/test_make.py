"""`make`: what a world may be made from, and what is said where it cannot."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from pgrad.errors import UsageError, WorldError
from pgrad.worlds import World, make
from pgrad.worlds.gym.gymnasium import GymnasiumWorld
from pgrad.worlds.gym.vector import VectorWorld
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS, TensorWorld


class Small(gymnasium.Env[Any, Any]):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, size: int = 1, render_mode: str | None = None) -> None:
        if size < 0:
            raise ValueError("size must be\nat least 0")
        self.size, self.render_mode = size, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        return np.zeros(1, np.float32), float(self.size), False, False, {}


class Failing(gymnasium.Env[Any, Any]):
    def __init__(self) -> None:
        raise OSError("no such level")


@pytest.fixture
def registered() -> Iterator[None]:
    names = {
        "Small-v2": f"{__name__}:Small",
        "Failing-v0": f"{__name__}:Failing",
    }
    for name, entry in names.items():
        gymnasium.register(name, entry)
    yield
    for name in names:
        del gymnasium.registry[name]


def reward(world: World) -> list[float]:
    world.reset()
    return world.step(torch.zeros(world.n_envs, dtype=torch.int64)).reward.tolist()


def test_what_a_world_may_be(registered: None) -> None:
    assert isinstance(make("CartPole-v1"), GymnasiumWorld)
    for name in TENSOR_WORLDS:
        world = make(name, n_envs=3, seed=1)
        assert isinstance(world, TensorWorld)
        assert (world.name, world.n_envs) == (name, 3)
    assert make(world) is world
    assert reward(make(Small, n_envs=2)) == [1, 1]
    assert reward(make(lambda: Small(5))) == [5]
    assert reward(make(Small, kwargs={"size": 7})) == [7]
    assert reward(make("Small-v2", kwargs={"size": 7})) == [7]
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    assert isinstance(make(vector), VectorWorld)
    assert isinstance(make(vector, n_envs=2), VectorWorld)


def test_names() -> None:
    """The name is the full id, so that it can be made again."""
    assert make("gymnasium.envs:CartPole-v1").name == "CartPole-v1"
    assert make(Small).name == "Small"
    assert make(lambda: gymnasium.make("CartPole-v1")).name == "CartPole-v1"


def test_every_environment_has_its_own_seed() -> None:
    obs = make("CartPole-v1", n_envs=5, seed=3).reset()
    assert len(np.unique(obs.numpy(), axis=0)) == 5
    assert torch.equal(obs[:2], make("CartPole-v1", n_envs=2, seed=3).reset())
    assert not torch.equal(obs, make("CartPole-v1", n_envs=5, seed=4).reset())


def test_render_mode_reaches_environments_that_take_one(registered: None) -> None:
    for world in ("Small-v2", Small):
        for render, mode in ((True, "rgb_array"), (False, None)):
            made = make(world, render=render)
            assert isinstance(made, GymnasiumWorld)
            assert made._envs._envs[0].render_mode == mode
    assert reward(make(lambda: Small(5), render=True)) == [5]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("CartPole", "unknown world 'CartPole': did you mean .*CartPole-v1"),
        ("CartPol-v1", "unknown world 'CartPol-v1': did you mean CartPole-v1 or"),
        ("cartpole-v1", "unknown world 'cartpole-v1': did you mean CartPole-v1 or"),
        ("cartpol", "unknown world 'cartpol': did you mean cartpole or"),
        ("gymnasium:CartPol-v1", "did you mean gymnasium:CartPole-v1 or gymnasium:"),
        ("probe-bot", "unknown world 'probe-bot': did you mean probe-both"),
        ("HalfCheeta-v5", "unknown world 'HalfCheeta-v5': did you mean HalfCheetah-v5 or"),
        ("xyzxyz", "unknown world 'xyzxyz': Environment `xyzxyz` doesn't exist."),
        (
            "LunarLander-v2",
            "LunarLander-v2.*deprecated. Please use `LunarLander-v3` instead|Please use `LunarLander-v3`",
        ),
        (
            "CartPole-v7",
            r"`v7` for environment `CartPole` doesn't exist. It provides .*: \[ `v0`, `v1` \]",
        ),
        (
            "no_such_module:X-v0",
            r"'no_such_module' of 'no_such_module:X-v0' cannot be imported \(No module named",
        ),
        ("a b?c", "unknown world 'a b\\?c'"),
    ],
)
def test_unknown_worlds(name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        make(name)
    assert "\n" not in str(caught.value)


def test_a_module_in_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A console script has its own folder on sys.path in its place; it comes last, and workers find it."""
    (tmp_path / "pgrad_mine.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Mine(CartPoleEnv): pass\n"
        "gymnasium.register('Mine/Env-v0', entry_point='pgrad_mine:Mine')\n"
    )
    before = [folder for folder in sys.path if folder]
    monkeypatch.setattr(sys, "path", [*before])
    monkeypatch.chdir(tmp_path)
    try:
        world = make("pgrad_mine:Mine/Env-v0", n_envs=1, workers=1)
        assert (world.name, sys.path) == ("Mine/Env-v0", [*before, str(tmp_path)])
        world.close()
        make("pgrad_mine:Mine/Env-v0").close()
        assert sys.path.count(str(tmp_path)) == 1
    finally:
        gymnasium.registry.pop("Mine/Env-v0", None)
        sys.modules.pop("pgrad_mine", None)


def test_atari_is_registered_on_demand() -> None:
    pytest.importorskip("ale_py")
    assert make("ALE/Pong-v5").name == "ALE/Pong-v5"
    assert make("PongNoFrameskip-v4").name == "PongNoFrameskip-v4"
    with pytest.raises(UsageError, match="did you mean ALE/Pong-v5"):
        make("ALE/Pomg-v5")


def _without(monkeypatch: pytest.MonkeyPatch, package: str, *imported: str) -> None:
    for name in list(sys.modules):
        if name.startswith(imported):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("name", "package", "family", "extra"),
    [
        ("HalfCheetah-v5", "mujoco", "gymnasium.envs.mujoco", "mujoco"),
        ("LunarLander-v3", "Box2D", "gymnasium.envs.box2d", "box2d"),
    ],
)
def test_missing_extras(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, family: str, extra: str
) -> None:
    _without(monkeypatch, package, package + ".", family)
    with pytest.raises(UsageError, match=rf"{name} cannot be made: pip install 'pgrad\[{extra}\]'") as caught:
        make(name)
    assert "\n" not in str(caught.value)


def test_missing_atari(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in gymnasium.registry if name.startswith("ALE/") or "NoFrameskip" in name]:
        monkeypatch.delitem(gymnasium.registry, name)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for name in ("ALE/Pong-v5", "PongNoFrameskip-v4"):
        with pytest.raises(UsageError, match=rf"{name} needs ale_py: pip install 'pgrad\[atari\]'"):
            make(name)


def test_environments_that_moved_away() -> None:
    with (
        pytest.warns(UserWarning, match="Hopper-v3 is out of date: the latest version is v5"),
        pytest.raises(UsageError, match=r"Hopper-v3 cannot be made: .*gymnasium-robotics"),
    ):
        make("Hopper-v3")


def test_wrong_arguments_for_the_environment(registered: None) -> None:
    with pytest.raises(
        UsageError, match=r"CartPole-v1 cannot be made: TypeError: .*unexpected keyword argument 'foo'"
    ):
        make("CartPole-v1", kwargs={"foo": 1})
    with pytest.raises(UsageError, match="Small-v2 cannot be made: ValueError: size must be at least 0"):
        make("Small-v2", kwargs={"size": -1})
    with pytest.raises(
        UsageError, match=r"Small cannot be made: TypeError: .*unexpected keyword argument 'foo'"
    ):
        make(Small, kwargs={"foo": 1})


def test_environments_that_fail_themselves(registered: None) -> None:
    for world in ("Failing-v0", Failing):
        with pytest.raises(WorldError, match=r"Failing.* cannot be made: OSError: no such level") as caught:
            make(world)
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"n_envs": 0}, "n_envs must be a whole number of at least 1, got 0"),
        ({"n_envs": 2.0}, "n_envs must be a whole number of at least 1, got 2.0"),
        ({"n_envs": True}, "n_envs must be a whole number of at least 1, got True"),
        ({"workers": -1}, "workers must be a whole number of at least 0, got -1"),
        ({"n_envs": 2, "workers": 3}, "3 workers cannot share 2 environments: at most one worker for each"),
        ({"seed": -5}, "seed must be a whole number of at least 0, got -5"),
        ({"device": "warp"}, "device 'warp' cannot be used: "),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used: "),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        make("CartPole-v1", **arguments)
    assert str(caught.value).startswith(what)
    assert "\n" not in str(caught.value)


def test_environments_of_one_world_are_alike() -> None:
    ids = iter(["CartPole-v1", "Acrobot-v1"])
    with pytest.raises(UsageError, match="CartPole-v1, environment 1 has other spaces than environment 0"):
        make(lambda: gymnasium.make(next(ids)), n_envs=2)


def test_what_a_world_may_not_be() -> None:
    with pytest.raises(UsageError, match=r"got one environment .*: give its id, or a function that makes it"):
        make(gymnasium.make("CartPole-v1"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a world is an id, a factory, .* or a World, got a int"):
        make(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"<lambda> must return a gymnasium.Env, got a str"):
        make(lambda: "CartPole-v1")  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="cartpole is one tensor program: it takes no workers"):
        make("cartpole", workers=1)
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    with pytest.raises(UsageError, match="a vector environment brings its own 2 environments"):
        make(vector, n_envs=3)


@pytest.mark.parametrize("name", ["LunarLander-v3", "HalfCheetah-v5", "Ant-v5", "CartPole-v1"])
def test_third_parties_are_quiet(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No warnings nobody can act on: not of Swig, and not of MuJoCo in the terminal and in a log file."""
    monkeypatch.chdir(tmp_path)
    for module in [m for m in sys.modules if m.startswith(("Box2D", "_Box2D"))]:
        monkeypatch.delitem(sys.modules, module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        world = make(name, n_envs=2)
        world.reset()
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_warnings_for_the_user_come_through() -> None:
    with pytest.warns(UserWarning, match="CartPole-v0 is out of date: the latest version is v1"):
        make("CartPole-v0")
