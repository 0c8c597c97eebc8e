"""Every shipped estimator on one problem: known numbers, known orders, and nothing left out."""

import math

import pytest
import torch

from pgrad.algorithms import ALGORITHMS
from pgrad.errors import UsageError
from pgrad.lab import Case, Tabular, exact, random_case, reference
from pgrad.lab.estimators import every_estimator, value_targets, weightings
from pgrad.lab.grade import shortened, wrong_critic
from pgrad.lab.rows import Group

GROUPS = (
    "on_policy",
    "in_batches",
    "in_groups",
    "weightings",
    "divergences",
    "targets",
    "off_policy_targets",
    "variants",
    "penalties",
)


@pytest.fixture(scope="module")
def groups() -> dict[str, Group]:
    """Of the reference problem."""
    return dict(zip(GROUPS, every_estimator(reference(), 0.5), strict=True))


def number(group: Group, name: str, key: str) -> float:
    found = next(row for row in group.rows if row.name == name).numbers[key]
    assert isinstance(found, float)
    return found


def test_every_algorithm_that_estimates_the_gradient_is_there(groups: dict[str, Group]) -> None:
    found = {row.name.partition(",")[0] for row in groups["on_policy"].rows}
    others = {"SAC", "DiscreteSAC", "Imitate", "GRPO"}
    assert found == {kind.__name__ for kind in ALGORITHMS.values()} - others | {"γᵗ·gae"}
    assert "GRPO" in {row.name for row in groups["in_groups"].rows}


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("Reinforce, no baseline, full return", 5.7639),
        ("Reinforce, no baseline, γᵗ·reward to go", 2.8095),
        ("Reinforce, V, γᵗ·reward to go", 2.9201),
    ],
)
def test_known_variances(groups: dict[str, Group], name: str, variance: float) -> None:
    assert number(groups["on_policy"], name, "variance") == pytest.approx(variance, abs=5e-5)
    assert number(groups["on_policy"], name, "bias") < 1e-9


def test_the_same_estimator_by_two_ways_has_the_same_numbers(groups: dict[str, Group]) -> None:
    group = groups["on_policy"]
    for key in ("bias", "cosine", "scale", "variance"):
        one = number(group, "Reinforce, V, γᵗ·reward to go", key)
        assert number(group, "γᵗ·gae, λ = 1, V", key) == pytest.approx(one, abs=1e-12)
        one = number(group, "ActorCritic, all steps, V + error", key)
        assert number(group, "A2C, V + error", key) == pytest.approx(one, abs=1e-12)


def test_averaging_over_decisions_shortens_and_does_not_change_the_noise(groups: dict[str, Group]) -> None:
    group = groups["on_policy"]
    whole, averaged = "Reinforce, V, reward to go", "A2C, V"
    assert number(group, averaged, "scale") * 4 == pytest.approx(number(group, whole, "scale"), rel=1e-12)
    noise = number(group, whole, "at equal length")
    assert number(group, averaged, "at equal length") == pytest.approx(noise, rel=1e-12)


def test_a_wrong_critic_is_a_bias_below_lambda_1_only(groups: dict[str, Group]) -> None:
    group = groups["on_policy"]
    bias = [number(group, f"γᵗ·gae, λ = {x}, V + error", "bias") for x in ("0", "0.5", "0.95", "1")]
    assert bias == sorted(bias, reverse=True)
    assert bias[2] > 1e-6
    assert bias[3] < 1e-9


def test_the_batch(groups: dict[str, Group]) -> None:
    group = groups["in_batches"]
    mean, left_out = (f"Reinforce, {x}, γᵗ·reward to go" for x in ("mean", "leave-one-out"))
    assert number(group, mean, "scale") == pytest.approx(0.5, abs=1e-12)
    assert number(group, left_out, "bias") < 1e-9
    equal = number(group, mean, "at equal length")
    assert number(group, left_out, "variance") == pytest.approx(equal, rel=1e-9)
    assert number(group, "A2C, V, normalised", "cosine") < number(group, "A2C, V", "cosine")
    limit = number(group, "A2C, V", "cosine, N → ∞")
    assert number(group, "A2C, V, normalised", "cosine, N → ∞") == pytest.approx(limit, abs=1e-9)


