"""Claims about partial observability: what survives when the policy sees observations instead of states."""

from dataclasses import replace

import torch
from torch import Tensor

from pgrad.algorithms import Reinforce
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import gradient_error, row, several
from pgrad.lab.claims.returns import values_of
from pgrad.lab.estimate import expectation, weighted_scores
from pgrad.lab.problems import Case
from pgrad.lab.seen import discounted_gae


def aliased(case: Case) -> Case:
    """The case as it is if some of its states look alike, and otherwise with its first two seen as one."""
    problem = case.problem
    if problem.n_observations < problem.n_states:
        return case
    seen = (torch.arange(problem.n_states) - 1).clamp(min=0)
    theta = torch.cat([case.theta[:1], case.theta[2:]])
    if case.seed is None:  # the policy on two observations that has the audit's numbers
        theta = torch.stack([row(0.3, -0.2), row(0.5, -0.5)])
    direction = torch.cat([case.direction[:1], case.direction[2:]])
    return replace(case, problem=replace(problem, observation=seen), theta=theta, direction=direction)


def mean_critic(case: Case) -> Tensor:
    """V_t(o) = E[V_t(s) | o_t = o], what fitting V(o) to returns converges to, as a table [T+1, S]."""
    V = values_of(case).V
    belief = _belief(case)
    return torch.cat([(belief @ V[:-1].unsqueeze(-1)).squeeze(-1), V[-1:]])


def td_critic(case: Case) -> Tensor:
    """The fixed point V_t(o) = E[r + γV_{t+1}(o') | o_t = o] of bootstrapping on observations, [T+1, S]."""
    problem, belief = case.problem, _belief(case)
    pi = exact.policy(problem, case.theta)
    rows = [exact.values(problem, case.theta, case.gamma, case.steps).V[-1]]
    for t in reversed(range(case.steps)):
        Q = (problem.r + case.gamma * problem.P @ rows[0]) * ~problem.terminal.unsqueeze(1)
        rows.insert(0, belief[t] @ (pi * Q).sum(1))
    return torch.stack(rows)


def _belief(case: Case) -> Tensor:
    """P(s_t = s' | o_t = o(s)), [T, S, S]; a state alone where its observation never comes up."""
    seen, reached = case.problem.observation, exact.marginals(case.problem, case.theta, case.steps)
    weight = (seen == seen.unsqueeze(1)) * reached.unsqueeze(1)
    total = weight.sum(-1, keepdim=True)
    return torch.where(total > 0, weight / total, torch.eye(len(seen), dtype=torch.float64))


def _error(case: Case, critic: Tensor, gae_lambda: float) -> float:
    """Of an actor-critic with γᵗ and GAE(λ), |E ĝ − ∇J|/|∇J|."""
    how = weighted_scores(lambda agent, traj: discounted_gae(agent, traj, case.gamma, gae_lambda))
    return gradient_error(expectation(how, case, critic), case)


def _monte_carlo(case: Case) -> Measured:
    """REINFORCE as it ships, on observations: whole returns, reward-to-go, and a baseline b(o)."""
    case = aliased(case)
    critic = mean_critic(case)
    whole = Reinforce(gamma=case.gamma, reward_to_go=False, baseline="none")
    to_go = replace(whole, reward_to_go=True, discount_decisions=True)
    based = replace(to_go, baseline="value")
    errors = {
        "full return": gradient_error(expectation(whole, case), case),
        "reward-to-go": gradient_error(expectation(to_go, case), case),
        "baseline b(o)": gradient_error(expectation(based, case, critic), case),
    }
    *returns, baseline = errors.values()
    return Measured(holds=max(returns) < ZERO, right=baseline < ZERO, numbers=errors)


def _actor_critic(case: Case) -> Measured:
    """One-step temporal differences of three critics, and what does without bootstrapping."""
    case = aliased(case)
    mean, fixed = mean_critic(case), td_critic(case)
    state = values_of(case).V
    errors = {
        "TD, V(o) = E[V|o]": _error(case, mean, 0.0),
        "TD, V(o) its fixed point": _error(case, fixed, 0.0),
        "GAE λ = .95, E[V|o]": _error(case, mean, 0.95),
        "Monte Carlo, baseline E[V|o]": _error(case, mean, 1.0),
        "TD, V(s)": _error(case, state, 0.0),
    }
    *biased, monte_carlo, privileged = errors.values()
    return Measured(holds=min(biased) < ZERO, right=max(monte_carlo, privileged) < ZERO, numbers=errors)


def _two_states(case: Case) -> bool:
    return case.problem.n_states > 1 and several(case)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-19",
        title="Observations for states: Monte Carlo",
        statement=(
            "Where the state is seen in part only, REINFORCE is still unbiased with π(a|o) for π(a|s)."
        ),
        verdict=Verdict.TRUE,
        measure=_monte_carlo,
        equation="∇J = E[Σ_t ∇log π(a_t|o_t)·R(τ)] = E[Σ_t γᵗ ∇log π(a_t|o_t)·(G_t − b(o_t))]",
        source="004:28",
        paper="Baxter & Bartlett 2001; Singh, Jaakkola & Jordan 1994",
        explanation=(
            "The likelihood ratio of a trajectory contains only the policy's own probabilities, so nothing "
            "in the derivation needs what the policy sees to be Markov. Reward-to-go and baselines b(o) need "
            "no more than that a_t is drawn given o_t."
        ),
        audit={"full return": "<1e-9", "reward-to-go": "<1e-9"},
        also=("M-22",),
        fits=_two_states,
        needs="two states and two decisions or more",
    ),
    Claim(
        id="L-20",
        title="Observations for states: critics",
        statement=(
            "Where the state is seen in part only, one may simply replace s by o, in a critic V(o) too."
        ),
        verdict=Verdict.FALSE,
        measure=_actor_critic,
        equation="E[Σ_t γᵗ ∇log π(a_t|o_t)·(r_t + γV(o_{t+1}) − V(o_t))] ≠ ∇J, even for V(o) = E[V(s)|o]",
        source="004:28",
        paper="Baisero & Amato 2022; Singh, Jaakkola & Jordan 1994",
        explanation=(
            "E[V(s')|o'] averages over the states that o' may be, whatever a_t was; but the action shifts "
            "these odds, and the bootstrap does not notice. The bias remains at TD's own fixed point, and "
            "with any λ < 1."
        ),
        correction=(
            "Monte Carlo returns (λ = 1) stay unbiased, with V(o) as a baseline too; what bootstraps on V(o) "
            "is biased, unless its critic sees the state."
        ),
        audit={
            "TD, V(o) = E[V|o]": ".0772",
            "TD, V(o) its fixed point": ".0740",
            "Monte Carlo, baseline E[V|o]": "<1e-9",
            "TD, V(s)": "<1e-9",
        },
        also=("E-18",),
        fits=_two_states,
        needs="two states and two decisions or more",
    ),
)
