"""The gap between sampler and trainer: measured, weighed away where it is large, told."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import pgrad as pg
from pgrad.algorithms.sampler import RATIO, sampling_metrics, with_ess
from pgrad.data import Trajectory
from pgrad.errors import TrainingError
from pgrad.math.importance import effective_sample_size
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions, settled
from pgrad.training.alarms import Alarms
from pgrad.training.loop import Training
from pgrad.training.sampling import CORRECTED, CORRECTED_FROM, GAP
from tests.algorithms.tools import table, window
from tests.run.texts import TASK, TINY

GRPO = pg.GRPO(n_prompts=3, num_generations=4)
ALGORITHMS: dict[str, Any] = {
    "grpo": GRPO,
    "ppo": pg.PPO(n_steps=48, batch_size=32, n_epochs=2),
    "a2c": pg.A2C(n_steps=32),
    "actor-critic": pg.ActorCritic(n_steps=32),
    "reinforce": pg.Reinforce(n_episodes=12),
}
NAMES = {
    *("sampling/sampling_logp_difference/mean", GAP, "sampling/kl", "sampling/kl/k3", "sampling/ess"),
    *(f"{RATIO}/{name}" for name in ("mean", "min", "max", "raw_mean", "raw_max")),
}


def training(
    algorithm: Any, dtype: str = "float32", lora: int = 0, reward: Callable[..., list[float]] | None = None
) -> Training:
    spec = replace(TINY, dtype=dtype, lora=lora)
    asked = RunOptions(total_timesteps=4000, n_envs=2, seed=5)
    judge = by_length if reward is None else reward
    config = RunConfig(settled(algorithm, spec), "copy", spec, asked, TASK["world_kwargs"], judge)
    return make_training(config)


def by_length(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def nothing(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def with_another_sampler(made: Training, size: float) -> list[Trajectory]:
    """Let log μ be off by up to `size`, as rounding would make it; returns what was collected."""
    seen: list[Trajectory] = []
    collect: Callable[..., Trajectory] = made.collector.collect

    def collected(*args: Any) -> Trajectory:
        traj = collect(*args)
        noise = torch.rand(traj.logp.shape, generator=Generator().manual_seed(len(seen))) * 2.0 - 1.0
        seen.append(replace(traj, logp=traj.logp + size * noise * traj.mask))
        return seen[-1]

    made.collector.collect = collected
    return seen


def by_hand(logp: Tensor, sampler: Tensor, mask: Tensor, rho_max: float) -> dict[str, float]:
    gaps = [float(x - y) for x, y, on in zip(logp, sampler, mask, strict=True) if on]
    raw = [math.exp(min(gap, 20.0)) for gap in gaps]
    used = [min(w, rho_max) for w in raw]
    n = len(gaps)
    return {
        "sampling/sampling_logp_difference/mean": sum(map(abs, gaps)) / n,
        GAP: max(map(abs, gaps)),
        "sampling/kl": -sum(gaps) / n,
        "sampling/kl/k3": sum(w - 1 - gap for w, gap in zip(raw, gaps, strict=True)) / n,
        f"{RATIO}/mean": sum(used) / n,
        f"{RATIO}/min": min(used),
        f"{RATIO}/max": max(used),
        f"{RATIO}/raw_mean": sum(raw) / n,
        f"{RATIO}/raw_max": max(raw),
        "sampling/ess": sum(used) ** 2 / sum(w * w for w in used) / n,
    }


def test_the_metrics_are_their_definitions() -> None:
    draw = Generator().manual_seed(0)
    logp, sampler = (-2.0 * torch.rand(40, generator=draw, dtype=torch.float64) for _ in range(2))
    mask = (torch.rand(40, generator=draw) < 0.7).double()
    logp[0], mask[0] = 1e4, 0.0  # reaches nothing
    found = with_ess({name: float(x) for name, x in sampling_metrics(logp, sampler, mask, 1.3).items()})
    expected = by_hand(logp, sampler, mask, 1.3)
    assert found.keys() == NAMES
    for name, x in expected.items():
        if name == f"{RATIO}/max":
            x = max(x, 1.0)
        assert found[name] == pytest.approx(x, abs=1e-12), name
    weights = (logp - sampler).exp().clamp(max=1.3)
    assert found["sampling/ess"] == pytest.approx(float(effective_sample_size(weights, mask) / mask.sum()))


@pytest.mark.parametrize("far", [50.0, -50.0, 1e4, -1e4])
def test_a_sampler_at_any_distance_has_numbers(far: float) -> None:
    logp, mask = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 0.0])
    found = sampling_metrics(logp, logp - far, mask)
    assert all(bool(x.isfinite()) for x in found.values())
    assert float(found[GAP]) == pytest.approx(abs(far))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_update_on_text_tells_the_gap(name: str) -> None:
    made = training(ALGORITHMS[name])
    for _ in range(2):
        metrics = made.iterate()
        assert metrics.keys() >= NAMES
        assert 0.0 < metrics[GAP] < 1e-4
        assert metrics["sampling/ess"] == pytest.approx(1.0, abs=1e-6)
        assert CORRECTED not in metrics


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_gap_of_half_precision_is_weighed_away_and_told_once(name: str) -> None:
    made = training(ALGORITHMS[name], "bfloat16")
    seen = with_another_sampler(made, 0.5)
    said: list[str] = []
    alarms = Alarms(said.append)
    for _ in range(2):
        network: Any = made.agent.network
        before = {key: x.clone() for key, x in network.state_dict().items()}
        metrics = made.iterate()
        alarms.hear({**metrics, CORRECTED: 0.1 * metrics[CORRECTED]})  # a mean over ten updates
        after = {key: x.clone() for key, x in network.state_dict().items()}
        network.load_state_dict(before)
        logp = network.policy(seen[-1].decisions).log_prob(seen[-1].action).detach()
        network.load_state_dict(after)
        expected = by_hand(logp.flatten(), seen[-1].logp.flatten(), seen[-1].mask.flatten(), 2.0)
        for key, x in expected.items():
            if key.endswith(("/mean", "ess", "/kl", "/k3", "raw_max")) or key == GAP:
                assert metrics[key] == pytest.approx(x, rel=1e-4, abs=1e-6), key
        assert metrics[CORRECTED] == 1.0
        assert made.learner.gap == metrics[GAP] > 0.3
    assert len(said) == 1
    assert "differ by 0.1 nats or more" in said[0]
    assert "from 1 on a run stops" in said[0]
    assert "\n" not in said[0]


def test_a_small_gap_is_left_alone() -> None:
    made = training(GRPO, "bfloat16")
    with_another_sampler(made, 0.3 * CORRECTED_FROM)
    metrics = made.iterate()
    assert metrics[CORRECTED] == 0.0
    assert 0.0 < metrics[GAP] < CORRECTED_FROM


def test_a_gap_that_rounding_does_not_explain_stops_the_run() -> None:
    made = training(GRPO, "bfloat16")
    with_another_sampler(made, 3.0)
    with pytest.raises(TrainingError, match=r"not the policy that wrote: .* explains up to 1"):
        made.iterate()


def test_asked_for_the_policy_is_not_compared_with_itself() -> None:
    """rho_max: another sampler is expected; its gap is measured all the same."""
    made = training(replace(GRPO, rho_max=1.1))
    with_another_sampler(made, 0.4)
    metrics = made.iterate()
    assert metrics[GAP] > 0.3
    assert metrics[f"{RATIO}/max"] == pytest.approx(1.1)
    assert metrics[f"{RATIO}/raw_max"] > 1.3
    assert metrics["sampling/ess"] < 0.999
    assert CORRECTED not in metrics


UNWEIGHTED: list[Any] = [
    pg.A2C(gamma=0.9, vf_coef=0.0),
    pg.PPO(gamma=0.9, vf_coef=0.0, normalize_advantage=False),
    pg.ActorCritic(gamma=0.9),
    pg.Reinforce(gamma=0.9, baseline="none"),
]


@pytest.mark.parametrize("algorithm", UNWEIGHTED, ids=lambda one: type(one).__name__)
def test_a_weight_multiplies_the_policy_gradient_of_its_decision(algorithm: Any) -> None:
    """As if the advantage were so many times as large: nothing else changes."""
    agent = table(1)
    traj = window(agent)
    weight = 0.5 + torch.rand(traj.logp.shape, generator=Generator().manual_seed(4), dtype=torch.float64)
    weighed = algorithm.credit(agent, replace(traj, weight=weight))
    plain = algorithm.credit(agent, traj)
    slopes = []
    for batch in (weighed, replace(plain, advantage=weight * plain.advantage), plain):
        (slope,) = torch.autograd.grad(algorithm.loss(agent, batch)[0], [agent.theta])
        slopes.append(slope)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)
    assert not torch.allclose(slopes[0], slopes[2])


FAST: dict[str, Any] = {"beta": 0.1, "learning_rate": 0.1}
PENALISED: dict[str, Any] = {
    "grpo": replace(GRPO, kl="k1-in-reward", n_epochs=2, **FAST),
    "ppo": pg.PPO(n_steps=48, batch_size=32, n_epochs=2, recompute_advantage=True, **FAST),
    "a2c": pg.A2C(n_steps=32, **FAST),
    "actor-critic": pg.ActorCritic(n_steps=32, **FAST),
    "reinforce": pg.Reinforce(n_episodes=12, **FAST),
    "reinforce, old episodes": pg.Reinforce(n_episodes=12, reuse=1, **FAST),
}


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("name", PENALISED)
def test_at_the_reference_rounding_is_not_punished(name: str, lora: int) -> None:
    """Nobody earns anything, the policy is its reference: nothing moves, though Adam makes steps of little.

    The sampler rounds otherwise all the same, and that is told.
    """
    made = training(PENALISED[name], lora=lora, reward=nothing)
    before = [p.detach().clone() for p in made.agent.parameters()]
    for _ in range(2):
        metrics = made.iterate()
        assert 0.0 < metrics[GAP] < 1e-4
        assert metrics["kl"] == 0.0 or made.learner.recent.capacity
    for old, new in zip(before, made.agent.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_same_holds_for_a_small_gap_of_half_precision() -> None:
    made = training(PENALISED["grpo"], "bfloat16", reward=nothing)
    with_another_sampler(made, 0.3 * CORRECTED_FROM)
    metrics = made.iterate()
    assert 0.0 < metrics[GAP] < CORRECTED_FROM
    assert (metrics["kl"], metrics["train/grad_norm"]) == (0.0, 0.0)


def test_in_float32_as_little_is_explained_as_without_a_reference() -> None:
    made = training(PENALISED["grpo"])
    with_another_sampler(made, 0.01)
    with pytest.raises(TrainingError, match=r"not the policy that wrote: .* explains up to 0.001"):
        made.iterate()


@pytest.mark.parametrize("kind", ["k3-corrected", "k1-in-reward"])
def test_texts_are_scored_for_the_penalty_only_where_rewards_pay_it(kind: Any) -> None:
    made = training(replace(GRPO, beta=0.1, kl=kind))
    asked: list[bool] = []
    policy = made.agent.policy

    def counted(obs: Any) -> Any:
        asked.append(torch.is_grad_enabled())
        return policy(obs)

    made.agent.policy = counted  # type: ignore[method-assign]
    made.iterate()
    assert asked.count(False) == (kind == "k1-in-reward")


def test_where_nothing_is_learned_no_gap_is_told() -> None:
    """All groups are equal, so that no text reaches the loss, which measures."""
    made = training(GRPO, reward=nothing)
    metrics = made.iterate()
    assert metrics["train/frac_equal_groups"] == 1.0
    assert not [name for name in metrics if name.startswith("sampling/")]
    assert made.learner.gap is None
