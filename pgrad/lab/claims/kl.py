"""Claims about KL estimators: their values, and the gradients they have as losses."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import gradient_of, relative_error, rounded_error, row
from pgrad.lab.estimate import cosine, episode_sum, estimator, expectation
from pgrad.lab.problems import Case
from pgrad.math import kl
from pgrad.math.credit import reward_to_go
from pgrad.math.distributions import Categorical
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant

Estimate = Callable[[Tensor, Tensor], Tensor]
"""estimate(logp, logp_ref) of KL(π‖π_ref), as k1, k2 and k3 of `pgrad.math.kl`."""


class Triple(NamedTuple):
    """Three softmax policies over the same few actions, as logits [A]."""

    theta: Tensor  # π
    ref: Tensor
    old: Tensor  # the policy that sampled


def _triple(case: Case) -> Triple:
    """The audit's policies over three actions, or random ones over 3 to 5."""
    if case.seed is None:
        return Triple(row(0, -0.7, 0.7), row(0, -0.5, -0.8), row(0, -0.1, 0.5))
    draw = case.draws()
    n = int(torch.randint(3, 6, (), generator=draw))
    theta, ref, step = torch.randn(3, n, generator=draw, dtype=torch.float64)
    return Triple(theta, ref, theta + 0.4 * step)


def _logp(logits: Tensor) -> Tensor:
    """The log-probability of every action, [A]."""
    n = len(logits)
    return Categorical(logits.expand(n, n)).log_prob(torch.arange(n))


def _mean(x: Tensor, logits: Tensor) -> Tensor:
    """E[x(a)] over the actions of softmax(logits), whose probabilities are constants as in samples."""
    return constant(x, logits.detach().softmax(0), 1.0)


def _std(x: Tensor, logits: Tensor) -> float:
    return float(_mean((x - _mean(x, logits)).square(), logits).sqrt())


def _pull(estimate: Estimate, triple: Triple, sampler: Tensor) -> Tensor:
    """E ∇estimate over the actions that `sampler` takes: the gradient that training gets."""
    return gradient_of(lambda theta: _mean(estimate(_logp(theta), _logp(triple.ref)), sampler), triple.theta)


def _reverse(triple: Triple) -> Tensor:
    """∇KL(π‖π_ref)."""
    return gradient_of(lambda theta: kl.exact(Categorical(theta), Categorical(triple.ref)), triple.theta)


def _forward(triple: Triple) -> Tensor:
    """∇KL(π_ref‖π)."""
    return gradient_of(lambda theta: kl.exact(Categorical(triple.ref), Categorical(theta)), triple.theta)


def _values(case: Case) -> Measured:
    """Means and deviations over π's own actions, and k3 ≥ 0 with equality where the policies agree."""
    triple = _triple(case)
    logp, ref = _logp(triple.theta), _logp(triple.ref)
    truth = float(kl.exact(Categorical(triple.theta), Categorical(triple.ref)))
    each = {"k1": kl.k1(logp, ref), "k3": kl.k3(logp, ref), "k2": kl.k2(logp, ref)}
    mean = {name: float(_mean(x, triple.theta)) for name, x in each.items()}
    unbiased = {name: abs(value - truth) < ZERO for name, value in mean.items()}
    return Measured(
        holds=unbiased["k1"] and unbiased["k3"] and not unbiased["k2"],
        right=bool((each["k3"] >= 0).all()) and bool((kl.k3(logp, logp).abs() < ZERO).all()),
        numbers={"KL": truth}
        | {f"mean of {name}": value for name, value in mean.items()}
        | {f"std of {name}": _std(x, triple.theta) for name, x in each.items()},
    )


def _old_samples(case: Case) -> Measured:
    """Means over the actions of the policy that acted before an inner step."""
    triple = _triple(case)
    logp, ref, old = (_logp(x) for x in triple)
    truth = float(kl.exact(Categorical(triple.theta), Categorical(triple.ref)))
    each = {"k3": kl.k3(logp, ref), "k1": kl.k1(logp, ref), "k2": kl.k2(logp, ref)}
    mean = {name: float(_mean(x, triple.old)) for name, x in each.items()}
    corrected = float(_mean(kl.k3_corrected(logp, ref, old), triple.old))
    return Measured(
        holds=abs(mean["k3"] - truth) < ZERO,
        right=abs(corrected - truth) < ZERO,
        numbers=mean | {"ratio·k3": corrected, "KL": truth},
    )


