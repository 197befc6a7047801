"""Which notes a person annotates: by seed, each patient before any for the second time, and raw files in turn.

The order is of all notes, so that a smaller sample is the beginning of a larger one. Neither the order of files and rows nor the number
of processes changes it. In memory are 45 bytes of each note, and one of 256 partitions of their texts.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.documents import Document, content_id, read_lines, share
from tasks.corpus.manifest import all_public, read_manifest

MAX_CHARS = 100_000  # of a record; nobody reads a longer one from end to end
_ROW = np.dtype([("id", "S24"), ("number", "f8"), ("group", "u8"), ("source", "u4"), ("is_note", "?")])
_Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class SampleParams:
    """What is drawn: how many notes, by which seed, and what is not drawn. ``marked``: ids that are in the sample whatever is drawn."""

    count: int
    seed: int
    withdrawn: Collection[str] = ()
    public: Collection[str] = ()  # raw files that anybody may read, as the default corpus
    marked: Collection[str] = ()


def draw(work: Path, params: SampleParams) -> list[Document]:
    """The sample of the raw documents in ``work``, in its order; the marked ones that are there count among its notes.

    Notes are records without a question; where there are none, all records are drawn from. Empty where there is nothing to draw from.
    """
    sources: dict[str, int] = {}
    partitions = {path.name: _rows(path, params, sources) for path in sorted((work / "raw").glob("*"))}
    rows = np.concatenate([np.empty(0, _ROW), *partitions.values()])
    rows = rows[rows["is_note"]] if rows["is_note"].any() else rows
    chosen = _chosen(rows[_order(rows)]["id"], params)
    documents = {
        document.id: document
        for name, of_partition in partitions.items()
        if np.isin(of_partition["id"], list(chosen)).any()
        for document in _documents(work / "raw" / name)
        if document.id.encode() in chosen
    }
    return [documents[id_.decode()] for id_ in chosen]


def public_files(data: Path) -> set[str]:
    """The raw files that the manifest marks, by their digests, as ones that anybody may read."""
    listed = {str(entry["path"]) for entry in read_manifest(data) if entry.get("public") is True}
    return {name for name in listed if (data / name).is_file() and all_public(data, [name])}


def _documents(partition: Path) -> Iterator[Document]:
    """The documents of a partition, one of each id, whatever the order in which they were read."""
    raw = [document for path in sorted(partition.glob("*.jsonl")) for document in read_lines(path)]
    for _, same in groupby(sorted(raw, key=lambda d: (d.id, *d.texts(), d.source)), key=lambda d: d.id):
        yield next(same)


def _rows(partition: Path, params: SampleParams, sources: dict[str, int]) -> _Rows:
    """A row for each document that may be drawn; ``sources`` gets a number for each raw file."""
    rows = [
        (
            document.id.encode(),
            share(params.seed, document.id),
            int(content_id(document.group)[:16], 16),
            sources.setdefault(document.source, len(sources)),
            not document.question,
        )
        for document in _documents(partition)
        if _may_be_drawn(document, params)
    ]
    return np.array(rows, _ROW)


def _may_be_drawn(document: Document, params: SampleParams) -> bool:
    if document.id in params.withdrawn or document.source in params.public or document.split == "replay":
        return False
    return bool(document.answer.strip()) and sum(map(len, document.texts())) <= MAX_CHARS


def _order(rows: _Rows) -> npt.NDArray[np.intp]:
    """Indices of the rows: first one note of each patient, files in turn, then a second one of each."""
    turn = _rank(rows, rows["group"])
    turn_of_source = _rank(rows, turn, rows["source"])
    return np.lexsort((rows["id"], rows["number"], turn_of_source, turn))


def _rank(rows: _Rows, *keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """How many rows with the same keys come before each, by number and id."""
    order = np.lexsort((rows["id"], rows["number"], *keys))
    indices = np.arange(len(rows))
    is_first = np.ones(len(rows), bool)
    if len(rows):
        is_first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    ranks = np.empty(len(rows), np.intp)
    ranks[order] = indices - np.maximum.accumulate(np.where(is_first, indices, 0))
    return ranks


def _chosen(ids: npt.NDArray[np.bytes_], params: SampleParams) -> dict[bytes, None]:
    """Of ids in their order the first ones and those that are marked, in that order."""
    marked = {id_.encode() for id_ in params.marked} & set(ids.tolist())
    free = max(0, params.count - len(marked))
    chosen: dict[bytes, None] = {}
    for id_ in ids.tolist():
        if id_ in marked:
            chosen[id_] = None
        elif free:
            chosen[id_] = None
            free -= 1
    return chosen
