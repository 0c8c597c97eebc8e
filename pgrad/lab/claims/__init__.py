"""Every claim of the laboratory, in the order of the notes: L-… and E-… of the audit, N-… of the field."""

from pgrad.lab.claim import Claim
from pgrad.lab.claims import (
    baselines,
    bicycle,
    bootstrap,
    critics,
    gaussian,
    horizon,
    importance,
    kl,
    language,
    objective,
    partial,
    soft,
    surrogates,
    trust,
)

CHAPTERS: dict[str, tuple[Claim, ...]] = {
    "objective": objective.CLAIMS,
    "baselines": baselines.CLAIMS,
    "partial": partial.CLAIMS + bicycle.CLAIMS,
    "critics": critics.CLAIMS + bootstrap.CLAIMS,
    "importance": importance.CLAIMS,
    "horizon": horizon.CLAIMS,
    "surrogates": surrogates.CLAIMS,
    "trust": trust.CLAIMS,
    "gaussian": gaussian.CLAIMS,
    "soft": soft.CLAIMS,
    "kl": kl.CLAIMS,
    "language": language.CLAIMS,
}
"""By theme, as the chapter in docs tells them."""

CLAIMS: dict[str, Claim] = {claim.id: claim for chapter in CHAPTERS.values() for claim in chapter}
"""By id."""
