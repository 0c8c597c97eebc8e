"""What cannot be done is told in one line, with what is allowed, before anything is written or lost."""

import math
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator

import pgrad as pg
from pgrad.errors import PgradError, TrainingError, UsageError, WorldError
from pgrad.math.distributions import Categorical, Gaussian, MultiCategorical, Product
from pgrad.models import build_agent
from pgrad.run.config import RunOptions
from pgrad.training.disk.checkpoint import checkpoints

PPO = pg.PPO(n_steps=16, batch_size=16, n_epochs=1)


def refused(error: type[PgradError], algorithm: Any = PPO, world: Any = "cartpole", **arguments: Any) -> str:
    """The text of the error, one line; nothing is left behind."""
    with pytest.raises(PgradError) as caught:
        pg.train(algorithm, world, **{"total_timesteps": 64, "n_envs": 2, **arguments})
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("world", "hint"),
    [
        ("CartPol-v1", "did you mean CartPole-v1"),
        ("cartpol", "did you mean cartpole"),
        ("probe-actoin", "did you mean probe-action"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("nonsense", "unknown world 'nonsense'"),
        ("nomodule:Name-v0", "'nomodule' of 'nomodule:Name-v0' cannot be imported"),
        (7, "a world is an id, a factory, a Dynamics, a VectorEnv or a World, got a int"),
        (gymnasium.make("CartPole-v1"), "give its id, or a function that makes it"),
    ],
)
def test_worlds_that_are_none(world: Any, hint: str) -> None:
    assert hint in refused(UsageError, world=world)


@pytest.mark.parametrize(
    ("algorithm", "world"),
    [
        (pg.SAC(learning_starts=8), "pendulum"),
        (pg.DiscreteSAC(learning_starts=8), "cartpole"),
        (pg.OffPolicyActorCritic(), "cartpole"),
        (pg.Reinforce(reuse=1), "cartpole"),
    ],
)
def test_rewards_that_are_kept_are_not_normalised(algorithm: Any, world: str) -> None:
    """Each would keep the scale of the day it came; without a replay, or as they come, they may be kept."""
    text = refused(UsageError, algorithm, world, agent=pg.AgentSpec(normalize_reward=True))
    assert f"normalize_reward does not go with {type(algorithm).__name__}" in text
    assert "would keep the scale" in text
    pg.train(pg.Reinforce(), "cartpole", total_timesteps=8, agent=pg.AgentSpec(normalize_reward=True))


