"""What training does with completions against exact gradients, on languages that can be written down."""

import cmath
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import comb, sqrt
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from pgrad.algorithms import A2C, GRPO, PPO, ActorCritic, Imitate, Reinforce
from pgrad.algorithms.reinforce import Reuse
from pgrad.data import Tokens
from pgrad.errors import UsageError
from pgrad.lab.estimate import cosine, estimator_of
from pgrad.lab.language import (
    Language,
    LanguageCase,
    TextAgent,
    estimates,
    expectation,
    gradient,
    language_case,
)
from pgrad.math.tokens import TokenPolicy
from tests.lab.spelled import Answer, Spelled

EXACT = 1e-12
PLAIN = GRPO(num_generations=2, scale_rewards="none", average="constant", max_length=1)
"""Sums over tokens, averages over completions, divides by nothing."""

APART = language_case(Language(((0,), (1, 0)), length=3), 1)
NESTED = language_case(Language(((0,), (0, 1)), length=2), 2)  # what follows (0, 1) is known from (0,) too
WIDE = language_case(Language(((0, 3, 1), (2,)), n_tokens=4, eos=(1, 3), length=2), 3)  # EOS in a prompt
SMALL = language_case(Language(((0,), (1, 0)), length=2), 4)
CASES = pytest.mark.parametrize("case", [APART, NESTED, WIDE], ids=["apart", "nested", "two ends"])


