"""skrl does the work given as JSON: PPO on discrete actions."""

import json
import sys
from typing import Any

import gymnasium
import torch
from clock import Clock, tell
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn


def body(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n_out))


class Policy(CategoricalMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        CategoricalMixin.__init__(self)
        self.net = body(self.num_observations, self.num_actions)

    def compute(self, inputs: Any, role: str) -> Any:
        return self.net(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = body(self.num_observations, 1)

    def compute(self, inputs: Any, role: str) -> Any:
        return self.net(inputs["observations"]), {}


def main() -> None:
    work = json.loads(sys.argv[1])["work"]
    settings, n_envs = work["settings"], work["n_envs"]
    torch.set_num_threads(1)
    set_seed(0)
    env = wrap_env(gymnasium.make_vec(work["world"], num_envs=n_envs, vectorization_mode="sync"))
    spaces = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "device": "cpu",
    }
    agent = PPO(
        models={"policy": Policy(**spaces), "value": Value(**spaces)},
        memory=RandomMemory(memory_size=settings["n_steps"], num_envs=n_envs, device="cpu"),
        **spaces,
        cfg={
            "rollouts": settings["n_steps"],
            "learning_epochs": settings["n_epochs"],
            "mini_batches": settings["n_steps"] * n_envs // settings["batch_size"],
            "learning_rate": settings["learning_rate"],
            "discount_factor": settings["gamma"],
            "gae_lambda": settings["gae_lambda"],
            "ratio_clip": settings["clip_range"],
            "value_clip": 0.0,
            "entropy_loss_scale": settings["ent_coef"],
            "value_loss_scale": 0.5,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
    )
    clock, taken = Clock(), [0]

    def count(*_: Any) -> None:
        taken[0] += 1

    agent.optimizer.register_step_post_hook(count)
    update = agent.update

    def noted(*, timestep: int, timesteps: int) -> None:
        update(timestep=timestep, timesteps=timesteps)
        clock.note((timestep + 1) * n_envs, taken[0])

    agent.update = noted
    steps = work["total_timesteps"] // n_envs
    SequentialTrainer(
        env=env,
        agents=agent,
        cfg={
            "timesteps": steps,
            "headless": True,
            "disable_progressbar": True,
            "close_environment_at_exit": False,
        },
    ).train()
    tell(clock, (p.numel() for group in agent.optimizer.param_groups for p in group["params"]))


if __name__ == "__main__":
    main()