def test_what_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told before anything is made, with the largest that fits; and that does fit."""
    monkeypatch.setattr("pgrad.data.room.os.sysconf", lambda name: {"SC_PHYS_PAGES": 1000}.get(name, 1000))
    # 0.9 MB; a row of two pendulums: 2·(3·4 seen + 4 done + 14) = 60 bytes
    replay = pg.SAC(learning_starts=8, buffer_size=10**12)
    text = refused(UsageError, replay, "pendulum", run_dir=tmp_path / "a")
    assert text.startswith("buffer_size 1000000000000 needs 30,000.0 GB, this machine has 0.0 GB to spare")
    assert text.endswith("the most that fits is buffer_size 29998")
    small = {"total_timesteps": 10, "n_envs": 2, "agent": pg.AgentSpec(net_arch=(4,))}
    pg.train(pg.SAC(learning_starts=8, buffer_size=29998), "pendulum", **small)  # type: ignore[arg-type]
    assert "buffer_size 30000" in refused(
        UsageError, pg.SAC(learning_starts=8, buffer_size=30000), "pendulum"
    )
    text = refused(UsageError, pg.A2C(n_steps=10**9), "pendulum", run_dir=tmp_path / "a")
    assert "a window of n_steps · n_envs = 1000000000 · 2 decisions needs" in text
    assert text.endswith("the most that fits is n_steps 14999")
    text = refused(UsageError, PPO, "pendulum", frame_stack=3000, run_dir=tmp_path / "a")
    assert "16 · 2 decisions, each with frame_stack = 3000 observations, needs" in text
    most = int(text.rpartition(" ")[2])
    pg.train(PPO, "pendulum", frame_stack=most, **small)  # type: ignore[arg-type]
    assert f"frame_stack = {most + 5}" in refused(UsageError, PPO, "pendulum", frame_stack=most + 5)
    text = refused(UsageError, PPO, "pendulum", frame_stack=10**6)
    assert text.startswith("frame_stack 1000000 for 2 environments needs 0.0 GB")
    assert text.endswith("the most that fits is frame_stack 37500")
    assert not list(tmp_path.iterdir())


def test_more_environments_than_could_fit_are_refused_before_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgrad.data.room.os.sysconf", lambda name: {"SC_PHYS_PAGES": 1000}.get(name, 1000))

    def never() -> Any:
        raise AssertionError("an environment was made")

    # 0.9 MB; an environment takes 400 bytes at least, and 14 of each of 17 decisions: 638
    for n_envs in (1411, 10**8):
        text = refused(UsageError, world=never, n_envs=n_envs)
        assert text.startswith(f"n_envs {n_envs} needs more than {638 * n_envs / 1e9:,.1f} GB, this machine")
        assert text.endswith("give fewer than 1410")
    assert refused(UsageError, world="cartpole", n_envs=10**8).endswith("give fewer than 3781")
    text = refused(UsageError, pg.Reinforce(), world=never, n_envs=10**8)
    assert text.endswith("give fewer than 2173")
    with pytest.raises(WorldError, match="an environment was made"):
        pg.train(PPO, never, total_timesteps=64, n_envs=1410)


def test_missing_extras_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [m for m in sys.modules if m.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'pgrad[box2d]'" in refused(UsageError, world="LunarLander-v3")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"total_timesteps": 0}, "total_timesteps must be a whole number ≥ 1, got 0"),
        ({"total_timesteps": 10.5}, "total_timesteps must be a whole number ≥ 1, got 10.5"),
        ({"total_timesteps": math.inf}, "total_timesteps must be a whole number ≥ 1, got inf"),
        ({"total_timesteps": True}, "total_timesteps must be a whole number ≥ 1, got True"),
        ({"total_timesteps": math.nan}, "total_timesteps must be a whole number ≥ 1, got nan"),
        ({"n_envs": 0}, "n_envs must be a whole number ≥ 1, got 0"),
        ({"n_envs": -2}, "n_envs must be a whole number ≥ 1, got -2"),
        ({"n_envs": True}, "n_envs must be a whole number ≥ 1, got True"),
        ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
        ({"seed": None}, "seed must be a whole number ≥ 0, got None"),
        ({"keep": 0}, "keep must be a whole number ≥ 1, got 0"),
        ({"eval_every": -1}, "eval_every must be a whole number ≥ 0, got -1"),
        ({"eval_episodes": 0}, "eval_episodes must be a whole number ≥ 1, got 0"),
        ({"workers": -1}, "workers must be a whole number ≥ 0, got -1"),
        ({"threads": 1.5}, "threads must be a whole number ≥ 0, got 1.5"),
        ({"device": "tpu"}, "device 'tpu' is unknown; allowed: auto, cpu, cuda, cuda:0, ..."),
        (
            {"device": "meta"},
            "device 'meta' is not available: pgrad sees 0 meta device(s); use cpu or auto",
        ),
        ({"device": None}, "device must be a name such as 'cpu', 'cuda' or 'auto', got None"),
    ],
)
def test_options(arguments: dict[str, Any], text: str) -> None:
    assert refused(UsageError, **arguments) == text


def test_whole_floats_are_counts(tmp_path: Path) -> None:
    """1e6 is a number of steps in Python too, and is written down as the whole number that it is."""
    run = pg.train(PPO, "cartpole", total_timesteps=32.0, n_envs=2.0, log_every=1e1, run_dir=tmp_path / "a")  # type: ignore[arg-type]
    assert run.config.options == RunOptions(total_timesteps=32, n_envs=2, log_every=10)
    numbers = run.config.to_json()["options"].values()
    assert not any(isinstance(x, float) for x in numbers)
    assert pg.resume(tmp_path / "a", 6.4e1).config.options.total_timesteps == 64  # type: ignore[arg-type]
    for wrong in (64.5, math.nan, math.inf, True):
        with pytest.raises(UsageError, match="total_timesteps must be"):
            pg.resume(tmp_path / "a", wrong)
    assert len(run.evaluate(2.0).returns) == 2  # type: ignore[arg-type]


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explicit `cuda` fails where there is none, and cuda:9 where there are fewer; auto takes what is
    there."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = refused(UsageError, device="cuda")
    assert text == "device 'cuda' is not available: pgrad sees 0 cuda device(s); use cpu or auto"
    pg.train(PPO, "cartpole", total_timesteps=16, n_envs=1, device="auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "device 'cuda:9' is not available: pgrad sees 2 cuda" in refused(UsageError, device="cuda:9")


@pytest.mark.parametrize("algorithm", [pg.PPO, "ppo", None])
def test_algorithms_that_are_none(algorithm: Any) -> None:
    text = refused(UsageError, algorithm=algorithm)
    assert text == f"algorithm must be an instance such as PPO(), got {algorithm!r}"


def test_a_class_in_place_of_an_agent() -> None:
    text = refused(UsageError, agent=Net)
    assert (
        text == "agent must be an AgentSpec, a LanguageSpec or a module, got the class Net: make one, Net()"
    )


def test_a_callback_that_is_none(tmp_path: Path) -> None:
    text = refused(UsageError, callback=5, run_dir=tmp_path / "a")
    assert text == "callback must be a function of a row of metrics, got 5"
    assert not list(tmp_path.iterdir())


def test_batches_that_do_not_divide() -> None:
    text = refused(UsageError, algorithm=pg.PPO(n_steps=100, batch_size=64), n_envs=8)
    assert (
        text
        == "batch_size 64 does not divide n_steps · n_envs = 100 · 8 = 800; the nearest that do are 50 and 80"
    )


def test_hyperparameters_are_refused_where_they_are_written() -> None:
    with pytest.raises(UsageError, match=r"PPO: gamma must be in \[0, 1\], got 1\.2"):
        pg.PPO(gamma=1.2)


def test_agents_that_do_not_fit() -> None:
    """No method, no critic, other spaces: told before a shape error could be."""
    assert "agent str has no method policy(obs)" in refused(UsageError, agent="mlp")
    cart = pg.train(pg.Reinforce(baseline="none", n_episodes=2), "cartpole", total_timesteps=20, n_envs=2)
    assert "built without a critic, which this algorithm needs" in refused(UsageError, agent=cart.agent)
    text = refused(UsageError, algorithm=pg.Reinforce(baseline="none"), world="pendulum", agent=cart.agent)
    assert "the agent was made for the observation space Box" in text
    with pytest.raises(UsageError, match="the agent was made for the observation space"):
        cart.evaluate(2, world="pendulum")
    with pytest.raises(UsageError, match="action space"):
        cart.evaluate(2, world=lambda: Fails("action space"))
    assert len(cart.evaluate(2, world="CartPole-v1").returns) == 2, "bounds may differ"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"episodes": 0}, "episodes must be a whole number ≥ 1, got 0"),
        ({"episodes": 2.5}, "episodes must be a whole number ≥ 1, got 2.5"),
        ({"n_envs": 0}, "n_envs must be a whole number of at least 1, got 0"),
    ],
)
def test_evaluations_that_are_none(arguments: dict[str, Any], text: str) -> None:
    run = pg.train(PPO, "cartpole", total_timesteps=16, n_envs=1)
    with pytest.raises(UsageError) as error:
        run.evaluate(**arguments)
    assert str(error.value) == text


def test_what_cannot_be_written_down(tmp_path: Path) -> None:
    """Told before the directory is made: arguments that are no JSON, a log without a directory."""
    text = refused(
        UsageError, world="Pendulum-v1", world_kwargs={"g": np.float32(9)}, run_dir=tmp_path / "run"
    )
    assert "Object of type float32 is not JSON serializable" in text
    assert not (tmp_path / "run").exists()
    assert "give run_dir" in refused(UsageError, tensorboard=True)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    text = refused(UsageError, run_dir=tmp_path, overwrite=True)
    assert "not empty and not a pgrad run directory" in text
    assert (tmp_path / "thesis.tex").read_text() == "precious"


class Fails(gymnasium.Env[Any, Any]):
    """Works until its thirtieth step, then fails in the given way."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)

    def __init__(self, how: str) -> None:
        self.how, self.t = how, 0
        if how == "action space":
            self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        obs, reward = np.zeros(4, np.float32), 1.0
        if self.t == 30:
            match self.how:
                case "nan observation":
                    obs[2] = np.nan
                case "nan reward":
                    reward = math.nan
                case "infinite reward":
                    reward = math.inf
                case "shape":
                    obs = np.zeros(3, np.float32)
                case "dtype":
                    obs = np.array(["a"] * 4)
                case "raises":
                    raise ZeroDivisionError("division by zero")
                case "text reward":
                    return obs, "1.0", False, False, {}
                case "old api":
                    return obs, 1.0, False, {}
        return obs, reward, self.t % 7 == 0, False, {}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan observation", ("observation[2] is nan",)),
        ("nan reward", ("reward is nan",)),
        ("infinite reward", ("reward is inf",)),
        ("shape", ("(3,)", "(4,)")),
        ("dtype", ("<U1",)),
        ("raises", ("ZeroDivisionError: division by zero",)),
        ("text reward", ("reward", "'1.0'")),
        ("old api", ("4 values", "old Gym API")),
    ],
)
@pytest.mark.parametrize("algorithm", [PPO, pg.Reinforce(n_episodes=2)], ids=["ppo", "reinforce"])
def test_environments_that_break(how: str, words: tuple[str, ...], algorithm: Any, tmp_path: Path) -> None:
    """Which environment, which step, what came: and the checkpoint of before is intact, the lock gone."""
    text = refused(
        WorldError, algorithm=algorithm, world=lambda: Fails(how), run_dir=tmp_path / "run", save_every=10
    )
    assert "Fails, environment 0, step 2 of its episode" in text
    assert all(word in text for word in words), text
    assert not (tmp_path / "run" / "lock").exists()
    assert checkpoints(tmp_path / "run" / "checkpoints")
    assert pg.load(tmp_path / "run", world=lambda: Fails("not at all")).timesteps > 0


