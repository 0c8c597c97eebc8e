"""How many threads a run's networks are worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from gymnasium import spaces

from pgrad.models import AgentSpec
from pgrad.models.encoder import has_images
from pgrad.models.language.load import read_width
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.config import RunConfig
from pgrad.training.versions import usual_threads

LARGE_IMAGE = 36 * 36
"""From this many numbers in a picture on, its convolutions are worth all cores."""

LARGE_PRODUCT = 2**26
"""From so many multiplications in one layer of a minibatch on, such as 1024 × 1024 × 64, so are others."""

WIDE = 512
"""From this many numbers in a hidden state on, a language model is worth all cores."""


@contextmanager
def torch_threads(config: RunConfig, observation_space: spaces.Space[Any]) -> Iterator[None]:
    """Small networks are several times slower on all cores than on one; wide ones, and pictures of some size,
    are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.options.threads or threads_for(config, observation_space))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(config: RunConfig, observation_space: spaces.Space[Any]) -> int:
    """The threads that the networks of a configuration are worth."""
    if isinstance(config.agent, LanguageSpec):
        many = read_width(config.agent) >= WIDE
    else:
        many = has_images(observation_space, least_pixels=LARGE_IMAGE) or _has_wide_layers(config)
    return usual_threads() if many else 1


def _has_wide_layers(config: RunConfig) -> bool:
    if not isinstance(config.agent, AgentSpec):
        return False
    rows = getattr(config.algorithm, "batch_size", None) or 1
    layers = pairwise(config.agent.net_arch)
    return max((rows * a * b for a, b in layers), default=0) >= LARGE_PRODUCT
