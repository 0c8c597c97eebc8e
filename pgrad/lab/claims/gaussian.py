"""Policies over real actions: densities, scores and steps of Gaussians, and what a step can do."""

import math
from collections.abc import Callable

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.problems import Case
from pgrad.math.distributions import Categorical
from pgrad.math.gaussians import Gaussian
from pgrad.math.objectives import score_function

Reward = Callable[[Tensor], Tensor]
"""Q(a) of actions [n]."""

SIGMAS = {"1": 1.0, ".5": 0.5, ".1": 0.1}


def quadrature(n: int = 40) -> tuple[Tensor, Tensor]:
    """Points x and weights w with Σ w·f(x) = E f(x), x ~ N(0, 1): exact for polynomials of degree < 2n."""
    x, w = hermegauss(n)
    return torch.as_tensor(x), torch.as_tensor(w / w.sum())


def log_density(mean: Tensor, std: Tensor, action: Tensor) -> Tensor:
    """log N(a; mean, std²) of actions [...] in one dimension, by the distribution that ships."""
    mean, log_std, action = (x.expand_as(action).unsqueeze(-1) for x in (mean, std.log(), action))
    return Gaussian(mean, log_std).log_prob(action)


def scores(mean: Tensor, std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """∂/∂mean and ∂/∂log std of log N at every action, [n] each, by autograd."""
    centre, log_std = (x.expand_as(action).clone().requires_grad_() for x in (mean, std.log()))
    log_prob = log_density(centre, log_std.exp(), action)
    first, second = torch.autograd.grad(log_prob.sum(), (centre, log_std))
    return first, second


def score_estimates(mean: Tensor, std: Tensor, reward: Reward, x: Tensor) -> Tensor:
    """Q(a)·∂ log π(a)/∂mean at a = mean + std·x, [n]."""
    centre, action = mean.expand_as(x).clone().requires_grad_(), mean + std * x
    objective = score_function(log_density(centre, std, action), reward(action))
    return torch.autograd.grad(objective.sum(), centre)[0]


def path_estimates(mean: Tensor, std: Tensor, reward: Reward, x: Tensor) -> Tensor:
    """∂Q(mean + std·x)/∂mean, [n]: the reparameterised gradient."""
    centre = mean.expand_as(x).clone().requires_grad_()
    return torch.autograd.grad(reward(centre + std * x).sum(), centre)[0]


def _number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def _draw(case: Case, n: int) -> Tensor:
    return torch.randn(n, generator=case.draws(), dtype=torch.float64)


def _settings(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and action of the audit, or random ones."""
    if case.seed is None:
        return _number(0.3), _number(0.7), _number(1.1)
    mean, width, action = _draw(case, 3)
    return mean, (0.4 * width).exp(), action


def _small_sigma(case: Case) -> Measured:
    """Q(a) = −(a − c)², whose gradient is known, over ever narrower policies."""
    (mean, _, _), c = _settings(case), _number(1.0)
    if case.seed is not None:
        c = mean + 0.3 + _draw(case, 4)[3].abs()
    x, w = quadrature()

    def reward(action: Tensor) -> Tensor:
        return -(action - c).square()

    def spread(estimates: Tensor) -> float:
        return float(w @ (estimates - w @ estimates).square())

    centred, numbers, fair = [], {}, True
    for name, size in SIGMAS.items():
        std = _number(size)
        first, second = score_estimates(mean, std, reward, x), path_estimates(mean, std, reward, x)
        numbers[f"σ = {name}"] = spread(first)
        numbers[f"σ = {name}, reparameterised"] = spread(second)
        fair &= all(bool((w @ g - 2 * (c - mean)).abs() < ZERO) for g in (first, second))
        score = scores(mean, std, mean + std * x)[0]
        centred.append(float((w @ score).abs()))
        fair &= abs(float(std.square() * (w @ score.square())) - 1) < ZERO
    narrow = _number(1e-3)
    limit = narrow.square() * spread(score_estimates(mean, narrow, reward, x)) / reward(mean).square()
    numbers |= {"mean of the score": max(centred), "σ²·variance/Q(μ)², σ = .001": float(limit)}
    return Measured(max(centred) < ZERO and abs(float(limit) - 1) < 0.01, fair, numbers)


def _dimensions(case: Case) -> Measured:
    """The formula for one dimension next to the density in two and six; its derivatives in one."""
    mean, std, action = _settings(case)

    def formula(square: Tensor, d: int = 1) -> float:
        return float(-d / 2 * torch.log(2 * math.pi * std.square()) - square / (2 * std.square()))

    def density(d: int, x: Tensor) -> Tensor:
        """log N at `x` [..., d]."""
        return Gaussian(mean.expand(x.shape), std.log().expand(x.shape)).log_prob(x)

    off = torch.zeros(6, dtype=torch.float64) if case.seed is None else _draw(case, 6)
    found = {d: float(density(d, mean + off[:d])) for d in (1, 2, 6)}
    line = mean + std * torch.arange(-40, 41, dtype=torch.float64) / 4
    plane, cell = torch.cartesian_prod(line, line), (std / 4).square()
    written = -0.5 * torch.log(2 * math.pi * std.square()) - (plane - mean).square().sum(1) / (
        2 * std.square()
    )
    first, second = (float(s) for s in scores(mean, std, action))
    x, w = quadrature()
    fisher = float(w @ scores(mean, std, mean + std * x)[0].square() * std.square())
    numbers = {
        "the formula": formula(off[:2].square().sum()),
        "log N, d = 2": found[2],
        "log N, d = 6": found[6],
        "integral of the formula, d = 2": float(written.exp().sum() * cell),
        "∂ log N/∂μ": first,
        "∂ log N/∂ log σ": second,
        "Fisher·σ²": fisher,
    }
    z = float((action - mean) / std)
    gaps = [value - formula(off[:d].square().sum(), d) for d, value in found.items()]
    gaps += [first - z / float(std), second - (z * z - 1), fisher - 1]
    gaps.append(float(density(2, plane).exp().sum() * cell) - 1)
    return Measured(abs(numbers["the formula"] - found[2]) < ZERO, max(map(abs, gaps)) < ZERO, numbers)


def _quadrants(case: Case) -> Measured:
    """One step of the score function from either side of the mean, with praise and with blame."""
    mean, std, action = _settings(case)
    far, numbers, signs, rises = (action - mean).abs(), {}, [], []
    for side, where in ((1, "a > μ"), (-1, "a < μ")):
        for advantage, how in ((1.0, "A > 0"), (-1.0, "A < 0")):
            taken, centre = mean + side * far, mean.clone().requires_grad_()
            objective = score_function(log_density(centre, std, taken), _number(advantage))
            gradient = torch.autograd.grad(objective, centre)[0]
            numbers[f"Δμ/α: {where}, {how}"] = float(gradient)
            signs.append(float(gradient) * side * advantage > 0)
            short = 1e-3 * std.square()
            change = log_density(mean + short * gradient, std, taken) - log_density(mean, std, taken)
            rises.append(float(change) * advantage > 0)
    return Measured(all(signs), all(rises), numbers)


def _long_steps(case: Case) -> Measured:
    """Twenty exact steps on E[−(a − c)²], and a single sampled one on a bandit of three arms."""
    start, best, std, theta = _number(0.0), _number(1.0), _number(0.7), torch.zeros(3, dtype=torch.float64)
    middle = _number(0.8)
    if case.seed is not None:
        drawn = _draw(case, 7)
        start, best, std = drawn[0], drawn[0] + 0.3 + drawn[1].abs(), (0.4 * drawn[2]).exp()
        middle, theta = 0.6 + 0.3 * drawn[3].sigmoid(), 0.3 * drawn[4:]
    before = float((start - best).abs())
    short, long = (_climb(start, best, std, rate) for rate in (0.9, 1.1))
    reward, after = torch.stack([_number(1.0), middle, _number(0.0)]), _push(theta, middle)
    J, slope = float(after.softmax(0) @ reward), float(_bandit_gradient(after, reward).norm())
    numbers = {
        "error, α = .9": short,
        "error, α = 1.1": long,
        "bandit: J": J,
        "bandit: |∇J|": slope,
        "bandit: best arm": float(reward.max()),
    }
    stuck = float(reward.max()) - J > 0.05 and slope < 1e-4
    rates = zip((short, long), (0.9, 1.1), strict=True)
    right = all(abs(error / (before * abs(1 - 2 * rate) ** 20) - 1) < 1e-6 for error, rate in rates)
    return Measured(short < before < long and stuck, right, numbers)


def _climb(mean: Tensor, best: Tensor, std: Tensor, rate: float) -> float:
    """|μ − c| after 20 steps along the exact gradient."""
    x, w = quadrature(4)
    for _ in range(20):
        mean = mean + rate * (w @ score_estimates(mean, std, lambda a: -(a - best).square(), x))
    return float((mean - best).abs())


def _push(theta: Tensor, reward: Tensor) -> Tensor:
    """θ + 50·r·∇log π(1): the second arm was drawn, and paid."""
    leaf = theta.clone().requires_grad_()
    objective = score_function(Categorical(leaf).log_prob(torch.tensor(1)), reward)
    return theta + 50 * torch.autograd.grad(objective, leaf)[0]


def _bandit_gradient(theta: Tensor, reward: Tensor) -> Tensor:
    """∇J with A(a) = Σ_b π(b)·(r(a) − r(b)), in which nothing cancels, as it does in r(a) − J."""
    leaf, pi = theta.clone().requires_grad_(), theta.softmax(0)
    advantage = (reward.unsqueeze(1) - reward) @ pi
    each = score_function(Categorical(leaf.expand(3, 3)).log_prob(torch.arange(3)), advantage)
    return torch.autograd.grad(pi @ each, leaf)[0]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-57",
        title="A narrow Gaussian's score is noisy",
        statement="A Gaussian's score has mean 0 and Fisher information 1/σ², and the variance of score·Q "
        "grows like Q(μ)²/σ² as σ → 0.",
        verdict=Verdict.TRUE,
        measure=_small_sigma,
        equation="Var[Q(a)(a − μ)/σ²] → Q(μ)²/σ²,  Var[Q′(μ + σε)] = 4σ²  for Q(a) = −(a − c)²",
        source="000:132-148; 004:27",
        paper="Williams 1992, Machine Learning 8:229; Kingma & Welling 2014, arXiv 1312.6114",
        explanation="Near the mean Q hardly changes, and what is left is noise of size Q(μ)/σ. The "
        "reparameterised gradient is Q's own slope, which a narrow policy sees without noise; a baseline "
        "near Q(μ) helps as well.",
        audit={
            "σ = 1": "22.1",
            "σ = .5": "11.6",
            "σ = .1": "31.0",
            "σ = 1, reparameterised": "4",
            "σ = .5, reparameterised": "1",
            "σ = .1, reparameterised": ".04",
            "mean of the score": "<1e-9",
        },
        own=True,
    ),
    Claim(
        id="E-33",
        title="The log-density of N(μ, σ²I)",
        statement="The log-density of N(μ(s), σ²I) is −½ log(2πσ²) − (a − μ)²/(2σ²).",
        verdict=Verdict.FALSE,
        measure=_dimensions,
        equation="log N = −(d/2) log(2πσ²) − |a − μ|²/(2σ²);  ∂/∂μ = (a − μ)/σ²,  ∂/∂log σ = (a − μ)²/σ² − 1",
        source="000:136-146",
        paper="Williams 1992, Machine Learning 8:229",
        explanation="Every dimension has a normalising constant of its own; with one for all of them the "
        "density does not integrate to 1. With a fixed σ the score is the same; the gradient of a "
        "learned σ, the entropy and the ratio of two widths come out wrong.",
        correction="That is one dimension; d of them have −(d/2) log(2πσ²), and a learned σ the score "
        "(a − μ)²/σ² − 1 in each.",
        audit={
            "the formula": "-.5623",
            "log N, d = 2": "-1.1245",
            "log N, d = 6": "-3.3736",
            "∂ log N/∂μ": "1.632653",
            "∂ log N/∂ log σ": ".306122",
            "Fisher·σ²": "1",
        },
        also=("M-20",),
        own=True,
    ),
    Claim(
        id="M-21",
        title="An action above μ with A > 0 raises μ",
        statement="If the action was above the mean and its advantage positive, the step raises the mean; if "
        "one of the two is reversed, it lowers it.",
        verdict=Verdict.TRUE,
        measure=_quadrants,
        equation="Δμ = α·A·(a − μ)/σ²",
        source="000:148",
        paper="Williams 1992, Machine Learning 8:229",
        explanation="The score points from the mean to the action, and the advantage says whether to follow. "
        "A short step makes the action itself likelier exactly if A > 0; a long one may overshoot it.",
        own=True,
    ),
    Claim(
        id="M-23",
        title="A step too long ruins the policy",
        statement="The gradient holds only nearby: a step that is too long makes the policy worse, even "
        "along the exact gradient, and a single one can end all learning.",
        verdict=Verdict.TRUE,
        measure=_long_steps,
        equation="J(μ) = −(μ − c)² − σ²:  μ − c ← (1 − 2α)(μ − c);   softmax: θ ← θ + 50·r₁·∇log π(1)",
        source="000:150-160",
        paper="Kakade 2001; Schulman et al. 2015 (TRPO), arXiv 1502.05477",
        explanation="Of two steps that differ by a fifth one converges and the other diverges. A softmax "
        "that was pushed far towards the second best of three arms has no gradient left to come back with.",
        audit={
            "error, α = .9": ".0115",
            "error, α = 1.1": "38.3",
            "bandit: J": ".8",
            "bandit: |∇J|": "3.5e-18",
        },
        differs={
            "bandit: |∇J|": "The audit's r − J cancels to 0 for the arm that is left; without cancellation "
            "its component is 2.5e-18 and the norm 4.3e-18.",
        },
        own=True,
    ),
)
"""In the order of the notes."""
