import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pgrad.worlds.tensors.bicycle import Bicycle
from pgrad.worlds.tensors.draw import Picture
from pgrad.worlds.tensors.tensor import TensorWorld

Rider = Callable[[Tensor], Tensor]  # the lean [B] → the handlebar angle that is wanted [B]
FIVE, FIFTY = math.radians(5.0), math.radians(50.0)


def hands_off(lean: Tensor) -> Tensor:
    return torch.zeros_like(lean)


def constant(angle: float) -> Rider:
    return lambda lean: torch.full_like(lean, angle)


def twice_the_lean(lean: Tensor) -> Tensor:
    return 2.0 * lean


def put(lean: float, speed: float = 4.0, steer: float = 0.0) -> Tensor:
    return torch.tensor([[lean, 0.0, speed, steer, 0.0, 0.0, 0.0]], dtype=torch.float64)


def ride(bicycle: Bicycle, rider: Rider, state: Tensor, steps: int = 500) -> tuple[int | None, Tensor]:
    """The step at which it fell, None if it stayed up, and the lean after every step, in degrees."""
    leans = []
    for t in range(1, steps + 1):
        state, _, fallen = bicycle.step(state, rider(state[:, 0])[:, None], torch.zeros(1, 2))
        leans.append(state[0, 0].rad2deg())
        if fallen:
            return t, torch.stack(leans)
    return None, torch.stack(leans)


@pytest.mark.parametrize(
    ("rider", "fell"),
    [(hands_off, 93), (constant(FIVE), 91), (constant(FIFTY), 30), (twice_the_lean, None)],
)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_how_long_four_riders_stay_up(rider: Rider, fell: int | None, side: float) -> None:
    """At 4 m/s from 5°, and mirrored: .93 s, .91 s, .30 s and all 5 s."""
    when, _ = ride(Bicycle(), lambda lean: side * rider(side * lean), put(side * FIVE))
    assert when == fell


def test_five_degrees_throw_it_to_the_other_side() -> None:
    """5° of handlebar are more than 5° of lean need: g·tan 5° = .86 m/s² for v²/b·tan 5° = 1.40 m/s²."""
    for rider, end in ((hands_off, 45.0), (constant(FIVE), -45.0), (constant(FIFTY), -45.0)):
        _, leans = ride(Bicycle(), rider, put(FIVE))
        assert leans[-1] * math.copysign(1.0, end) > 45.0


def test_without_the_steer_rate_lean_alone_does_not_damp() -> None:
    """δ = 2·lean swings as far as it began, 5.00°, for ever; the push of a turning handlebar stops it."""
    for ahead, swing in ((0.0, "5.00"), (0.5, "0.00")):
        _, leans = ride(Bicycle(ahead=ahead), twice_the_lean, put(FIVE), 2000)
        assert f"{leans[-500:].abs().max():.2f}" == swing


@pytest.mark.parametrize(
    ("speed", "end"),
    [(1.0, "down"), (2.1, "in a turn"), (2.3, "upright"), (4.0, "upright"), (6.0, "upright")],
)
def test_proportional_steering_needs_speed(speed: float, end: str) -> None:
    """δ = 2·lean rights it where 2v²/b > g: from 2.21 m/s on (Åström et al. 2005).

    A little slower it stays up in a turn, where v²·tan 2φ = g·b·tan φ.
    """
    when, leans = ride(Bicycle(), twice_the_lean, put(FIVE, speed), 3000)
    lean = leans[-1].deg2rad()
    assert (when is not None) == (end == "down")
    assert (lean.abs() < 1e-3) == (end == "upright")
    if end == "in a turn":
        assert (speed**2 * (2 * lean).tan()).item() == pytest.approx(9.81 * lean.tan().item(), rel=1e-3)


def test_small_leans_follow_the_linear_model() -> None:
    """φ̈ + (2av/bh)φ̇ + (2v²/bh − g/h)φ = 0 for δ = 2φ, turned there beforehand; solved in closed form."""
    bicycle = Bicycle(dt=1e-4, height=1.2, wheelbase=1.1, ahead=0.4)
    g, h, b, a, v, lean = 9.81, 1.2, 1.1, 0.4, 4.0, 1e-4
    damping, spring = 2 * a * v / (b * h), 2 * v * v / (b * h) - g / h
    omega = math.sqrt(spring - damping**2 / 4)
    _, leans = ride(bicycle, twice_the_lean, put(lean, v, 2 * lean), 8000)
    t = 1e-4 * torch.arange(1, 8001, dtype=torch.float64)
    exact = lean * (-damping / 2 * t).exp() * ((omega * t).cos() + damping / (2 * omega) * (omega * t).sin())
    assert (leans.deg2rad() - exact).abs().max() < 5e-4 * lean


def test_the_handlebar_turns_at_its_rate_and_no_farther_than_it_can() -> None:
    state, angles = put(0.0), []
    for _ in range(25):
        state, _, _ = Bicycle().step(state, torch.full((1, 1), 9.0), torch.zeros(1, 2))
        angles.append(state[0, 3].item())
    assert angles == pytest.approx([min(0.06 * t, math.pi / 3) for t in range(1, 26)])


