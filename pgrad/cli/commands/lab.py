"""`pgrad lab [ID ...]` and `pgrad lab estimators`."""

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from rich.console import Console, RenderableType
from rich.progress import Progress
from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.parse import parse
from pgrad.errors import PgradError, UsageError
from pgrad.extras import did_you_mean
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim
from pgrad.lab.claims import CHAPTERS
from pgrad.lab.estimators import every_estimator
from pgrad.lab.problems import Case, load_case, random_case, reference
from pgrad.lab.show import (
    Outcome,
    audited,
    claims_json,
    claims_table,
    counts,
    estimators_json,
    estimators_table,
    explained,
    in_a_line,
    tried,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is looked at."""

    problem: Annotated[str | None, arg(metavar="FILE")] = None
    """a finite problem of your own, JSON with P, r, rho0 and horizon; none: the reference problem"""
    random: Annotated[int | None, arg(metavar="SEED")] = None
    """a random problem instead"""
    gamma: float | None = None
    """discount γ; none: 0.9, of a random problem its own"""
    json: FlagCreatePairsOff[bool] = False
    """print JSON for programs, and nothing else"""


@dataclass(frozen=True, kw_only=True)
class Lab(Problem):
    """Measure every claim about policy gradients, or explain some (pgrad lab L-13) with a picture of each.

    Every shipped estimator on one problem: pgrad lab estimators (--help).
    """

    ids: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="[ID [ID ...]]", help_behavior_hint="(none: all, as a table)"),
    ] = ()
    """claims to explain, such as L-13 or E-04"""
    out: str = "runs/lab"
    """the folder for pictures of explained claims"""


@dataclass(frozen=True, kw_only=True)
class Estimators(Problem):
    """Bias, direction and variance of every shipped estimator on one problem, the least noisy first."""

    off_policy: float = 0.5
    """how far the policy asked about is from the one that acted, along the problem's direction"""


def run(args: list[str]) -> int:
    """Measure, and print; 1 if a verdict is not confirmed, or not tried on the reference problem."""
    torch.set_num_threads(1)  # thousands of small products
    if args[:1] == ["estimators"]:
        return _estimators(parse(Estimators, "lab estimators", args[1:]))
    given: Lab = parse(Lab, "lab", args)
    chosen = _chosen(given.ids)
    case, began = _case(given), time.monotonic()
    outcomes = [tried(*one, case) for one in _progress(chosen, "claims", len(chosen))]
    if given.json:
        _print_json(claims_json(outcomes, case))
    elif given.ids:
        _explain(outcomes, case, Path(given.out))
    else:
        _print(_heading(case))
        _print(claims_table(outcomes, case))
        _print(counts(outcomes, time.monotonic() - began))
    must = [outcome for outcome in outcomes if outcome.measured is not None or audited(case)]
    return int(not all(outcome.confirmed for outcome in must))


def _explain(outcomes: list[Outcome], case: Case, folder: Path) -> None:
    from pgrad.lab.pictures import draw  # matplotlib takes its time

    for outcome in outcomes:
        _print(explained(outcome, case))
        if outcome.measured is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path: Path | str = draw(outcome.claim, case, folder / f"{outcome.claim.id}.png")
            except OSError as error:
                raise UsageError(f"cannot write pictures to {folder}: {error.strerror}") from None
            except PgradError as error:
                path = f"not on this problem: {error}"
            except Exception as error:
                if audited(case):
                    raise
                path = f"could not be drawn here: {in_a_line(error)}"
            _print(f"picture      {path}")
        _print("")


def _estimators(given: Estimators) -> int:
    case = _case(given)
    groups = list(_progress(every_estimator(case, given.off_policy), "estimators"))
    if given.json:
        _print_json(estimators_json(groups, case, given.off_policy))
        return 0
    _print(_heading(case) + f", off-policy by {given.off_policy:g}")
    _print("bias |E ĝ − ∇J|/|∇J|; scale ⟨E ĝ, ∇J⟩/|∇J|²; at equal length: variance/scale²")
    for group in groups:
        _print("")
        _print(estimators_table(group))
    return 0


def _case(given: Problem) -> Case:
    if given.problem is not None and given.random is not None:
        raise UsageError("give --problem or --random, not both")
    if given.gamma is not None and not 0 <= given.gamma <= 1:
        raise UsageError(f"gamma must be in [0, 1], got {given.gamma}")
    if given.random is not None:
        if not 0 <= given.random < 2**32:
            raise UsageError(f"--random takes a seed from 0 to 2³² − 1, got {given.random}")
        case = random_case(given.random, gamma=given.gamma)
        return replace(case, name=f"random problem {given.random}")
    gamma = 0.9 if given.gamma is None else given.gamma
    if given.problem is None:
        return reference(gamma)
    case = load_case(Path(given.problem), gamma)
    size = float(exact.gradient(case.problem, case.theta, gamma).norm())
    if not ZERO < size < math.inf:
        what = "zero" if size <= ZERO else "not finite"
        raise UsageError(f"{given.problem}: the gradient of J is {what}, so nothing can be held against it")
    return case


def _chosen(ids: tuple[str, ...]) -> list[tuple[str, Claim]]:
    """The claims of these ids, or all, with their chapters."""
    every = [(chapter, claim) for chapter, claims in CHAPTERS.items() for claim in claims]
    if not ids:
        return every
    names: dict[str, list[tuple[str, Claim]]] = {}
    for chapter, claim in every:
        for name in (claim.id, *claim.also):
            names.setdefault(name, []).append((chapter, claim))
    plain = {_plain(name): name for name in names}
    found: dict[str, tuple[str, Claim]] = {}
    for one in ids:
        if one == "estimators":
            raise UsageError("estimators comes first: pgrad lab estimators, then options")
        if _plain(one) not in plain:
            alike = [name for key, name in plain.items() if len(key) == len(_plain(one))]  # L-49 is not L-999
            raise UsageError(f"unknown claim {one!r}{did_you_mean(one, alike, 'pgrad lab lists all')}")
        exact = [pair for pair in names[plain[_plain(one)]] if _plain(pair[1].id) == _plain(one)]
        found |= {claim.id: (chapter, claim) for chapter, claim in exact or names[plain[_plain(one)]]}
    return list(found.values())


def _plain(name: str) -> str:
    """L-04 however it is written: l4, L04, L_4."""
    letters, digits, rest = re.fullmatch(r"([a-z]*)0*(\d*)(.*)", re.sub(r"[-_ ]", "", name.lower())).groups()  # type: ignore[union-attr]
    return f"{letters}{digits:0>2}{rest}"


def _progress(what: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """A bar on stderr while that is a terminal."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        yield from bar.track(what, total=total, description=name)


def _heading(case: Case) -> str:
    problem, K = case.problem, case.trajectory.mask.shape[1]
    size = f"{problem.n_states} states, {problem.n_actions} actions, {case.steps} decisions"
    return f"{case.name}: {size}, {K:,} trajectories, γ = {case.gamma:g}"


def _print(what: RenderableType) -> None:
    screen = Console(highlight=False, markup=False, emoji=False)
    with screen.capture() as text:
        screen.print(what)
    sys.stdout.write(text.get())


def _print_json(what: object) -> None:
    sys.stdout.write(json.dumps(what, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
