"""A grade for an estimator of one's own: bias, direction and variance on problems whose gradient is known."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pgrad.algorithms import Algorithm, Imitate
from pgrad.algorithms.validate import require_instance
from pgrad.data import Episodes, Trajectory, map_tree
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO
from pgrad.lab.estimate import (
    Estimator,
    agent_of,
    cosine,
    episode_sum,
    estimates,
    estimator,
    estimator_of,
    expectation,
)
from pgrad.lab.problems import Case, random_case, reference
from pgrad.lab.seen import discounted_gae
from pgrad.math.objectives import score_function

PAIRS = 40
"""More trajectories than this are not compared two by two."""

NONSENSE = 7.7
"""What the critic says of states in which nothing is to come, and nothing may depend on."""

Credit = Callable[[TabularAgent, Any, float], Tensor]
"""credit(agent, traj, gamma) → Â [T, B]: how good was each decision?"""

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""objective(logp, logp_old, advantage) → [T, B], to be maximised."""


@dataclass(frozen=True)
class Grade:
    """How an estimator does on one problem."""

    problem: str
    bias: float  # |E ĝ − ∇J| / |∇J|
    cosine: float  # between E ĝ and ∇J
    scale: float  # ⟨E ĝ, ∇J⟩ / |∇J|²: how much too long or short
    variance: float  # trace of the covariance of the estimate from `episodes` episodes
    leak: float  # largest derivative that reaches the critic through the policy's objective
    growth: float  # how much longer the estimate is from twice the batch: 0 for a mean, 1 for a sum

    @property
    def defined(self) -> bool:
        """The mean is a number."""
        return math.isfinite(self.bias)

    @property
    def unbiased(self) -> bool:
        """E ĝ = ∇J."""
        return self.bias < ZERO

    @property
    def keeps_direction(self) -> bool:
        """E ĝ = c·∇J with c > 0."""
        return self.cosine > 1 - ZERO

    @property
    def sound(self) -> bool:
        """Unbiased, nothing but the policy is moved, and the size of the batch does not matter."""
        return self.unbiased and self.leak < ZERO and abs(self.growth) < ZERO

    def like(self, other: "Grade") -> bool:
        """The same mean, as far as its length and its angle with ∇J tell."""
        return abs(self.scale - other.scale) < ZERO and abs(self.bias - other.bias) < ZERO


