"""Every shipped estimator on one problem: how far off it is, in which direction, and how noisy."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, get_args

import torch
from torch import Tensor

from pgrad.algorithms import ALGORITHMS, GRPO, PPO, ActorCritic, Algorithm, OffPolicyActorCritic, Reinforce
from pgrad.algorithms.off_policy_actor_critic import Weighting
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.lab.estimate import (
    Estimator,
    agent_of,
    cosine,
    estimator,
    estimator_of,
    expectation,
    weighted_scores,
)
from pgrad.lab.grade import PAIRS, estimates_gradient, grade_on, shortened, wrong_critic
from pgrad.lab.kl_grade import KLCase, KLEstimator, grade_kl_on, log_probs
from pgrad.lab.language_estimators import penalties, variants
from pgrad.lab.problems import Case
from pgrad.lab.rows import Group, Numbers, Row, sorted_group
from pgrad.lab.seen import Seen, discounted_gae
from pgrad.math import kl
from pgrad.math.credit import group_relative, leave_one_out
from pgrad.math.distributions import Categorical
from pgrad.math.importance import truncate
from pgrad.math.objectives import clipped, importance_weighted

Credit = Callable[[Seen], Tensor]


def every_estimator(case: Case, off_policy: float = 0.5) -> Iterator[Group]:
    """The groups, one after the other; off-policy ones ask about theta + off_policy·direction.

    The last two are of a language, whatever the case.

    Raises UsageError where that is not a number.
    """
    if not math.isfinite(off_policy):
        raise UsageError(f"off_policy must be a finite number, got {off_policy}")
    away = case.at(off_policy)
    yield on_policy(case)
    yield in_batches(case)
    yield in_groups(case)
    yield weightings(away)
    yield divergences(away)
    yield value_targets(case)
    yield off_policy_targets(away)
    yield variants()
    yield penalties()


def on_policy(case: Case) -> Group:
    """Estimators of ∇J from one episode of the policy itself."""
    gamma, rows = case.gamma, []
    for critic, table in (("V", None), ("V + error", wrong_critic(case))):
        learners = {
            f"{kind.__name__}, {critic}": _plain(kind, gamma)
            for kind in of_the_gradient()
            if kind not in (Reinforce, ActorCritic)  # which have choices of their own
        }
        learners |= {
            f"ActorCritic, 1 step, {critic}": _plain(ActorCritic, gamma),
            f"ActorCritic, 2 steps, {critic}": _plain(ActorCritic, gamma, bootstrap_steps=2),
            f"ActorCritic, all steps, {critic}": _plain(ActorCritic, gamma, bootstrap_steps=None),
        }
        learners |= _reinforce("value", critic, gamma)
        if table is None:
            learners |= _reinforce("none", "no baseline", gamma)
        rows += [_row(name, estimator_of(one), case, table) for name, one in learners.items()]
        for gae_lambda in (0.0, 0.5, 0.95, 1.0):
            rows.append(_row(f"γᵗ·gae, λ = {gae_lambda:g}, {critic}", _gae(gamma, gae_lambda), case, table))
    note = "Algorithms that average over decisions have scale 1/T. Those without γᵗ are biased if γ < 1."
    return sorted_group("on-policy: one episode", note, rows)


def in_batches(case: Case) -> Group:
    """Estimators that look at other episodes: batches of 2 episodes of the same problem cut short."""
    title, gamma = "on-policy: what the rest of the batch does", case.gamma
    small = shortened(case)
    if small is None:
        return _not_tried(title)
    learners: dict[str, Algorithm] = {}
    for baseline, word in (("none", "no baseline"), ("mean", "mean"), ("optimal", "optimal"), ("value", "V")):
        learners |= _reinforce(baseline, word, gamma)
    for kind in of_the_gradient():
        if any(field.name == "normalize_advantage" for field in fields(kind)):  # type: ignore[arg-type]
            name = "Reinforce, V, reward to go" if kind is Reinforce else f"{kind.__name__}, V"
            learners[name] = _plain(kind, gamma)
            learners[f"{name}, normalised"] = _plain(kind, gamma, normalize_advantage=True)
    rows = []
    truth = exact.gradient(small.problem, small.theta, gamma).flatten()
    for name, one in learners.items():
        limit = cosine(expectation(one, small), truth)
        row = _row(name, estimator_of(one), small, episodes=2)
        rows.append(replace(row, numbers=row.numbers | {"cosine, N → ∞": limit}))
    for name, one in _reinforce("leave-one-out", "leave-one-out", gamma).items():
        rows.append(_row(name, estimator_of(one), small, episodes=2))
    note = f"Batches of 2 episodes of the same problem cut short, horizon {small.steps}."
    return sorted_group(title, note, rows)


def in_groups(case: Case) -> Group:
    """Advantages by comparison within a group, as for language models: groups of 2 from one state."""
    title = "on-policy: comparison within a group"
    start = torch.nn.functional.one_hot(case.problem.rho0.argmax(), case.problem.n_states)
    small = shortened(replace(case, problem=replace(case.problem, rho0=start)))
    if small is None:
        return _not_tried(title)

    def compared(how: Callable[[Tensor], Tensor]) -> Estimator:
        return _scored(lambda seen: how(seen.whole[0]).expand_as(seen.logp), case.gamma)

    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "return, not compared": lambda ret: ret,
        "group_relative, scaled (GRPO)": lambda ret: group_relative(ret, 2),
        "group_relative, not scaled (Dr. GRPO)": lambda ret: group_relative(ret, 2, scale=False),
        "leave_one_out (RLOO)": lambda ret: leave_one_out(ret, 2),
    }
    rows = [_row(name, compared(how), small, episodes=2) for name, how in kinds.items()]
    two = replace(GRPO(), num_generations=2, gamma=case.gamma)
    learners = {"GRPO": two, "GRPO, not scaled": replace(two, scale_rewards="none")}
    rows += [_row(name, estimator_of(one), small, episodes=2) for name, one in learners.items()]
    note = f"Groups of 2 episodes from the likeliest start of the problem cut short, horizon {small.steps}."
    return sorted_group(title, note, rows)


def weightings(case: Case) -> Group:
    """What importance weights make of one episode of the policy that acted."""

    def surrogate(objective: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Estimator:
        return estimator(lambda agent, traj: discounted_gae(agent, traj, case.gamma, 1.0), objective)

    credits: dict[str, Credit] = {
        "no weight": lambda seen: seen.discount * seen.to_go,
        "trajectory ratio · full return": lambda seen: seen.trajectory_ratio * seen.whole,
        "trajectory ratio · reward to go": lambda seen: seen.discount * seen.trajectory_ratio * seen.to_go,
        "per-decision return": lambda seen: seen.discount * seen.per_decision,
        "prefix ratio · reward to go": lambda seen: seen.discount * seen.prefix * seen.to_go,
        "truncated step ratio · Â": lambda seen: truncate(seen.ratio, 1.0) * seen.discount * seen.gae(1.0),
    }
    hindsight = _scored(lambda seen: seen.discount * seen.vtrace().advantage, case.gamma)
    target = exact.values(case.problem, case.theta, case.gamma, case.steps).V
    rows = [_row(name, _scored(credit, case.gamma), case) for name, credit in credits.items()]
    rows += [
        _row("step ratio · Â (L^CPI)", surrogate(importance_weighted), case),
        _row("clipped step ratio · Â (L^CLIP, ε = .2)", surrogate(_clipped), case),
        _row("V-trace, V of π", hindsight, case, target),
        _row("PPO, λ = .95, without γᵗ", estimator_of(_plain(PPO, case.gamma)), case),
    ]
    for kind in get_args(Weighting):
        learner = _plain(OffPolicyActorCritic, case.gamma, weighting=kind, discount_decisions=True)
        rows.append(_row(f"OffPolicyActorCritic, {kind}", estimator_of(learner), case))
    note = "Episodes of μ, gradient of π. Â is gae with λ = 1 and V of μ."
    return sorted_group("off-policy: importance weights", note, rows)


def divergences(case: Case) -> Group:
    """Estimators of the KL between the policy asked about, π, and the one that acted, μ."""
    between = KLCase(case.name, case.theta, case.actor, case.actor)

    def sampled(how: KLEstimator) -> Callable[[KLCase, Tensor], Tensor]:
        return lambda one, logits: how(log_probs(logits), log_probs(one.reference))

    def whole(forward: bool) -> Callable[[KLCase, Tensor], Tensor]:
        def value(one: KLCase, logits: Tensor) -> Tensor:
            here, there = Categorical(logits), Categorical(one.reference)
            each = kl.exact(there, here) if forward else kl.exact(here, there)
            return each.unsqueeze(1).expand_as(logits)

        return value

    kinds: dict[str, tuple[Callable[[KLCase, Tensor], Tensor], bool]] = {
        "k1, actions of π": (sampled(kl.k1), False),
        "k2, actions of π": (sampled(kl.k2), False),
        "k3, actions of π": (sampled(kl.k3), False),
        "k3_corrected, actions of μ": (sampled(lambda p, q: kl.k3_corrected(p, q, q)), True),
        "approx_kl, actions of μ": (sampled(kl.approx_kl), True),
        "exact, KL(π‖μ)": (whole(forward=False), False),
        "exact, KL(μ‖π)": (whole(forward=True), False),
    }
    rows = []
    for name, (values, behaves) in kinds.items():
        found = grade_kl_on(between, values, behaves)
        numbers: Numbers = {
            "bias for KL(π‖μ)": found.bias,
            "bias for KL(μ‖π)": found.forward_bias,
            "std": found.std,
            "cosine ∇KL(π‖μ)": found.reverse,
            "cosine ∇KL(μ‖π)": found.forward,
        }
        rows.append(Row(name, numbers))
    note = "All observations count alike. The cosine is that of the expected gradient, 0 where there is none."
    return sorted_group("estimators of the KL divergence", note, rows, by="std")


def value_targets(case: Case) -> Group:
    """What a critic with errors is told to say, from episodes of the policy itself."""
    kinds: dict[str, Credit] = {
        "reward to go (Monte Carlo)": lambda seen: seen.to_go,
        "1 step: TD(0)": lambda seen: seen.n_step(1),
        "2 steps": lambda seen: seen.n_step(2),
        "all steps": lambda seen: seen.n_step(case.steps),
        "λ = .5": lambda seen: seen.lambda_return(0.5),
        "λ = .95": lambda seen: seen.lambda_return(0.95),
    }
    note = "Told to V + error. Bias of E[target | s] for V(s), and std, by state, averaged over time."
    return _targets("value targets: on-policy", note, case, kinds)


def off_policy_targets(case: Case) -> Group:
    """What a critic with errors is told to say of π, from episodes of μ."""
    kinds: dict[str, Credit] = {
        "reward to go, no weight": lambda seen: seen.to_go,
        "1 step, no weight": lambda seen: seen.n_step(1),
        "V-trace": lambda seen: seen.vtrace().target,
        "V-trace, λ = .5": lambda seen: seen.vtrace(0.5).target,
        "V-trace, not truncated": lambda seen: seen.vtrace(limit=math.inf).target,
    }
    note = "Episodes of μ, V of π; the critic is V of μ + error."
    return _targets("value targets: off-policy", note, case, kinds)


def of_the_gradient() -> list[type[Algorithm]]:
    """The algorithms whose loss estimates −∇J from episodes that need not begin alike, as groups do."""
    return [kind for kind in ALGORITHMS.values() if estimates_gradient(kind()) and kind is not GRPO]


def _not_tried(title: str) -> Group:
    return Group(title, f"Not tried: it takes a problem with at most {PAIRS} trajectories of a decision.", ())


def _plain(kind: type[Algorithm], gamma: float, **changed: Any) -> Algorithm:
    """An algorithm as it trains, without entropy bonus and, unless asked for, without standardising."""
    options = {"gamma": gamma, "ent_coef": 0.0, "normalize_advantage": False} | changed
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in options.items() if name in known})


def _reinforce(baseline: str, word: str, gamma: float) -> dict[str, Algorithm]:
    """Its three weights of a decision."""
    weights: dict[str, dict[str, bool]] = {
        "full return": {"reward_to_go": False},
        "reward to go": {},
        "γᵗ·reward to go": {"discount_decisions": True},
    }
    return {
        f"Reinforce, {word}, {name}": _plain(Reinforce, gamma, baseline=baseline, **flags)
        for name, flags in weights.items()
    }


def _scored(credit: Credit, gamma: float) -> Estimator:
    """log π·Â."""
    return weighted_scores(lambda agent, traj: credit(Seen.by(agent, traj, gamma)))


def _gae(gamma: float, gae_lambda: float) -> Estimator:
    return weighted_scores(lambda agent, traj: discounted_gae(agent, traj, gamma, gae_lambda))


def _clipped(logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
    return clipped(logp, logp_old, advantage, 0.2, 0.2)


def _row(name: str, how: Estimator, case: Case, critic: Tensor | None = None, episodes: int = 1) -> Row:
    grade = grade_on(case, how, critic, episodes)
    numbers: Numbers = {
        "bias": grade.bias,
        "cosine": grade.cosine,
        "scale": grade.scale,
        "variance": grade.variance,
        "at equal length": grade.variance / grade.scale**2 if grade.scale else math.nan,
    }
    return Row(name, numbers)


def _targets(title: str, note: str, case: Case, kinds: dict[str, Credit]) -> Group:
    """Every target's bias and standard deviation by state."""
    seen = Seen.by(agent_of(case, wrong_critic(case)), case.trajectory, case.gamma)
    obs, p = case.trajectory.decisions.flatten(), case.trajectory.mask.flatten()
    T, S = case.steps, case.problem.n_states
    weight = torch.zeros(T * S, dtype=p.dtype).index_add(0, obs, p)  # P(s_t = s)
    V = exact.values(case.problem, case.theta, case.gamma, T).V[:-1].flatten()

    def given_state(x: Tensor) -> Tensor:
        summed = torch.zeros_like(weight).index_add(0, obs, p * x)
        return torch.where(weight > 0, summed / weight, 0.0)

    def over_time(x: Tensor) -> Tensor:
        """[S], NaN where no decision is taken."""
        return (x * weight).reshape(T, S).sum(0) / weight.reshape(T, S).sum(0)

    rows = []
    for name, how in kinds.items():
        target = how(seen).flatten().masked_fill(p == 0, 0.0)
        mean = given_state(target)
        std = over_time(given_state((target - mean[obs]).square())).sqrt()
        rows.append(Row(name, {"bias": over_time(mean - V).tolist(), "std": std.tolist()}))
    return sorted_group(title, note, rows, by="std")