def _pulls(triple: Triple) -> dict[str, float]:
    """Each estimator's gradient, over the actions of π_old, against the one it is known for."""
    old, reverse = _logp(triple.old), _reverse(triple)
    ratio_k3 = _pull(lambda logp, ref: kl.k3_corrected(logp, ref, old), triple, triple.old)
    return {
        "k1, length": float(_pull(kl.k1, triple, triple.old).norm()),
        "k2 to reverse": relative_error(_pull(kl.k2, triple, triple.old), reverse),
        "k3 to forward": relative_error(_pull(kl.k3, triple, triple.old), _forward(triple)),
        "ratio·k3 to reverse": relative_error(ratio_k3, reverse),
    }


def _gradients(case: Case) -> Measured:
    """The gradients on-policy, against those of the exact divergences, which are not each other's."""
    triple = _triple(case)
    numbers = _pulls(triple._replace(old=triple.theta))
    apart = relative_error(_forward(triple), _reverse(triple))
    holds = max(numbers.values()) < ZERO
    return Measured(holds, holds and apart > ZERO, numbers | {"forward to reverse": apart})


def _unbiased_is_enough(case: Case) -> Measured:
    """k3's gradient against that of the divergence it estimates, on-policy and from older samples."""
    triple = _triple(case)
    reverse, k3 = _reverse(triple), _pull(kl.k3, triple, triple.theta)
    old = _logp(triple.old)
    cured = _pull(lambda logp, ref: kl.k3_corrected(logp, ref, old), triple, triple.old)
    parts = {f"reverse [{i}]": float(x) for i, x in enumerate(reverse[:3])}
    parts |= {f"k3 [{i}]": float(x) for i, x in enumerate(k3[:3])}
    return Measured(
        holds=relative_error(k3, reverse) < ZERO,
        right=relative_error(cured, reverse) < ZERO and relative_error(k3, _forward(triple)) < ZERO,
        numbers={
            "cosine": cosine(k3, reverse),
            "cosine, old samples": cosine(_pull(kl.k3, triple, triple.old), reverse),
        }
        | parts,
    )


def _deviations(case: Case) -> Measured:
    """Standard deviations, and the two limits of their ratio: policies that meet, an action that dies out."""
    if case.seed is None:
        theta, ref = row(0.999, 0.001).log(), row(0.5, 0.5).log()
    else:
        theta, ref = (2 * x for x in _triple(case)[:2])
    k3, k1 = _both(theta, ref)
    close, closer = (_compared(theta, theta + c * (ref - theta)) for c in (1e-3, 1e-4))
    first = torch.arange(len(theta)) == 0
    rare, rarer, rarest = (_compared(theta - fall * first, ref) for fall in (20.0, 40.0, 60.0))
    ratio = (_logp(ref) - _logp(theta)).exp()
    spread = _mean((ratio - 1).square(), theta)
    shared = _mean((ratio - 1) * ratio.log(), theta)
    return Measured(
        holds=k3 < k1,
        right=(k3 < k1) == bool(spread < 2 * shared)
        and closer < 0.2 * close  # in proportion to the distance
        and rarest > 100 * rarer,  # as 1/√π does
        numbers={
            "std of k3": k3,
            "std of k1": k1,
            "std k3 / std k1, policies close": close,
            "std k3 / std k1, an action made rare": rare,
        },
    )


def _both(theta: Tensor, ref: Tensor) -> tuple[float, float]:
    logp, logp_ref = _logp(theta), _logp(ref)
    return _std(kl.k3(logp, logp_ref), theta), _std(kl.k1(logp, logp_ref), theta)


def _compared(theta: Tensor, ref: Tensor) -> float:
    k3, k1 = _both(theta, ref)
    return k3 / k1


