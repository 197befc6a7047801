"""The Document: the one record type of the data side, from raw file to shard, and its files.

A documents directory holds one ``<split>.jsonl`` per split, sorted by id, so equal content gives equal bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

MANIFEST = "manifest.json"  # in data/: sources, versions, licences and credits; not a raw file itself
SPLITS = ("train", "validation", "test", "other")  # other: text of another origin, for evaluation only


@dataclass(frozen=True, slots=True)
class Document:
    """A question with its answer, or, with an empty question, running text."""

    id: str
    question: str
    answer: str
    source: str  # the raw file it comes from
    kind: str  # what sort of question it is; scores are reported by kind
    group: str  # what may not cross splits: a disease, a term's parent, a patient
    position: str  # where in the source: a line, a term, a code
    split: str = ""
    topic: str = ""  # the name that the question is about, as it stands in the question
    aliases: tuple[str, ...] = ()  # other names of the topic
    method: str = ""  # how a variant was made; empty for an original
    parent: str = ""  # the id of a variant's original


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was not taken: where it stands and why, never what it says."""

    source: str
    position: str
    reason: str


def content_id(*parts: str) -> str:
    """An id from content, so that it survives reordering; 96 bits of SHA-256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def share(*parts: str | int) -> float:
    """A number in [0, 1) that depends on nothing but the parts: choices without a random state."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def write_documents(documents: Iterable[Document], directory: Path) -> None:
    """One file per split that has documents."""
    directory.mkdir(parents=True, exist_ok=True)
    by_split: dict[str, list[Document]] = {}
    for document in documents:
        by_split.setdefault(document.split, []).append(document)
    for split, members in by_split.items():
        with open(directory / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for document in sorted(members, key=lambda d: d.id):
                file.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")


def read_documents(directory: Path, split: str) -> Iterator[Document]:
    """The documents of a split; none where it has no file."""
    path = directory / f"{split}.jsonl"
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                yield Document(**record | {"aliases": tuple(record["aliases"])})
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path}, line {number}: not a document") from None


@dataclass
class Tally:
    """Counts of rejected records by source and reason."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, rejected: Rejected) -> None:
        key = rejected.source, rejected.reason
        self.counts[key] = self.counts.get(key, 0) + 1

    def rows(self) -> list[dict[str, str | int]]:
        return [{"source": source, "reason": reason, "records": n} for (source, reason), n in sorted(self.counts.items())]
