"""Worlds: environments that are stepped together, behind one protocol."""

from pgrad.worlds.make import make
from pgrad.worlds.protocol import Step, World

__all__ = ["Step", "World", "make"]
