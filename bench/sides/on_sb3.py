"""Stable-Baselines3, sb3-contrib or sbx does the work given as JSON."""

import json
import sys
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from clock import Clock, tell
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

CLASSES = {"ppo": "PPO", "a2c": "A2C", "trpo": "TRPO", "sac": "SAC"}


class Note(BaseCallback):
    """Looks at the clock between an update and the next rollout, and at the end."""

    def __init__(self, clock: Clock, steps_of_gradients: Any) -> None:
        super().__init__()
        self.clock, self.count = clock, steps_of_gradients

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.clock.due(self.num_timesteps):
            self.clock.note(self.num_timesteps, self.count())

    def _on_training_end(self) -> None:
        self.clock.note(self.num_timesteps, self.count())


def torch_counts(model: Any) -> tuple[Any, int]:
    """A function that says how many steps the optimisers have taken, and the parameters they move."""
    actor, critic = getattr(model, "actor", None), getattr(model, "critic", None)
    if actor is None:  # one network, one optimiser
        optimizers = [model.policy.optimizer]
    else:
        optimizers = [actor.optimizer, critic.optimizer, model.ent_coef_optimizer]
    taken = [0]

    def count(*_: Any) -> None:
        taken[0] += 1

    for optimizer in optimizers:
        optimizer.register_step_post_hook(count)
    moved = chain.from_iterable(group["params"] for o in optimizers for group in o.param_groups)
    return lambda: taken[0], sum(p.numel() for p in moved)


def jax_counts(model: Any) -> tuple[Any, int]:
    """The same of the train states of sbx."""
    import jax

    policy = model.policy
    if hasattr(policy, "vf_state"):  # its two optimisers step together, as pgrad's one does
        counted, moved = (lambda: [policy.actor_state]), [policy.actor_state, policy.vf_state]
    else:
        counted = lambda: [policy.actor_state, policy.qf_state, model.ent_coef_state]  # noqa: E731
        moved = counted()
    size = sum(leaf.size for state in moved for leaf in jax.tree.leaves(state.params))
    return lambda: sum(int(state.step) for state in counted()), size


def main() -> None:
    side = json.loads(sys.argv[1])
    work = side["work"]
    torch.set_num_threads(1)
    env = make_vec_env(work["world"], n_envs=work["n_envs"], seed=0)
    if work["normalize"]:
        env = VecNormalize(env)
    name, policy, more = CLASSES[work["algorithm"]], "MlpPolicy", {}
    if work["memory_size"]:
        name, policy = f"Recurrent{name}", "MlpLstmPolicy"
        more = {"policy_kwargs": {"lstm_hidden_size": work["memory_size"], "net_arch": [64, 64]}}
    cls = getattr(import_module(side["library"]), name)
    model = cls(policy, env, **work["settings"], **more, seed=0, device="cpu")
    count, parameters = (jax_counts if side["library"] == "sbx" else torch_counts)(model)
    clock = Clock(work["note_every"])
    model.learn(work["total_timesteps"], callback=Note(clock, count))
    tell(clock, [parameters])


if __name__ == "__main__":
    main()
