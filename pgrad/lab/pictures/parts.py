"""The random problems that pictures show beside the one asked about."""

from collections.abc import Callable, Iterator
from itertools import count, islice

from pgrad.lab.problems import Case, random_case

N_PROBLEMS = 20


def random_problems(fits: Callable[[Case], bool] = lambda case: True, n: int = N_PROBLEMS) -> Iterator[Case]:
    """The first n random problems that fit: three of five plain, one with early endings, one with aliases."""
    return islice((case for case in map(mixed_case, count(100)) if fits(case)), n)


def mixed_case(seed: int) -> Case:
    """A random problem; seed 3 of every 5 has episodes of different length, seed 4 states that look alike."""
    match seed % 5:
        case 3:
            return random_case(seed, n_states=3, n_terminal=1)
        case 4:
            return random_case(seed, n_states=3, n_observations=2)
        case _:
            return random_case(seed)
