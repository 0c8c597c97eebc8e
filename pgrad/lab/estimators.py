"""Every shipped estimator on one problem: how far off it is, in which direction, and how noisy."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pgrad.algorithms import A2C, PPO, PPOKL, ActorCritic, Algorithm, Reinforce
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.estimate import Estimator, agent_of, estimator, estimator_of
from pgrad.lab.grade import grade_on
from pgrad.lab.kl_grade import KLCase, KLEstimator, grade_kl_on, log_probs
from pgrad.lab.problems import Case
from pgrad.math import kl
from pgrad.math.credit import (
    discount_weight,
    full_return,
    gae,
    group_relative,
    lambda_return,
    leave_one_out,
    n_step_return,
    reward_to_go,
    vtrace,
)
from pgrad.math.distributions import Categorical
from pgrad.math.importance import per_decision_return, prefix_ratio, step_ratio, trajectory_ratio, truncate
from pgrad.math.objectives import clipped, importance_weighted, score_function

Numbers = dict[str, float | list[float]]
Credit = Callable[[TabularAgent, "Seen"], Tensor]

PAIRS = 60
"""More trajectories than this are not compared two by two."""


@dataclass(frozen=True)
class Row:
    """An estimator and its numbers; a list holds one number for each state."""

    name: str
    numbers: Numbers


@dataclass(frozen=True)
class Group:
    """Estimators of the same thing, the least noisy first."""

    title: str
    note: str
    rows: tuple[Row, ...]


def every_estimator(case: Case, off_policy: float = 0.5) -> Iterator[Group]:
    """The groups, one after the other; `off_policy` asks about theta + off_policy·direction too.

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


def wrong_critic(case: Case) -> Tensor:
    """V_t(s) plus normal errors of the size of V's own spread, [T+1, S]; the same at every call."""
    V = exact.values(case.problem, case.actor, case.gamma, case.steps).V
    error = torch.randn(V.shape, generator=case.draws(1), dtype=V.dtype)
    return V + error * V[:-1].std()


@dataclass(frozen=True)
class Seen:
    """A trajectory with what a credit needs, in the order of `pgrad.math`."""

    reward: Tensor
    value: Tensor
    terminated: Tensor
    done: Tensor
    logp: Tensor  # of the policy asked about
    logp_old: Tensor  # of the one that acted
    gamma: float

    @property
    def discount(self) -> Tensor:
        """γᵗ."""
        return discount_weight(self.done, self.gamma, self.reward.dtype)

    @property
    def to_go(self) -> Tensor:
        """Gₜ."""
        return reward_to_go(self.reward, self.done, self.gamma)

    @property
    def whole(self) -> Tensor:
        """R(τ)."""
        return full_return(self.reward, self.done, self.gamma)

    def advantage(self, gae_lambda: float) -> Tensor:
        """Âₜ of `gae`."""
        return gae(self.reward, self.value, self.terminated, self.done, self.gamma, gae_lambda)


def on_policy(case: Case) -> Group:
    """Estimators of ∇J from one episode of the policy itself."""
    gamma, rows = case.gamma, []
    for critic, table in (("V", None), ("V + error", wrong_critic(case))):
        learners: dict[str, Algorithm] = {
            f"A2C, {critic}": A2C(gamma=gamma, ent_coef=0.0),
            f"PPO, λ = .95, {critic}": PPO(gamma=gamma, ent_coef=0.0, normalize_advantage=False),
            f"PPOKL, λ = .95, {critic}": PPOKL(gamma=gamma, ent_coef=0.0, normalize_advantage=False),
            f"ActorCritic, 1 step, {critic}": ActorCritic(gamma=gamma),
            f"ActorCritic, 2 steps, {critic}": ActorCritic(gamma=gamma, bootstrap_steps=2),
            f"ActorCritic, all steps, {critic}": ActorCritic(gamma=gamma, bootstrap_steps=None),
        }
        learners |= _reinforce("value", critic, gamma)
        if table is None:
            learners |= _reinforce("none", "no baseline", gamma)
        rows += [_row(name, estimator_of(one), case, table) for name, one in learners.items()]
        for gae_lambda in (0.0, 0.5, 0.95, 1.0):
            how = _scored(lambda seen, lam=gae_lambda: seen.discount * seen.advantage(lam), gamma)
            rows.append(_row(f"γᵗ·gae, λ = {gae_lambda:g}, {critic}", how, case, table))
    note = "Algorithms average over decisions: their scale is 1/T. Those without γᵗ are biased if γ < 1."
    return _group("on-policy: one episode", note, rows)


