"""What a person sees of the laboratory: tables of claims and estimators, one claim explained, and JSON."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgrad.errors import PgradError
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.problems import Case
from pgrad.lab.rows import Group
from pgrad.worlds.tensors.tabular import REFERENCE

STYLES = {Verdict.TRUE: "green", Verdict.FALSE: "red", Verdict.TRUE_IF: "yellow"}
OWN = "own example"  # a claim whose numbers are not of the problem given
AUDIT = "audit: an earlier, independent reading of the notes"
NOTES = "notes, file:line"
SHOWN = 3  # numbers of a claim in the table
STATES = 4  # states of a problem in the table


@dataclass(frozen=True)
class Outcome:
    """A claim and what came out of it on one problem."""

    chapter: str
    claim: Claim
    measured: Measured | None  # None: it was not tried, for a `reason`
    reason: str
    confirmed: bool

    @property
    def remark(self) -> str:
        """What is to be said beside the verdict."""
        if self.measured is None:
            return ""
        surprising = self.measured.holds and self.claim.verdict is not Verdict.TRUE
        parts = ["" if self.confirmed else "NOT CONFIRMED", "holds here" if surprising else ""]
        return "\n".join(filter(None, parts))


def audited(case: Case) -> bool:
    """Whether the audit's numbers are of this problem, where every verdict must be confirmed."""
    return case.problem is REFERENCE and case.seed is None and case.gamma == 0.9


def tried(chapter: str, claim: Claim, case: Case) -> Outcome:
    """Try a claim on a problem. One that the problem does not fit, that refuses it or fails on it says why.

    On the audit's problem any exception but a refusal is a fault of ours and goes on.
    """
    try:
        if not claim.fits(case):
            return Outcome(chapter, claim, None, f"needs {claim.needs}", False)
        measured = claim.measure(case)
    except PgradError as error:
        return Outcome(chapter, claim, None, f"not on this problem: {error}", False)
    except Exception as error:
        if audited(case):
            raise
        return Outcome(chapter, claim, None, f"could not be measured here: {in_a_line(error)}", False)
    certain = not audited(case) or measured.holds == (claim.verdict is Verdict.TRUE)
    return Outcome(chapter, claim, measured, "", certain and claim.confirmed(measured))


def in_a_line(error: Exception) -> str:
    """The first line of what an exception says, or its name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def claims_table(outcomes: Iterable[Outcome], case: Case) -> RenderableType:
    """One line or a few for each claim, by chapter."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("id", no_wrap=True)
    table.add_column("claim", ratio=2, overflow="fold")
    table.add_column("verdict", overflow="fold", min_width=7)
    table.add_column("numbers (audit's)" if audited(case) else "numbers", ratio=3, overflow="fold")
    chapter = ""
    for outcome in outcomes:
        claim = outcome.claim
        if outcome.chapter != chapter:
            chapter = outcome.chapter
            table.add_section()
            table.add_row("", Text(chapter.upper(), style="bold"))
        names = Text("\n".join([claim.id, *(f" {other}" for other in claim.also)]))
        table.add_row(names, claim.title, _verdict(outcome), _numbers(outcome, case))
    return table


def counts(outcomes: Iterable[Outcome], seconds: float) -> str:
    """The last line: how many, how many confirmed, how long."""
    listed = list(outcomes)
    skipped = sum(outcome.measured is None for outcome in listed)
    confirmed = sum(outcome.confirmed for outcome in listed)
    parts = [f"{len(listed)} claims: {confirmed} confirmed"]
    if confirmed + skipped < len(listed):
        parts.append(f"{len(listed) - confirmed - skipped} not confirmed")
    if skipped:
        parts.append(f"{skipped} not tried")
    return ", ".join(parts) + f" ({seconds:.1f} s)"


def explained(outcome: Outcome, case: Case) -> RenderableType:
    """Everything about one claim."""
    claim = outcome.claim
    heading = Text(f"{claim.id}  {claim.title}", style="bold")
    if claim.also:
        heading.append(f"  ({', '.join(claim.also)})", style="not bold dim")
    page = Table.grid(padding=(0, 2))
    page.add_column(style="dim", no_wrap=True)
    page.add_column(overflow="fold")
    page.add_row("statement", claim.statement)
    page.add_row("verdict", _verdict(outcome))
    if claim.correction:
        page.add_row("condition" if claim.verdict is Verdict.TRUE_IF else "instead", claim.correction)
    page.add_row("equation", claim.equation)
    page.add_row("numbers", _all_numbers(outcome, case))
    page.add_row("explanation", claim.explanation)
    page.add_row("source", Text.assemble(claim.source, (_notes(claim.source), "dim")))
    page.add_row("paper", claim.paper)
    return Lines(heading, page)


