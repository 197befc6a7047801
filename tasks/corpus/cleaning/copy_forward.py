"""Paragraphs that are copied from note to note of one group, a patient: found over the whole corpus as hashes, counted, and capped."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import shingles
from tasks.corpus.cleaning.comparison import INFERRED_GROUPS
from tasks.corpus.documents import Document

MIN_WORDS = 12  # of a paragraph; shorter ones are said again rather than copied
RANGES = 16  # of hashes, processed one after the other
_PARAGRAPHS = re.compile(r"(\n\s*\n)")

# Rows (key, row of the document in its partition, whether the paragraph goes from it).
Copies = npt.NDArray[np.uint64]


def paragraph_keys(document: Document) -> set[int]:
    """Hashes of a note's paragraphs with its group; none of a document with a question, or of no known group."""
    if document.question or document.group.startswith(INFERRED_GROUPS):
        return set()
    return {key for text in _PARAGRAPHS.split(document.answer)[::2] if (key := _key(document.group, text))}


def find_copies(work: Path, cap: int) -> None:
    """From ``paragraphs/<partition>.npy``, rows (key, row), write ``copies/<partition>.npy``: the paragraphs that several notes have.

    With a ``cap`` only so many notes of a group keep one, the first by id; 0: all do.
    """
    paths = sorted((work / "paragraphs").glob("[0-9]*.npy"))
    columns: list[npt.NDArray[np.uint64]] = []
    for i in range(RANGES):
        parts = []
        for number, path in enumerate(paths):
            rows = np.load(path, mmap_mode="r")
            rows = rows[rows[:, 0] >> np.uint64(60) == i]
            parts.append(np.column_stack([rows, np.full(len(rows), number, np.uint64)]))
        columns.append(_copies(np.concatenate([*parts, np.zeros((0, 3), np.uint64)]), cap))
    copies = np.concatenate(columns)
    (work / "copies").mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        np.save(work / "copies" / path.name, copies[copies[:, 2] == number][:, [0, 1, 3]])


def _copies(rows: npt.NDArray[np.uint64], cap: int) -> npt.NDArray[np.uint64]:
    """Of rows (key, row, partition) those whose key several have, with whether they are beyond the cap as a fourth column."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))]
    _, first, counts = np.unique(rows[:, 0], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    beyond = (rank >= cap) & (cap > 0)
    return np.column_stack([rows, beyond.astype(np.uint64)])[np.repeat(counts, counts) > 1]


def copies_of(work: Path, partition: int) -> dict[int, set[int]]:
    """By the row of a document with a copied paragraph: the keys of those that go from it, often none."""
    rows: dict[int, set[int]] = {}
    for key, row, beyond in np.load(work / "copies" / f"{partition:03d}.npy").tolist():
        rows.setdefault(row, set()).update({key} if beyond else ())
    return rows


def without_paragraphs(document: Document, keys: set[int]) -> str:
    """A note's text without the paragraphs of these keys."""
    pieces = _PARAGRAPHS.split(document.answer)
    stay = [i for i in range(0, len(pieces), 2) if _key(document.group, pieces[i]) not in keys]
    return "".join("".join(pieces[i : i + 2]) for i in stay).strip()


def _key(group: str, text: str) -> int:
    words = shingles.words(text)
    return shingles.hash_text("\x1f".join([group, " ".join(words)])) if len(words) >= MIN_WORDS else 0
