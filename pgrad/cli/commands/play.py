"""`pgrad play DIR`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.names import require_positive
from pgrad.cli.parse import parse
from pgrad.cli.waiting import waiting
from pgrad.errors import UsageError
from pgrad.run import Run, load
from pgrad.worlds.language.kind import is_language


@dataclass(frozen=True)
class Play:
    """Record a video (.mp4) of the agent of a run, or demonstrations, without needing a display.

    Of a language model, show completions of prompts, those held out where there are any, with their rewards.
    """

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run"""
    episodes: int = 1
    """episodes to show"""
    stochastic: FlagCreatePairsOff[bool] = False
    """sample actions, as in training; otherwise the mode of the policy acts"""
    checkpoint: str = "latest"
    """latest, best (by the return during training), or a checkpoint's name, such as 000000102400, or path"""
    seed: int | None = None
    """what the world and the sampling draw from; none: derived from the seed of the run"""
    out: str | None = None
    """the video to write; none: in the videos folder of the run, named by the steps of training"""
    record: Annotated[str | None, arg(metavar="FILE")] = None
    """record the episodes themselves into this file instead, for pgrad train imitate"""

    def __post_init__(self) -> None:
        require_positive("episodes", self.episodes)


def run(args: list[str]) -> int:
    """Record, and print where the video is and the return of each episode."""
    given: Play = parse(Play, "play", args)
    if not given.run_dir:
        raise UsageError("play which run? For example: pgrad play runs/ppo/CartPole-v1-seed0")
    if given.record is not None:
        return _record(given, given.record)
    loaded = load(given.run_dir, given.checkpoint)
    if is_language(loaded.config.world):
        return _show(given, loaded)
    with waiting(f"recording {_episodes(given)}"):
        recording = loaded.record(
            given.out, episodes=given.episodes, deterministic=not given.stochastic, seed=given.seed
        )
    print(recording.path)
    for number, (total, length) in enumerate(zip(recording.returns, recording.lengths, strict=True), 1):
        cut = "" if recording.complete or number < len(recording.returns) else ", cut off there"
        print(f"episode {number}: return {total:.1f}, {length:,} steps{cut}")
    return 0


def _show(given: Play, loaded: Run) -> int:
    if given.out is not None:
        raise UsageError("texts make no video: leave out --out")
    samples = loaded.answers(given.episodes, not given.stochastic, seed=given.seed)
    for number, sample in enumerate(samples, 1):
        prompt, reward = sample["prompt"], sample["reward"]
        asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        paid = "not judged" if reward is None else f"reward {reward:g}"
        print(f"prompt {number}: {paid}\n  {asked}\n  → {sample['completion']}")
    return 0


def _episodes(given: Play) -> str:
    return f"{given.episodes:,} episodes" if given.episodes > 1 else "an episode"


def _record(given: Play, file: str) -> int:
    if given.out is not None:
        raise UsageError("--record writes no video: leave out --out, or play twice")
    loaded = load(given.run_dir, given.checkpoint)
    with waiting(f"recording {_episodes(given)}"):
        recording = loaded.demonstrate(
            file, episodes=given.episodes, deterministic=not given.stochastic, seed=given.seed
        )
    returns, lengths = recording.info["returns"], recording.lengths
    print(file)
    print(
        f"{len(lengths)} episodes, {sum(lengths):,} decisions, mean return {sum(returns) / len(returns):.1f}"
    )
    return 0
