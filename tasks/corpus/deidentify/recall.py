"""How much of what it should find the de-identification finds, measured on identifiers planted in copies of the run's own text.

The values of one form are mostly found or missed together, so that a confidence interval counts forms, not plantings.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from random import Random

from tasks.corpus.cleaning import shingles
from tasks.corpus.deidentify.finder import Found, finder
from tasks.corpus.deidentify.forms import Filled, Form, fill, read_forms
from tasks.corpus.deidentify.languages import LANGUAGES, in_language, own_language
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams
from tasks.corpus.documents import read_lines
from tasks.runtime.pool import run_all

CARRIERS = 200  # texts of the run, in which identifiers are planted
AROUND = 300  # characters of them on either side
Z = 1.96  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Share:
    """A share of plantings, for one type of identifier, names of one language, or one reason of look-alikes."""

    name: str
    half: str  # all, or held-out: forms, and languages of names beside English, that nobody who wrote a recognizer has seen
    forms: int
    plantings: int
    share: float
    low: float  # of Wilson's interval at 95 %, with the number of forms as the number of trials
    high: float
    language: str = ""  # whose names were planted; empty: those of all, or no names


@dataclass(frozen=True)
class Hits:
    """How often what was planted with one form was found, or touched."""

    form: Form
    language: str
    hits: int
    plantings: int

    def is_unseen(self) -> bool:
        """Whether nobody who wrote a recognizer has looked at its names either: English ones were always those of the held-out forms."""
        return self.language in ("", "en") or LANGUAGES[self.language].held_out or bool(own_language(self.form.text))


def measure(params: DeidentifyParams, seed: int, work: Path) -> dict[str, list[Share]]:
    """``recall`` by type and, of names, by ``languages``; ``look_alikes`` touched by reason. Planted in the clean documents in ``work``."""
    carriers = _carriers(work)
    kept = {type_ for type_ in TYPES if params.action(type_) == "keep"}
    groups: dict[tuple[str, str, str], list[Form]] = {}
    for table in ("forms", "look-alikes"):
        for form in read_forms(table):
            for language in _languages(table, form) if form.name not in kept else ():
                groups.setdefault((table, form.name, language), []).append(form)
    keys = sorted(groups)
    arguments = [(table, groups[table, name, language], language, carriers, params, seed) for table, name, language in keys]
    # By rules alone that takes less time than the processes of a pool need to import what finds them.
    measured = dict(zip(keys, run_all(_measured, arguments, desc="planted identifiers", here=not params.entity_model), strict=True))
    by_name: dict[tuple[str, str], list[Hits]] = {}
    for (table, name, _), hits in measured.items():
        by_name.setdefault((table, name), []).extend(hits)
    return {
        "recall": [share for (table, name), hits in by_name.items() if table == "forms" for share in _shares(name, hits)],
        "languages": [
            share for (_, name, language), hits in measured.items() if language for share in _shares(name, hits, LANGUAGES[language].name)
        ],
        "look_alikes": [share for (table, name), hits in by_name.items() if table != "forms" for share in _shares(name, hits)],
    }


def below(recall: Sequence[Share], wanted: Mapping[str, float]) -> list[str]:
    """What is to be told of the types, and of names of the languages, of which less was found than is wanted."""
    return [
        f"{s.name}{f' in {s.language}' if s.language else ''} {s.share:.3f} < {wanted[s.name]}"
        for s in recall
        if s.half == "all" and s.share < wanted.get(s.name, 0)
    ]


def _languages(table: str, form: Form) -> Sequence[str]:
    """Of whose names a form is filled: of one alone where it is in that language; the others are in English."""
    if table != "forms" or form.name != "NAME":
        return ("",)
    return (own,) if (own := own_language(form.text)) else tuple(LANGUAGES)


def planted(filled: Filled, carrier: str, draw: Random) -> Filled:
    """A sentence put between two of a text, of which no more is taken than AROUND characters on either side."""
    parts = shingles.sentences(carrier)
    place = draw.randrange(0, len(parts), 2) if parts else 0
    before, after = "".join(parts[:place])[-AROUND:], "".join(parts[place:])[:AROUND]
    text = f"{before}{' ' if before and not before[-1].isspace() else ''}"
    marked = tuple((len(text) + start, len(text) + end) for start, end in filled.marked)
    return Filled(f"{text}{filled.text} {after}", marked)


def is_covered(text: str, start: int, end: int, found: Sequence[Found]) -> bool:
    """Whether nothing that tells something is left of a part of the text, no mark of a letter either."""
    tell = (i for i in range(start, end) if text[i].isalnum() or unicodedata.category(text[i]).startswith("M"))
    return all(any(f.start <= i < f.end for f in found) for i in tell)


def _measured(table: str, forms: list[Form], language: str, carriers: list[str], params: DeidentifyParams, seed: int) -> list[Hits]:
    find = finder(params.model_dump_json()).find
    told = []
    for form in forms:
        text = in_language(form.text, language) if language and not own_language(form.text) else form.text
        hits, marks = 0, 0
        for number in range(params.plantings if language in ("", "en") else 1):
            draw = Random(f"{seed} {form.text} {number}{f' {language}' if language not in ('', 'en') else ''}")
            filled = planted(fill(text, draw), draw.choice(carriers), draw)
            found = find(filled.text)
            for start, end in filled.marked:
                touched = any(f.start < end and start < f.end for f in found)
                hits += is_covered(filled.text, start, end, found) if table == "forms" else touched
                marks += 1
        told.append(Hits(form, language, hits, marks))
    return told


def _shares(name: str, measured: Sequence[Hits], language: str = "") -> Iterator[Share]:
    """Of all forms and of those that are held out, where of the names of all languages together the unseen count."""
    unseen = [h for h in measured if h.form.held_out and (language or h.is_unseen())]
    for half, some in (("all", measured), ("held-out", unseen)):
        by_form: dict[Form, list[Hits]] = {}
        for hits in some:
            by_form.setdefault(hits.form, []).append(hits)
        shares = [sum(h.hits for h in form) / sum(h.plantings for h in form) for form in by_form.values()]
        yield _share(name, half, shares, sum(h.plantings for h in some), language)


def _share(name: str, half: str, by_form: list[float], plantings: int, language: str) -> Share:
    """Wilson's score interval: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    n, p = len(by_form), sum(by_form) / len(by_form)
    middle, spread = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    low, high = (max(0.0, min(1.0, (middle + sign * spread) / (1 + Z * Z / n))) for sign in (-1, 1))
    return Share(name, half, n, plantings, round(p, 4), round(low, 4), round(high, 4), language)


def _carriers(work: Path) -> list[str]:
    """Answers of the first documents by id, which is a sample of all, as ids are digests."""
    found: list[str] = []
    for path in sorted((work / "clean").glob("*.jsonl")):
        found += [document.answer for document in read_lines(path)]
        if len(found) >= CARRIERS:
            break
    return found[:CARRIERS] or [""]
