"""Claims about GRPO: groups of answers to a prompt, their lengths, and how difficult the prompt is."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import comb, log, nan, sqrt
from typing import Any

import torch
from torch import Tensor

from pgrad.algorithms import GRPO
from pgrad.algorithms.grpo import Average
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import gradient_of, relative_error, rounded_error, row, size
from pgrad.lab.claims.returns import shortened, starting
from pgrad.lab.estimate import cosine, estimates, expectation
from pgrad.lab.problems import Case
from pgrad.math import reduce
from pgrad.math.credit import group_relative, leave_one_out
from pgrad.math.distributions import Categorical
from pgrad.math.objectives import score_function
from pgrad.worlds.tensors.tabular import Tabular

EPS = 1e-12
"""Added to standard deviations: too little to be seen in numbers that should be those of the formula."""

Compare = Callable[[Tensor], Tensor]
"""From the rewards of groups [..., G] to the advantages of their members."""


def scaled(reward: Tensor) -> Tensor:
    """GRPO's advantages: centred, and divided by the standard deviation."""
    return group_relative(reward, reward.shape[-1], eps=EPS)


def centred(reward: Tensor) -> Tensor:
    """Dr. GRPO's advantages: centred only."""
    return group_relative(reward, reward.shape[-1], scale=False)


def without_itself(reward: Tensor) -> Tensor:
    """RLOO's advantages: the mean of the others subtracted."""
    return leave_one_out(reward, reward.shape[-1])


def eos_world(case: Case) -> Case:
    """A prompt, a right or a wrong answer, and up to three tokens until its end; only rightness pays.

    States: 0 the prompt (token 0 is the right answer, 1 the wrong one), 1 to 3 behind the right answer,
    4 to 6 behind the wrong one (token 0 goes on, token 1 is EOS; at 3 and 6 both end), and 7 the end. The
    reward, 1 for the right answer, comes with EOS. Whether an answer is right does not depend on its length,
    so ∇J is 0 in all parameters but the prompt's.
    """
    go = [2, 3, 7, 5, 6, 7]
    after = torch.tensor([[1, 4], *([s, 7] for s in go), [7, 7]])
    r = torch.zeros(8, 2, dtype=torch.float64)
    r[1:4, 1] = r[3, 0] = 1.0
    problem = Tabular(
        P=torch.nn.functional.one_hot(after, 8).to(torch.float64),
        r=r,
        rho0=torch.eye(8, dtype=torch.float64)[0],
        horizon=4,
        terminal=torch.arange(8) == 7,
        name="eos-world",
    )
    theta = torch.zeros(8, 2, dtype=torch.float64)
    if case.seed is not None:
        theta = torch.randn(8, 2, generator=case.draws(), dtype=torch.float64)
    return Case(problem, theta, torch.ones_like(theta), gamma=1.0, seed=case.seed, name=problem.name)


def _truth(case: Case) -> Tensor:
    """∇J without discount, flat."""
    return exact.gradient(case.problem, case.theta, 1.0).flatten()


def _grpo(size: int, **changed: Any) -> GRPO:
    """The note's GRPO: a sum over tokens, a mean over answers; not scaled if nothing else is said."""
    return replace(
        GRPO(num_generations=size, scale_rewards="none", average="constant", max_length=1), **changed
    )


def _in_large_groups(case: Case, average: Average) -> Tensor:
    """The mean gradient as G → ∞, flat: all answers are one group, and weigh what they are likely."""
    grpo = _grpo(case.trajectory.mask.shape[1], average=average, max_length=case.steps)
    return expectation(grpo, case).flatten()


def _prompts(case: Case) -> Iterator[tuple[float, Case]]:
    """Every start state as a prompt of its own, the most probable first, and its probability.

    All have as many decisions as pairs of answers can be enumerated for.
    """
    starts = [s for s in case.problem.rho0.argsort(descending=True).tolist() if case.problem.rho0[s] > 0]
    steps = min(shortened(starting(case, s), case.steps, 2).steps for s in starts)
    for s in starts:
        yield float(case.problem.rho0[s]), shortened(starting(case, s), steps)


