"""pgrad does the work given as JSON, from Python."""

import json
import sys

from clock import Clock, tell

import pgrad as pg

ALGORITHMS = {"ppo": pg.PPO, "a2c": pg.A2C, "trpo": pg.TRPO, "sac": pg.SAC}


def main() -> None:
    side = json.loads(sys.argv[1])
    work, clock, natural = side["work"], Clock(), 0.0

    def note(metrics: dict[str, float]) -> None:
        nonlocal natural
        natural += 1.0 - metrics.get("train/line_search_failed", 1.0)  # TRPO's own step is no optimiser's
        clock.note(int(metrics["time/total_timesteps"]), round(metrics["train/n_updates"] - natural))

    agent = dict(side["agent"])
    if work["normalize"]:
        agent |= {"normalize_obs": True, "normalize_reward": True}
    if work["memory_size"]:
        agent |= {"memory": work["memory"], "memory_size": work["memory_size"]}
    run = pg.train(
        ALGORITHMS[work["algorithm"]](**work["settings"]),
        work["world"],
        n_envs=work["n_envs"],
        total_timesteps=work["total_timesteps"],
        agent=pg.AgentSpec(**agent) if agent else None,
        log_every=work["note_every"],
        progress=False,
        callback=note,
        **side["train"],
    )
    named = run.agent.named_parameters()
    tell(clock, (p.numel() for name, p in named if p.requires_grad and "target" not in name))


if __name__ == "__main__":
    main()