def in_batches(case: Case) -> Group:
    """Estimators that look at other episodes: batches of 2 episodes of the same problem cut short."""
    title, gamma = "on-policy: what the rest of the batch does", case.gamma
    small = shortened(case)
    if small is None:
        return Group(title, f"needs a problem with at most {PAIRS} trajectories of one decision", ())
    learners: dict[str, Algorithm] = {}
    for baseline in ("none", "mean", "leave-one-out", "optimal", "value"):
        learners |= _reinforce(baseline, baseline if baseline != "value" else "V", gamma)
    for normalized in (False, True):
        word = ", normalised" if normalized else ""
        learners |= {
            f"Reinforce, V, reward to go{word}": Reinforce(gamma=gamma, normalize_advantage=normalized),
            f"A2C, V{word}": A2C(gamma=gamma, ent_coef=0.0, normalize_advantage=normalized),
            f"PPO, V{word}": PPO(gamma=gamma, ent_coef=0.0, normalize_advantage=normalized),
            f"PPOKL, V{word}": PPOKL(gamma=gamma, ent_coef=0.0, normalize_advantage=normalized),
        }
    rows = [_row(name, estimator_of(one), small, episodes=2) for name, one in learners.items()]
    return _group(title, f"Batches of 2 episodes of {_length(small)}, of the same problem cut short.", rows)


def in_groups(case: Case) -> Group:
    """Advantages by comparison within a group, as for language models: groups of 2 from one state."""
    title = "on-policy: comparison within a group"
    start = torch.nn.functional.one_hot(case.problem.rho0.argmax(), case.problem.n_states)
    small = shortened(replace(case, problem=replace(case.problem, rho0=start.to(torch.float64))))
    if small is None:
        return Group(title, f"needs a problem with at most {PAIRS} trajectories of one decision", ())

    def compared(how: Callable[[Tensor], Tensor]) -> Estimator:
        return _scored(lambda seen: how(seen.whole[0]).expand_as(seen.reward), case.gamma)

    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "return, not compared": lambda ret: ret,
        "group_relative, scaled (GRPO)": lambda ret: group_relative(ret, 2),
        "group_relative, not scaled (Dr. GRPO)": lambda ret: group_relative(ret, 2, scale=False),
        "leave_one_out (RLOO)": lambda ret: leave_one_out(ret, 2),
    }
    rows = [_row(name, compared(how), small, episodes=2) for name, how in kinds.items()]
    note = f"Groups of 2 episodes of {_length(small)}, which start in the likeliest state."
    return _group(title, note, rows)