@dataclass(frozen=True)
class Report:
    """The grades of an estimator on several problems; `print` shows them as a table.

    `many` and `pair` are of one small problem: the mean of large batches, and of batches of 2 episodes.
    `wrong` is of the same with errors in the critic. None where that was not looked at.
    """

    grades: tuple[Grade, ...]
    many: Grade | None = None
    pair: Grade | None = None
    wrong: Grade | None = None

    @property
    def unbiased(self) -> bool:
        """On every problem, in the limit of large batches."""
        return all(grade.unbiased for grade in self.grades)

    @property
    def keeps_direction(self) -> bool:
        """On every problem, in the limit of large batches."""
        return all(grade.keeps_direction for grade in self.grades)

    @property
    def sound(self) -> bool:
        """On every problem, and in small batches as in large ones; with an exact critic.

        An estimator that is biased with a wrong critic only, as GAE with λ < 1, is sound: so it is meant.
        """
        return all(grade.sound for grade in self.grades) and (self.pair is None or self.pair.unbiased)

    @property
    def verdict(self) -> str:
        """In a few words."""
        undefined = [grade.problem for grade in self.grades if not grade.defined]
        if undefined:
            return f"not a number {self._where(undefined)}"
        if self.sound:
            if self.wrong is None:
                return "sound: unbiased on every problem"
            if self.wrong.unbiased:
                return "sound: unbiased on every problem, whatever the critic says"
            return "sound: unbiased on every problem, with an exact critic only"
        return "; ".join(self._faults())

    def _faults(self) -> Iterable[str]:
        if self._compares:
            yield "unbiased in batches of 2 episodes: it compares episodes, so grade it with episodes=2"
        elif not self.unbiased:
            biased = self._where([grade.problem for grade in self.grades if not grade.unbiased])
            yield f"biased {biased}, with the right direction" if self.keeps_direction else f"biased {biased}"
        yield from self._of_small_batches()
        if not all(grade.leak < ZERO for grade in self.grades):
            yield "the objective reaches the critic: the advantage is attached to the graph"
        if not all(abs(grade.growth) < ZERO for grade in self.grades):
            yield "the estimate grows with the batch: a sum where a mean should be"

    @property
    def _compares(self) -> bool:
        """Right in batches, and without a meaning where single episodes are weighted."""
        return (
            self.many is not None and self.pair is not None and self.pair.unbiased and not self.many.unbiased
        )

    def _of_small_batches(self) -> Iterable[str]:
        if self.many is None or self.pair is None or self._compares:
            return
        if self.pair.like(self.many):
            if self.unbiased and not self.pair.unbiased:
                yield "biased where episodes are cut short, to two decisions or one"
            return
        if self.unbiased:
            yield "unbiased in the limit of large batches"
        usual = "" if self.many.unbiased else f", with many {self.many.scale:.2f}"
        turned = "" if self.pair.keeps_direction else f" (cosine {self.pair.cosine:.4f})"
        yield f"with 2 episodes the gradient is {self.pair.scale:.2f} of ∇J{turned}{usual}"

    def _where(self, names: list[str]) -> str:
        others = [grade.problem for grade in self.grades if grade.problem not in names]
        if not others:
            return "on every problem"
        if len(others) < len(names):
            return f"on every problem but: {', '.join(others)}"
        return f"on: {', '.join(names)}"

    def __str__(self) -> str:
        columns = ("bias", "cosine", "scale", "variance", "leak", "growth")
        lines = [f"{'problem':28}" + "".join(f"{name:>10}" for name in columns)]
        for g in (*self.grades, *(grade for grade in (self.pair, self.wrong) if grade is not None)):
            shown = (_exactly(g.bias), f"{g.cosine:.6f}", f"{g.scale:.4f}", f"{g.variance:.4f}")
            cells = (*shown, _exactly(g.leak), _exactly(g.growth))
            lines.append(f"{g.problem:28}" + "".join(f"{cell:>10}" for cell in cells))
        return "\n".join([*lines, self.verdict])


class TwoEpisodes(Case):
    """A case whose columns hold two independent episodes, one behind the other, as worlds deliver them."""

    @cached_property
    def trajectory(self) -> Trajectory:
        """Every pair of trajectories as one record [2T+1, K²], with mask = p(τ)·p(τ')."""
        return _one_behind_the_other(super().trajectory)


def standard_cases(off_policy: float = 0.0, gamma: float | None = None) -> tuple[Case, ...]:
    """Seven problems that tell estimators apart.

    The reference; one with three actions; episodes of different length; two of those in a column; states that
    look alike; no discount; and windows of a problem that never ends, which are truncated and must be
    bootstrapped. `off_policy` c > 0 asks about the policy theta + c·direction while theta acts (and leaves
    the truncated windows out: no importance weight makes up for the value of another policy behind the
    window). With a `gamma` that one is used in all, and the problems that would need another are left out.
    """
    cases = {
        "the reference problem": reference(),
        "3 actions": random_case(1, n_states=3, n_actions=3, horizon=3),
        "episodes of different length": random_case(2, n_states=3, n_terminal=1, horizon=3),
        "two episodes in a column": TwoEpisodes(**vars(_small())),
        "states that look alike": random_case(3, n_states=3, n_observations=2, horizon=3),
        "no discount": random_case(4, gamma=1.0, horizon=3),
        "truncated windows": random_case(5, endless=True, n_states=3, horizon=3),
    }
    if off_policy != 0.0 or gamma == 1.0:
        del cases["truncated windows"]
    if gamma not in (None, 1.0):
        del cases["no discount"]
    named = [
        replace(case, name=name, gamma=case.gamma if gamma is None else gamma) for name, case in cases.items()
    ]
    return tuple(named if off_policy == 0.0 else [case.at(off_policy) for case in named])


