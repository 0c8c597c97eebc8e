"""Smooth pictures of simple shapes in plain numpy, for worlds that draw themselves."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB, uint8 [H, W, 3]."""

Colour = tuple[int, int, int]
Point = tuple[float, float]
"""Pixels from the left edge, pixels from the top edge."""


def canvas(height: int, width: int, colour: Colour = (255, 255, 255)) -> Picture:
    """An empty picture, uint8 [height, width, 3]."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def paint(picture: Picture, points: Sequence[Point], radius: float, colour: Colour) -> None:
    """Fill, in place, all that lies within `radius` pixels of a convex polygon with these corners, in order.

    One point is a disk, two are a line with round ends of width 2·radius, more are a polygon with rounded
    corners. A pixel at distance d from the edge is covered by clip(½ − d, 0, 1), which keeps edges smooth.
    """
    corners = np.asarray(points, dtype=np.float64)
    height, width, _ = picture.shape
    left, top = np.clip(np.floor(corners.min(0) - radius - 1), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0) + radius + 1), 0, (width, height)).astype(int)
    x = np.arange(left, right) + 0.5
    y = np.arange(top, bottom)[:, None] + 0.5
    cover = np.clip(0.5 - (_distance(x, y, corners) - radius), 0.0, 1.0)[..., None]
    region = picture[top:bottom, left:right]
    region[...] = np.rint(region + (np.asarray(colour) - region) * cover)


def _distance(
    x: NDArray[np.float64], y: NDArray[np.float64], corners: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Signed distance of the points (x, y) to a convex polygon; negative inside."""
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
    lowest, highest = nearest.copy(), -nearest  # over the edges, of the side a point is on
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = np.clip(along, 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
        side = dx * (y - y0) - dy * (x - x0)
        lowest, highest = np.minimum(lowest, side), np.maximum(highest, side)
    inside = (lowest > 0) | (highest < 0)
    return np.where(inside, -nearest, nearest)