def _groups(q: float, size: int) -> tuple[Tensor, Tensor]:
    """Which of `size` answers are right [G+1, G], by how many are, and how probable that is."""
    chance = row(*(comb(size, k) * q**k * (1 - q) ** (size - k) for k in range(size + 1)))
    return torch.arange(size) < torch.arange(size + 1).unsqueeze(1), chance


def _no_signal(q: float, size: int) -> float:
    """How probable a group is whose advantages are all 0."""
    right, chance = _groups(q, size)
    return float(chance[(scaled(right.to(torch.float64)) == 0).all(1)].sum())


def _weight(q: float, size: int, compare: Compare) -> float:
    """E ĝ / ∇q of a prompt that is answered rightly with probability q, over all groups of `size` answers."""
    return _pull(q, *_groups(q, size), compare)


def _weight_in_large_groups(percent: int, compare: Compare) -> float:
    """The limit of large groups: one group whose share of right answers is exactly q = percent/100."""
    right = torch.arange(100) < percent
    return _pull(percent / 100, right.unsqueeze(0), row(1.0), compare)


def _pull(q: float, right: Tensor, chance: Tensor, compare: Compare) -> float:
    """Σ chance·(1/G) Σᵢ Âᵢ ∇log π(answer i), relative to ∇q, for groups [K, G] of right and wrong answers."""
    advantage = compare(right.to(torch.float64))
    answer = (~right).long()

    def objective(logit: Tensor) -> Tensor:
        logits = torch.stack([logit, torch.zeros_like(logit)]).expand(*answer.shape, 2)
        pull = score_function(Categorical(logits).log_prob(answer), advantage).mean(-1)
        return reduce.constant(pull, chance, 1.0)

    at = row(log(q / (1 - q)))[0]
    return float(gradient_of(objective, at)) / (q * (1 - q))


def _percents(case: Case) -> tuple[int, int, int]:
    """Success rates in percent, from a prompt of medium difficulty to an easy one."""
    if case.seed is None:
        return 50, 90, 99
    draw = case.draws()
    middle, easier, easy = (
        int(torch.randint(*ends, (), generator=draw)) for ends in ((40, 61), (70, 90), (92, 100))
    )
    return middle, easier, easy


def _centred_groups(case: Case) -> Measured:
    """Groups of 2 answers to the most probable prompt of the problem, and of 4 in the EOS world."""
    _, prompt = next(_prompts(case))
    truth, found = _truth(prompt), estimates(_grpo(2), prompt, episodes=2).mean
    scale = (found / truth)[truth.abs() > ZERO].tolist() or [nan]
    eos = eos_world(case)
    four, others = (
        estimates(_grpo(4, baseline=baseline), eos, episodes=4).mean for baseline in ("mean", "leave-one-out")
    )
    return Measured(
        holds=rounded_error(found, truth / 2, prompt.steps * size(prompt)) < ZERO
        and relative_error(four, 0.75 * _truth(eos)) < ZERO,
        right=relative_error(others, _truth(eos)) < ZERO,
        numbers={
            "smallest E ĝ / ∇J, G = 2": min(scale),
            "largest E ĝ / ∇J, G = 2": max(scale),
            "E ĝ / ∇J, G = 4": float((four / _truth(eos))[0]),
            "leave-one-out, G = 4": float((others / _truth(eos))[0]),
        },
    )


def _scaled_groups(case: Case) -> Measured:
    """Groups of 2 on all prompts of the problem; two prompts of different difficulty in large groups."""
    weights, prompts = zip(*_prompts(case), strict=True)
    grpo = _grpo(2, scale_rewards="group")
    found = torch.stack([estimates(grpo, prompt, episodes=2).mean for prompt in prompts])
    truth = torch.stack([_truth(prompt) for prompt in prompts])
    middle, _, easy = _percents(case)
    slope = row(*(q * (100 - q) / 1e4 for q in (middle, easy)))  # ∇q in the logit of success
    weight = row(*(_weight_in_large_groups(q, scaled) for q in (middle, easy)))
    cosines = {
        "cosine, G = 2": cosine(row(*weights) @ found, row(*weights) @ truth),
        "cosine, two prompts, G → ∞": cosine(weight * slope, slope),
    }
    return Measured(
        holds=min(cosines.values()) > 1 - ZERO,
        right=float((weight * slope.sqrt() - 1).abs().max()) < ZERO,
        numbers=cosines | {"weight of the easy to the other": float(weight[1] / weight[0])},
    )