def test_training_that_blows_up(tmp_path: Path) -> None:
    """One line, exit code 1, the states before are kept and finite."""
    text = refused(
        TrainingError,
        algorithm=pg.PPO(n_steps=16, batch_size=16, n_epochs=1, learning_rate=1e30),
        run_dir=tmp_path,
        save_every=10,
    )
    assert "not finite after" in text
    assert "too large a learning rate" in text
    assert TrainingError.exit_code == 1
    assert UsageError.exit_code == WorldError.exit_code == 2
    for path in checkpoints(tmp_path / "checkpoints"):
        assert path.exists()


class Net(torch.nn.Module):
    """A user's module that answers what it is told to answer."""

    def __init__(self, policy: Any, value: Any) -> None:
        super().__init__()
        self.actor, self.critic = torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)
        self._policy, self._value = policy, value

    def policy(self, obs: Any) -> Any:
        return self._policy(self.actor(obs))

    def value(self, obs: Any) -> Any:
        return self._value(self.critic(obs))


@pytest.mark.parametrize(
    ("policy", "value", "text"),
    [
        (lambda x: torch.distributions.Categorical(logits=x), lambda v: v.squeeze(-1), "got a torch.distrib"),
        (lambda x: x, lambda v: v.squeeze(-1), r"Categorical\(logits\) or .*; got a torch.Tensor"),
        (Categorical, lambda v: v, r"got \(2, 1\): squeeze the last axis\?"),
    ],
)
def test_modules_that_answer_wrongly(policy: Any, value: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        pg.train(PPO, "cartpole", total_timesteps=16, agent=Net(policy, value))
    pg.train(PPO, "cartpole", total_timesteps=16, agent=Net(Categorical, lambda v: v.squeeze(-1)))


class Chooses(torch.nn.Module):
    """A user's module that answers one distribution, whatever it sees."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.weight, self._policy = torch.nn.Parameter(torch.zeros(())), policy

    def policy(self, obs: Any) -> Any:
        return self._policy


def logits(*shape: int) -> torch.Tensor:
    return torch.zeros(2, *shape)


BOTH = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2, 2))})
GOOD = {"a": Categorical(logits(2)), "b": Gaussian(logits(4), logits(4))}


@pytest.mark.parametrize(
    ("policy", "space", "text"),
    [
        (Categorical(logits(2)), spaces.Discrete(2), ""),
        (Categorical(logits(1)), spaces.Discrete(2), "it chooses among 1, Discrete(2) has 2"),
        (
            Categorical(logits(1, 2)),
            spaces.Discrete(2),
            "actions have shape (2, 1) for a batch of 2, Discrete(2) needs (2,)",
        ),
        (
            Gaussian(logits(1), logits(1)),
            spaces.Discrete(2),
            "actions have shape (2, 1) for a batch of 2, Discrete(2) needs (2,)",
        ),
        (
            Gaussian(logits(2), logits(2)),
            spaces.MultiDiscrete([3, 3]),
            "actions are of torch.float32, MultiDiscrete([3 3]) needs whole numbers",
        ),
        (MultiCategorical(logits(5), (2, 3)), spaces.MultiDiscrete([2, 3]), ""),
        (
            MultiCategorical(logits(5), (3, 2)),
            spaces.MultiDiscrete([2, 3]),
            "it chooses among 3 × 2, MultiDiscrete([2 3]) has 2 × 3",
        ),
        (Product(GOOD), BOTH, ""),
        (Product(dict(reversed(GOOD.items()))), BOTH, ""),
        (Gaussian(logits(1), logits(1)), spaces.Box(-1, 1, ()), ""),
        (Product({**GOOD, "a": Categorical(logits(3))}), BOTH, "it chooses among 3, Discrete(2) has 2"),
        (Product((GOOD["a"],)), BOTH, f"{BOTH} needs a Product of a dict with the keys ['a', 'b']"),
        (GOOD["a"], BOTH, f"{BOTH} needs a Product of a dict with the keys ['a', 'b']"),
    ],
)
def test_modules_whose_actions_do_not_fit(policy: Any, space: Any, text: str) -> None:
    def built() -> Any:
        seen = spaces.Box(-1, 1, (3,))
        return build_agent(seen, space, Chooses(policy), gamma=0.9, critic="none", generator=Generator())

    if not text:
        assert built().action_space == space
        return
    with pytest.raises(UsageError) as error:
        built()
    assert str(error.value) == f"policy(obs) of Chooses does not fit the actions: {text}"


@pytest.mark.parametrize("method", ["policy", "value"])
def test_modules_that_fail(method: str) -> None:
    net = Net(Categorical, lambda v: v.squeeze(-1))
    setattr(net, {"policy": "actor", "value": "critic"}[method], torch.nn.Linear(5, 2))
    assert refused(UsageError, agent=net) == (
        f"{method}(obs) of Net fails for a batch of 2 observations, shape (2, 4): RuntimeError: mat1 and "
        "mat2 shapes cannot be multiplied (2x4 and 5x2)"
    )


def test_a_callback_that_fails_loses_nothing(tmp_path: Path) -> None:
    def fails(row: dict[str, float]) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        pg.train(PPO, "cartpole", total_timesteps=200, run_dir=tmp_path / "a", log_every=1, callback=fails)
    assert pg.load(tmp_path / "a").timesteps > 0


def test_numbers_of_numpy_are_numbers() -> None:
    algorithm = pg.PPO(n_steps=np.int64(8), batch_size=8, learning_rate=np.float32(0.5))
    assert (type(algorithm.n_steps), type(algorithm.learning_rate)) == (int, float)
