"""A note as a person annotates it: its text before any rule, and the places that the rules of the run change, with what they become.

Rules work one after the other, each on what the one before left. Here all places are of the text as it was read.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.corpus.cleaning.changes import Change, repaired, text_changes
from tasks.corpus.deidentify.document import BORDER, Replaced, replaced_identifiers
from tasks.corpus.deidentify.known import KnownPeople, known_people
from tasks.corpus.documents import Document
from tasks.runtime.pool import run_all

PART = 20  # notes that a process works on at a time
SMALL = 1_000_000  # characters that one process does sooner than a pool starts


@dataclass(frozen=True, slots=True)
class Mask:
    """An identifier that the rules see, and what replaces it; ``start`` and ``end`` count code points."""

    start: int
    end: int
    type: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Text that a repair changes; one that changes only white space, or only how letters are composed, is left out."""

    start: int
    end: int
    after: str


@dataclass(frozen=True, slots=True)
class Note:
    """A note of the sample, with what the rules do to it. ``masks`` and ``repairs`` are each in their order, without overlaps."""

    id: str
    source: str
    position: str
    text: str  # of a conversation or a question its texts with BORDER between them
    masks: tuple[Mask, ...]
    repairs: tuple[Repair, ...]

    @property
    def digest(self) -> str:
        """Of the text that offsets count in."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


def with_rules(documents: Sequence[Document], deidentify: str, work: Path) -> list[Note]:
    """The notes with what the rules do to them; ``deidentify``: the params of the de-identification as JSON, ``work``: who is known."""
    parts = [(documents[i : i + PART], deidentify, work) for i in range(0, len(documents), PART)]
    is_small = sum(len(text) for document in documents for text in document.texts()) < SMALL
    return [note for part in run_all(_of_part, parts, desc="masks", here=is_small) for note in part]


def _of_part(documents: Sequence[Document], deidentify: str, work: Path) -> list[Note]:
    known = known_people(work)
    return [note_of(document, deidentify, known) for document in documents]


def note_of(document: Document, deidentify: str, known: KnownPeople) -> Note:
    """A raw document as a note, masked as a run with these params and known people masks it."""
    clean = repaired(document)
    alignment = _Alignment(document.texts(), clean.texts())
    text = alignment.before.removeprefix(BORDER)  # in front of a note stands an empty question
    lead = len(alignment.before) - len(text)
    repairs = [
        Repair(change.start - lead, change.end - lead, change.after)
        for change in alignment.changes
        if change.before and not (change.is_blank() or change.is_composed())
    ]
    masks = _masks(*replaced_identifiers(clean, deidentify, known), alignment, lead)
    return Note(document.id, document.source, document.position, text, tuple(masks), tuple(repairs))


def _masks(whole: str, identifiers: Sequence[Replaced], alignment: "_Alignment", lead: int) -> Iterator[Mask]:
    """The identifiers that become something else, where they were before the repairs."""
    last = 0
    for identifier in identifiers:
        if whole[identifier.start : identifier.end] != identifier.replacement:
            start, end = max(last, alignment.start(identifier.start) - lead), alignment.end(identifier.end) - lead
            if start < end:
                yield Mask(start, end, identifier.type, identifier.replacement)
                last = end


class _Alignment:
    """From places of the joined texts after the repairs to those before."""

    def __init__(self, before: Sequence[str], after: Sequence[str]):
        self.before = BORDER.join(before)
        self.changes: list[Change] = []
        self._starts: list[int] = []  # of the changes, after the repairs
        self._ends: list[int] = []
        start_before = start_after = 0
        for old, new in zip(before, after, strict=True):
            shift = start_after - start_before
            for change in text_changes(old, new):
                moved = Change(start_before + change.start, start_before + change.end, change.before, change.after)
                self.changes.append(moved)
                self._starts.append(moved.start + shift)
                self._ends.append(moved.start + shift + len(moved.after))
                shift += len(moved.after) - (moved.end - moved.start)
            start_before += len(old) + len(BORDER)
            start_after += len(new) + len(BORDER)

    def start(self, offset: int) -> int:
        """Where text that begins at a place began; what a repair took out in front of it is no part of it."""
        passed = bisect_right(self._ends, offset)
        if passed < len(self.changes) and self._starts[passed] < offset:
            return self.changes[passed].start
        return self._moved(offset, passed)

    def end(self, offset: int) -> int:
        """Where text that ends at a place ended; what a repair took out behind it is no part of it."""
        passed = bisect_left(self._ends, offset)
        if passed < len(self.changes) and self._starts[passed] < offset:
            return self.changes[passed].end
        return self._moved(offset, passed)

    def _moved(self, offset: int, passed: int) -> int:
        return offset + (self.changes[passed - 1].end - self._ends[passed - 1] if passed else 0)
