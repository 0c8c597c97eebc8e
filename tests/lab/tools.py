"""What it means for a claim to be confirmed."""

from pgrad.lab import Claim, Verdict, reference
from pgrad.lab.claim import agrees
from pgrad.lab.problems import random_problems


def check_on_reference(claim: Claim) -> None:
    """The verdict, and every number of the audit but those we say differ, which must indeed differ."""
    assert claim.fits(reference()), f"{claim.id} cannot be tried on the reference problem"
    measured = claim.measure(reference())
    assert measured.right, f"{claim.id}: what should be right is not: {measured.numbers}"
    expected = claim.verdict is Verdict.TRUE
    assert measured.holds == expected, f"{claim.id}: holds is {measured.holds}: {measured.numbers}"
    unknown = set(claim.audit) | set(claim.differs)
    assert unknown <= set(measured.numbers), f"{claim.id}: no number {unknown - set(measured.numbers)}"
    for name, printed in claim.audit.items():
        same = agrees(measured.numbers[name], printed)
        assert same != (name in claim.differs), f"{claim.id} {name}: {measured.numbers[name]} for {printed}"


def check_on_random_problems(claim: Claim) -> None:
    """A TRUE claim holds on all; another is put right on all, and fails on all (`always`) or on some."""
    found = [(case, claim.measure(case)) for case in random_problems(claim.fits)]
    for case, measured in found:
        assert measured.right, f"{claim.id} on seed {case.seed}: {measured.numbers}"
        assert claim.confirmed(measured), f"{claim.id} on seed {case.seed}: {measured.numbers}"
        fails = claim.always and claim.verdict is not Verdict.TRUE
        assert not (fails and measured.holds), f"{claim.id} holds on seed {case.seed}: {measured.numbers}"
    failures = sum(not measured.holds for _, measured in found)
    assert (failures == 0) == (claim.verdict is Verdict.TRUE), f"{claim.id} failed on {failures}"