def _support(case: Case) -> Measured:
    """A policy that never takes an action which the reference takes; k1 and k3 over what is sampled."""
    triple = Triple(row(0, 0), row(0, 0), row(0, 0)) if case.seed is None else _triple(case)
    allowed = torch.arange(len(triple.theta)) < len(triple.theta) - 1
    pi = Categorical.masked(triple.theta, allowed)
    truth = float(kl.exact(pi, Categorical(triple.ref)))
    logp, ref = _logp(pi.logits), _logp(triple.ref)
    k3, k1 = (float(_mean(k(logp, ref), pi.logits)) for k in (kl.k3, kl.k1))
    lost = float(ref.exp()[~allowed].sum())
    full = float(_mean(kl.k3(_logp(triple.theta), ref), triple.theta))
    everywhere = float(kl.exact(Categorical(triple.theta), Categorical(triple.ref)))
    return Measured(
        holds=abs(k3 - truth) < ZERO,
        right=max(abs(k3 - truth + lost), abs(k1 - truth), abs(full - everywhere)) < ZERO,
        numbers={"mean of k3": k3, "KL": truth, "mean of k1": k1, "π_ref where π = 0": lost},
    )


def _tokens(case: Case) -> Measured:
    """KL estimators summed over the decisions of an episode, as a loss and in the reward."""
    ref = Categorical(case.theta + case.direction)
    problem, traj = case.problem, case.trajectory
    seen = problem.observation[traj.decisions % problem.n_states]
    logp_ref = Categorical(ref.logits[seen]).log_prob(traj.action)

    def sequence(theta: Tensor) -> Tensor:
        each = kl.exact(Categorical(theta), ref)[problem.observation]
        return (exact.marginals(problem, theta, case.steps) * each).sum()

    def summed(k: Estimate) -> Callable[[TabularAgent, Trajectory], Tensor]:
        def loss(agent: TabularAgent, traj: Trajectory) -> Tensor:
            return episode_sum(k(agent.policy(traj.decisions).log_prob(traj.action), logp_ref), traj.mask)

        return loss

    def in_reward(agent: TabularAgent, traj: Trajectory) -> Tensor:
        return reward_to_go(kl.k1(traj.logp, logp_ref), traj.done, 1.0)

    def whole(agent: TabularAgent, traj: Trajectory) -> Tensor:
        real = traj.mask > 0
        logp = agent.policy(traj.decisions).log_prob(traj.action)
        return constant(kl.k2((logp * real).sum(0), (logp_ref * real).sum(0)), traj.mask[0], 1.0)

    def held(k: Callable[[Categorical], Tensor]) -> Tensor:  # ∇ of a divergence where visits stay as they are
        visits = exact.marginals(problem, case.theta, case.steps)
        return gradient_of(
            lambda theta: (visits * k(Categorical(theta))[problem.observation]).sum(), case.theta
        )

    truth = gradient_of(sequence, case.theta)
    value = float(sequence(case.theta))
    value_k3 = float(episode_sum(kl.k3(traj.logp, logp_ref), traj.mask))
    token_k3, token_k2 = (expectation(summed(k), case) for k in (kl.k3, kl.k2))
    scored = estimator(in_reward, lambda logp, _, credit: score_function(logp, credit))
    error = {
        "k3 per token, rel. error": rounded_error(token_k3, truth, case.steps),
        "k2 per token, rel. error": rounded_error(token_k2, truth, case.steps),
        "k1 in the reward, rel. error": rounded_error(expectation(scored, case), truth, case.steps),
        "k2 of the sequence, rel. error": rounded_error(expectation(whole, case), truth, case.steps),
    }
    k3, k2, reward, sequence_k2 = error.values()
    forward = rounded_error(token_k3, held(lambda pi: kl.exact(ref, pi)), case.steps)
    reverse = rounded_error(token_k2, held(lambda pi: kl.exact(pi, ref)), case.steps)
    return Measured(
        holds=max(k3, k2) < ZERO,
        right=abs(value_k3 - value) < ZERO and max(reward, sequence_k2, forward, reverse) < ZERO,
        numbers={"sequence KL": value, "Σ of token k3": value_k3} | error,
    )