def grade(
    algorithm: Any = None,
    *,
    credit: Credit | None = None,
    objective: Objective | None = None,
    reduce: Callable[[Tensor, Tensor], Tensor] = episode_sum,
    critic: Callable[[Case], Tensor] | None = None,
    cases: Sequence[Case] | None = None,
    off_policy: float = 0.0,
    episodes: int = 1,
) -> Report:
    """Hold an estimator against the exact gradient.

    algorithm: an algorithm with `credit` and `loss`, graded as it trains, with its own γ (one that collects
        an episode per column is given no column with two); or, instead, the parts that are one's own:
    credit: credit(agent, traj, gamma) → Â [T, B]; by default γᵗ·Â of GAE with λ = .95, a constant.
    objective: objective(logp, logp_old, advantage) → [T, B], maximised; by default log π·Â.
    reduce: reduce(x, mask) → scalar; by default the sum over decisions and the mean over episodes. The mask
        is a weight: 0 for padding, and p(τ) where the batch is everything that can happen.
    critic: critic(case) → V_t(s) [T+1, S]; by default the exact values of the policy that acted, with
        nonsense behind the end of the task, and with errors everywhere on one problem more: an estimator that
        is biased on that one only is unbiased with an exact critic only, and counts as sound. With an exact
        critic every weighting of TD errors that does not look at the action is unbiased: a trace λˡ in place
        of (γλ)ˡ is GAE with λ/γ. At λ = 1 it shows, where the right one needs no exact critic.
    cases: problems to try, by default `standard_cases(off_policy)`.
    episodes: how many columns one estimate is made of; more than one only on small problems. With one, the
        mean is that of large batches, and batches of 2 episodes are looked at on a small problem.

    Raises UsageError where neither or both of an algorithm and parts are given, for an algorithm that does
    not estimate ∇J, and for parts that do not take or give what they should, a credit that is NaN too.
    """
    if (algorithm is None) == (credit is None and objective is None):
        raise UsageError("grade takes an algorithm, or a credit and/or an objective of your own")
    if algorithm is not None:
        require_instance(algorithm)
    if algorithm is not None and not estimates_gradient(algorithm):
        name = type(algorithm).__name__
        raise UsageError(f"{name} does not estimate the gradient of the return, so there is nothing to grade")
    for name, part, given in _parts(credit, objective, reduce):
        if part is not None:
            _check_parameters(name, part, given)
    gamma = None if algorithm is None else algorithm.gamma
    small: Case | None
    if cases is None:
        cases = standard_cases(off_policy, gamma)
        if algorithm is not None and isinstance(algorithm.collects(1), Episodes):
            cases = [case for case in cases if not isinstance(case, TwoEpisodes)]
        small = _small() if off_policy == 0.0 else _small().at(off_policy)
    else:
        small = next((x for x in map(shortened, cases) if x is not None and _slope(x) > ZERO), None)
        cases = cases if gamma is None else [replace(case, gamma=gamma) for case in cases]
    if small is not None and gamma is not None:
        small = replace(small, gamma=gamma)

    def on(case: Case, name: str, table: Tensor | None, n: int = episodes) -> Grade:
        how = _own(credit, objective, reduce, case) if algorithm is None else estimator_of(algorithm)
        found = replace(grade_on(case, how, table, n), problem=name)
        if credit is not None and not found.defined:
            _require_numbers(credit, case, name, table)
        return found if algorithm is None else replace(found, leak=0.0)  # an algorithm trains its critic

    tables = [None if critic is None else critic(case) for case in cases]
    report = Report(tuple(on(case, case.name, table) for case, table in zip(cases, tables, strict=True)))
    if small is None or episodes > 1:
        return report
    table = None if critic is None else critic(small)
    return replace(
        report,
        many=on(small, "large batches", table),
        pair=on(small, "batches of 2 episodes", table, 2),
        wrong=on(small, "a wrong critic", wrong_critic(small))
        if critic is None and small.steps > 1
        else None,
    )


