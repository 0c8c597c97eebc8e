"""Stable-Baselines3 on CartPole-v1 with rl-baselines3-zoo's numbers, until an evaluation says: solved."""

import json
import sys

import torch
from clock import SOLVED, Clock, tell
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env

ZOO = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 0.001 * left,
    "clip_range": lambda left: 0.2 * left,
}


def main() -> None:
    seed = json.loads(sys.argv[1])["seed"]
    torch.set_num_threads(1)
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, seed=seed), **ZOO, seed=seed, device="cpu")
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1", n_envs=8, seed=seed + 1_000),
        callback_on_new_best=StopTrainingOnRewardThreshold(SOLVED),
        n_eval_episodes=100,
        eval_freq=10_000 // 8,
        verbose=0,
    )
    model.learn(100_000, callback=evaluation)
    clock = Clock()
    clock.note(0, 0)
    tell(clock, [], float(evaluation.best_mean_reward))


if __name__ == "__main__":
    main()
