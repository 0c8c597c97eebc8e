from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.worlds.tensors.cartpole import CartPole
from pgrad.worlds.tensors.tensor import TensorWorld, dynamics_of
from pgrad.worlds.tensors.tmaze import BACK, FORWARD, LEFT, RIGHT, TMaze

SEEN = ("signal left", "signal right", "corridor", "junction")


def index(obs: Tensor) -> Tensor:
    """Which of SEEN every observation [B, 3] is, [B]."""
    signal, _, junction = obs.unbind(-1)
    return torch.where(signal < 0, 0, torch.where(signal > 0, 1, torch.where(junction > 0, 3, 2)))


def memoryless_return(maze: TMaze, pi: Tensor) -> Tensor:
    """The exact return [N] of policies π(a|observation) [N, 4, 4], undiscounted, clock included.

    The chain of every (signal, place, begun) is asked of the world itself and its distribution carried on.
    """
    states = torch.tensor(
        [[s, p, b, 0.0] for s, p, b in product((-1.0, 1.0), range(maze.length + 1), (0.0, 1.0))],
        dtype=torch.float64,
    )
    number = {tuple(row[:3].tolist()): i for i, row in enumerate(states)}
    seen, n = index(maze.observe(states)), len(states)
    P, r = torch.zeros(n, 4, n, dtype=torch.float64), torch.zeros(n, 4, dtype=torch.float64)
    for a in range(4):
        after, reward, ended = maze.step(states, torch.full((n,), a), torch.zeros(n, 1))
        r[:, a] = reward
        for i in range(n):
            P[i, a, number[tuple(after[i, :3].tolist())]] = float(not ended[i])
    policy = pi[:, seen]  # [N, n, 4]
    now = torch.zeros(len(pi), n, dtype=torch.float64)
    now[:, [number[(-1.0, 0.0, 1.0)], number[(1.0, 0.0, 1.0)]]] = 0.5
    total = torch.zeros(len(pi), dtype=torch.float64)
    for _ in range(maze.max_episode_steps):
        both = now.unsqueeze(-1) * policy  # [N, n, 4]
        total = total + (both * r).sum((1, 2))
        now = torch.einsum("nsa,sat->nt", both, P)
    return total


def test_no_memoryless_policy_beats_zero() -> None:
    """All 256 deterministic ones, 300 random ones, and where exact gradients lead 20 of them."""
    maze = TMaze()
    table = torch.tensor(list(product(range(4), repeat=4)))
    returns = memoryless_return(maze, torch.nn.functional.one_hot(table, 4).double())
    assert returns.max().item() == maze.best_memoryless_return == 0.0
    walkers = table[returns == 0.0]
    assert (walkers[:, :3] == FORWARD).all()
    assert set(walkers[:, 3].tolist()) == {LEFT, RIGHT}

    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(300, 4, 4, generator=generator, dtype=torch.float64)
    assert memoryless_return(maze, logits.softmax(-1)).max() < 0.0
    theta = logits[:20].clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.3)
    for _ in range(120):
        optimizer.zero_grad()
        (-memoryless_return(maze, theta.softmax(-1)).sum()).backward()
        optimizer.step()
    reached = memoryless_return(maze, theta.softmax(-1)).detach()
    assert reached.max() <= 0.0
    assert reached.max() > -0.02  # climbing did come close


def test_a_policy_that_remembers_gets_one() -> None:
    maze = TMaze()
    world = TensorWorld(maze, 64, 0)
    obs, signal = world.reset(), torch.zeros(64)
    total, ends = torch.zeros(64), set()
    for t in range(1, 12):
        signal = torch.where(obs[:, 0] != 0, obs[:, 0], signal)
        action = torch.where(obs[:, 2] > 0, torch.where(signal > 0, RIGHT, LEFT), FORWARD)
        step = world.step(action)
        total += step.reward
        obs = step.obs
        ends |= {t} if step.terminated.all() else set()
    assert total.tolist() == [maze.best_return] * 64
    assert ends == {11}
    assert signal.unique().tolist() == [-1.0, 1.0]


def run(maze: TMaze, signal: float, actions: list[int]) -> list[tuple[list[float], float, bool]]:
    """Observation, reward and end after each action."""
    state, rows = torch.tensor([[signal, 0.0, 1.0, 0.0]]), []
    assert maze.observe(state).tolist() == [[signal, 1.0, 0.0]]
    for action in actions:
        state, reward, ended = maze.step(state, torch.tensor([action]), torch.zeros(1, 1))
        rows.append((maze.observe(state)[0].tolist(), round(reward.item(), 6), bool(ended)))
    return rows


CORRIDOR, JUNCTION = [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


@pytest.mark.parametrize("signal", [-1.0, 1.0])
def test_every_kind_of_step(signal: float) -> None:
    maze = TMaze(length=2)
    astray = [LEFT, BACK, FORWARD, BACK, FORWARD, FORWARD, FORWARD, BACK, FORWARD, RIGHT]
    assert run(maze, signal, astray) == [
        (CORRIDOR, -0.1, False),  # into the wall; the signal is gone though the place is the same
        (CORRIDOR, -0.1, False),
        (CORRIDOR, 0.0, False),
        (CORRIDOR, -0.1, False),
        (CORRIDOR, 0.0, False),
        (JUNCTION, 0.0, False),
        (JUNCTION, -0.1, False),  # into the wall
        (CORRIDOR, -0.1, False),
        (JUNCTION, 0.0, False),
        (JUNCTION, signal, True),
    ]
    assert run(maze, signal, [FORWARD, FORWARD, LEFT])[-1] == (JUNCTION, -signal, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, r"length must be at least 1 and less than max_episode_steps \(60\), got 0"),
        ({"length": 60}, "got 60"),
        ({"detour_cost": 0.01}, "must be at least 1, or waiting is better than turning; got 0.5"),
    ],
)
def test_mazes_that_cannot_be(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TMaze(**change)


def test_the_picture_shows_signal_place_and_turn() -> None:
    maze, blue = TMaze(), (0, 114, 178)

    def agent(*state: float) -> tuple[float, float]:
        picture = maze.draw(torch.tensor([state]), 0)
        rows, columns = np.nonzero((picture == blue).all(-1))
        return columns.mean(), rows.mean()

    (start, row), (half, _), (end, _) = agent(1, 0, 1, 0), agent(1, 5, 0, 0), agent(1, 10, 0, 0)
    assert half == pytest.approx((start + end) / 2, abs=1)
    assert agent(1, 10, 0, -1)[1] < row - 40 < row + 40 < agent(1, 10, 0, 1)[1]
    pictures = [maze.draw(torch.tensor([[1.0, 0.0, b, 0.0]]), 0) for b in (1.0, 0.0)]
    lit = [(picture == (213, 94, 0)).all(-1).sum() for picture in pictures]
    assert lit[0] > 100
    assert lit[1] == 0


def test_masked_cartpole_hides_velocities_only() -> None:
    masked = dynamics_of("cartpole-masked")
    assert isinstance(masked, CartPole)
    ours, whole = TensorWorld(masked, 3, 0), TensorWorld(CartPole(), 3, 0)
    assert torch.equal(ours.reset(), whole.reset()[:, [0, 2]])
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        action = torch.randint(0, 2, (3,), generator=generator)
        a, b = ours.step(action), whole.step(action)
        assert torch.equal(a.obs, b.obs[:, [0, 2]])
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.terminated, b.terminated)
    assert ours.observation_space.shape == (2,)
    np.testing.assert_array_equal(ours.observation_space.high, whole.observation_space.high[::2])