def _after_a_step(case: Case) -> Measured:
    """Gradients of every estimator from the samples of π and, after an inner step, of π_old."""
    triple = _triple(case)
    own, stale = _pulls(triple._replace(old=triple.theta)), _pulls(triple)
    *others, ratio_k3 = stale.values()
    return Measured(
        holds=max(stale.values()) < ZERO,
        right=max(own.values()) < ZERO and ratio_k3 < ZERO and min(others) > ZERO,
        numbers={f"{name}, old samples": x for name, x in stale.items()}
        | {f"{name}, own samples": x for name, x in own.items()},
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-49",
        title="Means of k1, k2 and k3",
        statement="Over π's own actions the means of k1 and k3 are KL(π‖π_ref), and that of k2 is not.",
        verdict=Verdict.TRUE,
        measure=_values,
        equation="E_π[log π/π_ref] = E_π[x − log x − 1] = KL(π‖π_ref) ≠ E_π[(log x)²/2],   x = π_ref/π",
        source="004:141-150",
        paper="Schulman 2020, joschu.net/blog/kl-approx.html",
        explanation=(
            "k3 is k1 plus x − 1, whose mean is 0. That k1 is negative on some actions does not bias it: "
            "its faults are its variance and, as a loss, its zero gradient. k2 is right only to second "
            "order in log x."
        ),
        audit={
            "KL": ".297184",
            "mean of k1": ".297184",
            "mean of k3": ".297184",
            "mean of k2": ".346079",
            "std of k1": ".777",
            "std of k3": ".0787",
            "std of k2": ".144",
        },
        also=("M-92", "M-93", "M-95"),
        picture="kl",
        own=True,
    ),
    Claim(
        id="L-50",
        title="k3 on the tokens of π_old",
        statement="GRPO's KL term, k3 on tokens that π_old sampled, is an unbiased estimate of KL(π‖π_ref).",
        verdict=Verdict.FALSE,
        measure=_old_samples,
        equation="E_old[k3] ≠ KL(π‖π_ref) = E_old[(π/π_old)·k3]",
        source="004:116,133-137,150",
        paper="DeepSeek-AI 2025 (DeepSeek-V3.2), arXiv 2512.02556, eq. 7",
        explanation=(
            "The proof takes the mean over a ~ π_θ, but the tokens come from π_old and the two part at "
            "the second inner step. The ratio π/π_old turns the mean over π_old's tokens into one over "
            "π's."
        ),
        correction="It is unbiased while π = π_old; from the second inner step it needs the ratio π/π_old.",
        audit={"k3": ".298298", "k1": ".110001", "k2": ".325077", "ratio·k3": ".297184", "KL": ".297184"},
        also=("E-48", "M-94"),
        own=True,
    ),
    Claim(
        id="L-51",
        title="Gradients of k1, k2 and k3 as losses",
        statement=(
            "Over π's own actions the mean gradient of k1 is zero, that of k2 is ∇KL(π‖π_ref), and that "
            "of k3 is ∇KL(π_ref‖π)."
        ),
        verdict=Verdict.TRUE,
        measure=_gradients,
        equation="E_π ∇k1 = 0,  E_π ∇k2 = ∇KL(π‖π_ref),  E_π ∇k3 = ∇KL(π_ref‖π)",
        source="004:133-150",
        paper="Tang & Munos 2025, arXiv 2506.09477",
        explanation=(
            "∇k1 = ∇log π, whose mean is 0; ∇k2 = log(π/π_ref)·∇log π; ∇k3 = (1 − π_ref/π)·∇log π. The "
            "gradient of a sample leaves out how the distribution of samples moves with θ. The ratio in "
            "ratio·k3 puts it back, even where it equals 1."
        ),
        audit={"k1, length": "<1e-9", "k2 to reverse": "<1e-9", "k3 to forward": "<1e-9"},
        own=True,
    ),
    Claim(
        id="E-49",
        title="Unbiased value, so unbiased gradient?",
        statement="k3 is an unbiased estimate of KL(π‖π_ref), so as a loss it has its gradient.",
        verdict=Verdict.FALSE,
        measure=_unbiased_is_enough,
        equation="E_π[∇k3] = ∇KL(π_ref‖π) ≠ ∇KL(π‖π_ref) = ∇E_π[k3]",
        source="004:133-150",
        paper="Tang & Munos 2025, arXiv 2506.09477",
        explanation=(
            "The mean of the gradient is not the gradient of the mean when the samples' distribution "
            "depends on θ. The forward KL has the same minimum but covers the reference's modes instead "
            "of seeking one."
        ),
        correction=(
            "It has the gradient of the forward KL(π_ref‖π); with the ratio π/π_old in the graph, k3 has "
            "that of KL(π‖π_ref)."
        ),
        audit={
            "cosine, old samples": ".9589",
            "reverse [0]": "-.23707",
            "reverse [1]": "-.14602",
            "reverse [2]": ".38309",
            "k3 [0]": "-.20154",
            "k3 [1]": "-.15356",
            "k3 [2]": ".35510",
        },
        own=True,
    ),
    Claim(
        id="L-52",
        title="Is k3 less noisy than k1?",
        statement="The standard deviation of k3 is below that of k1.",
        verdict=Verdict.FALSE,
        measure=_deviations,
        equation="Var k3 < Var k1  ⇔  Var x < 2·Cov(x, log x),   x = π_ref/π",
        source="004:141-142",
        paper="Schulman 2020, joschu.net/blog/kl-approx.html, says usually",
        explanation=(
            "Var x is the χ² divergence of π_ref from π, which grows like 1/π(a) where π makes rare what "
            "the reference likes; k1 grows like log 1/π(a). Close to the reference k3 is of second order, "
            "far below k1."
        ),
        correction=(
            "It is below k1's where the policies are close, and beyond all bounds where π is small and "
            "π_ref is not."
        ),
        audit={"std of k3": "15.57", "std of k1": ".218"},
        always=False,
        own=True,
    ),
    Claim(
        id="E-50",
        title="Does the mean of π_ref/π equal 1?",
        statement=(
            "E_π[π_ref/π] = Σ π·(π_ref/π) = Σ π_ref = 1, and therefore E_π[k3] = KL(π‖π_ref), for any two "
            "policies."
        ),
        verdict=Verdict.TRUE_IF,
        measure=_support,
        equation="E_π[k3] = KL(π‖π_ref) − π_ref({a : π(a) = 0})",
        source="004:141-150",
        paper="Schulman 2020, joschu.net/blog/kl-approx.html",
        explanation=(
            "The sum runs over the actions that π can take; what the reference puts elsewhere (top-k and "
            "top-p sampling, masked tokens) is missing from it. k1 asks for no such condition."
        ),
        correction="π(a) > 0 wherever π_ref(a) > 0; otherwise E_π[k3] is too small by π_ref where π = 0.",
        audit={"mean of k3": ".1931", "KL": ".6931"},
        own=True,
    ),
    Claim(
        id="L-53",
        title="KL of tokens and of sequences",
        statement=(
            "The sum of the tokens' KL estimates has the sequence's KL as its mean and, as a loss, its "
            "gradient."
        ),
        verdict=Verdict.FALSE,
        measure=_tokens,
        equation="E Σₜ k(aₜ|sₜ) = KL(p_π(τ)‖p_ref(τ)),   E Σₜ ∇k(aₜ|sₜ) ≠ ∇KL(p_π(τ)‖p_ref(τ))",
        source="004:133-137",
        paper="Tang & Munos 2025, arXiv 2506.09477",
        explanation=(
            "Values add up by the chain rule. A token's own gradient does not know that the token also "
            "decides which prefixes follow and how far these are from the reference; a return does, and "
            "so does the log-ratio of the whole sequence."
        ),
        correction=(
            "The value is right. The gradient is right with k1 in the reward and reward-to-go, or with k2 "
            "of the whole sequence's log-ratio."
        ),
        audit={
            "sequence KL": ".602309",
            "k3 per token, rel. error": ".244",
            "k2 per token, rel. error": ".029",
            "k1 in the reward, rel. error": "<1e-9",
        },
        also=("E-51",),
    ),
    Claim(
        id="N-02",
        title="Which KL estimator has which gradient?",
        statement=(
            "In the loss k1 has no gradient, k2 and ratio·k3 have that of the reverse KL(π‖π_ref), and k3 "
            "has that of the forward KL(π_ref‖π)."
        ),
        verdict=Verdict.TRUE_IF,
        measure=_after_a_step,
        equation="E_old ∇[(π/π_old)·k3] = ∇KL(π‖π_ref) for every π_old; k1, k2, k3 only at π_old = π",
        source="asked of every GRPO implementation; 004:133-137",
        paper="Tang & Munos 2025, arXiv 2506.09477; DeepSeek-AI 2025, arXiv 2512.02556, eq. 7",
        explanation=(
            "Tokens are sampled once and used for several steps. After the first step their mean is over "
            "π_old, and k1, k2 and k3 have the gradient of neither divergence; the ratio, which is in the "
            "graph, keeps ratio·k3 exact at every step. On-policy it costs nothing and changes k3's "
            "gradient from forward to reverse."
        ),
        correction=(
            "The samples are π's own. From π_old's, as after an inner step, only ratio·k3 keeps its gradient."
        ),
        own=True,
    ),
)
"""In the order of the notes."""
