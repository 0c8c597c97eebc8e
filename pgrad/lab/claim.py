"""What a claim is: a sentence somebody wrote, code that computes whether it is so, and a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pgrad.lab.problems import Case

ZERO = 1e-9
"""Exact identities come out below this in float64; what is merely close does not."""


class Verdict(StrEnum):
    """What the laboratory says of a claim."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    TRUE_IF = "TRUE IF"


@dataclass(frozen=True)
class Measured:
    """What came out on one problem."""

    holds: bool  # the statement, as it stands
    right: bool  # the correction: what is right instead, or the statement under its condition
    numbers: dict[str, float]  # the most telling first


@dataclass(frozen=True)
class Claim:
    """One entry of the laboratory.

    A TRUE claim holds on every problem. One that is FALSE, or TRUE IF, fails as it stands: on every problem
    or, if not `always`, on some (the reference among them); its correction is right on every problem.
    """

    id: str  # L-13, E-28, N-04
    title: str  # a few words, for the table
    statement: str  # one sentence, as the notes (or people) say it
    verdict: Verdict
    measure: Callable[[Case], Measured]
    equation: str  # what is compared, in Unicode
    source: str  # the notes and lines it comes from: "000:101; 001:70", or where people argue about it
    paper: str  # who has it right, or said it first
    explanation: str  # why, in two or three sentences
    correction: str = ""  # FALSE: what is right instead. TRUE IF: the condition
    audit: Mapping[str, str] = field(default_factory=dict)  # the audit's numbers as printed: "2.81", "<1e-9"
    differs: Mapping[str, str] = field(default_factory=dict)  # a number of ours that is not the audit's: why
    also: tuple[str, ...] = ()  # other ids it answers: "E-04", "M-13"
    always: bool = True  # FALSE, TRUE IF: whether it fails on every problem, or only on some
    fits: Callable[[Case], bool] = lambda case: True  # the problems it can be tried on
    needs: str = ""  # … in words
    own: bool = False  # its own example: the numbers are not of the problem given
    picture: str = ""  # the name of the picture that shows it best; "" for its numbers over many problems

    def confirmed(self, measured: Measured) -> bool:
        """Whether what came out bears the verdict out, on any problem.

        What is right is right, and what is TRUE holds. That another claim happens to hold on one problem does
        not refute its verdict.
        """
        return measured.right and (measured.holds or self.verdict is not Verdict.TRUE)


def agrees(number: float, printed: str) -> bool:
    """Whether a number is what was printed, to the digits it was printed with; "<1e-9" is a bound on |x|."""
    if printed.startswith("<"):
        return abs(number) < float(printed[1:])
    mantissa, _, exponent = printed.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - digits)
    return abs(number - float(printed)) <= 0.505 * unit
