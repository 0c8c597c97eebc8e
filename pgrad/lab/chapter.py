"""Write the laboratory's chapter in English and Chinese from its claims: python -m pgrad.lab.chapter docs.

Everything in it comes from the claims, from what they measure on the reference problem, and from the words in
`english/chapter.toml` and `chinese/*.toml`. Numbers are printed alike on every machine.
"""

import argparse
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims import CHAPTERS
from pgrad.lab.problems import reference

FILES = {"english": "laboratory.md", "chinese": "laboratory.zh.md"}
PICTURES_IN = "laboratory"
GLANCE = "claims"
DIFFERENCES = "differences"
HERE = Path(__file__).parent
TOLD = ("title", "statement", "correction", "explanation")
SYMBOLS = ("equation", "paper")
"""Texts that are alike in every language unless a language has its own."""

Chapters = Mapping[str, Sequence[Claim]]


@dataclass(frozen=True)
class Words:
    """One language: the texts of the chapter, and of each claim."""

    language: str
    chapter: Mapping[str, Any]  # chapter.toml
    claims: Mapping[str, Mapping[str, str]]  # by id: what TOLD names, and of SYMBOLS what is not all symbols

    def of(self, claim: Claim, key: str) -> str:
        """A text of a claim."""
        text: str = getattr(claim, key)
        if self.language == "english" or not text:
            return text
        told = self.claims.get(claim.id, {})
        return told.get(key, text) if key in SYMBOLS else told[key]

    def phrase(self, text: str) -> str:
        """A remark that is needed in every language."""
        return text if self.language == "english" else self.chapter["phrases"][text]

    def name(self, number: str) -> str:
        """The name of a number in this language, part by part; what is not in [phrases] stays as it is."""
        known = self.chapter.get("phrases", {})
        if number in known or self.language == "english":
            return known.get(number, number)
        parts = [", ".join(known.get(part, part) for part in half.split(", ")) for half in number.split(": ")]
        return ": ".join(parts)

    def label(self, key: str) -> str:
        """A word of the generator's own."""
        return self.chapter["labels"][key]


def words(language: str) -> Words:
    """Read a language's files. Raises UsageError for a claim that is told twice."""
    claims: dict[str, Mapping[str, str]] = {}
    for path in sorted((HERE / language).glob("*.toml")):
        if path.stem == "chapter":
            continue
        for name, entry in _read(path).items():
            if name in claims:
                raise UsageError(f"{language}: {name} is told twice, the second time in {path.name}")
            claims[name] = entry
    return Words(language, _read(HERE / language / "chapter.toml"), claims)


def check(words: Words, chapters: Chapters = CHAPTERS) -> None:
    """Raise UsageError with everything that this language lacks."""
    lacks = [f"a caption for {name}" for name in _pictures(chapters) if name not in words.chapter["pictures"]]
    for claim in _all(chapters) if words.language != "english" else ():
        told, phrases = words.claims.get(claim.id, {}), words.chapter["phrases"]
        lacks += [
            f"{claim.id} {key}: {getattr(claim, key)}"
            for key in TOLD
            if getattr(claim, key) and key not in told
        ]
        lacks += [f"phrase: {text}" for text in _remarks(claim) if text not in phrases]
    if lacks:
        raise UsageError("\n".join([f"{words.language} lacks:", *dict.fromkeys(lacks)]))


def measure(chapters: Chapters = CHAPTERS) -> dict[str, Measured]:
    """What every claim measures on the reference problem, by id."""
    case = reference()
    return {claim.id: claim.measure(case) for claim in _all(chapters) if claim.fits(case)}


def chapter(words: Words, found: Mapping[str, Measured], chapters: Chapters = CHAPTERS) -> str:
    """The whole chapter as Markdown."""
    check(words, chapters)
    told, shown = words.chapter, set[str]()
    parts = [f"# {told['title']}", told["opening"].strip(), _image(words, GLANCE), told["reading"].strip()]
    parts += [_problem(words), told["running"].strip(), *_summary(words, chapters)]
    for name, claims in chapters.items():
        if claims:
            parts += [f"## {told['chapters'][name]['heading']}", told["chapters"][name]["text"].strip()]
            for claim in claims:
                parts += _claim(words, claim, found.get(claim.id), shown)
    return "\n\n".join([*parts, *_differences(words, found, chapters)]) + "\n"


