"""Every claim on the reference problem, with the audit's numbers, and on random problems of many shapes."""

import pytest

from pgrad.lab.claims import CLAIMS
from tests.lab.tools import check_on_random_problems, check_on_reference


@pytest.mark.parametrize("name", CLAIMS)
def test_reference(name: str) -> None:
    check_on_reference(CLAIMS[name])


@pytest.mark.parametrize("name", CLAIMS)
def test_random_problems(name: str) -> None:
    check_on_random_problems(CLAIMS[name])
