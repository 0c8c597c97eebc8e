"""A picture of a bicycle and its rider from behind, on a road through meadows, in plain numpy.

Lengths are metres. The camera rides behind the rear wheel and looks where the bicycle is heading: a point
that is X to the right, Z ahead of the camera and U above the ground is seen at (X, CAMERA − U)·FOCUS/Z from
the vanishing point.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgrad.worlds.tensors.draw import Colour, Picture, Point, canvas, paint

HEIGHT, WIDTH, HORIZON, HILLS = 384, 576, 158, 64
FOCUS, CAMERA, BEHIND = 430.0, 1.45, 3.1
ROAD, DASH = 1.6, 2.0  # half its width; the length of a dash and of the gap after it
WHEEL, BAR = 0.34, 0.34  # radius of the wheels, half the width of the handlebar
RUBBER, STEEL, FRAME = (44, 48, 58), (120, 127, 143), (0, 114, 178)
SHIRT, TROUSERS, SKIN, HELMET = (213, 94, 0), (58, 66, 92), (232, 190, 160), (240, 190, 60)

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Ride:
    """What is to be seen: angles in radians, positive to the right; the road leads along y at x = 0."""

    lean: float
    steer: float
    heading: float
    x: float
    y: float
    fallen: bool = False


def draw_ride(ride: Ride) -> Picture:
    """The country, the rider, and in a corner the handlebar as the rider sees it, uint8 [384, 576, 3]."""
    picture = canvas(HEIGHT, WIDTH)
    _sky(picture, ride.heading)
    _ground(picture, ride)
    _trees(picture, ride)
    _rider(picture, ride)
    _handlebar(picture, ride.steer)
    return picture


def _lay(ground: Numbers, cover: Numbers, colour: Colour) -> None:
    """Cover `ground` [..., 3] in place with a colour, by shares [...] of it."""
    ground += (np.asarray(colour, np.float32) - ground) * cover[..., None]


def _mix(a: Colour, b: Colour, share: Numbers) -> Numbers:
    """From colour a to colour b, [..., 3] for shares [...]."""
    first, second = (np.asarray(colour, np.float32) for colour in (a, b))
    return first + (second - first) * share[..., None]


def _sky(picture: Picture, heading: float) -> None:
    """A sky that pales towards two rows of hills, which turn with the heading."""
    rows = np.arange(HORIZON, dtype=np.float32) + 0.5
    down = np.asarray(rows / HORIZON, np.float32)
    picture[:HORIZON] = _mix((150, 196, 230), (236, 242, 244), down)[:, None]
    angle = heading + np.arctan((np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCUS)
    low = picture[HORIZON - HILLS : HORIZON]
    hills = low.astype(np.float32)
    for k, (height, colour) in enumerate(((34.0, (178, 200, 212)), (19.0, (150, 184, 168)))):
        waves = np.sin(3 * angle + k) + 0.6 * np.sin(7 * angle + 2 * k) + 0.3 * np.sin(16 * angle)
        top = HILLS - height * (1.0 + 0.42 * waves)
        _lay(hills, np.clip(rows[:HILLS, None] - top.astype(np.float32) + 0.5, 0.0, 1.0), colour)
    low[...] = np.rint(hills)


def _ground(picture: Picture, ride: Ride) -> None:
    """Mown meadows, the road with its dashes and a shadow: what the ray of every pixel meets."""
    rows, columns = np.arange(HEIGHT - HORIZON)[:, None] + 0.5, np.arange(WIDTH) + 0.5 - WIDTH / 2
    ahead, side = (np.asarray(z, np.float32) for z in (FOCUS * CAMERA / rows, columns * CAMERA / rows))
    cos, sin = math.cos(ride.heading), math.sin(ride.heading)
    x = side * cos + (ride.x + (ahead - BEHIND) * sin)
    y = side * -sin + (ride.y + (ahead - BEHIND) * cos)
    pixels = FOCUS / ahead / (1.0 + ahead / CAMERA * abs(sin))  # per metre of x
    near = 1.0 - np.clip(ahead / 45.0, 0.0, 1.0)
    stripe = np.clip(np.sin(y * (math.pi / 4)) * (20 / ahead), -1.0, 1.0) * near
    ground = _mix((126, 176, 98), (136, 186, 108), stripe)
    across = np.abs(x)

    def band(half: float, middle: float = 0.0) -> Numbers:
        return np.clip((half - np.abs(across - middle)) * pixels + 0.5, 0.0, 1.0)

    dashes = np.abs(y % (2 * DASH) - DASH) - DASH / 2
    dashes = np.clip(dashes * (FOCUS * CAMERA / ahead**2) + 0.5, 0.0, 1.0)
    _lay(ground, band(ROAD), (196, 192, 186))
    _lay(ground, np.maximum(band(0.05, ROAD - 0.14), band(0.05) * dashes), (246, 246, 240))
    ground += (np.asarray((172, 200, 170), np.float32) - ground) * (1.0 - near[..., None]) ** 1.5
    aside, along = (side - 0.5 * math.sin(ride.lean)) / 0.32, (ahead - BEHIND - 0.5) / 0.75
    dark = np.clip(1.0 - aside**2 - along**2, 0.0, 1.0)
    ground *= 1.0 - 0.45 * dark[..., None]
    picture[HORIZON:] = np.rint(ground)


def _trees(picture: Picture, ride: Ride) -> None:
    """One tree on each side for every 9 m of road, never twice the same, the farthest first."""
    cos, sin = math.cos(ride.heading), math.sin(ride.heading)
    seen = []
    for k in range(round(ride.y / 9) - 6, round(ride.y / 9) + 7):
        for side in (-1.0, 1.0):
            chance = math.sin(12.9 * k + 4.1 * side) * 437.5 % 1.0
            dx, dy = side * (3.6 + 6.0 * chance) - ride.x, 9.0 * k + 6.0 * chance - ride.y
            seen.append((BEHIND + dx * sin + dy * cos, dx * cos - dy * sin, chance))
    for ahead, across, chance in sorted(seen, reverse=True):
        if not 3.5 < ahead < 48.0:
            continue
        scale, pale = FOCUS / ahead, np.asarray(min(1.0, ahead / 48.0) ** 1.5, np.float32)
        at, foot = WIDTH / 2 + scale * across, HORIZON + scale * CAMERA
        if abs(at - WIDTH / 2) > WIDTH / 2 + 2 * scale:
            continue
        trunk, leaves, light = (
            _colour(_mix(colour, (172, 200, 180), pale))
            for colour in ((122, 92, 66), (74, 134, 84), (98, 158, 98))
        )
        tall = 1.7 + 1.2 * chance
        paint(picture, [(at, foot), (at, foot - scale * tall)], 0.1 * scale, trunk)
        paint(picture, [(at, foot - scale * tall), (at, foot - scale * (tall + 0.7))], 0.75 * scale, leaves)
        paint(picture, [(at - 0.2 * scale, foot - scale * (tall + 0.85))], 0.4 * scale, light)


def _colour(x: Numbers) -> Colour:
    red, green, blue = np.rint(x).astype(int).tolist()
    return red, green, blue


def _rider(picture: Picture, ride: Ride) -> None:
    """From the front wheel to the rear one, all of it leaning about the line where the wheels touch."""
    cos, sin = math.cos(ride.lean), math.sin(ride.lean)

    def scale(ahead: float) -> float:
        return FOCUS / (BEHIND + ahead)

    def at(right: float, ahead: float, up: float) -> Point:
        across, above = right * cos + up * sin, up * cos - right * sin
        return WIDTH / 2 + scale(ahead) * across, HORIZON + scale(ahead) * (CAMERA - above)

    def draw(points: list[tuple[float, float, float]], radius: float, colour: Colour) -> None:
        ahead = sum(point[1] for point in points) / len(points)
        paint(picture, [at(*point) for point in points], radius * scale(ahead), colour)

    def wheel(ahead: float, steer: float) -> None:
        for size, colour in ((WHEEL, RUBBER), (WHEEL - 0.05, STEEL)):
            turn = [2 * math.pi * k / 24 for k in range(24)]
            reach = [(size * math.cos(angle), size * math.sin(angle)) for angle in turn]
            rim = [(p * math.sin(steer), ahead + p * math.cos(steer), WHEEL + q) for p, q in reach]
            if abs(math.sin(steer)) * size > 0.02:
                draw(rim, 0.0, colour)
        draw([(0.0, ahead, 0.03), (0.0, ahead, 2 * WHEEL - 0.03)], 0.03, RUBBER)

    bar_right, bar_ahead = BAR * math.cos(ride.steer), BAR * math.sin(ride.steer)
    grips = [(side * bar_right, 0.85 - side * bar_ahead, 1.02) for side in (-1.0, 1.0)]
    wheel(1.0, ride.steer)
    draw([(0.0, 1.0, WHEEL), (0.0, 0.88, 1.0)], 0.035, FRAME)
    draw(grips, 0.025, RUBBER)
    for side, grip in zip((-1.0, 1.0), grips, strict=True):
        elbow = (side * 0.36, 0.42, 1.14)
        draw([grip, elbow], 0.045, SKIN)
        draw([elbow, (side * 0.2, 0.22, 1.38)], 0.06, SHIRT)
        draw([grip], 0.05, SKIN)
    turn = math.hypot(ride.x, ride.y) / 0.9
    draw([(0.0, 0.3, 0.3), (0.0, 0.1, 0.9)], 0.03, FRAME)
    for side in (-1.0, 1.0):
        foot = (side * 0.13, 0.35 + 0.17 * side * math.cos(turn), 0.3 + 0.17 * side * math.sin(turn))
        knee = (side * 0.15, 0.42, 0.5 + 0.5 * foot[2])
        draw([foot, (foot[0], foot[1] + 0.1, foot[2])], 0.05, RUBBER)
        draw([foot, knee], 0.055, SKIN)
        draw([knee, (side * 0.1, 0.05, 0.93)], 0.08, TROUSERS)
    draw([(0.0, 0.25, 1.5)], 0.09, SKIN)
    draw([(-0.12, 0.0, 0.95), (0.12, 0.0, 0.95), (0.17, 0.2, 1.36), (-0.17, 0.2, 1.36)], 0.06, SHIRT)
    draw([(0.0, 0.28, 1.6), (0.0, 0.28, 1.66)], 0.125, HELMET)
    draw([(0.0, 0.26, 1.6), (0.0, 0.26, 1.74)], 0.022, (250, 226, 150))
    draw([(-0.06, 0.0, 0.9), (0.06, 0.0, 0.9)], 0.045, RUBBER)
    draw([(0.0, 0.0, 0.88), (0.0, 0.0, WHEEL)], 0.022, FRAME)
    wheel(0.0, 0.0)
    draw([(0.0, -0.02, 0.74)], 0.035, (204, 60, 60))
    for k in range(3 if ride.fallen else 0):
        right, up = 0.42 * math.sin(k - 1.0), 1.62 + 0.42 * math.cos(k - 1.0)
        for dx, dy in ((0.07, 0.0), (0.0, 0.07), (0.045, 0.045), (0.045, -0.045)):
            draw([(right - dx, 0.2, up - dy), (right + dx, 0.2, up + dy)], 0.014, HELMET)


def _handlebar(picture: Picture, steer: float) -> None:
    """Seen from above: the front wheel and the bar on it, ahead is up."""
    centre = (WIDTH - 58.0, 58.0)
    paint(picture, [centre], 46.0, (252, 252, 250))
    sin, cos = math.sin(steer), math.cos(steer)

    def at(right: float, ahead: float) -> Point:
        return centre[0] + right * cos + ahead * sin, centre[1] + right * sin - ahead * cos

    paint(picture, [(centre[0], centre[1] - 42), (centre[0], centre[1] - 36)], 1.2, (176, 182, 194))
    paint(picture, [centre, (centre[0], centre[1] + 34)], 3.5, FRAME)
    paint(picture, [at(0, 4), at(0, 28)], 5.0, RUBBER)
    paint(picture, [at(-28, 0), at(28, 0)], 3.5, STEEL)
    for side in (-1, 1):
        paint(picture, [at(side * 22, 0), at(side * 30, 0)], 5.0, SHIRT)