def draw(folder: Path, chapters: Chapters = CHAPTERS) -> Iterator[Path]:
    """Draw every picture that a claim names, and all claims at a glance."""
    from pgrad.lab.pictures import draw_glance, draw_named

    headings = words("english").chapter["chapters"]
    yield draw_glance({headings[name]["short"]: x for name, x in chapters.items()}, folder / f"{GLANCE}.png")
    for name in _pictures(chapters):
        yield draw_named(name, reference(), folder / f"{name}.png")


def printed(x: float, beside: str = "") -> str:
    """Four significant digits, or as many as the number beside it has; 0 below 1e-9.

    A tie falls the same way on every machine: upwards, by far more than rounding errors and far less than a
    digit.
    """
    if not math.isfinite(x):
        return "–" if math.isnan(x) else "∞" if x > 0 else "−∞"
    if abs(x) < ZERO:
        return "0"
    digits = sum(map(str.isdigit, beside.lower().partition("e")[0].lstrip("-0."))) if beside else 0
    text = f"{x * (1 + 1e-10):.{max(4, digits)}g}"
    mantissa, _, exponent = text.partition("e")
    return (mantissa + (f"e{int(exponent)}" if exponent else "")).replace("-", "−")


def _as_printed(audited: str) -> str:
    """An audit's number with its zero and a proper minus: ".161" is 0.161, "<1e-9" is < 1e−9."""
    text = audited.replace("<", "< ").replace("-", "−")
    return text.replace(".", "0.", 1) if text.lstrip("−").startswith(".") else text


def escaped(text: str) -> str:
    """Text as Markdown shows it literally; what is between backticks is code and stays as it is."""
    pieces = text.split("`")
    for k in range(0, len(pieces), 2):
        for character in ("\\", "*", "_", "~", "|", "<", "[", "$"):
            pieces[k] = pieces[k].replace(character, "\\" + character)
    return "`".join(pieces)


def _claim(words: Words, claim: Claim, found: Measured | None, shown: set[str]) -> Iterator[str]:
    """One claim: title and verdict, statement, equation, what is right, numbers, why, where it is from."""
    yield f'<a id="{_anchor(claim)}"></a>'
    yield f"### {claim.id} · {escaped(words.of(claim, 'title'))} · {words.label(claim.verdict.name)}"
    yield f"> {escaped(words.of(claim, 'statement'))}"
    yield f"```text\n{words.of(claim, 'equation').strip()}\n```"
    if claim.correction:
        lead = words.label("if" if claim.verdict is Verdict.TRUE_IF else "instead")
        yield f"**{lead}** {escaped(words.of(claim, 'correction'))}"
    if found is not None:
        yield _numbers(words, claim, found)
    if claim.picture and claim.picture not in shown:
        shown.add(claim.picture)
        yield _image(words, claim.picture)
    yield f"**{words.label('why')}** {escaped(words.of(claim, 'explanation'))}"
    yield _origin(words, claim)


def _origin(words: Words, claim: Claim) -> str:
    source = words.phrase(claim.source) if claim.source in _remarks(claim) else claim.source
    parts = [f"{words.label('source')}{escaped(source)}"]
    if claim.paper:
        parts.append(f"{words.label('paper')}{escaped(words.of(claim, 'paper'))}")
    if claim.also:
        parts.append(f"{words.label('also')}{', '.join(claim.also)}")
    if claim.needs:
        parts.append(f"{words.label('needs')}{escaped(words.phrase(claim.needs))}")
    if claim.own:
        parts.append(words.label("own"))
    return f"<sub>{' · '.join(parts)}</sub>"


def _remarks(claim: Claim) -> list[str]:
    """What else of a claim is English; a source is, unless it is all numbers: "000:101; 001:70"."""
    worded = any(character.isalpha() for character in claim.source)
    return [*claim.differs.values(), *[claim.needs] * bool(claim.needs), *[claim.source] * worded]