def _natural_scale(case: Case) -> Measured:
    """Groups of 8: what multiplies the gradient of prompts of three difficulties, and how many are silent."""
    rates = [percent / 100 for percent in _percents(case)]
    weight = [_weight(q, 8, scaled) for q in rates]
    silent = [_no_signal(q, 8) for q in rates]
    others = [_weight(q, 8, without_itself) for q in rates]
    mean_only = [_weight(q, 8, centred) for q in rates]
    mixed = _groups(0.5, 8)[0][1:-1].to(torch.float64)
    square = scaled(mixed).square().mean(-1)  # 1 for a deviation that divides by G
    numbers = {f"factor, q = {q:g}": x for q, x in zip(rates, weight, strict=True)}
    numbers |= {f"no signal, q = {q:g}": x for q, x in zip(rates, silent, strict=True)}
    return Measured(
        holds=max(weight) - min(weight) < ZERO,
        right=max(abs(x - 1) for x in others) < ZERO
        and max(abs(x - 7 / 8) for x in mean_only) < ZERO
        and max(abs(x - q**8 - (1 - q) ** 8) for x, q in zip(silent, rates, strict=True)) < ZERO
        and float((square - 1).abs().max()) < ZERO,
        numbers=numbers | {"leave-one-out": others[-1], "mean only": mean_only[-1]},
    )


def _per_answer(case: Case) -> Measured:
    """1/|o| in the limit of large groups, where length has nothing to do with being right."""
    eos = eos_world(case)
    truth = _truth(eos)
    found, summed = (_in_large_groups(eos, average) for average in ("sequence", "constant"))
    longer = found.reshape(8, 2)[:, 0]  # the pull on "go on"
    wrong, right = longer[4:6], longer[1:3]
    return Measured(
        holds=cosine(found, truth) > 1 - ZERO,
        right=relative_error(eos.steps * summed, truth) < ZERO
        and float(truth[2:].abs().max()) < ZERO
        and bool((wrong > ZERO).all())
        and bool((right < -ZERO).all()),
        numbers={
            "cosine": cosine(found, truth),
            "wrong answer, go on at 1": float(wrong[0]),
            "wrong answer, go on at 2": float(wrong[1]),
            "right answer, go on at 1": float(right[0]),
            "right answer, go on at 2": float(right[1]),
            "cosine of the sum": cosine(summed, truth),
        },
    )


def _averages(case: Case) -> Measured:
    """Three ways to average over decisions, in the limit of large batches and in batches of 2 and 4."""
    eos = eos_world(case)
    truth = _truth(eos)
    ways: dict[str, Average] = {"per sequence": "sequence", "per token": "token", "constant": "constant"}
    limit = {name: cosine(_in_large_groups(eos, way), truth) for name, way in ways.items()}
    small = {
        name: cosine(estimates(_grpo(2, average=way), eos, episodes=2).mean, truth)
        for name, way in ways.items()
    }
    four = cosine(estimates(_grpo(4, average="token"), eos, episodes=4).mean, truth)
    kept = [limit["per token"], limit["constant"], small["constant"]]
    lost = [limit["per sequence"], small["per sequence"], small["per token"]]
    return Measured(
        holds=min(*limit.values(), *small.values()) > 1 - ZERO,
        right=min(kept) > 1 - ZERO > max(lost) and small["per token"] < four,
        numbers={f"cosine, {name}": x for name, x in limit.items()}
        | {f"cosine, {name}, N = 2": x for name, x in small.items()}
        | {"cosine, per token, N = 4": four},
    )


