import itertools

import pytest
import torch
from torch import Tensor

from pgrad.worlds.tensors.probes import PROBES, TARGET, Probe
from pgrad.worlds.tensors.tensor import TensorWorld

GAMMA = 0.9
NAMES = ["constant", "observation", "discount", "action", "both"]


def test_names() -> None:
    assert list(PROBES) == [f"probe-{name}" for name in NAMES] + [
        f"probe-{name}-continuous" for name in NAMES
    ]


def play(probe: Probe, policy: dict[float, Tensor]) -> dict[float, set[float]]:
    """Discounted returns from each observation, over many whole episodes under a policy."""
    world = TensorWorld(probe, 32, 0)
    obs = world.reset()[:, 0].tolist()
    history: list[list[tuple[float, float]]] = [[] for _ in range(32)]
    returns: dict[float, set[float]] = {}
    for _ in range(40):
        over = world.ended.tolist()
        step = world.step(torch.stack([policy.get(x, policy[min(policy)]) for x in obs]))
        for i in range(32):
            if not over[i]:
                history[i].append((obs[i], step.reward[i].item()))
            if step.terminated[i]:
                total = 0.0
                for x, reward in reversed(history[i]):
                    total = reward + GAMMA * total
                    returns.setdefault(x, set()).add(round(total, 6))
                history[i] = []
            assert not step.truncated[i]
        obs = step.obs[:, 0].tolist()
    return returns


def candidates(probe: Probe) -> list[Tensor]:
    if probe.continuous:
        return [torch.tensor([a]) for a in (-2.0, -1.0, -TARGET, -0.1, 0.0, TARGET, 0.9, 1.0, 2.0)]
    return [torch.tensor(0), torch.tensor(1)]


@pytest.mark.parametrize("name", PROBES)
def test_the_solution_is_the_best_of_all_policies(name: str) -> None:
    """Of all deterministic policies on a grid, played in the world, none but `solution` is the best."""
    probe = PROBES[name]
    solution = probe.solution(GAMMA)
    decisions = solution.obs[:, 0].tolist()
    best: dict[float, float] = {}
    at_best: dict[float, set[tuple[float, ...]]] = {x: set() for x in decisions}
    for actions in itertools.product(candidates(probe), repeat=len(decisions)):
        returns = play(probe, dict(zip(decisions, actions, strict=True)))
        assert returns.keys() == set(decisions)
        for x, values in returns.items():
            assert len(values) == 1, "the return is not a function of the observation and the policy"
            value = values.copy().pop()
            if value > best.get(x, -100.0):
                best[x], at_best[x] = value, set()
            if value == best[x]:
                at_best[x].add(tuple(actions[decisions.index(x)].flatten().tolist()))
    for k, x in enumerate(decisions):
        assert best[x] == pytest.approx(solution.value[k].item(), abs=1e-6)
        if solution.action is None:
            assert len(at_best[x]) == len(candidates(probe)), "actions are not all as good"
        else:
            assert at_best[x] == {tuple(solution.action[k].flatten().tolist())}


@pytest.mark.parametrize("suffix", ["", "-continuous"])
def test_values_written_out(suffix: str) -> None:
    """The five answers of the source for γ = 0.9; a continuous action costs its squared error instead."""
    solutions = {name: PROBES[f"probe-{name}{suffix}"].solution(0.9) for name in NAMES}
    right = 0.0 if suffix else 1.0
    assert solutions["constant"].value.tolist() == [1.0]
    assert solutions["observation"].value.tolist() == [-1.0, 1.0]
    assert solutions["discount"].value.tolist() == pytest.approx([0.9, 1.0])
    assert solutions["action"].value.tolist() == [right]
    assert solutions["both"].value.tolist() == [right, right]


def test_shapes_and_dtypes_of_a_solution() -> None:
    for probe in PROBES.values():
        solution = probe.solution(1)
        n = len(solution.obs)
        assert (solution.obs.shape, solution.obs.dtype) == ((n, 1), torch.float32)
        assert (solution.value.shape, solution.value.dtype) == ((n,), torch.float32)
        if solution.action is not None:
            expected = ((n, 1), torch.float32) if probe.continuous else ((n,), torch.int64)
            assert (solution.action.shape, solution.action.dtype) == expected


def test_both_observations_are_equally_likely() -> None:
    world = TensorWorld(PROBES["probe-both"], 4000, 0)
    assert abs(world.reset().mean().item()) < 4 / 4000**0.5  # four standard deviations