def estimates_gradient(algorithm: Algorithm) -> bool:
    """Whether its loss estimates −∇J: not if it climbs its own critic of actions, or imitates."""
    return algorithm.critic != "q" and not isinstance(algorithm, Imitate)


def right_critic(case: Case) -> Tensor:
    """V_t(s) of the policy that acted [T+1, S], and nonsense where the task has ended."""
    V = exact.values(case.problem, case.actor, case.gamma, case.steps).V.clone()
    V[:, case.problem.terminal] = NONSENSE
    if case.problem.horizon is not None:
        V[-1] = NONSENSE
    return V


def wrong_critic(case: Case) -> Tensor:
    """V_t(s) plus normal errors as large as V varies, [T+1, S]; the same at every call."""
    V = exact.values(case.problem, case.actor, case.gamma, case.steps).V
    error = torch.randn(V.shape, generator=case.draws(1), dtype=V.dtype)
    spread = V[:-1].std(correction=0)
    return V + error * torch.where(spread > 0, spread, 1.0)


def shortened(case: Case) -> Case | None:
    """The same problem with 2 decisions, or 1, so that its trajectories can be compared two by two."""
    for steps in (2, 1):
        small = replace(case, problem=replace(case.problem, horizon=min(steps, case.steps)))
        try:
            if small.trajectory.mask.shape[1] <= PAIRS:
                return small
        except UsageError:  # too many to enumerate
            continue
    return None


def grade_on(case: Case, how: Estimator, critic: Tensor | None = None, episodes: int = 1) -> Grade:
    """The grade of one estimator on one problem.

    Of single episodes the mean is that of large batches, which is the same thing but for estimators that
    compare episodes, or average over their decisions where their lengths differ. Without a `critic` it is
    `right_critic`.
    """
    critic = right_critic(case) if critic is None else critic
    spread = estimates(how, case, critic, episodes)
    mean = expectation(how, case, critic).flatten() if episodes == 1 else spread.mean
    truth = exact.gradient(case.problem, case.theta, case.gamma, case.steps).flatten()
    batch = case.trajectory if episodes == 1 else _first(case.trajectory, episodes)
    gradient, leak = _gradients(how, case, critic, batch)
    doubled, _ = _gradients(how, case, critic, replace(batch, mask=2 * batch.mask))
    return Grade(
        problem=case.name,
        bias=float((mean - truth).norm() / truth.norm()),
        cosine=cosine(mean, truth),
        scale=float(mean @ truth / truth.square().sum()),
        variance=spread.variance,
        leak=float(leak.abs().max()),
        growth=float((doubled - gradient).norm() / gradient.norm().clamp_min(ZERO)),
    )


def default_credit(agent: TabularAgent, traj: Any, gamma: float) -> Tensor:
    """γᵗ·Âₜ with Â of GAE at λ = .95, a constant."""
    return discounted_gae(agent, traj, gamma, 0.95).detach()


def _slope(case: Case) -> float:
    return float(exact.gradient(case.problem, case.theta, case.gamma, case.steps).norm())


def _small() -> Case:
    """Episodes of one decision or two."""
    return random_case(6, n_states=3, n_actions=2, n_terminal=1, horizon=2)


