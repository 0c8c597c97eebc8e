"""A grade for an estimator of the KL divergence: is its value right, and whose gradient does it have?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pgrad.lab.claim import ZERO
from pgrad.lab.estimate import cosine
from pgrad.math import kl
from pgrad.math.distributions import Categorical

KLEstimator = Callable[..., Tensor]
"""estimator(logp, logp_ref) for actions of π, or estimator(logp, logp_ref, logp_old) for those of π_old."""


@dataclass(frozen=True, eq=False)
class KLCase:
    """Policies π, π_ref and π_old as logits [S, A], in S states that count alike."""

    name: str
    policy: Tensor
    reference: Tensor
    behaviour: Tensor


@dataclass(frozen=True)
class KLGrade:
    """How an estimator does on one problem; reverse is KL(π‖π_ref), forward KL(π_ref‖π)."""

    problem: str
    bias: float  # E[k] / KL(π‖π_ref) − 1
    forward_bias: float  # E[k] / KL(π_ref‖π) − 1
    std: float  # of one sample in a state
    reverse: float  # cosine between E[∇k] and the gradient of the reverse KL; 0 where E[∇k] = 0
    forward: float  # … of the forward KL
    length: float  # |E[∇k]| / |∇KL(π‖π_ref)|
    reverse_error: float  # |E[∇k] − ∇KL(π‖π_ref)| / |∇KL(π‖π_ref)|
    forward_error: float  # |E[∇k] − ∇KL(π_ref‖π)| / |∇KL(π_ref‖π)|

    @property
    def unbiased(self) -> bool:
        """E[k] = KL(π‖π_ref)."""
        return abs(self.bias) < ZERO

    @property
    def gradient_of(self) -> str:
        """Whose gradient E[∇k] is: "reverse", "forward", "nothing" (it is zero) or "neither"."""
        if self.length < ZERO:
            return "nothing"
        if self.reverse_error < ZERO:
            return "reverse"
        return "forward" if self.forward_error < ZERO else "neither"


@dataclass(frozen=True)
class KLReport:
    """The grades of an estimator on several problems; `print` shows them as a table."""

    grades: tuple[KLGrade, ...]

    @property
    def unbiased(self) -> bool:
        """The value, on every problem."""
        return all(grade.unbiased for grade in self.grades)

    @property
    def gradient_of(self) -> str:
        """Whose gradient it has on every problem: "reverse", "forward", "nothing" or "neither"."""
        found = {grade.gradient_of for grade in self.grades}
        return found.pop() if len(found) == 1 else "neither"

    def __str__(self) -> str:
        lines = [
            f"{'problem':20} {'bias':>9} {'std':>9} {'cos reverse':>12} {'cos forward':>12}  gradient of"
        ]
        for g in self.grades:
            bias = "0" if g.unbiased else f"{g.bias:+.1e}"
            lines.append(
                f"{g.problem:20} {bias:>9} {g.std:9.4f} {g.reverse:12.6f} {g.forward:12.6f}  {g.gradient_of}"
            )
        whose = {
            "reverse": "KL(π‖π_ref)",
            "forward": "KL(π_ref‖π), the forward one",
            "nothing": "nothing: it is zero",
            "neither": "neither KL",
        }
        value = "unbiased" if self.unbiased else "biased"
        return "\n".join([*lines, f"value {value}; gradient of {whose[self.gradient_of]}"])


def standard_kl_cases() -> tuple[KLCase, ...]:
    """Six pairs of random policies: few and many actions, close and far apart, one state and several."""
    sizes = {
        "2 actions": (1, 2, 1.0),
        "3 actions": (1, 3, 1.0),
        "10 actions": (1, 10, 1.0),
        "3 states": (3, 4, 1.0),
        "close together": (2, 3, 0.05),
        "far apart": (2, 3, 2.5),
    }
    draw = Generator().manual_seed(0)
    cases = []
    for name, (S, A, apart) in sizes.items():
        policy, *others = torch.randn(3, S, A, generator=draw, dtype=torch.float64).unbind()
        cases.append(KLCase(name, policy, *(policy + apart * x for x in others)))
    return tuple(cases)


def grade_kl(
    estimator: KLEstimator, *, off_policy: bool = False, cases: Sequence[KLCase] | None = None
) -> KLReport:
    """Hold an estimator of KL(π‖π_ref) against the exact divergence and the exact gradients.

    estimator(logp, logp_ref) is given actions of π; with `off_policy`, estimator(logp, logp_ref, logp_old)
    those of π_old. What it returns has one number per action and may be differentiated through logp.
    """

    def values(case: KLCase, policy: Tensor) -> Tensor:
        logits = [policy, case.reference, *([case.behaviour] if off_policy else [])]
        return estimator(*map(log_probs, logits))

    cases = standard_kl_cases() if cases is None else cases
    return KLReport(tuple(grade_kl_on(case, values, off_policy) for case in cases))


def grade_kl_on(case: KLCase, values: Callable[[KLCase, Tensor], Tensor], off_policy: bool) -> KLGrade:
    """The grade of values(case, logits of π) → [S, A], one number for every action, on one problem."""
    policy = case.policy.detach().clone().requires_grad_()
    sampler = log_probs(case.behaviour if off_policy else policy).exp().detach()
    here, there = Categorical(policy), Categorical(case.reference)
    k = values(case, policy)
    expected = (sampler * k).sum(1)
    variance = (sampler * (k - expected.unsqueeze(1)).square()).sum(1)
    value = expected.mean() + 0.0 * policy.sum()  # so that one without a gradient has a zero one
    reverse, forward = kl.exact(here, there).mean(), kl.exact(there, here).mean()
    g, g_reverse, g_forward = (
        torch.autograd.grad(x, policy, retain_graph=True)[0].flatten() for x in (value, reverse, forward)
    )
    value, reverse, forward = value.detach(), reverse.detach(), forward.detach()
    some = g.norm() > ZERO * g_reverse.norm()
    return KLGrade(
        problem=case.name,
        bias=float(value / reverse - 1),
        forward_bias=float(value / forward - 1),
        std=float(variance.detach().mean().sqrt()),
        reverse=cosine(g, g_reverse) if some else 0.0,
        forward=cosine(g, g_forward) if some else 0.0,
        length=float(g.norm() / g_reverse.norm()),
        reverse_error=float((g - g_reverse).norm() / g_reverse.norm()),
        forward_error=float((g - g_forward).norm() / g_forward.norm()),
    )


def log_probs(logits: Tensor) -> Tensor:
    """log π(a|s) of every action, [S, A]."""
    action = torch.arange(logits.shape[1]).expand(logits.shape)
    return Categorical(logits.unsqueeze(1).expand(-1, logits.shape[1], -1)).log_prob(action)
