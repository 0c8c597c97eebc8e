"""The notes' running example: what of a bicycle must be seen to keep it up."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pgrad.lab.claim import Claim, Measured, Verdict
from pgrad.lab.problems import Case
from pgrad.worlds.tensors.bicycle import Bicycle

Rule = Callable[[Tensor, Tensor], Tensor]
"""The handlebar angle, from the lean and the lean rate."""


def swing(bicycle: Bicycle, rule: Rule, lean: float, steps: int = 600, last: int = 150) -> float:
    """The largest lean of the last steps in degrees, from a lean in radians; 45 and more where it fell."""
    state = torch.tensor([[lean, 0.0, bicycle.speed, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    leans = torch.zeros(steps, dtype=torch.float64)
    for t in range(steps):
        action = rule(state[:, 0], state[:, 1]).unsqueeze(1)
        state, _, fallen = bicycle.step(state, action, state[:, :0])
        leans[t] = state[0, 0]
        if fallen:
            return float(leans[t].abs().rad2deg())
    return float(leans[-last:].abs().max().rad2deg())


def _lean_and_speed(case: Case) -> Measured:
    """On the audit's bicycle, or one of a random speed, lean and rule δ = k·φ with k·v²/b ≥ 1.8·g."""
    speed, gain, lean = 4.0, 2.0, math.radians(5.0)
    if case.seed is not None:
        faster, firmer, aslant = torch.rand(3, generator=case.draws(), dtype=torch.float64).tolist()
        speed, gain, lean = 3.5 + 2 * faster, 1.5 + firmer, math.radians(1 + 4 * aslant)
    plain, whole = Bicycle(speed=speed, ahead=0.0), Bicycle(speed=speed)
    found = {
        "no steer-rate term": swing(plain, lambda lean, rate: gain * lean, lean),
        "with it": swing(whole, lambda lean, rate: gain * lean, lean),
        "lean rate seen": swing(plain, lambda lean, rate: gain * lean + 0.25 * gain * rate, lean),
    }
    undamped, turning, seen = (x / math.degrees(lean) for x in found.values())
    return Measured(holds=undamped < 0.01, right=max(turning, seen) < 0.01, numbers=found)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="E-53",
        title="A bicycle's state is lean and speed",
        statement="Lean angle and speed are state enough: a bicycle is kept up by steering on them alone.",
        verdict=Verdict.TRUE_IF,
        measure=_lean_and_speed,
        equation="φ̈ = (g/h)·sin φ − cos φ·(v²·tan δ + a·v·δ̇)/(b·h),  δ = k·φ",
        source="000:164",
        paper="Åström, Klein & Lennartsson 2005, IEEE Control Systems 25(4)",
        explanation="Without the steer-rate term a·v·δ̇ every rule δ = f(φ) makes φ̈ a function of φ, and a "
        "swing loses no energy: from 5° it goes on at 5° for ever. The term turns a rule on φ into a brake "
        "on φ̇.",
        correction="The steer-rate term is kept (a > 0); without it the lean rate must be seen as well.",
        audit={"no steer-rate term": "5.00", "with it": "0.00"},
        own=True,
    ),
)
"""In the order of the notes."""