def _difficulty(case: Case) -> Measured:
    """The weight of a hard prompt against one of medium difficulty, by size of group and by scaling."""
    middle, _, easy = _percents(case)
    hard = 100 - easy

    def ratio(size: int, compare: Compare, percent: int = hard) -> float:
        return _weight(percent / 100, size, compare) / _weight(middle / 100, size, compare)

    def spread(percent: int) -> float:
        return sqrt(percent * (100 - percent)) / 100

    limit = _weight_in_large_groups(hard, scaled) / _weight_in_large_groups(middle, scaled)
    by_size = {size: ratio(size, scaled) for size in (2, 3, 4, 8, 64)}
    plain = [ratio(8, centred), ratio(8, without_itself), by_size[2], by_size[3]]
    return Measured(
        holds=min(by_size.values()) > 1 + ZERO,
        right=max(abs(x - 1) for x in plain) < ZERO
        and 1 < by_size[4] < by_size[8] < by_size[64] < limit
        and abs(limit * spread(hard) / spread(middle) - 1) < ZERO
        and abs(ratio(8, scaled, easy) - by_size[8]) < ZERO,
        numbers={
            "hard to medium, G = 8": by_size[8],
            "hard to medium, G = 64": by_size[64],
            "hard to medium, G → ∞": limit,
            "hard to medium, G = 2": by_size[2],
            "hard to medium, G = 3": by_size[3],
            "not scaled, G = 8": plain[0],
            "leave-one-out, G = 8": plain[1],
        },
    )


