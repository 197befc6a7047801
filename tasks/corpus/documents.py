"""The Document: the one record type of the data side, from raw file to shard, and its files.

A documents directory holds one ``<split>.jsonl`` per split, sorted by id, so equal content gives equal bytes. Ids are hexadecimal
digests: their first digits divide any corpus into partitions of about equal size, which are processed one at a time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Self, TypeAlias

EVALUATION = ("validation", "test", "ood")  # ood: text of another origin, out of distribution
# replay: general text, of which augment mixes some into training.
SPLITS = ("train", *EVALUATION, "replay")


@dataclass(frozen=True, slots=True)
class Document:
    """A question with its answer, or, with an empty question, running text; ``before`` holds a conversation's earlier turns."""

    id: str
    question: str
    answer: str
    source: str  # the raw file it comes from
    category: str  # what sort of question it is; scores are reported by category
    # What may not cross splits, a disease, a term's parent, a patient; from preprocess on the id of the group's first document.
    group: str
    position: str  # where in the source: a line, a term, a code
    split: str = ""
    before: tuple[tuple[str, str], ...] = ()  # (role, text) with role system, user or assistant
    topic: str = ""  # the name that the question is about, as the question has it
    aliases: tuple[str, ...] = ()  # other names of the topic
    method: str = ""  # how a variant was made; empty for an original
    parent: str = ""  # the id of a variant's original
    task: str = ""  # the extraction task (tasks/corpus/extraction) whose schema the answer follows

    def texts(self) -> tuple[str, ...]:
        """Everything in it that is text: the earlier turns', the question, the answer."""
        return (*(text for _, text in self.before), self.question, self.answer)

    def map_texts(self, change: Callable[[str], str]) -> "Document":
        """The document with each of its texts changed; its topic and aliases too, as they are words of the texts."""
        return replace(
            self,
            question=change(self.question),
            answer=change(self.answer),
            before=tuple((role, change(text)) for role, text in self.before),
            topic=change(self.topic),
            aliases=tuple(change(alias) for alias in self.aliases),
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was not taken: where it is and why, never what it says."""

    source: str
    position: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is no text to train on by its kind or state, such as a laboratory order or a withdrawn note; it is counted."""

    source: str
    position: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A note about which an extraction task asks nothing, as note and record do not agree; the note itself is a record of its own."""

    source: str
    position: str
    reason: str


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person or an organization that the data names. What it is known by is looked for in notes, and stands in the work folder alone."""

    group: str  # of a patient's documents; empty for staff and organizations, who are looked for in all documents
    identifiers: tuple[tuple[str, str], ...]  # (type of identifier, value): ("NAME", "Ann Mary Smith"), ("DATE", "1950-12-19")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file that is read in an encoding which neither the file nor params.yaml says: it was found out, and the user is told."""

    source: str
    encoding: str


# What a reader yields.
Record: TypeAlias = Document | Rejected | Skipped | NotAsked | KnownPerson | Decoded


def content_id(*parts: str) -> str:
    """An id from content, so that it survives reordering; 96 bits of SHA-256."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def share(*parts: str | int) -> float:
    """A number in [0, 1) that depends on nothing but the parts: choices without a random state."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def from_json(record: dict[str, Any]) -> Document:
    """A document from what ``asdict`` made of it and JSON of that."""
    before = tuple((str(role), str(text)) for role, text in record["before"])
    return Document(**record | {"aliases": tuple(record["aliases"]), "before": before})


def to_line(document: Document) -> str:
    """The document as a line of JSON, with its line end."""
    return json.dumps(asdict(document), ensure_ascii=False) + "\n"


def partition_of(document_id: str) -> int:
    """Which of 256 partitions a document is in; they are in the order of the ids."""
    return int(document_id[:2], 16)


class PartitionWriter:
    """Collects lines on disk by partition: ``<directory>/<partition>/<name>.jsonl``."""

    def __init__(self, directory: Path, name: str):
        self._directory, self._name = directory, name
        self._lines: dict[int, list[str]] = {}
        self._size = 0

    def add(self, partition: int, line: str) -> None:
        """Add a line, which is written with the next 16 million characters at the latest."""
        self._lines.setdefault(partition, []).append(line)
        self._size += len(line)
        if self._size > 1 << 24:
            self.flush()

    def flush(self) -> None:
        """Append the lines that wait in memory to their files."""
        for partition, lines in self._lines.items():
            directory = self._directory / f"{partition:03d}"
            directory.mkdir(parents=True, exist_ok=True)
            with open(directory / f"{self._name}.jsonl", "a", encoding="utf-8") as file:
                file.writelines(lines)
        self._lines, self._size = {}, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()


def write_documents(documents: Iterable[Document], directory: Path) -> None:
    """One file per split that has documents, in any number: they are sorted partition by partition, on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    partitions = directory / ".partitions"
    writers: dict[str, PartitionWriter] = {}
    for document in documents:
        writer = writers.setdefault(document.split, PartitionWriter(partitions, document.split))
        writer.add(partition_of(document.id), to_line(document))
    for split, writer in writers.items():
        writer.flush()
        with open(directory / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for part in sorted(partitions.glob(f"*/{split}.jsonl")):
                file.writelines(to_line(d) for d in sorted(read_lines(part), key=lambda d: d.id))
    shutil.rmtree(partitions, ignore_errors=True)


def read_documents(directory: Path, split: str) -> Iterator[Document]:
    """The documents of a split, in the order of their ids; none where it has no file."""
    path = directory / f"{split}.jsonl"
    return read_lines(path) if path.exists() else iter(())


def read_partitions(directory: Path, split: str) -> Iterator[tuple[int, list[Document]]]:
    """The documents of a split by partition, one partition in memory at a time."""
    for partition, members in groupby(read_documents(directory, split), key=lambda d: partition_of(d.id)):
        yield partition, list(members)


def read_lines(path: Path) -> Iterator[Document]:
    """The documents of one file of JSON lines; ``ValueError`` names a line that is no document."""
    with open(path, encoding="utf-8") as file:
        for i, line in enumerate(file, 1):
            try:
                yield from_json(json.loads(line))
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path}, line {i}: not a document") from None


def private(path: str, flags: int) -> int:
    """An opener for ``open(…, opener=private)``: a file that its owner alone may read."""
    return os.open(path, flags, 0o600)
