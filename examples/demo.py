"""Train PPO on CartPole-v1, evaluate it, and leave a learning curve and a video: `make demo`."""

import os
import sys

import pgrad as pg


def main() -> None:
    """About ten seconds of training on one core; 500 is the best possible return."""
    algorithm = pg.PPO(
        learning_rate=2e-3,
        n_steps=128,
        batch_size=256,
        gamma=0.98,
        gae_lambda=0.9,
        learning_rate_schedule="linear",
    )
    run = pg.train(
        algorithm,
        "CartPole-v1",
        total_timesteps=100_000,
        n_envs=8,
        seed=1,
        eval_every=5_000,
        eval_episodes=8,
        run_dir="runs/demo",
        overwrite=True,
        progress=True,
    )
    print("\nevaluation      ", end="", flush=True)
    print(run.evaluate(episodes=100))
    recording = run.record()
    print(f"learning curve  {run.path}/plots/learning_curve.png")
    print(f"video           {recording.path}  (return {recording.returns[0]:.0f})")
    print(
        f"\nnext: {os.path.relpath(sys.executable)} -m pgrad train a2c CartPole-v1 (or: --help, list, doctor)"
    )


if __name__ == "__main__":
    main()
