"""Claims."""

from pgrad.lab.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
