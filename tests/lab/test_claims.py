"""Every claim on the reference problem, with the audit's numbers, and on random problems of many shapes."""

import pytest

from pgrad.lab.claims import CLAIMS
from pgrad.lab.problems import mixed_case
from tests.lab.tools import check_on_random_problems, check_on_reference

FURTHER = range(24)
"""Seeds of random problems beside those that every claim is tried on when the chapter is written."""


@pytest.mark.parametrize("name", CLAIMS)
def test_reference(name: str) -> None:
    check_on_reference(CLAIMS[name])


@pytest.mark.parametrize("name", CLAIMS)
def test_random_problems(name: str) -> None:
    check_on_random_problems(CLAIMS[name])


@pytest.mark.parametrize("seed", FURTHER)
def test_further_problems(seed: int) -> None:
    case = mixed_case(seed)
    measured = {name: claim.measure(case) for name, claim in CLAIMS.items() if claim.fits(case)}
    wrong = {name: x.numbers for name, x in measured.items() if not CLAIMS[name].confirmed(x)}
    assert not wrong