def weightings(case: Case) -> Group:
    """What importance weights make of one episode of the policy that acted."""

    def surrogate(objective: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Estimator:
        return estimator(lambda agent, traj: _discounted(_seen(agent, traj, case.gamma)), objective)

    def ratio(seen: Seen) -> Tensor:
        return step_ratio(seen.logp, seen.logp_old)

    def prefix(seen: Seen) -> Tensor:
        return prefix_ratio(seen.logp, seen.logp_old, seen.done)

    def whole(seen: Seen) -> Tensor:
        return trajectory_ratio(seen.logp, seen.logp_old, seen.done)

    def per_decision(seen: Seen) -> Tensor:
        return per_decision_return(seen.reward, seen.logp, seen.logp_old, seen.done, case.gamma)

    def v_trace(seen: Seen) -> Tensor:
        flags = seen.terminated, seen.done
        return vtrace(seen.reward, seen.value, *flags, ratio(seen), case.gamma).advantage

    credits: dict[str, Callable[[Seen], Tensor]] = {
        "no weight": lambda seen: seen.discount * seen.to_go,
        "trajectory ratio · full return": lambda seen: whole(seen) * seen.whole,
        "trajectory ratio · reward to go": lambda seen: seen.discount * whole(seen) * seen.to_go,
        "per-decision return": lambda seen: seen.discount * per_decision(seen),
        "prefix ratio · reward to go": lambda seen: seen.discount * prefix(seen) * seen.to_go,
        "truncated step ratio · Â": lambda seen: truncate(ratio(seen), 1.0) * _discounted(seen),
    }
    target = exact.values(case.problem, case.theta, case.gamma, case.steps).V
    rows = [_row(name, _scored(credit, case.gamma), case) for name, credit in credits.items()]
    rows += [
        _row("step ratio · Â (L^CPI)", surrogate(importance_weighted), case),
        _row("clipped step ratio · Â (L^CLIP, ε = .2)", surrogate(_clipped), case),
        _row("V-trace, V of π", _scored(lambda seen: seen.discount * v_trace(seen), case.gamma), case, target),
        _row(
            "PPO, λ = .95, without γᵗ",
            estimator_of(PPO(gamma=case.gamma, ent_coef=0.0, normalize_advantage=False)),
            case,
        ),
    ]
    note = "Episodes of μ, gradient of π. Â is gae with λ = 1 and V of μ; all but the last have γᵗ."
    return _group("off-policy: importance weights", note, rows)


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
    rows.sort(key=lambda row: _key(row.numbers["std"]))
    note = "Over all observations alike. The cosine is that of the expected gradient; 0 where there is none."
    return Group("estimators of the KL divergence", note, tuple(rows))


def value_targets(case: Case) -> Group:
    """What a critic with errors is told to say, from episodes of the policy itself."""
    T = case.steps
    kinds: dict[str, Callable[[Seen], Tensor]] = {
        "reward to go (Monte Carlo)": lambda seen: seen.to_go,
        "1 step: TD(0)": lambda seen: _n_step(seen, 1),
        "2 steps": lambda seen: _n_step(seen, 2),
        "λ = .5": lambda seen: _lambda(seen, 0.5),
        "λ = .95": lambda seen: _lambda(seen, 0.95),
        f"all {T} steps": lambda seen: _n_step(seen, T),
    }
    note = "With the wrong critic. Bias and std of E[target | s] against V(s), averaged over time."
    return _targets("value targets: on-policy", note, case, kinds)


def off_policy_targets(case: Case) -> Group:
    """What a critic with errors is told to say of π, from episodes of μ."""

    def v_trace(seen: Seen, gae_lambda: float, limit: float) -> Tensor:
        ratio = step_ratio(seen.logp, seen.logp_old)
        flags = seen.terminated, seen.done
        return vtrace(
            seen.reward, seen.value, *flags, ratio, case.gamma, gae_lambda, rho_max=limit, c_max=limit
        ).target

    kinds: dict[str, Callable[[Seen], Tensor]] = {
        "reward to go, no weight": lambda seen: seen.to_go,
        "1 step, no weight": lambda seen: _n_step(seen, 1),
        "V-trace": lambda seen: v_trace(seen, 1.0, 1.0),
        "V-trace, λ = .5": lambda seen: v_trace(seen, 0.5, 1.0),
        "V-trace, not truncated": lambda seen: v_trace(seen, 1.0, torch.inf),
    }
    note = "Episodes of μ, values of π, with the wrong critic (V of μ and errors)."
    return _targets("value targets: off-policy", note, case, kinds)


def shortened(case: Case) -> Case | None:
    """The same problem with 2 decisions, or 1, so that its trajectories can be compared two by two."""
    for steps in (2, 1):
        if steps <= case.steps:
            try:
                small = replace(case, problem=replace(case.problem, horizon=steps))
                if small.trajectory.mask.shape[1] <= PAIRS:
                    return small
            except UsageError:  # too many to enumerate
                continue
    return None


def _reinforce(baseline: str, word: str, gamma: float) -> dict[str, Algorithm]:
    """Its three weights of a decision."""
    weights = {
        "full return": {"reward_to_go": False},
        "reward to go": {},
        "γᵗ·reward to go": {"discount_decisions": True},
    }
    return {
        f"Reinforce, {word}, {name}": Reinforce(gamma=gamma, baseline=baseline, **flags)  # type: ignore[arg-type]
        for name, flags in weights.items()
    }


def _scored(credit: Callable[[Seen], Tensor], gamma: float) -> Estimator:
    """log π·Â with a credit of a `Seen`."""
    return estimator(
        lambda agent, traj: credit(_seen(agent, traj, gamma)),
        lambda logp, logp_old, advantage: score_function(logp, advantage),
    )


def _seen(agent: TabularAgent, traj: "object", gamma: float) -> Seen:
    raise NotImplementedError
