"""Recall and damage of the rules on notes that a person finished, from marks and masks; no text leaves here.

Gold standard of a note: the identifiers that were masked rightly or missed. What was marked wrong must stay. So marks made once measure
later rules as well; of a new mask on text that nobody marked it is not known whether it is right, and it is counted as unjudged. An
identifier, or a mask, is looked at by its letters, digits and combining marks. Intervals count notes, as what one note has is mostly
seen or missed together.
"""

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tasks.corpus.annotation.figures import ALL, Figures, Rate, Share
from tasks.corpus.annotation.marks import Mark
from tasks.corpus.annotation.notes import Mask, Note
from tasks.corpus.deidentify.recall import wilson

RESAMPLES = 2000
State = Literal["right", "wrong", "unjudged"]


@dataclass
class NoteScore:
    """What was counted in one note, by type where there is one."""

    words: int
    identifiers: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)  # that are right or wrong, by the type that the rules say
    wrong: Counter[str] = field(default_factory=Counter)
    mistyped: int = 0  # masks of identifiers that are of another type
    unjudged: int = 0  # masks
    lost: int = 0  # repairs that changed clinical text

    def misses(self) -> bool:
        """Whether an identifier stays in the text."""
        return self.identifiers != self.covered

    def is_damaged(self) -> bool:
        """Whether what is clinical or nobody's was changed."""
        return bool(self.wrong.total() or self.lost)


def mask_states(note: Note, marks: Sequence[Mark]) -> list[State]:
    """What the marks say of each mask: wrong where it touches what must stay, right where it holds nothing but identifiers."""
    gold = _characters(len(note.text), (mark for mark in marks if mark.type))
    stays = _characters(len(note.text), (mark for mark in marks if not mark.type))
    states: list[State] = []
    for mask in note.masks:
        telling = _telling(note.text, mask.start, mask.end)
        if any(stays[i] and not gold[i] for i in telling):
            states.append("wrong")
        else:
            states.append("right" if all(gold[i] for i in telling) else "unjudged")
    return states


def score_note(note: Note, marks: Sequence[Mark], kept: Container[str] = ()) -> NoteScore:
    """Count one finished note; identifiers of the types ``kept``, which the policy leaves in the text, are none."""
    score = NoteScore(len(note.text.split()))
    masked = _characters(len(note.text), note.masks)
    identifiers = _joined(mark for mark in marks if mark.type and mark.type not in kept)
    for identifier in identifiers:
        score.identifiers[identifier.type] += 1
        score.covered[identifier.type] += all(masked[i] for i in _telling(note.text, identifier.start, identifier.end))
    for mask, state in zip(note.masks, mask_states(note, marks), strict=True):
        if state == "unjudged":
            score.unjudged += 1
            continue
        score.masks[mask.type] += 1
        score.wrong[mask.type] += state == "wrong"
    score.mistyped = _mistyped(note.masks, identifiers)
    lost = _characters(len(note.text), (mark for mark in marks if mark.verdict == "lost"))
    score.lost = sum(any(lost[repair.start : repair.end]) for repair in note.repairs)
    return score


def summarize(scores: Sequence[NoteScore], *, date: str, seed: int, rules: str, data: str) -> Figures:
    """The figures of all finished notes, and what they are of. ``ValueError`` where there are no finished notes."""
    if not scores:
        raise ValueError("no note is finished")
    types = sorted({type_ for score in scores for type_ in score.identifiers})
    masked = sorted({type_ for score in scores for type_ in score.masks})
    return Figures(
        date=date,
        seed=seed,
        rules=rules,
        data=data,
        notes=len(scores),
        words=sum(score.words for score in scores),
        recall=[_share(name, [(score.identifiers, score.covered) for score in scores]) for name in (ALL, *types)],
        damage=[_share(name, [(score.masks, score.wrong) for score in scores]) for name in (ALL, *masked)],
        missed=_share_of_notes("missed", [score.misses() for score in scores]),
        damaged=_share_of_notes("damaged", [score.is_damaged() for score in scores]),
        wrong_per_1000_words=_rate([score.wrong.total() for score in scores], [score.words for score in scores]),
        mistyped=sum(score.mistyped for score in scores),
        lost=sum(score.lost for score in scores),
        unjudged=sum(score.unjudged for score in scores),
    )


def _characters(length: int, spans: Iterable[Mark | Mask]) -> bytearray:
    """1 for each character of a text that is in one of the spans."""
    flags = bytearray(length)
    for span in spans:
        flags[span.start : span.end] = b"\1" * (span.end - span.start)
    return flags


def _telling(text: str, start: int, end: int) -> list[int]:
    """The places of letters, digits and combining marks; all places where there are none."""
    indices = range(start, end)
    return [i for i in indices if text[i].isalnum() or unicodedata.category(text[i]).startswith("M")] or list(indices)


def _joined(marks: Iterable[Mark]) -> list[Mark]:
    """Identifiers without overlaps: those that overlap are one, of the type that a person chose."""
    joined: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, mark.end)):
        if joined and mark.start < joined[-1].end:
            last = joined[-1]
            type_ = mark.type if mark.verdict == "missed" else last.type
            joined[-1] = Mark(start=last.start, end=max(last.end, mark.end), verdict="right", type=type_)
        else:
            joined.append(mark)
    return joined


def _mistyped(masks: Sequence[Mask], identifiers: Sequence[Mark]) -> int:
    """Masks that overlap identifiers, and none of their own type."""
    count, first = 0, 0
    for mask in masks:
        while first < len(identifiers) and identifiers[first].end <= mask.start:
            first += 1
        types = set[str]()
        for identifier in identifiers[first:]:
            if identifier.start >= mask.end:
                break
            types.add(identifier.type)
        count += bool(types) and mask.type not in types
    return count


def _share(name: str, counts: Sequence[tuple[Counter[str], Counter[str]]]) -> Share:
    """Of what each note has of a type, or of all types, how many."""
    pairs = [(total.total(), part.total()) if name == ALL else (total[name], part[name]) for total, part in counts]
    notes, total, count = sum(bool(of_note) for of_note, _ in pairs), sum(t for t, _ in pairs), sum(c for _, c in pairs)
    return _row(name, notes, total, count)


def _share_of_notes(name: str, has: Sequence[bool]) -> Share:
    return _row(name, len(has), len(has), sum(has))


def _row(name: str, notes: int, total: int, count: int) -> Share:
    share = count / total if total else 0.0
    low, high = wilson(share, notes)
    return Share(name=name, notes=notes, total=total, count=count, share=round(share, 4), low=low, high=high)


def _rate(counts: Sequence[int], words: Sequence[int]) -> Rate:
    """Counts per 1,000 words, with a bootstrap over notes (percentiles, 95 %).

    Where no note has any, a bootstrap says nothing: the upper limit is then that of Wilson for notes, with one in each.
    """
    n, of_words = len(counts), max(1, sum(words))
    low, high = 0.0, 1000 * n * wilson(0.0, n)[1] / of_words
    if any(counts):
        chosen = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
        rates = 1000 * np.array(counts)[chosen].sum(1) / np.maximum(1, np.array(words)[chosen].sum(1))
        low, high = (float(limit) for limit in np.quantile(rates, (0.025, 0.975)))
    return Rate(value=round(1000 * sum(counts) / of_words, 3), low=round(low, 3), high=round(high, 3))
