"""A run from the outside: train, resume, load, and the result."""

from pgrad.run.result import Run
from pgrad.run.start import load, resume, train

__all__ = ["Run", "load", "resume", "train"]
