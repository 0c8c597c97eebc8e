"""Which metrics are shown of a training, and how numbers are written."""

from collections.abc import Callable, Mapping
from typing import Any

from pgrad.training.stages import shares


def number(value: float) -> str:
    """Three or four digits: 12,340 · 213.4 · 0.561 · 2.5e-05."""
    size = abs(value)
    if size >= 1e7 or (0 < size < 1e-4):
        return f"{value:.2g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def whole(value: float) -> str:
    """Rounded, with thousands separated: 12,340."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """A count with a unit: 843 · 12.3k · 1.20M."""
    if value >= 999_500:
        return f"{value / 1e6:.2f}M"
    return f"{value / 1e3:.1f}k" if value >= 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours and days from there: 0:07 · 1:02:03 · 2d 01:02:03."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02}:{m:02}:{s:02}"
    return f"{h}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def negative(value: float) -> str:
    """The number with its sign turned: Stable-Baselines3 logs minus the entropy."""
    return number(-value)


def percent(value: float) -> str:
    """A share of 1: 12%."""
    return f"{value:.0%}"


Format = Callable[[float], str]
Columns = tuple[tuple[str, str, Format], ...]
"""A label, a metric, how it is written."""
Line = tuple[tuple[str, str, int, Format], ...]
"""A text, a metric, how many characters it takes, how it is written."""

DOING: Columns = (
    ("episode return", "rollout/ep_rew_mean", number),
    ("episode length", "rollout/ep_len_mean", whole),
    ("evaluation", "eval/mean_reward", number),
    ("log-likelihood", "train/log_likelihood", number),
    ("accuracy", "train/accuracy", number),
    ("  held out", "held_out/accuracy", number),
    ("steps/s", "time/fps", whole),
    ("learning rate", "train/learning_rate", number),
)
LEARNING: Columns = (
    ("KL", "train/approx_kl", number),
    ("clip fraction", "train/clip_fraction", number),
    ("entropy", "train/entropy_loss", negative),
    ("explained variance", "train/explained_variance", number),
    ("policy loss", "train/policy_gradient_loss", number),
    ("value loss", "train/value_loss", number),
)
LINE: Line = (
    ("return {}", "rollout/ep_rew_mean", 6, number),
    ("length {}", "rollout/ep_len_mean", 5, whole),
    ("eval {}", "eval/mean_reward", 6, number),
    ("accuracy {}", "train/accuracy", 6, number),
    ("{} steps/s", "time/fps", 5, rate),
    ("kl {}", "train/approx_kl", 6, "{:.4f}".format),
)

READING: Columns = (
    ("reward", "reward", number),
    ("reward deviation", "reward_std", number),
    ("groups all equal", "frac_reward_zero_std", percent),
    ("  all at the best", "frac_reward_all_best", percent),
    ("  all at the worst", "frac_reward_all_worst", percent),
    ("completion length", "completions/mean_length", number),
    ("cut off", "completions/clipped_ratio", percent),
    ("evaluation", "eval/mean_reward", number),
    ("tokens/s", "time/tokens_per_second", rate),
)
SCORING: Columns = (
    ("KL to the reference", "kl", number),
    ("  its k3", "kl/k3", number),
    ("KL of the update", "train/approx_kl", number),
    ("clipped below", "clip_ratio/low_mean", percent),
    ("clipped above", "clip_ratio/high_mean", percent),
    ("clip fraction", "train/clip_fraction", percent),
    ("entropy", "entropy", number),
    ("sampler gap", "sampling/sampling_logp_difference/max", number),
    ("explained variance", "train/explained_variance", number),
    ("policy loss", "train/policy_gradient_loss", number),
    ("value loss", "train/value_loss", number),
    ("learning rate", "train/learning_rate", number),
)
SPOKEN: Line = (
    ("reward {}", "reward", 6, number),
    ("length {}", "completions/mean_length", 5, number),
    ("eval {}", "eval/mean_reward", 6, number),
    ("{} tokens/s", "time/tokens_per_second", 5, rate),
    ("kl {}", "train/approx_kl", 6, "{:.4f}".format),
)


def times(metrics: Mapping[str, float]) -> str:
    """What shares of the time its stages took, in one line: time   world 41%  act 33%  update 25%."""
    shown = [f"{name} {percent(x)}" for name, x in shares(metrics).items() if x >= 0.005]
    return "  ".join(["time ", *shown]) if shown else ""


def one_line(sample: Mapping[str, Any], width: int) -> str:
    """A completion behind its prompt and its reward, in one line."""
    prompt, reward = sample["prompt"], sample["reward"]
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    paid = "not judged" if reward is None else number(reward)
    asked, said = (text.replace("\n", "⏎") for text in (asked, sample["completion"]))
    room = max(width - max(len(paid), 6) - 5, 8)
    asked = _cut(asked, max(room // 3, room - len(said)), front=True)
    return f"{paid:>6}  {asked} → {_cut(said, room - len(asked))}"


def _cut(text: str, width: int, front: bool = False) -> str:
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if front else f"{text[: width - 1]}…"