def test_groups_of_one_prompt(groups: dict[str, Group]) -> None:
    group = groups["in_groups"]
    assert number(group, "leave_one_out (RLOO)", "bias") < 1e-9
    assert number(group, "group_relative, not scaled (Dr. GRPO)", "scale") == pytest.approx(0.5, abs=1e-12)
    assert number(group, "group_relative, scaled (GRPO)", "cosine") < 1 - 1e-6
    for name, by_hand in (("", ", scaled (GRPO)"), (", not scaled", ", not scaled (Dr. GRPO)")):
        straight = number(group, f"group_relative{by_hand}", "cosine")
        assert number(group, f"GRPO{name}", "cosine") == pytest.approx(straight, abs=1e-3)


def test_importance_weights(groups: dict[str, Group]) -> None:
    group = groups["weightings"]
    right = {row.name for row in group.rows if number(group, row.name, "bias") < 1e-9}
    assert right == {
        "trajectory ratio · full return",
        "trajectory ratio · reward to go",
        "per-decision return",
    }
    exact_too = {f"OffPolicyActorCritic, {name}" for name in ("trajectory", "per-decision")}
    straight = {row.name for row in group.rows if number(group, row.name, "cosine") > 1 - 1e-9}
    assert straight == right | exact_too  # a mean over decisions: the length differs
    order = ["trajectory ratio · full return", "trajectory ratio · reward to go", "per-decision return"]
    spread = [number(group, name, "variance") for name in order]
    assert spread == sorted(spread, reverse=True)


def test_every_weight_is_right_on_policy() -> None:
    group = weightings(reference().at(0.0))
    turned = {row.name for row in group.rows if number(group, row.name, "cosine") < 1 - 1e-9}
    assert turned == {"PPO, λ = .95, without γᵗ"}


def test_divergences(groups: dict[str, Group]) -> None:
    group = groups["divergences"]
    assert number(group, "exact, KL(π‖μ)", "std") == 0.0
    for name in ("k1, actions of π", "k3, actions of π", "k3_corrected, actions of μ", "exact, KL(π‖μ)"):
        assert abs(number(group, name, "bias for KL(π‖μ)")) < 1e-9
    assert abs(number(group, "approx_kl, actions of μ", "bias for KL(μ‖π)")) < 1e-9
    reverse = {row.name for row in group.rows if number(group, row.name, "cosine ∇KL(π‖μ)") > 1 - 1e-9}
    assert reverse == {"k2, actions of π", "k3_corrected, actions of μ", "exact, KL(π‖μ)"}
    forward = {row.name for row in group.rows if number(group, row.name, "cosine ∇KL(μ‖π)") > 1 - 1e-9}
    assert forward == {"k3, actions of π", "approx_kl, actions of μ", "exact, KL(μ‖π)"}


def test_value_targets(groups: dict[str, Group]) -> None:
    targets = {row.name: row.numbers for row in groups["targets"].rows}
    for name in ("reward to go (Monte Carlo)", "all steps"):
        assert targets[name]["bias"] == pytest.approx([0.0] * 3, abs=1e-12)
    assert max(map(abs, targets["1 step: TD(0)"]["bias"])) > 0.01  # type: ignore[arg-type]
    away = {row.name: row.numbers for row in groups["off_policy_targets"].rows}
    assert away["V-trace, not truncated"]["bias"] == pytest.approx([0.0] * 3, abs=1e-12)
    assert max(map(abs, away["V-trace"]["bias"])) > 0.01  # type: ignore[arg-type]


