"""The gap between the policy that writes completions and the same policy as training computes it."""

from dataclasses import replace

import torch

from pgrad.algorithms import Algorithm
from pgrad.algorithms.reference import pays
from pgrad.algorithms.sampler import RHO_MAX, rescored, sampling_metrics
from pgrad.data import Trajectory
from pgrad.errors import TrainingError
from pgrad.models import Agent
from pgrad.training.records import explained

CORRECTED_FROM = 0.1
"""From this |log π − log μ| of some token on, in nats, tokens are weighed by both."""

GAP, CORRECTED = "sampling/sampling_logp_difference/max", "sampling/corrected"


class SamplerCheck:
    """Scores fresh completions as training will, where rounding may tell the two apart.

    That is in half precision, where another engine writes, where the algorithm asks for it by its `rho_max`,
    and where rewards pay for the divergence from a reference, which is scored by training; else the first
    step of an update measures the same for nothing. If some token is `CORRECTED_FROM` apart, or the algorithm
    asks for it, decisions are weighed by min(π/μ, ρ̄). Old episodes that are used again have ratios of their
    own.
    """

    def __init__(self, agent: Agent, algorithm: Algorithm) -> None:
        given = getattr(algorithm, "rho_max", None)
        apart = getattr(agent.network, "rounds_apart", False)
        self.agent, self.asked = agent, given is not None
        self.rho_max: float = RHO_MAX if given is None else given
        self.pays = pays(algorithm)
        self.wanted = (apart or self.asked or self.pays) and not getattr(algorithm, "reuse", 0)

    def __call__(self, traj: Trajectory) -> tuple[Trajectory, dict[str, float]]:
        """What to learn from, and what was measured.

        Raises TrainingError for a gap that rounding does not explain, unless the algorithm expects one.
        """
        if not self.wanted:
            return traj, {}
        scored = rescored(self.agent, traj, self.rho_max)
        measured = sampling_metrics(scored.logp, traj.logp, traj.mask, self.rho_max)
        numbers: list[float] = torch.stack(list(measured.values())).tolist()  # waits for the device, once
        metrics = dict(zip(measured, numbers, strict=True))
        if self.asked:
            return scored, metrics
        tolerance = explained(self.agent, traj.logp.device)
        if not metrics[GAP] <= tolerance:
            raise TrainingError(
                "the policy that is trained is not the policy that wrote: before any step they differ by "
                f"{metrics[GAP]:.2g} nats about a token; rounding explains up to {tolerance:g}"
            )
        corrects = metrics[GAP] >= CORRECTED_FROM
        if corrects:
            traj = scored
        elif self.pays:  # log π − log π_ref of one computation: nothing, where the two are the same policy
            traj = replace(traj, logp=scored.logp)
        return traj, metrics | {CORRECTED: float(corrects)}