def estimators_table(group: Group) -> RenderableType:
    """One line for each estimator; numbers by state have a column for each of the first few."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    table.title, table.title_style = Text(group.title), "bold"
    note, columns = group.note, _columns(group)
    if any(len(numbers) > STATES for row in group.rows for numbers in _lists(row.numbers)):
        note += f" The first {STATES} states; --json has all."
    table.caption = Text(note, style="dim", justify="left")
    table.add_column("estimator", overflow="fold")
    cells = [[_cell(row.numbers.get(name), state) for name, state in columns] for row in group.rows]
    for (name, state), column in zip(columns, zip(*cells, strict=True), strict=True):
        label = name if state is None else f"{name}, s = {state}"
        whole = max(map(len, column))  # headers may be folded, numbers never
        table.add_column(label, justify="right", overflow="fold", min_width=whole)
    for row, numbers in zip(group.rows, cells, strict=True):
        table.add_row(row.name, *numbers)
    return table


def claims_json(outcomes: Iterable[Outcome], case: Case) -> dict[str, Any]:
    """What `pgrad lab --json` prints; what is no number is null."""
    return {
        "problem": case.name,
        "gamma": case.gamma,
        "claims": [
            {
                "id": outcome.claim.id,
                "also": list(outcome.claim.also),
                "statement": outcome.claim.statement,
                "verdict": str(outcome.claim.verdict),
                "correction": outcome.claim.correction,
                "holds": None if outcome.measured is None else bool(outcome.measured.holds),
                "confirmed": None if outcome.measured is None else bool(outcome.confirmed),
                "own_example": outcome.claim.own,
                "numbers": _plain({} if outcome.measured is None else outcome.measured.numbers),
                "audit": dict(outcome.claim.audit) if audited(case) else {},
                "not_tried": outcome.reason or None,
            }
            for outcome in outcomes
        ],
    }


def estimators_json(groups: Iterable[Group], case: Case, off_policy: float) -> dict[str, Any]:
    """What `pgrad lab estimators --json` prints."""
    return {
        "problem": case.name,
        "gamma": case.gamma,
        "off_policy": off_policy,
        "groups": [
            {
                "title": group.title,
                "note": group.note,
                "estimators": [{"name": row.name} | _plain(row.numbers) for row in group.rows],
            }
            for group in groups
        ],
    }


def number(x: float) -> str:
    """Four or five digits; exact zeros as 0."""
    if not math.isfinite(x):
        return "–" if math.isnan(x) else f"{x:+g}"
    return "0" if abs(x) < ZERO else f"{x:.5g}"


def _verdict(outcome: Outcome) -> Text:
    text = Text(str(outcome.claim.verdict), style=STYLES[outcome.claim.verdict])
    if outcome.remark:
        text.append(f"\n{outcome.remark}", style="not bold" if outcome.confirmed else "bold reverse")
    return text


def _numbers(outcome: Outcome, case: Case) -> Text:
    if outcome.measured is None:
        return Text(outcome.reason, style="dim")
    audit = outcome.claim.audit if audited(case) else {}
    lines = [OWN] * outcome.claim.own
    for name, value in list(outcome.measured.numbers.items())[:SHOWN]:
        printed = f" ({audit[name]})" if name in audit else ""
        lines.append(f"{name} {number(value)}{printed}")
    return Text("\n".join(lines))


def _all_numbers(outcome: Outcome, case: Case) -> RenderableType:
    """Every number, the audit's beside it, and why where they differ."""
    if outcome.measured is None:
        return Text(outcome.reason)
    claim = outcome.claim
    lines = [Text(f"{OWN}: not of the problem given", style="dim")] * claim.own
    for name, value in outcome.measured.numbers.items():
        line = Text(f"{name}  {number(value)}")
        if audited(case) and name in claim.audit:
            line.append(f"  (audit {claim.audit[name]})", style="dim")
        lines.append(line)
        if audited(case) and name in claim.differs:
            lines.append(Text(f"  differs: {claim.differs[name]}"))
    if audited(case) and claim.audit:
        lines.append(Text(f"({AUDIT})", style="dim"))
    return Lines(*lines)


def _notes(source: str) -> str:
    """What 000:101 means, where a source has any."""
    return f" ({NOTES})" if re.search(r"\d:\d", source) else ""


def _lists(numbers: Mapping[str, float | list[float]]) -> Iterator[list[float]]:
    return (x for x in numbers.values() if isinstance(x, list))


def _columns(group: Group) -> list[tuple[str, int | None]]:
    """Number and state of every column, in the order in which the rows have them."""
    found: dict[str, int | None] = {}
    for row in group.rows:
        for key, value in row.numbers.items():
            found[key] = min(len(value), STATES) if isinstance(value, list) else None
    return [
        (key, state)
        for key, states in found.items()
        for state in ([None] if states is None else range(states))
    ]


def _cell(value: float | list[float] | None, state: int | None) -> str:
    if isinstance(value, list):
        assert state is not None
        return number(value[state])
    return "" if value is None else number(value)


def _plain(numbers: Mapping[str, float | list[float]]) -> dict[str, Any]:
    """Numbers as JSON has them: NaN and infinity are null."""

    def plain(x: float) -> float | None:
        return float(x) if math.isfinite(x) else None

    return {k: [plain(y) for y in x] if isinstance(x, list) else plain(x) for k, x in numbers.items()}
