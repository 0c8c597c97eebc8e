"""What an environment draws of itself."""

from typing import Any

import gymnasium
import numpy as np

from pgrad.environments.create import error_line
from pgrad.environments.spaces import Array, describe
from pgrad.errors import WorldError


def picture(env: gymnasium.Env, name: str, who: str) -> Array:
    """An RGB picture, uint8 [H, W, 3]. Raises WorldError where there is none."""
    if env.render_mode is None:
        raise WorldError(f"{name} draws no pictures: make it with render=True (a factory: render_mode)")
    try:
        drawn: Any = env.render()
    except Exception as error:
        raise WorldError(f"{who}: render raised {error_line(error)}") from error
    if not isinstance(drawn, np.ndarray) or drawn.ndim != 3:
        raise WorldError(f"{who}: render returned {describe(drawn)}, not a picture")
    return drawn.astype(np.uint8)
