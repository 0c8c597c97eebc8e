import math

import numpy as np
import pytest
import torch

from pgrad.worlds.tensors.cartpole import CartPole
from pgrad.worlds.tensors.draw import canvas, paint
from pgrad.worlds.tensors.pendulum import Pendulum

BLACK = (0, 0, 0)


def covered(points: list[tuple[float, float]], radius: float) -> float:
    """Painted area in pixels."""
    picture = canvas(60, 80)
    paint(picture, points, radius, BLACK)
    return float((1 - picture[..., 0] / 255).sum())


@pytest.mark.parametrize(
    ("points", "radius", "area"),
    [
        ([(40.3, 30.6)], 12.0, math.pi * 144),
        ([(20.0, 30.0), (60.0, 30.0)], 4.0, 40 * 8 + math.pi * 16),
        ([(20.2, 15.7), (55.1, 44.9)], 3.0, math.hypot(34.9, 29.2) * 6 + math.pi * 9),
        ([(20.0, 10.0), (60.0, 10.0), (60.0, 50.0), (20.0, 50.0)], 0.0, 1600.0),
        ([(20.0, 50.0), (60.0, 50.0), (60.0, 10.0), (20.0, 10.0)], 0.0, 1600.0),  # the other way round
        ([(20.0, 10.0), (60.0, 20.0), (30.0, 50.0)], 0.0, 750.0),
        ([(30.0, 20.0), (50.0, 20.0), (50.0, 40.0), (30.0, 40.0)], 5.0, 400 + 4 * 20 * 5 + math.pi * 25),
    ],
)
def test_area(points: list[tuple[float, float]], radius: float, area: float) -> None:
    assert covered(points, radius) == pytest.approx(area, rel=0.01)


def test_only_what_is_near_is_painted() -> None:
    picture = canvas(60, 80, (10, 20, 30))
    paint(picture, [(40.5, 30.5)], 5.0, (200, 100, 50))
    y, x = np.mgrid[:60, :80]
    distance = np.hypot(x - 40, y - 30)
    assert (picture[distance > 5.6] == (10, 20, 30)).all()
    assert (picture[distance < 4.4] == (200, 100, 50)).all()


def test_shapes_may_leave_the_picture() -> None:
    assert covered([(0.0, 30.0)], 10.0) == pytest.approx(math.pi * 50, rel=0.01)
    assert covered([(-500.0, 30.0)], 10.0) == 0
    assert covered([(-1000.0, -1000.0), (1000.0, -1000.0), (1000.0, 1000.0), (-1000.0, 1000.0)], 0.0) == 4800


def _pole(x: float, theta: float) -> tuple[float, float]:
    picture = CartPole().draw(torch.tensor([[x, 0.0, theta, 0.0]]), 0).astype(int)
    rows, columns = np.nonzero((picture[..., 0] - picture[..., 2] > 80) & (np.arange(384)[:, None] < 240))
    return float(columns.mean()), float(rows.mean())


def test_the_pole_leans_to_the_side_of_its_angle() -> None:
    """θ > 0 is to the right, as a cart pushed to the right (x growing) would catch it."""
    assert _pole(0.0, 0.0)[0] == pytest.approx(287.5, abs=1)
    assert _pole(0.0, 0.2)[0] > 295
    assert _pole(0.0, -0.2)[0] < 280
    assert _pole(1.0, 0.0)[0] > 350


def test_the_pendulum_turns_counter_clockwise() -> None:
    for theta, where in [
        (0.0, (192, 52)),
        (math.pi / 2, (52, 192)),
        (math.pi, (192, 332)),
        (-math.pi / 2, (332, 192)),
    ]:
        picture = Pendulum().draw(torch.tensor([[theta, 0.0, 0.0]]), 0)
        assert picture[where[1], where[0]].tolist() == [201, 96, 88]
