"""What a rule changed in a text: the places, found by comparing the text before it with the text after it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from unicodedata import normalize

from tasks.corpus.cleaning.rules import REPAIRS
from tasks.corpus.documents import Document

_TOKEN = re.compile(r"[\w\u0300-\u036f]+|[^\w\s]")  # words with their combining marks, and every other mark
# Where texts differ, so many tokens are compared at first, and at last; and so many equal ones in a row are no chance.
_WINDOW, _MAX_WINDOW, _RUN = 64, 2048, 8


@dataclass(frozen=True, slots=True)
class Change:
    """A place of a text from ``start`` to ``end``, where ``before`` became ``after``."""

    start: int
    end: int
    before: str
    after: str

    def is_blank(self) -> bool:
        """Whether it changed white space alone."""
        return not (self.before.strip() or self.after.strip())

    def is_composed(self) -> bool:
        """Whether it is the same text, with its letters in one piece (NFC)."""
        return normalize("NFC", self.before) == normalize("NFC", self.after)


def repaired(document: Document) -> Document:
    """The document after all repairs."""
    steps = list(repair_steps(document))
    return steps[-1][2] if steps else document


def repair_steps(document: Document) -> Iterator[tuple[str, Document, Document]]:
    """Each repair that changes the document, with the document before and after it.

    One repair can bring up work for another, so they are done until nothing changes.
    """
    while True:
        first = document
        for name, change in REPAIRS.items():
            changed = change(document)
            if changed != document:
                yield name, document, changed
            document = changed
        if document == first:
            return


def count_changes(before: Document, after: Document) -> int:
    """The places in which the texts of two forms of a document differ, which do differ somewhere; one if it is not in the texts."""
    return max(1, sum(len(text_changes(a, b)) for a, b in zip(before.texts(), after.texts(), strict=True)))


def text_changes(before: str, after: str) -> list[Change]:
    """The places in which two texts differ, in their order; each run of white space that differs is one."""
    if before == after:
        return []
    old, new = list(_TOKEN.finditer(before)), list(_TOKEN.finditer(after))
    changes: list[Change] = []
    end_old = end_new = 0
    for i, j in [*_matches(_keys(old), _keys(new)), (len(old), len(new))]:
        start_old, next_old = old[i].span() if i < len(old) else (len(before), len(before))
        start_new, next_new = new[j].span() if j < len(new) else (len(after), len(after))
        changes += _change(before, after, (end_old, start_old), (end_new, start_new))
        changes += _change(before, after, (start_old, next_old), (start_new, next_new))
        end_old, end_new = next_old, next_new
    return changes


def _keys(tokens: list[re.Match[str]]) -> list[str]:
    return [normalize("NFC", token.group()) for token in tokens]


def _change(before: str, after: str, old: tuple[int, int], new: tuple[int, int]) -> Iterator[Change]:
    """The change of a place, without the white space that stays on either side of it; none where it is equal."""
    (start, end), text, other = old, before[slice(*old)], after[slice(*new)]
    if text == other:
        return
    if text.strip() or other.strip():
        while text and other and text[0] == other[0] and text[0].isspace():
            text, other, start = text[1:], other[1:], start + 1
        while text and other and text[-1] == other[-1] and text[-1].isspace():
            text, other, end = text[:-1], other[:-1], end - 1
    yield Change(start, end, text, other)


def _matches(old: list[str], new: list[str]) -> Iterator[tuple[int, int]]:
    """The places of equal tokens in both lists, in their order.

    Texts are nearly equal, so only a window behind each difference is compared, in time that grows with the text.
    """
    i = j = 0
    size = _WINDOW
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            yield i, j
            i, j, size = i + 1, j + 1, _WINDOW
            continue
        blocks = SequenceMatcher(None, old[i : i + size], new[j : j + size], autojunk=False).get_matching_blocks()
        run = next((index for index, block in enumerate(blocks) if block.size >= _RUN), None)
        is_rest = i + size >= len(old) and j + size >= len(new)
        if run is None and not is_rest and size < _MAX_WINDOW:
            size *= 2
            continue
        taken = blocks if run is None else blocks[: run + 1]
        for block in taken:
            yield from ((i + block.a + n, j + block.b + n) for n in range(block.size))
        last = taken[-1]
        i, j = i + last.a + last.size, j + last.b + last.size
