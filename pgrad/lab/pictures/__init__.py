"""The laboratory's pictures: one a claim, for print and for every kind of colour vision."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgrad.drawing import save
from pgrad.errors import UsageError
from pgrad.lab.claim import Claim
from pgrad.lab.pictures import baselines, gae, importance, kl, language, strip, surrogates
from pgrad.lab.problems import Case

PICTURES: dict[str, Callable[[Case], Any]] = {
    "baselines": baselines.picture,
    "gae": gae.picture,
    "importance": importance.over_distance,
    "horizon": importance.over_horizon,
    "landscape": surrogates.landscape,
    "escape": surrogates.escape,
    "monotone": surrogates.monotone,
    "inner_epochs": surrogates.inner_epochs,
    "kl": kl.picture,
    "difficulty": language.difficulty,
    "averaging": language.averaging,
}
"""What a claim may name as its `picture`."""


def draw(claim: Claim, case: Case, path: Path) -> Path:
    """Draw what shows a claim best: the picture it names, or its first number on this and on random problems.

    Returns the path; its suffix says which kind of file. Raises UsageError for a name that is no picture's.
    """
    return save(figure(claim, case), path)


def draw_named(name: str, case: Case, path: Path) -> Path:
    """Draw one of `PICTURES`."""
    return save(_picture(name)(case), path)


def draw_glance(chapters: Mapping[str, Sequence[Claim]], path: Path) -> Path:
    """Draw all claims at a glance, by chapter."""
    return save(strip.glance(chapters), path)


def figure(claim: Claim, case: Case) -> Any:
    """The matplotlib figure that `draw` writes."""
    return _picture(claim.picture)(case) if claim.picture else strip.picture(claim, case)


def _picture(name: str) -> Callable[[Case], Any]:
    if name not in PICTURES:
        raise UsageError(f"there is no picture {name!r}; there are: {', '.join(PICTURES)}")
    return PICTURES[name]
