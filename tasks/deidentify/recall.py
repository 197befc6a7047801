"""How much of what it should find the de-identification finds, measured on identifiers planted in copies of the run's own text.

The values of one form are mostly found or missed together, so that a confidence interval counts forms, not plantings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from random import Random

from tasks.cleaning import shingles
from tasks.deidentify.finder import Found, finder
from tasks.deidentify.forms import Filled, Form, fill, read_forms
from tasks.deidentify.policy import TYPES, DeidentifyParams
from tasks.documents import read_lines
from tasks.pool import run_all

CARRIERS = 200  # texts of the run, in which identifiers are planted
AROUND = 300  # characters of them on either side
Z = 1.96  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Share:
    """A share of plantings, for one type of identifier or one reason of look-alikes."""

    name: str
    half: str  # all, or held-out: the forms that nobody who wrote a recognizer has seen
    forms: int
    plantings: int
    share: float
    low: float  # of Wilson's interval at 95 %, with the number of forms as the number of trials
    high: float


def measure(params: DeidentifyParams, seed: int, work: Path) -> dict[str, list[Share]]:
    """``recall`` by type and ``look_alikes`` touched by reason, of what is planted in texts of the clean documents in ``work``."""
    carriers = _carriers(work)
    tables = {table: read_forms(table) for table in ("forms", "look-alikes")}
    kept = {type_ for type_ in TYPES if params.action(type_) == "keep"}
    names = [(table, name) for table, forms in tables.items() for name in sorted({form.name for form in forms} - kept)]
    arguments = [(table, [f for f in tables[table] if f.name == name], carriers, params, seed) for table, name in names]
    # By rules alone that takes less time than the processes of a pool need to import what finds them.
    shares = run_all(_measured, arguments, what="planted identifiers", here=not params.entity_model)
    return {
        "recall": [share for (table, _), found in zip(names, shares, strict=True) if table == "forms" for share in found],
        "look_alikes": [share for (table, _), found in zip(names, shares, strict=True) if table != "forms" for share in found],
    }


def below(recall: Sequence[Share], wanted: Mapping[str, float]) -> list[str]:
    """What is to be told of the types of which less was found than is wanted."""
    return [f"{s.name} {s.share:.3f} < {wanted[s.name]}" for s in recall if s.half == "all" and s.share < wanted.get(s.name, 0)]


def planted(filled: Filled, carrier: str, draw: Random) -> Filled:
    """A sentence put between two of a text, of which no more is taken than AROUND characters on either side."""
    parts = shingles.sentences(carrier)
    place = draw.randrange(0, len(parts), 2) if parts else 0
    before, after = "".join(parts[:place])[-AROUND:], "".join(parts[place:])[:AROUND]
    text = f"{before}{' ' if before and not before[-1].isspace() else ''}"
    marked = tuple((len(text) + start, len(text) + end) for start, end in filled.marked)
    return Filled(f"{text}{filled.text} {after}", marked)


def is_covered(text: str, start: int, end: int, found: Sequence[Found]) -> bool:
    """Whether nothing that tells something is left of a part of the text."""
    return all(any(f.start <= i < f.end for f in found) for i in range(start, end) if text[i].isalnum())


def _measured(table: str, forms: list[Form], carriers: list[str], params: DeidentifyParams, seed: int) -> list[Share]:
    find = finder(params.model_dump_json()).find
    scores: list[tuple[bool, float]] = []
    for form in forms:
        hits, marks = 0, 0
        for number in range(params.plantings):
            draw = Random(f"{seed} {form.text} {number}")
            filled = planted(fill(form.text, draw), draw.choice(carriers), draw)
            found = find(filled.text)
            for start, end in filled.marked:
                touched = any(f.start < end and start < f.end for f in found)
                hits += is_covered(filled.text, start, end, found) if table == "forms" else touched
                marks += 1
        scores.append((form.held_out, hits / marks))
    halves = {"all": [score for _, score in scores], "held-out": [score for held_out, score in scores if held_out]}
    return [_share(forms[0].name, half, values, params.plantings) for half, values in halves.items()]


def _share(name: str, half: str, by_form: list[float], plantings: int) -> Share:
    """Wilson's score interval: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    n, p = len(by_form), sum(by_form) / len(by_form)
    middle, spread = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    low, high = (max(0.0, min(1.0, (middle + sign * spread) / (1 + Z * Z / n))) for sign in (-1, 1))
    return Share(name, half, n, n * plantings, round(p, 4), round(low, 4), round(high, 4))


def _carriers(work: Path) -> list[str]:
    """Answers of the first documents by id, which is a sample of all, as ids are digests."""
    found: list[str] = []
    for path in sorted((work / "clean").glob("*.jsonl")):
        found += [document.answer for document in read_lines(path)]
        if len(found) >= CARRIERS:
            break
    return found[:CARRIERS] or [""]