def _numbers(words: Words, claim: Claim, found: Measured) -> str:
    """A table of what was measured, with the audit's numbers where it has some."""
    rows = [[words.label("number"), words.label("here"), words.label("audit")]]
    for name, x in found.numbers.items():
        beside = claim.audit.get(name, "")
        mark = f" [≠](#{DIFFERENCES})" if name in claim.differs else ""
        theirs = escaped(_as_printed(beside))
        rows.append([escaped(words.name(name)), printed(x, beside), theirs + mark])
    width = 3 if claim.audit else 2
    lines = ["| " + " | ".join(row[:width]) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (width - 1) + "|", *lines[1:]])


def _summary(words: Words, chapters: Chapters) -> list[str]:
    """Every claim in one table, and how many there are of each verdict."""
    claims = list(_all(chapters))
    counts = {verdict.name: sum(claim.verdict is verdict for claim in claims) for verdict in Verdict}
    labels = [words.label(key) for key in ("id", "verdict", "claim")]
    lines = ["| " + " | ".join(labels) + " |", "|---|---|---|"]
    for claim in claims:
        title = escaped(words.of(claim, "title"))
        lines.append(f"| [{claim.id}](#{_anchor(claim)}) | {words.label(claim.verdict.name)} | {title} |")
    told = words.chapter["summary"]
    text = told["text"].strip().format(n=len(claims), **counts)
    return [f"## {told['heading']}", text, "\n".join(lines)]


def _differences(words: Words, found: Mapping[str, Measured], chapters: Chapters) -> list[str]:
    """Every number that is not the audit's, by reason."""
    told, lines = words.chapter["differences"], []
    for claim in _all(chapters):
        reasons: dict[str, list[str]] = {}
        for name, reason in claim.differs.items():
            ours, theirs = printed(found[claim.id].numbers[name], claim.audit[name]), claim.audit[name]
            named = escaped(words.name(name))
            pair = f"*{named}*: {ours} ({words.label('audit')} {escaped(_as_printed(theirs))})"
            reasons.setdefault(reason, []).append(pair)
        for reason, pairs in reasons.items():
            text = escaped(words.phrase(reason)).rstrip(".。") + words.label("stop")
            lines.append(
                f"- [{claim.id}](#{_anchor(claim)}) {'; '.join(pairs)}. {text[:1].upper()}{text[1:]}"
            )
    if not lines:
        return []
    return [f'<a id="{DIFFERENCES}"></a>', f"## {told['heading']}", told["text"].strip(), "\n".join(lines)]


def _problem(words: Words) -> str:
    """The reference problem in numbers."""
    case, p = reference(), reference().problem
    lines = [
        f"P[s][a]  = {p.P.tolist()}",
        f"r[s][a]  = {p.r.tolist()}",
        f"ρ₀[s]    = {p.rho0.tolist()}",
        f"θ[s][a]  = {case.theta.tolist()}",
        f"Δ[s][a]  = {case.direction.tolist()}",
        f"T = {p.horizon},  γ = {case.gamma:g}",
    ]
    return "```text\n" + "\n".join(lines) + "\n```"


def _image(words: Words, name: str) -> str:
    return f"![{name}]({PICTURES_IN}/{name}.png)\n\n*{words.chapter['pictures'][name].strip()}*"


def _pictures(chapters: Chapters) -> list[str]:
    return list(dict.fromkeys(claim.picture for claim in _all(chapters) if claim.picture))


def _anchor(claim: Claim) -> str:
    return claim.id.lower()


def _all(chapters: Chapters) -> Iterator[Claim]:
    return (claim for claims in chapters.values() for claim in claims)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="write the laboratory's chapter")
    parser.add_argument("folder", type=Path, help="where to, as a rule docs")
    parser.add_argument("--text", action="store_true", help="leave the pictures as they are")
    given = parser.parse_args()
    try:
        write(given.folder, pictures=not given.text)
    except UsageError as error:
        raise SystemExit(str(error)) from None


def write(folder: Path, *, pictures: bool = True) -> None:
    """Write both languages, and the pictures."""
    found = measure()
    texts = {name: chapter(words(language), found) for language, name in FILES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    for picture in draw(folder / PICTURES_IN) if pictures else ():
        print(picture)


if __name__ == "__main__":
    main()
