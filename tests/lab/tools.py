"""Problems to try claims on, and what it means for a claim to be confirmed."""

from collections.abc import Iterator
from itertools import count, islice

from pgrad.lab import Case, Claim, Verdict, random_case, reference
from pgrad.lab.claim import agrees

N_PROBLEMS = 20


def mixed_case(seed: int) -> Case:
    """Three of five problems are plain; one has episodes of different length, one states that look alike."""
    match seed % 5:
        case 3:
            return random_case(seed, n_states=3, n_terminal=1)
        case 4:
            return random_case(seed, n_states=3, n_observations=2)
        case _:
            return random_case(seed)


def problems(claim: Claim, n: int = N_PROBLEMS) -> Iterator[Case]:
    """The first n random problems the claim can be tried on."""
    return islice((case for case in map(mixed_case, count(100)) if claim.fits(case)), n)


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
    found = [(case, claim.measure(case)) for case in problems(claim)]
    for case, measured in found:
        assert measured.right, f"{claim.id} on seed {case.seed}: {measured.numbers}"
        assert claim.confirmed(measured), f"{claim.id} on seed {case.seed}: {measured.numbers}"
    failures = sum(not measured.holds for _, measured in found)
    assert (failures == 0) == (claim.verdict is Verdict.TRUE), f"{claim.id} failed on {failures}"