def _own(credit: Credit | None, objective: Objective | None, reduce: Any, case: Case) -> Estimator:
    how, what = credit or default_credit, objective or _score

    def judged(agent: TabularAgent, traj: Trajectory) -> Tensor:
        return _of_shape("credit", how(agent, traj, case.gamma), traj.reward)

    def maximised(logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
        return _of_shape("objective", what(logp, logp_old, advantage), logp)

    return estimator(judged, maximised, reduce)


def _score(logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
    return score_function(logp, advantage)


def _parts(credit: Any, objective: Any, reduce: Any) -> Iterable[tuple[str, Any, tuple[str, ...]]]:
    yield "credit", credit, ("agent", "traj", "gamma")
    yield "objective", objective, ("logp", "logp_old", "advantage")
    yield "reduce", reduce, ("x", "mask")


def _check_parameters(name: str, part: Any, given: tuple[str, ...]) -> None:
    try:
        inspect.signature(part).bind(*given)
    except ValueError:  # some builtins have none
        return
    except TypeError as error:
        raise UsageError(f"{name} is called as {name}({', '.join(given)}): {error}") from None


def _require_numbers(credit: Credit, case: Case, name: str, critic: Tensor | None) -> None:
    """Raise UsageError where credit is NaN or infinite.

    That matters in a row without weight too: the gradient of log π·Â with respect to log π is 0·Â there.
    """
    traj = case.trajectory
    agent = agent_of(case, right_critic(case) if critic is None else critic)
    found = credit(agent, traj, case.gamma)
    bad = ~found.isfinite()
    if bad.any():
        where = "" if (bad & (traj.mask > 0)).any() else ", all of weight 0, where it must be finite too"
        raise UsageError(
            f"credit is {found[bad][0]:g} in {int(bad.sum())} of {bad.numel()} rows of {name}{where}"
        )


def _of_shape(name: str, x: Any, like: Tensor) -> Tensor:
    found = f"a tensor {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or x.shape != like.shape:
        raise UsageError(f"{name} must give one number per decision, here {list(like.shape)}; got {found}")
    return x


def _one_behind_the_other(traj: Trajectory) -> Trajectory:
    """Every pair of columns: an episode, the row that only resets, another, and padding."""
    T, K = traj.mask.shape
    first, second = torch.cartesian_prod(torch.arange(K), torch.arange(K)).unbind(1)
    length = (traj.mask > 0).sum(0)[first]
    row = torch.arange(2 * T + 2).unsqueeze(1)
    behind = row > length
    column = torch.where(behind, second, first)
    at = torch.where(behind, row - length - 1, row).clamp(max=T)  # [2T+2, K²] where each row comes from
    source, rows = column[:-1], at[:-1].clamp(max=T - 1)
    real = (traj.mask[rows, source] > 0) & (at[:-1] < T)
    return Trajectory(
        obs=traj.obs[at, column],
        action=traj.action[rows, source],
        logp=traj.logp[rows, source],
        reward=traj.reward[rows, source].masked_fill(~real, 0.0),
        terminated=traj.terminated[rows, source] & real,
        done=traj.done[rows, source] | ~real,
        mask=traj.mask[0, first] * traj.mask[0, second] * real,
    )


def _gradients(how: Estimator, case: Case, critic: Tensor | None, batch: Trajectory) -> tuple[Tensor, Tensor]:
    """What reaches the policy, and what reaches the critic."""
    agent = agent_of(case, critic)
    agent.theta = agent.theta.detach().clone().requires_grad_()
    agent.critic = agent.critic.detach().clone().requires_grad_()
    leaves = [agent.theta, agent.critic]
    found = torch.autograd.grad(how(agent, batch), leaves, allow_unused=True)
    policy, values = (torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))
    return policy, values


def _first(traj: Trajectory, n: int) -> Trajectory:
    """The first n columns, each of weight 1."""
    part = map_tree(lambda x: x[:, :n], traj)
    return replace(part, mask=(part.mask > 0).to(part.mask.dtype))


def _exactly(number: float) -> str:
    return "0" if abs(number) < ZERO else f"{number:.1e}"