OTHER_WORLD = (
    "The audit does not give its EOS world; ours, of the same kind, has a uniform policy and length 2 to 4."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-54",
        title="GRPO without the standard deviation",
        statement=(
            "With the group's mean subtracted and nothing divided, GRPO's expected gradient at θ_old is "
            "(1 − 1/G)·∇J."
        ),
        verdict=Verdict.TRUE,
        measure=_centred_groups,
        equation="E Σᵢ (1/G)(Rᵢ − R̄) Σₜ ∇log π(aₜ|sₜ) = (1 − 1/G)·∇J",
        source="004:99-100,121-135",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783; Kool, van Hoof & Welling 2019",
        explanation=(
            "The mean contains the answer's own reward, of which it takes the share 1/G away. The "
            "direction is right and the length is a matter of the learning rate; leaving the own reward "
            "out (RLOO) gives ∇J itself. All answers of a group share the prompt, and the clip does "
            "nothing at θ_old."
        ),
        audit={"smallest E ĝ / ∇J, G = 2": ".5", "largest E ĝ / ∇J, G = 2": ".5"},
        also=("M-88",),
    ),
    Claim(
        id="L-55",
        title="Does the group's std keep the direction?",
        statement=(
            "Dividing by the group's standard deviation rescales GRPO's gradient and keeps its direction."
        ),
        verdict=Verdict.FALSE,
        measure=_scaled_groups,
        equation="G → ∞:  E ĝ = Σ_q ∇J_q/σ_q  ∦  Σ_q ∇J_q",
        source="004:99-100,123-127",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783",
        explanation=(
            "Every group is divided by its own deviation, which depends on the prompt and, in small "
            "groups, on which answers happened to be sampled. On the reference problem that turns the "
            "gradient little, on two prompts of different difficulty more."
        ),
        correction=(
            "It divides each prompt's gradient by that prompt's σ (as G → ∞), which changes how prompts "
            "are weighed against each other and so turns the gradient."
        ),
        audit={"cosine, G = 2": ".9996", "cosine, two prompts, G → ∞": ".9877"},
    ),
    Claim(
        id="E-46",
        title="A natural scaling of rewards?",
        statement=(
            "The group's mean and standard deviation scale rewards naturally: whatever its difficulty, a "
            "prompt's gradient is multiplied by the same factor."
        ),
        verdict=Verdict.FALSE,
        measure=_natural_scale,
        equation="E ĝ = (E[σ̂]/σ²)·∇q,   σ² = q(1 − q),   P(no signal) = q^G + (1 − q)^G",
        source="004:100,124-127",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783; Ahmadian et al. 2024 (RLOO), arXiv 2402.14740",
        explanation=(
            "A group with the share p̂ of right answers pulls with σ̂ = √(p̂(1 − p̂)) where ∇q has σ². "
            "Groups that are all right or all wrong have advantage 0, whatever ε > 0 is. σ̂ divides by G; "
            "torch.std divides by G − 1 and makes advantages smaller by √((G − 1)/G)."
        ),
        correction=(
            "The factor is E[σ̂]/σ² and grows with how easy or hard the prompt is; the mean alone has 1 − "
            "1/G and leave-one-out has 1 for every prompt."
        ),
        audit={
            "factor, q = 0.5": "1.856",
            "factor, q = 0.9": "2.328",
            "factor, q = 0.99": "2.609",
            "no signal, q = 0.5": ".008",
            "no signal, q = 0.9": ".430",
            "no signal, q = 0.99": ".923",
            "leave-one-out": "1.000",
        },
        also=("M-87",),
        own=True,
    ),
    Claim(
        id="L-56",
        title="Does 1/|o| keep the direction?",
        statement=(
            "GRPO's average over the tokens of each answer, 1/|o|, keeps the direction of the gradient."
        ),
        verdict=Verdict.FALSE,
        measure=_per_answer,
        equation="E[(1/|o|)·A·Σₜ ∇log π(aₜ|sₜ)]  ∦  E[A·Σₜ ∇log π(aₜ|sₜ)] = ∇J",
        source="004:133; DeepSeekMath, eq. 3",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783",
        explanation=(
            "The length is part of what the policy decides, so 1/|o| multiplies the advantage by "
            "something that depends on the action. Where length has nothing to do with being right ∇J "
            "leaves it alone, but 1/|o| makes wrong answers longer, which dilutes their punishment, and "
            "right ones shorter."
        ),
        correction=(
            "It pulls wrong answers longer and right ones shorter. The note's sum over tokens, which is "
            "not what the paper calls GRPO, has exactly the direction of ∇J."
        ),
        audit={
            "cosine": ".9657",
            "wrong answer, go on at 1": ".0128",
            "wrong answer, go on at 2": ".0022",
            "right answer, go on at 1": "-.0040",
        },
        differs={
            "cosine": OTHER_WORLD,
            "wrong answer, go on at 1": OTHER_WORLD,
            "wrong answer, go on at 2": OTHER_WORLD,
            "right answer, go on at 1": OTHER_WORLD,
        },
        also=("E-47",),
        own=True,
    ),
    Claim(
        id="N-01",
        title="Per sequence, per token, or a constant?",
        statement=(
            "It does not matter to the gradient's direction whether the loss is averaged per sequence, "
            "per token or by a constant."
        ),
        verdict=Verdict.FALSE,
        measure=_averages,
        equation="(1/B) Σᵢ (1/|oᵢ|) Σₜ xᵢₜ,   Σᵢₜ xᵢₜ / Σᵢ |oᵢ|,   Σᵢₜ xᵢₜ / (B·L)",
        source="asked of every GRPO implementation; 004:133",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783; Yu et al. 2025 (DAPO), arXiv 2503.14476",
        explanation=(
            "A constant changes only the length of the gradient. Per token the divisor is the number of "
            "tokens in the batch, which depends on the same actions; its fluctuation, and the bias with "
            "it, vanish as the batch grows. Per sequence every answer has its own divisor, and no batch "
            "is large enough."
        ),
        correction=(
            "A constant keeps the direction in batches of any size; per token keeps it only in the limit "
            "of large batches; per sequence does not even then."
        ),
        picture="averaging",
        own=True,
    ),
    Claim(
        id="N-08",
        title="What does the std do to hard prompts?",
        statement=(
            "Dividing by the group's standard deviation gives easy and hard prompts more weight, against "
            "those of medium difficulty, than ∇J does."
        ),
        verdict=Verdict.TRUE_IF,
        measure=_difficulty,
        equation="weight(q) = E[σ̂]/(q(1 − q)) → 1/√(q(1 − q)) as G → ∞,   ≤ √(G − 1)",
        source="asked of every GRPO implementation; 004:99-100,124-127",
        paper="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783",
        explanation=(
            "A hard prompt's groups hold mostly one right answer, which scaling raises to the advantage "
            "√(G − 1). In groups of two or three every mixed group has the same deviation, so scaling is "
            "one constant. The weight is against ∇J, in which a hard prompt has q(1 − q): in all, hard "
            "prompts still count less."
        ),
        correction=(
            "Rewards are right or wrong and groups have at least four answers: the more, the stronger, up "
            "to 1/√(q(1 − q)). In groups of two or three, and without scaling, all prompts keep their "
            "weight."
        ),
        picture="difficulty",
        own=True,
    ),
)
"""In the order of the notes."""
