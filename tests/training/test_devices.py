"""On a GPU that is not there: nothing mixes devices, little is waited for, and the numbers are the CPU's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces

import pgrad as pg
from pgrad import native
from pgrad.data.handover import hand_over
from pgrad.errors import CheckpointError
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions
from pgrad.stopping import Stopped
from pgrad.training import collect
from tests.pretended import Generator, Machine, pretended

NORMAL = pg.AgentSpec(net_arch=(8,), normalize_obs=True, normalize_reward=True)
PLAIN = pg.AgentSpec(net_arch=(8,))
GRU = pg.AgentSpec(net_arch=(8,), memory="gru", memory_size=4, sequence_length=8)
LSTM = pg.AgentSpec(net_arch=(8,), memory="lstm", memory_size=4, sequence_length=8)
SOFT: dict[str, Any] = {"buffer_size": 1000, "learning_starts": 16, "batch_size": 16}


class Everything(Env[Any, Any]):
    """A picture, numbers and a choice to see, several choices to make, some of them forbidden."""

    observation_space = spaces.Dict(
        {
            "picture": spaces.Box(0, 255, (36, 36, 1), np.uint8),
            "numbers": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "choice": spaces.Discrete(3),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def _answer(self) -> tuple[Any, dict[str, Any]]:
        picture = self.np_random.integers(0, 255, (36, 36, 1)).astype(np.uint8)
        obs = {"picture": picture, "numbers": np.zeros(2, np.float32), "choice": 1}
        return obs, {"action_mask": np.array([1, 1, 1, 0, 1], bool)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._answer()

    def step(self, action: Any) -> Any:
        self.t += 1
        obs, info = self._answer()
        return obs, float(action[0]), self.t > 5, False, info


RUNS: dict[str, tuple[Any, Any, pg.AgentSpec]] = {
    "ppo": (pg.PPO(n_steps=8, batch_size=16, n_epochs=2), "cartpole", NORMAL),
    "ppo, all of it": (
        pg.PPO(
            n_steps=8,
            batch_size=16,
            n_epochs=2,
            beta=0.1,
            clip_range_vf=0.2,
            target_kl=0.5,
            recompute_advantage=True,
            clip_range_schedule="linear",
            learning_rate_schedule="linear",
        ),
        "pendulum",
        NORMAL,
    ),
    "ppo, gru": (pg.PPO(n_steps=8, batch_size=16, n_epochs=2), "cartpole-masked", GRU),
    "ppo, lstm": (pg.PPO(n_steps=8, batch_size=16, n_epochs=2), "t-maze", LSTM),
    "ppo-kl": (pg.PPOKL(n_steps=8, batch_size=16, n_epochs=2), "cartpole", NORMAL),
    "a2c": (pg.A2C(), "pendulum", NORMAL),
    "actor-critic": (pg.ActorCritic(), "cartpole", NORMAL),
    "reinforce": (pg.Reinforce(n_episodes=6, n_critic_updates=3), "cartpole", NORMAL),
    "reinforce, optimal": (pg.Reinforce(n_episodes=6, baseline="optimal"), "cartpole", PLAIN),
    "reinforce, reuse": (pg.Reinforce(n_episodes=6, reuse=2, baseline="mean"), "cartpole", PLAIN),
    "trpo": (pg.TRPO(n_steps=16, batch_size=32, sub_sampling_factor=2, cg_max_steps=4), "cartpole", NORMAL),
    "off-policy": (pg.OffPolicyActorCritic(buffer_size=1000, n_steps=8), "cartpole", PLAIN),
    "sac": (pg.SAC(**SOFT), "pendulum", pg.AgentSpec(net_arch=(8,), normalize_obs=True)),
    "discrete-sac": (pg.DiscreteSAC(**SOFT), "cartpole", PLAIN),
    "grpo": (pg.GRPO(num_generations=4), "cartpole", PLAIN),
    "gymnasium": (pg.PPO(n_steps=8, batch_size=16, n_epochs=2), "CartPole-v1", NORMAL),
    "every space": (pg.A2C(), Everything, PLAIN),
}


def trained(algorithm: Any, world: Any, agent: Any, device: str, steps: int, **more: Any) -> pg.Run:
    how = {"n_envs": 4, "agent": agent, "device": device, "compile": "no", "progress": False, **more}
    return pg.train(algorithm, world, total_timesteps=steps, log_every=1, **how)


def weights(run: pg.Run) -> list[torch.Tensor]:
    return [x.detach().cpu() for x in run.agent.state_dict().values()]


@pytest.mark.parametrize("name", RUNS)
def test_a_training_on_a_gpu_takes_the_same_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "small", lambda *_: None)  # else only here by numpy, which rounds otherwise
    monkeypatch.setattr(native, "library", lambda _: None)  # or by C++
    algorithm, world, agent = RUNS[name]
    steps = 24 if name.endswith("sac") else 64
    here = weights(trained(algorithm, world, agent, "cpu", steps))
    with pretended():
        run = trained(algorithm, world, agent, "cuda:1", steps)
        assert all(p.device == torch.device("cuda:1") for p in run.agent.parameters())
        there = weights(run)
    assert all(map(torch.equal, here, there))


@pytest.mark.parametrize("name", ["grpo", "grpo, adapters", "a2c", "imitate"])
def test_a_training_of_texts_on_a_gpu_takes_the_same_steps(name: str) -> None:
    algorithm: Any = {"a2c": pg.A2C(), "imitate": pg.Imitate(batch_size=16)}.get(name)
    algorithm = algorithm or pg.GRPO(num_generations=4, beta=0.1, n_epochs=2)
    agent = LanguageSpec("scratch:tiny", lora=2 if "adapters" in name else 0)
    more = {"eval_every": 250, "eval_episodes": 4}
    here = weights(trained(algorithm, "parity", agent, "cpu", 250, **more))
    with pretended():
        there = weights(trained(algorithm, "parity", agent, "cuda", 250, **more))
    for a, b in zip(here, there, strict=True):  # attention sums in another order
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def iteration(algorithm: Any, agent: Any, world: Any = "cartpole") -> Machine:
    """What one more iteration waits for, with a world of tensors on the device."""
    options = RunOptions(total_timesteps=10_000, n_envs=4, device="cuda", compile="no")
    with pretended() as machine:
        training = make_training(RunConfig(algorithm, world, agent, options))
        assert training.world.device == torch.device("cuda:0")
        for _ in range(5 if training.learner.replay.capacity else 1):
            training.iterate()
        machine.clear()
        training.iterate()
    return machine


@pytest.mark.parametrize(
    ("algorithm", "agent", "world"),
    [
        (pg.PPO(n_steps=8, batch_size=8, n_epochs=2), NORMAL, "cartpole"),
        (pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2), NORMAL, "pendulum"),
        (pg.A2C(n_steps=8), NORMAL, "cartpole"),
        (pg.PPO(n_steps=8, batch_size=8, n_epochs=2), GRU, "cartpole-masked"),
        (pg.SAC(gradient_steps=8, **SOFT), PLAIN, "pendulum"),
        (pg.DiscreteSAC(gradient_steps=8, **SOFT), PLAIN, "cartpole"),
        (pg.OffPolicyActorCritic(buffer_size=1000, n_steps=8, replay_ratio=4), PLAIN, "cartpole"),
        (pg.TRPO(n_steps=8, batch_size=8, n_critic_updates=2, cg_max_steps=8), PLAIN, "cartpole"),
    ],
)
def test_no_step_of_the_world_and_no_gradient_waits_for_the_device(
    algorithm: Any, agent: Any, world: str
) -> None:
    """With a world of tensors an iteration waits a few times, for less than each step it is made of."""
    machine = iteration(algorithm, agent, world)
    assert sum(machine.waits.values()) <= 7, machine.waits
    assert not machine.sent, f"copies that wait for the device: {machine.sent}"


def test_the_pretended_device_is_one() -> None:
    """What a GPU would refuse is refused here, and what it would be waited for is noted."""
    with pretended() as machine:
        x = torch.arange(3.0, device="cuda")
        with pytest.raises(RuntimeError, match="different devices"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="different devices"):
            x + torch.ones(3, device="cuda:1")
        with pytest.raises(RuntimeError, match="different devices"):
            torch.zeros(3).add_(x)
        with pytest.raises(TypeError):
            x.numpy()
        with pytest.raises(RuntimeError, match="a generator on cpu"):
            torch.rand(3, device="cuda", generator=Generator())
        with pytest.raises(RuntimeError, match="a generator on cuda:0"):
            torch.empty(3).normal_(generator=Generator("cuda"))
        with pytest.raises(RuntimeError, match="nobody waits"):
            x.to("cpu", non_blocking=True)
        assert not machine.waits
        assert float((x + torch.tensor(1.0)).sum()) == 6.0
        assert bool(x.any())
        assert x[x > 0].tolist() == [1.0, 2.0]
        assert torch.equal(x.cpu(), torch.arange(3.0))
        assert sum(machine.waits.values()) == 5
        assert not machine.sent
        assert torch.equal(hand_over(torch.ones(2), x.device).cpu(), torch.ones(2))
        assert not machine.sent
        torch.ones(2).to("cuda")
        assert sum(machine.sent.values()) == 1


@pytest.mark.parametrize(
    ("name", "world"), [("ppo", "cartpole"), ("off-policy", "CartPole-v1"), ("reinforce, reuse", "cartpole")]
)
def test_runs_on_a_gpu_go_on_exactly_and_are_read_anywhere(name: str, world: str, tmp_path: Path) -> None:
    algorithm, _, agent = RUNS[name]
    with pretended():
        total = 300 if name.startswith("reinforce") else 64
        whole = trained(algorithm, world, agent, "cuda", total)
        trained(algorithm, world, agent, "cuda", 32, run_dir=tmp_path / "run")
        resumed = pg.resume(tmp_path / "run", total, progress=False)
        assert resumed.timesteps == whole.timesteps
        expected = weights(whole)
        assert all(map(torch.equal, expected, weights(resumed)))
        moved = pg.load(tmp_path / "run", device="cuda:1")
        assert next(moved.agent.parameters()).device == torch.device("cuda:1")
        on_gpu = moved.evaluate(episodes=2, seed=1).returns
    loaded = pg.load(tmp_path / "run", device="cpu")
    assert all(map(torch.equal, weights(loaded), expected))
    assert loaded.evaluate(episodes=2, seed=1).returns == on_gpu


def test_a_run_of_another_kind_of_device_is_told(tmp_path: Path) -> None:
    agent = pg.AgentSpec(net_arch=(8,))
    with pretended():
        trained(pg.A2C(), Everything, agent, "auto", 40, run_dir=tmp_path / "run")  # pictures: on the GPU
    with pytest.raises(CheckpointError, match="another kind of device: continue it there, or load it"):
        pg.resume(tmp_path / "run", 80, world=Everything, progress=False)


@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_a_round_of_episodes_is_continued_on_the_device(world: str) -> None:
    """Half of it was put back from a file, where everything is on the CPU."""
    algorithm = pg.Reinforce(n_episodes=8, baseline="mean")
    config = RunConfig(algorithm, world, PLAIN, RunOptions(n_envs=4, device="cuda", compile="no"))

    def stop_after(n: int) -> Any:
        steps = iter(range(n))

        def stop() -> None:
            if next(steps, None) is None:
                raise Stopped

        return stop

    with pretended():
        whole, first, second = (make_training(config) for _ in range(3))
        whole.iterate()
        with pytest.raises(Stopped):
            first.iterate(stop_after(5))
        second.load_state_dict(map_plain(first.state_dict()))
        second.iterate()
        assert all(
            map(torch.equal, *(map(torch.Tensor.cpu, t.agent.state_dict().values()) for t in (whole, second)))
        )


def map_plain(state: Any) -> Any:
    """A state as a checkpoint gives it back: on the CPU."""
    if isinstance(state, dict):
        return {key: map_plain(part) for key, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(map_plain, state))
    return state.cpu() if isinstance(state, torch.Tensor) else state