def test_it_rides_in_a_circle() -> None:
    """With the handlebar at δ the heading turns once in 2πb/(v·tan δ) seconds, and the place comes back."""
    steer, speed = 0.2, 4.0
    circle = 2 * math.pi / (speed * math.tan(steer))
    bicycle = Bicycle(dt=circle / 4000, max_lean=1e9)
    state = put(0.0, speed, steer)
    for t in range(4000):
        state, _, _ = bicycle.step(state, torch.full((1, 1), steer), torch.zeros(1, 2))
        state[:, :2] = 0.0  # held upright
        if t == 999:  # a quarter: ahead and to the right, by the radius b/tan δ
            radius = 1 / math.tan(steer)
            assert state[0, 4:].tolist() == pytest.approx([math.pi / 2, radius, radius], rel=1e-3)
    assert state[0, 4:].tolist() == pytest.approx([2 * math.pi, 0.0, 0.0], abs=1e-2)


def test_a_return_tells_how_many_fell() -> None:
    """500 for staying up, t − 1 − 100 for a fall at step t: with 5 falls in 100 the mean is below 495."""
    bicycle = Bicycle()
    world = TensorWorld(bicycle, 2, 0)
    world.reset()
    saved = world.state_dict()
    saved["state"][:, :3] = torch.tensor([[FIVE, 0.0, 4.0], [-FIVE, 0.0, 4.0]])
    world.load_state_dict(saved)
    total, alive = torch.zeros(2), torch.ones(2, dtype=torch.bool)
    for t in range(1, 501):
        lean = world.state_dict()["state"][:, 0]
        step = world.step(torch.stack((2 * lean[0], torch.zeros(()))).float()[:, None])
        total += step.reward * alive
        assert not alive[1] or step.terminated.tolist() == [False, t == 93]
        assert step.truncated[0] == (t == 500)
        alive &= ~(step.terminated | step.truncated)
    assert total.tolist() == [500.0, 92.0 - 100.0]
    assert (5 * (499 - bicycle.fall_cost) + 95 * 500) / 100 < 495


def test_first_states() -> None:
    low, high = (Bicycle().start(torch.tensor([[u, u]], dtype=torch.float64)) for u in (0.0, 1.0))
    torch.testing.assert_close(low, put(-FIVE, 3.0))
    torch.testing.assert_close(high, put(FIVE, 5.0))
    crossed = Bicycle().start(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(crossed, put(-FIVE, 5.0))


def test_what_is_seen() -> None:
    state = torch.tensor([[0.1, -0.2, 4.0, 0.3, 0.4, 5.0, 6.0]], dtype=torch.float64)
    blind = replace(Bicycle(), rates_seen=False)
    torch.testing.assert_close(Bicycle().observe(state), torch.tensor([[0.1, -0.2, 4.0, 0.3]]))
    torch.testing.assert_close(blind.observe(state), torch.tensor([[0.1, 4.0]]))
    assert blind.observation_space.shape == (2,)
    np.testing.assert_allclose(blind.observation_space.low, [-math.pi / 2, 3.0], rtol=1e-6)


def picture(lean: float = 0.0, steer: float = 0.0, heading: float = 0.0, x: float = 0.0) -> Picture:
    state = torch.tensor([[lean, 0.0, 4.0, steer, heading, x, 0.0]], dtype=torch.float64)
    return Bicycle().draw(state, 0)


def centre(
    picture: Picture, colour: tuple[int, int, int], columns: slice = slice(0, 522)
) -> tuple[float, float]:
    """The mean (column, row) of the pixels of a colour, the little handlebar left out."""
    rows, cols = np.nonzero((np.abs(picture[:, columns].astype(int) - colour) < 5).all(-1))
    assert len(rows) > 50
    return cols.mean() + (columns.start or 0), rows.mean()


def test_the_picture_leans_with_the_rider() -> None:
    """Upright the helmet is over the middle; at a lean φ it is off by about its height times sin φ."""
    helmet = (240, 190, 60)
    upright, right, left = (centre(picture(lean), helmet) for lean in (0.0, 0.3, -0.3))
    assert upright[0] == pytest.approx(288, abs=1)
    assert right[0] - 288 == pytest.approx(288 - left[0], abs=2)
    height = 1.66 * 430 / 3.38
    assert right[0] - 288 == pytest.approx(height * math.sin(0.3), rel=0.05)
    assert right[1] > upright[1]


def test_the_picture_shows_the_handlebar_and_the_road() -> None:
    grip = (213, 94, 0)
    right_grip = [centre(picture(steer=steer), grip, slice(522, 560))[1] for steer in (-0.5, 0.0, 0.5)]
    assert right_grip == sorted(right_grip)  # turning right brings the right grip back, down the picture
    grey = (195, 192, 185)
    road = [centre(picture(heading=heading)[210:260], grey)[0] for heading in (-0.15, 0.0, 0.15)]
    assert road == sorted(road, reverse=True)  # looking to the right moves the road to the left
    assert centre(picture(x=0.5)[210:260], grey)[0] < road[1]


def test_a_fall_is_seen() -> None:
    down, nearly = (picture(math.radians(lean)) for lean in (45.1, 44.9))
    stars = [np.all(np.abs(x[:, :460].astype(int) - (240, 190, 60)) < 3, -1).sum() for x in (nearly, down)]
    assert stars[1] > stars[0] + 100