def row(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def true(case: LanguageCase) -> Tensor:
    plain = Spelled(case)
    return row(plain.slope(plain.objective))


def apart(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())


# the world itself


@CASES
def test_probabilities_and_gradients_are_those_of_the_plain_reading(case: LanguageCase) -> None:
    plain = Spelled(case)
    assert sorted(a.text for a in plain.answers[0]) == sorted(case.language.completions)
    p = {(a.prompt, a.text): a.p for a in plain.every()}
    for q, k in product(range(2), range(len(case.language.completions))):
        assert float(case.probability[q, k]) == pytest.approx(p[q, case.language.completions[k]], abs=EXACT)
    assert apart(gradient(case.objective, case), true(case)) < EXACT
    assert apart(gradient(case.divergence, case), row(plain.slope(plain.divergence))) < EXACT


def test_rows_are_those_of_training() -> None:
    """A prompt of two tokens, a completion that ends after two of three, and one that is cut."""
    traj, language = APART.everything, APART.language
    K = len(language.completions)
    ended, cut = K + language.completions.index((1, 2)), K + language.completions.index((1, 1, 0))
    assert isinstance(traj.obs, Tokens)
    assert traj.obs.id[:4, ended].tolist() == [1, 0, 1, 2]
    assert traj.action[:3, ended].tolist() == [0, 1, 2]
    assert traj.obs.decides[:, ended].tolist() == [False, True, True, False, False]
    assert (traj.mask[:, ended] > 0).tolist() == [False, True, True, False]
    assert traj.done[:, ended].tolist() == [True, False, True, True]
    assert traj.terminated[:, ended].tolist() == [False, False, True, False]
    assert traj.done[:, cut].tolist() == [True, False, False, True]
    assert traj.terminated[:, cut].tolist() == [False] * 4
    assert traj.reward[:, ended].tolist() == [0.0, 0.0, float(APART.reward[1, ended - K]), 0.0]
    assert bool((traj.logp[~traj.obs.decides[:-1]] == 0).all())
    assert float(traj.mask.amax(0).sum()) == pytest.approx(1.0, abs=EXACT)


def test_too_much_to_enumerate_is_said() -> None:
    with pytest.raises(UsageError, match="too many to enumerate"):
        Language(((0,),), n_tokens=9, eos=(1,), length=9)


# GRPO: what is divided by, and by what it is averaged


@CASES
@pytest.mark.parametrize("size", [2, 3])
def test_the_mean_of_the_group_shortens_and_leaving_oneself_out_does_not(
    case: LanguageCase, size: int
) -> None:
    truth = true(case)
    mean = replace(PLAIN, num_generations=size)
    found = estimates(mean, case, size).mean
    assert apart(found, (1 - 1 / size) * truth) < EXACT
    assert apart(estimates(replace(mean, baseline="leave-one-out"), case, size).mean, truth) < EXACT
    dr = replace(mean, max_length=case.language.length)
    assert apart(estimates(dr, case, size).mean, (1 - 1 / size) / case.language.length * truth) < EXACT
    untouched = torch.ones(len(case.theta), dtype=torch.bool)
    decides = case.everything.decisions.decides
    untouched[case.language.text(case.everything.decisions)[decides]] = False
    assert float(found.reshape(case.theta.shape)[untouched].abs().max()) == 0.0  # prompts and padding


def weights(grpo: GRPO, groups: Sequence[Sequence[Answer]]) -> list[float]:
    """What multiplies ∇log p of each completion, by hand; completions without a judge belong to no group."""
    everyone = [a.reward for group in groups for a in group if a.judged]
    over_all = spread(everyone)
    learned = [a for group in groups for a in group if a.judged and not (grpo.mask_truncated and a.cut)]
    tokens = sum(len(a.text) for a in learned)
    found = []
    for group in groups:
        known = [a.reward for a in group if a.judged]
        for a in group:
            if a not in learned:
                found.append(0.0)
                continue
            advantage = a.reward - sum(known) / len(known)
            if grpo.baseline == "leave-one-out":
                advantage *= len(known) / (len(known) - 1) if len(known) > 1 else 0.0
            if grpo.scale_rewards == "group":
                advantage /= spread(known) + 1e-4
            if grpo.scale_rewards == "batch":
                advantage /= over_all + 1e-4
            divisor = {
                "sequence": len(learned) * len(a.text),
                "token": tokens,
                "constant": len(learned) * (grpo.max_length or 0),
            }
            found.append(advantage / divisor[grpo.average])
    return found


def spread(x: Sequence[float]) -> float:
    return sqrt(sum((y - sum(x) / len(x)) ** 2 for y in x) / len(x)) if x else 0.0


UNJUDGED = replace(SMALL, reward=SMALL.reward.clone())
UNJUDGED.reward[0, 1] = UNJUDGED.reward[1, 4] = math.nan
SETTINGS: list[dict[str, Any]] = [
    {"scale_rewards": scale, "average": average, "max_length": 2}
    for scale, average in product(("group", "batch", "none"), ("sequence", "token", "constant"))
]
SETTINGS += [
    {"baseline": "leave-one-out", "scale_rewards": "batch"},
    {"mask_truncated": True},
    {"mask_truncated": True, "average": "token", "scale_rewards": "batch"},
    {"mask_truncated": True, "average": "constant", "max_length": 2, "baseline": "leave-one-out"}
    | {"scale_rewards": "none"},
    {"ratio": "sequence"},
    {"objective": "truncated", "average": "token"},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("case", [SMALL, UNJUDGED], ids=["judged", "some without a judge"])
def test_every_setting_has_the_mean_of_its_formula(case: LanguageCase, setting: dict[str, Any]) -> None:
    """Updates of one group of 3 and of two groups of 2, all of them, one after the other."""
    plain = Spelled(case)
    for size, n in ((3, 1), (2, 2)):
        if n == 2 and setting.get("average", "sequence") == "constant":
            continue  # linear in groups
        grpo = GRPO(num_generations=size, **setting)
        expected = row(plain.expected(size, n, lambda groups: weights(grpo, groups)))  # noqa: B023
        assert apart(estimates(grpo, case, size, n).mean, expected) < 1e-11
        assert float(expected.abs().max()) > 1e-4


def one_token(q: float) -> LanguageCase:
    """Right is EOS at once, which has probability q."""
    language = Language(((0,),), n_tokens=2, eos=(1,), length=1)
    case = language_case(language)
    theta = torch.zeros_like(case.theta)
    theta[language.texts.index((0,)), 1] = math.log(q / (1 - q))
    return replace(case, theta=theta, reward=row([0.0, 1.0]).unsqueeze(0))


@pytest.mark.parametrize(
    ("q", "factor", "silent"), [(0.5, 1.856, 0.008), (0.9, 2.328, 0.430), (0.99, 2.609, 0.923)]
)
def test_the_std_weighs_prompts_by_their_difficulty(q: float, factor: float, silent: float) -> None:
    """E-46: groups of 8 of which k are right pull with σ̂ = √(k(8−k))/8 where ∇q has q(1 − q)."""
    case = one_token(q)
    truth = true(case)
    deviations = [sqrt(k * (8 - k)) / 8 for k in range(9)]
    chances = [comb(8, k) * q**k * (1 - q) ** (8 - k) for k in range(9)]
    expected = sum(p * s * s / (s + 1e-4) for p, s in zip(chances, deviations, strict=True)) / (q * (1 - q))
    found = estimates(GRPO(num_generations=8), case, 8)
    assert float(found.mean @ truth / truth.square().sum()) == pytest.approx(expected, rel=1e-10)
    assert expected == pytest.approx(factor, abs=1e-3)  # 10⁻⁴ beside σ̂ takes less than that away
    nothing = found.gradient.abs().amax(1) == 0
    assert float(found.probability[nothing].sum()) == pytest.approx(q**8 + (1 - q) ** 8, abs=EXACT)
    assert q**8 + (1 - q) ** 8 == pytest.approx(silent, abs=5e-4)
    rloo = GRPO(num_generations=8, scale_rewards="none", baseline="leave-one-out")
    assert apart(estimates(rloo, case, 8).mean, truth) < EXACT


def test_two_prompts_of_different_difficulty_in_large_groups() -> None:
    """L-55: E ĝ → Σ ∇q/σ, whose angle to Σ ∇q has the cosine .9877 for q = .5 and .99."""
    language = Language(((0,), (1, 0)), n_tokens=2, eos=(1,), length=1)
    case = language_case(language)
    theta = torch.zeros_like(case.theta)
    theta[language.texts.index((1, 0)), 1] = math.log(99)
    case = replace(case, theta=theta, reward=row([0.0, 1.0]).expand(2, 2), rho=row([0.5, 0.5]))
    slopes, weight = (0.25, 0.99 * 0.01), (1 / 0.5001, 1 / (sqrt(0.99 * 0.01) + 1e-4))
    pulled = [s * w for s, w in zip(slopes, weight, strict=True)]
    by_hand = (
        sum(s * x for s, x in zip(slopes, pulled, strict=True)) / math.hypot(*slopes) / math.hypot(*pulled)
    )
    found = cosine(expectation(GRPO(num_generations=2), case), true(case))  # all answers are the group
    assert found == pytest.approx(by_hand, abs=EXACT)
    assert by_hand == pytest.approx(0.9877, abs=5e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_in_groups_of_two_and_three_the_std_is_one_constant(size: int) -> None:
    """Right or wrong: every mixed group has the deviation √(G − 1)/G, so all prompts count as in ∇J."""
    case = replace(APART, reward=(APART.reward > 0.6).to(torch.float64))
    grpo = replace(PLAIN, num_generations=size, scale_rewards="group")
    factor = (1 - 1 / size) / (sqrt(size - 1) / size + 1e-4)
    assert apart(estimates(grpo, case, size).mean, factor * true(case)) < EXACT


def test_only_a_constant_keeps_the_direction_in_batches_of_any_size() -> None:
    """L-56, E-47, N-01."""
    truth, found = true(APART), {}
    for average in ("sequence", "token", "constant"):
        grpo = replace(PLAIN, average=average, max_length=3)
        large = expectation(replace(grpo, num_generations=len(APART.language.completions)), APART)
        found[average] = [cosine(estimates(grpo, APART, 2).mean, truth), cosine(large, truth)]
    assert min(found["constant"]) > 1 - EXACT
    assert found["token"][0] < 0.999 < 1 - EXACT < found["token"][1]
    assert max(found["sequence"]) < 0.98


def test_one_over_the_length_makes_wrong_answers_longer() -> None:
    """Right is what begins with 0. Length is no part of it: ∇J is 0 behind the first token."""
    uniform = torch.zeros_like(APART.theta)
    right = row([float(text[0] == 0) for text in APART.language.completions]).expand(2, -1)
    case = replace(APART, theta=uniform, reward=right)
    every = len(case.language.completions)
    by_length = expectation(GRPO(num_generations=every, scale_rewards="none"), case).reshape(uniform.shape)
    summed = expectation(replace(PLAIN, num_generations=every), case).reshape(uniform.shape)
    for prompt in case.language.prompts:
        for first, sign in ((0, 1.0), (1, -1.0)):
            text = case.language.texts.index((*prompt, first))
            assert sign * float(by_length[text, 2]) > 1e-4  # the pull on EOS
            assert float(summed[text].abs().max()) < EXACT


# what is replaced, left out, or has no judge


@pytest.mark.parametrize("average", ["sequence", "constant"])
def test_dynamic_sampling_keeps_the_direction(average: Any) -> None:
    """Groups that are replaced pull nothing, and others are drawn like them: E ĝ/P(unequal), whatever ρ."""
    plain = Spelled(SMALL)
    grpo = GRPO(num_generations=2, average=average, max_length=2)
    kept = sum(p for p, (a, b) in plain.groups(2) if a.reward != b.reward)
    everything = estimates(grpo, SMALL, 2, 2).mean
    found = estimates(replace(grpo, dynamic_sampling=True), SMALL, 2, 2, only_unequal=True)
    assert 0.1 < kept < 0.9
    assert float(found.probability.sum()) == pytest.approx(1.0, abs=EXACT)
    assert apart(found.mean, everything / kept) < EXACT
    per_token = replace(grpo, average="token")
    filtered, all_of_it = (estimates(per_token, SMALL, 2, 2, only_unequal=one).mean for one in (True, False))
    assert cosine(filtered, all_of_it) < 1 - EXACT  # whose divisor the silent groups were part of


def test_completions_without_a_judge_are_as_if_they_never_happened() -> None:
    """E ĝ = Σ ρ·E[1 − 1/m]·∇E[R | judged], with m judged of G: no pull to or from what nobody can judge."""
    plain = Spelled(UNJUDGED)
    for size, baseline in product((2, 3), ("mean", "leave-one-out")):
        expected = torch.zeros_like(true(SMALL))
        for q in range(2):
            share = sum(a.p for a in plain.answers[q] if a.judged)

            def conditional(table: Any, q: int = q) -> complex:
                own = [(plain.p(table, q, a.text), a) for a in plain.answers[q] if a.judged]
                return sum(p * a.reward for p, a in own) / sum(p for p, _ in own)

            chances = [comb(size, m) * share**m * (1 - share) ** (size - m) for m in range(size + 1)]
            keep = [1 - 1 / m if baseline == "mean" else float(m > 1) for m in range(1, size + 1)]
            factor = sum(p * k for p, k in zip(chances[1:], keep, strict=True))
            expected += plain.rho[q] * factor * row(plain.slope(conditional))
        grpo = replace(PLAIN, num_generations=size, baseline=baseline)  # type: ignore[arg-type]
        assert apart(estimates(grpo, UNJUDGED, size).mean, expected) < EXACT


def test_masking_what_was_cut_is_another_objective() -> None:
    """With c = P(cut): of groups of 2, Σ ρ·[(1+c)/2·∇E[R; ended] − (E[R; ended]/2 + E[R; cut])·∇P(ended)]."""
    plain = Spelled(APART)
    expected = torch.zeros_like(true(APART))
    for q in range(2):
        own = plain.answers[q]
        cut = sum(a.p for a in own if a.cut)
        earned = [sum(a.p * a.reward for a in own if a.cut == one) for one in (False, True)]

        def ended(table: Any, paid: bool, q: int = q) -> complex:
            return sum(
                plain.p(table, q, a.text) * (a.reward if paid else 1.0) for a in plain.answers[q] if not a.cut
            )

        pull = (1 + cut) / 2 * row(plain.slope(lambda table: ended(table, True)))
        push = (earned[0] / 2 + earned[1]) * row(plain.slope(lambda table: ended(table, False)))
        expected += plain.rho[q] * (pull - push)
    found = estimates(replace(PLAIN, mask_truncated=True), APART, 2).mean
    assert apart(found, expected) < EXACT
    assert cosine(found, true(APART)) < 0.99


@pytest.mark.parametrize("average", ["sequence", "token", "constant"])
@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_to_learn_from_is_no_gradient(average: Any, parts: int) -> None:
    """All completions cut and masked, or none judged: a gradient of zero, and not 0/0."""
    grpo = GRPO(num_generations=2, average=average, max_length=2, mask_truncated=True)
    cut = [k for k, text in enumerate(SMALL.language.completions) if 2 not in text]
    traj = SMALL.everything
    pair = replace(
        traj, **{f: getattr(traj, f)[:, cut[:2]] for f in ("logp", "reward", "terminated", "done")}
    )
    pair = replace(pair, action=traj.action[:, cut[:2]], mask=(traj.mask[:, cut[:2]] > 0).double())
    pair = replace(
        pair, obs=Tokens(*(getattr(traj.obs, f)[:, cut[:2]] for f in ("id", "position", "decides")))
    )
    for batch in (pair, replace(pair, mask=torch.zeros_like(pair.mask))):
        leaf = SMALL.theta.clone().requires_grad_()
        agent = SMALL.agent(leaf)
        whole = grpo.credit(agent, batch)
        losses = [grpo.loss(agent, part)[0] for part in whole.parts(2 // parts)]
        (found,) = torch.autograd.grad(torch.stack(losses).sum(), leaf)
        assert float(found.abs().max()) == 0.0


# the divergence from a reference


FREE = replace(APART, reward=torch.zeros_like(APART.reward))
BEHIND = replace(language_case(APART.language, 5, behind=True), reward=FREE.reward)


def penalised(case: LanguageCase, kind: str, **changed: Any) -> Tensor:
    return estimates(replace(PLAIN, beta=1.0, kl=kind, **changed), case, 2).mean  # type: ignore[arg-type]


def test_what_each_penalty_is_the_gradient_of() -> None:
    """On-policy: k1 in the reward of KL(p_π‖p_ref); the others token by token, where texts stay as likely."""
    plain = Spelled(FREE)
    whole = -row(plain.slope(plain.divergence))
    reverse = -row(plain.slope(lambda table: plain.token_divergence(table, forward=False)))
    forward = -row(plain.slope(lambda table: plain.token_divergence(table, forward=True)))
    assert apart(penalised(FREE, "k1-in-reward"), whole) < EXACT
    assert apart(penalised(FREE, "k2"), reverse) < EXACT
    assert apart(penalised(FREE, "k3-corrected"), reverse) < EXACT
    assert apart(penalised(FREE, "k3"), forward) < EXACT
    assert cosine(reverse, whole) < 0.99
    assert cosine(forward, whole) < cosine(reverse, whole)
    assert cosine(penalised(FREE, "k1-in-reward", average="sequence"), whole) < 0.999


def test_from_older_samples_only_the_corrected_one_keeps_its_gradient() -> None:
    """E-48: token by token, over the texts that the older policy wrote."""
    plain = Spelled(BEHIND)
    reverse = -row(plain.slope(lambda table: plain.token_divergence(table, forward=False)))
    forward = -row(plain.slope(lambda table: plain.token_divergence(table, forward=True)))
    assert apart(penalised(BEHIND, "k3-corrected"), reverse) < EXACT
    assert apart(penalised(BEHIND, "k2"), reverse) > 1e-3
    assert apart(penalised(BEHIND, "k3"), forward) > 1e-3


@pytest.mark.parametrize("kind", ["k2", "k3", "k3-corrected"])
def test_another_sampler_is_corrected_in_the_penalty_too(kind: str) -> None:
    """Weighed by π_old/μ, without a bound, π = π_old gets the gradients that its own tokens would give."""
    plain = Spelled(BEHIND)
    truth = -row(plain.slope(lambda table: plain.token_divergence(table, forward=kind == "k3")))
    assert apart(penalised(BEHIND, kind, rho_max=1e9), truth) < EXACT


def test_reward_and_penalty_in_the_reward_add_up() -> None:
    """RLOO with k1 in the reward: ∇(J − β·KL)."""
    plain = Spelled(APART)
    truth = row(plain.slope(lambda table: plain.objective(table) - 0.3 * plain.divergence(table)))
    grpo = replace(PLAIN, baseline="leave-one-out", beta=0.3, kl="k1-in-reward")
    assert apart(estimates(grpo, APART, 2).mean, truth) < EXACT


@pytest.mark.parametrize("kind", ["k3-corrected", "k1-in-reward"])
def test_a_penalty_does_not_hide_that_groups_are_equal(kind: Any) -> None:
    """Nothing is earned, so all groups are equal, though a penalty in the reward pulls in each."""

    class Still:
        agent = FREE.agent()

        def compute(self, function: Any, *inputs: Any) -> Any:
            return function(self.agent, *inputs)

        def columns(self, batch: Any, n: int) -> Any:
            return iter(())

    grpo = replace(PLAIN, beta=1.0, kl=kind, num_generations=3)
    assert float(grpo.update(Still(), FREE.everything)["train/frac_equal_groups"]) == 1.0  # type: ignore[arg-type]


# the other algorithms


@CASES
@pytest.mark.parametrize(
    ("setting", "scale"),
    [
        ({"baseline": "none"}, 1.0),
        ({"baseline": "mean"}, 2 / 3),
        ({"baseline": "leave-one-out"}, 1.0),
        ({"baseline": "leave-one-out", "reward_to_go": False}, 1.0),
        ({"baseline": "value"}, 1.0),
    ],
    ids=str,
)
def test_reinforce(case: LanguageCase, setting: dict[str, Any], scale: float) -> None:
    """Three completions of independent prompts; a critic with errors, but 0 behind the end, is no bias."""
    critic = case.critic * torch.linspace(0.5, 1.5, len(case.theta), dtype=torch.float64)
    if case is NESTED:
        critic = torch.zeros_like(critic)  # a cut text of one prompt goes on in the other's
    found = estimates(Reinforce(gamma=1.0, **setting), case, 1, 3, critic=critic).mean
    assert apart(found, scale * true(case)) < EXACT


@pytest.mark.parametrize("baseline", ["none", "value"])
@pytest.mark.parametrize("weighting", get_args(Reuse))
def test_episodes_used_again_make_up_for_the_sampler(weighting: Reuse, baseline: Any) -> None:
    """π/μ with the log μ that the sampler told: its rounding and the age of an episode are one ratio.

    With the log-probabilities that training would have given the same texts, of which it is only known that
    they were written, the sampler's errors stay.
    """
    other = language_case(APART.language, 6, behind=True)
    again = Reinforce(gamma=1.0, reuse=1, baseline=baseline, weighting=weighting, n_episodes=1)
    assert apart(expectation(again, other), true(other)) < EXACT
    rescored = other.agent().policy(other.everything.decisions).log_prob(other.everything.action)
    table = other.theta.clone().requires_grad_()
    traj = replace(other.everything, logp=rescored)
    slope = torch.autograd.grad(estimator_of(again)(other.agent(table), traj), table)[0].flatten()
    assert apart(slope, true(other)) > 1e-3


@CASES
@pytest.mark.parametrize("settings", [{"baseline": "leave-one-out"}, {"baseline": "none"}], ids=str)
def test_reinforce_with_the_reference_in_the_reward(case: LanguageCase, settings: dict[str, Any]) -> None:
    """∇(J − β·KL(p_π‖p_ref)), of whole completions."""
    plain = Spelled(case)
    truth = row(plain.slope(lambda table: plain.objective(table) - 0.3 * plain.divergence(table)))
    found = estimates(Reinforce(gamma=1.0, beta=0.3, **settings), case, 1, 3).mean
    assert apart(found, truth) < EXACT
    assert apart(found, true(case)) > 1e-3


def average_length(plain: Spelled) -> float:
    return plain.mean(plain.theta, lambda a: len(a.text)).real


CRITICS: list[Any] = [
    PPO(gamma=1.0, gae_lambda=1.0, normalize_advantage=False, ent_coef=0.0),
    A2C(gamma=1.0, gae_lambda=1.0, ent_coef=0.0),
    ActorCritic(gamma=1.0, bootstrap_steps=None, ent_coef=0.0),
]


@pytest.mark.parametrize("algorithm", CRITICS, ids=lambda one: type(one).__name__)
def test_algorithms_with_a_critic(algorithm: Any) -> None:
    """A mean over tokens: ∇J/E[length] in large batches, with any critic that is 0 behind the end."""
    expected = true(APART) / average_length(Spelled(APART))
    assert apart(expectation(algorithm, APART), expected) < EXACT
    wrong = APART.critic * torch.linspace(0.5, 1.5, len(APART.theta), dtype=torch.float64)
    assert apart(expectation(algorithm, APART, wrong), expected) < EXACT


@pytest.mark.parametrize("algorithm", CRITICS, ids=lambda one: type(one).__name__)
def test_algorithms_with_a_critic_and_the_reference_in_the_reward(algorithm: Any) -> None:
    """One step goes along ∇(J − β·KL(p_π‖p_ref)), though the critic knows nothing of the divergence."""
    plain = Spelled(APART)
    truth = row(plain.slope(lambda table: plain.objective(table) - 0.3 * plain.divergence(table)))
    found = expectation(replace(algorithm, beta=0.3), APART)
    assert apart(found, truth / average_length(plain)) < EXACT


def test_gae_with_the_exact_critic_needs_no_whole_return() -> None:
    """λ < 1 is exact where V is, and biased where it is not."""
    expected = true(APART) / average_length(Spelled(APART))
    ppo = replace(CRITICS[0], gae_lambda=0.5)
    assert apart(expectation(ppo, APART), expected) < EXACT
    wrong = APART.critic * torch.linspace(0.5, 1.5, len(APART.theta), dtype=torch.float64)
    assert apart(expectation(ppo, APART, wrong), expected) > 1e-4


@pytest.mark.parametrize("algorithm", CRITICS, ids=lambda one: type(one).__name__)
def test_what_a_critic_says_behind_a_cut_does_not_matter(algorithm: Any) -> None:
    """A text that is cut was judged as it is: V of all that was read is no reward for being cut."""
    critic = APART.critic.clone()
    behind = critic == 0.0
    critic[behind] = torch.linspace(0.1, 2.0, int(behind.sum()), dtype=torch.float64)
    expected = true(APART) / average_length(Spelled(APART))
    assert apart(expectation(algorithm, APART, critic), expected) < EXACT


def test_imitation_of_what_the_reference_wrote() -> None:
    """−∇loss = −∇KL(p_ref‖p_π)/E_ref[length]: the cross-entropy of whole completions, per token."""
    case = replace(APART, behaviour=APART.anchor)
    plain = Spelled(case)
    wrote = replace(APART, theta=APART.anchor)
    length = average_length(Spelled(wrote))

    def cross(table: Any) -> complex:
        return sum(
            plain.rho[a.prompt] * a.p * cmath.log(plain.p(table, a.prompt, a.text)) for a in plain.every()
        )

    assert apart(expectation(Imitate(), case), row(plain.slope(cross)) / length) < EXACT


# the policy that training has


class OneHot(TextAgent):
    """The same agent with the policy that language models have, whose hidden state says which text it is."""

    def policy(self, obs: Tokens) -> Any:
        hidden = torch.nn.functional.one_hot(self.language.text(obs), len(self.theta)).float()
        return TokenPolicy(hidden, self.theta.t().float(), None, obs.decides)

    def reference(self, obs: Tokens) -> Any:
        hidden = torch.nn.functional.one_hot(self.language.text(obs), len(self.theta)).float()
        return TokenPolicy(hidden, self.anchor.t().float(), None, obs.decides)


@pytest.mark.parametrize("kind", ["k2", "k3", "k3-corrected", "k1-in-reward"])
def test_the_policy_of_language_models_has_the_same_gradient(kind: Any) -> None:
    """On everything that can happen as one batch of groups, whole and in parts."""
    grpo = GRPO(num_generations=len(APART.language.completions), beta=0.2, kl=kind, ent_coef=0.1)
    traj = replace(APART.everything, mask=(APART.everything.mask > 0).double())
    found = []
    for kind_of_agent, n in ((TextAgent, 99), (OneHot, 99), (OneHot, 7)):
        leaf = APART.theta.clone().requires_grad_()
        agent = kind_of_agent(APART.language, leaf, APART.critic, APART.anchor)
        batch = grpo.credit(agent, traj)
        losses = [grpo.loss(agent, part)[0] for part in batch.parts(n)]
        found.append(torch.autograd.grad(torch.stack(losses).sum(), leaf)[0])
    assert apart(found[0], found[1]) < 1e-6
    assert apart(found[0], found[2]) < 1e-6
    assert float(found[0].abs().max()) > 1e-2
