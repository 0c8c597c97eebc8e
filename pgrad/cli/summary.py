"""What an algorithm is, in a line."""

import sys


def summary(algorithm: type) -> str:
    """The first line of the docstring of the page that an algorithm is on."""
    text = sys.modules[algorithm.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]