def test_targets_against_a_sum_by_hand() -> None:
    """TD(0) of the first of two decisions, summed over actions and next states."""
    case = random_case(3, n_states=2, n_actions=2, horizon=1)
    row = next(row for row in value_targets(case).rows if row.name == "1 step: TD(0)")
    pi, r = exact.policy(case.problem, case.theta), case.problem.r
    mean = (pi * r).sum(1)
    std = (pi * (r - mean.unsqueeze(1)).square()).sum(1).sqrt()
    assert row.numbers["std"] == pytest.approx(std.tolist(), abs=1e-12)
    assert row.numbers["bias"] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_states_in_which_nothing_is_decided_have_no_number() -> None:
    case = random_case(2, n_states=3, n_terminal=1, horizon=2)
    for row in value_targets(case).rows:
        assert [math.isnan(x) for x in row.numbers["std"]] == [False, False, True]  # type: ignore[union-attr]


def test_languages(groups: dict[str, Group]) -> None:
    """What test_language_world.py proves, in the table: nothing else has the direction of the gradient."""
    group = groups["variants"]
    straight = {row.name for row in group.rows if number(group, row.name, "cosine") > 1 - 1e-9}
    dr, dynamic = "constant, not scaled (Dr. GRPO)", ", dynamic sampling"
    others = {f"Reinforce, {word}" for word in ("mean", "leave-one-out", "V")}
    assert straight == {dr, dr + dynamic, "constant, leave-one-out (RLOO)"} | others
    assert number(group, dr, "scale") == pytest.approx((1 - 1 / 3) / 2, abs=1e-12)
    assert number(group, "Reinforce, mean", "scale") == pytest.approx(1 - 1 / 6, abs=1e-12)
    right = {row.name for row in group.rows if number(group, row.name, "bias") < 1e-9}
    assert right == {"constant, leave-one-out (RLOO)", "Reinforce, leave-one-out", "Reinforce, V"}
    turned = number(group, "GRPO", "cosine")
    assert number(group, f"GRPO{dynamic}", "cosine") == pytest.approx(turned, abs=1e-12)
    group = groups["penalties"]
    assert [row.name for row in group.rows if number(group, row.name, "bias") < 1e-9] == [
        "k1-in-reward, summed"
    ]


@pytest.mark.parametrize("by", ["at equal length", "std"])
def test_the_least_noisy_comes_first(groups: dict[str, Group], by: str) -> None:
    for group in groups.values():
        noise = [row.numbers[by] for row in group.rows if isinstance(row.numbers.get(by), float)]
        assert noise == sorted(noise)  # type: ignore[type-var]


def test_the_wrong_critic_is_the_same_at_every_call() -> None:
    case = random_case(5)
    assert torch.equal(wrong_critic(case), wrong_critic(case))
    V = exact.values(case.problem, case.theta, case.gamma, case.steps).V
    assert not torch.allclose(wrong_critic(case), V)


def test_problems_are_cut_short_until_pairs_can_be_enumerated() -> None:
    small = shortened(reference())
    assert small is not None
    assert (small.steps, small.trajectory.mask.shape[1]) == (2, 36)
    S, A = 8, 8
    P = torch.full((S, A, S), 1 / S, dtype=torch.float64)
    r = torch.arange(S * A, dtype=torch.float64).reshape(S, A)
    problem = Tabular(P, r, P[0, 0], horizon=2, name="wide")
    table = torch.zeros(S, A, dtype=torch.float64)
    case = Case(problem, table, torch.ones_like(table), seed=0)
    assert shortened(case) is None
    found = dict(zip(GROUPS, every_estimator(case, 0.5), strict=True))
    assert found["in_batches"].rows == ()
    assert "at most 40" in found["in_batches"].note
    assert "horizon 1" in found["in_groups"].note


@pytest.mark.parametrize("seed", range(2))
def test_random_problems(seed: int) -> None:
    for group in every_estimator(random_case(seed), 0.5):
        assert group.rows
        for row in group.rows:
            assert all(math.isfinite(x) for x in row.numbers.values() if isinstance(x, float)), row


@pytest.mark.parametrize("c", [math.nan, math.inf])
def test_a_distance_is_a_number(c: float) -> None:
    with pytest.raises(UsageError, match="finite"):
        next(every_estimator(reference(), c))
