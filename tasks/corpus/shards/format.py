"""The shard format: token files and the files that belong to them, writing and reading.

``<split>_<nnnnn>.bin`` is a header of 256 int32 (magic, version, token count) and the tokens as uint32, little-endian: the
format of llm.c's successors for vocabularies beyond 16 bits. To each belong ``.loss.npy`` (uint8 per token: 1 where it carries
loss), ``.starts.npy`` (int64, the first token of each document and the end) and ``.documents.jsonl`` (id, category and source of
each). ``index.json`` lists them all with sizes and SHA-256, and the tokenizer's digest.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.runtime.digests import sha256
from tasks.runtime.files import write_whole

MAGIC, VERSION, HEADER = 20240801, 7, 256
INDEX = "index.json"


class Entry(NamedTuple):
    """What a shard says of a document besides its tokens."""

    id: str
    category: str
    source: str
    bytes: int  # UTF-8 bytes of its supervised text


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """The T tokens of a document and its loss mask (T,), 1 where a token carries loss."""

    entry: Entry
    tokens: npt.NDArray[np.uint32]
    loss: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shard:
    """A shard as written: its name without ending, and counts."""

    name: str
    tokens: int
    supervised: int
    documents: int
    sha256: dict[str, str]


def write_shards(split: str, documents: Iterable[TokenizedDocument], directory: Path, *, max_tokens: int) -> list[Shard]:
    """Write documents in their order into shards of at most ``max_tokens`` (a longer document gets a shard of its own).

    Only one document is in memory at a time.
    """
    shards: list[Shard] = []
    writer: _Writer | None = None
    for document in documents:
        if writer and writer.tokens + len(document.tokens) > max_tokens:
            shards.append(writer.close())
            writer = None
        writer = writer or _Writer(directory, f"{split}_{len(shards):05d}")
        writer.add(document)
    return [*shards, writer.close()] if writer else shards


class _Writer:
    """One shard that is being written: its files grow, their headers are written when it is closed."""

    def __init__(self, directory: Path, name: str):
        self._stem, self._name = directory / name, name
        self.tokens = self._supervised = 0
        self._starts = [0]
        self._bin = open(f"{self._stem}.bin", "wb")  # noqa: SIM115 - closed by close
        self._loss = open(f"{self._stem}.loss.partial", "w+b")  # noqa: SIM115
        self._lines = open(f"{self._stem}.documents.jsonl", "w", encoding="utf-8")  # noqa: SIM115
        self._bin.write(bytes(4 * HEADER))

    def add(self, document: TokenizedDocument) -> None:
        self._bin.write(np.ascontiguousarray(document.tokens, "<u4").data)
        self._loss.write(np.ascontiguousarray(document.loss, np.uint8).data)
        self._lines.write(json.dumps(document.entry._asdict(), ensure_ascii=False) + "\n")
        self.tokens += len(document.tokens)
        self._supervised += int(np.count_nonzero(document.loss))
        self._starts.append(self.tokens)

    def close(self) -> Shard:
        header = np.zeros(HEADER, dtype="<i4")
        header[:3] = MAGIC, VERSION, self.tokens
        self._bin.seek(0)
        self._bin.write(header.tobytes())
        with open(f"{self._stem}.loss.npy", "wb") as file:
            shape = {"descr": "|u1", "fortran_order": False, "shape": (self.tokens,)}
            np.lib.format.write_array_header_1_0(file, shape)
            self._loss.seek(0)
            shutil.copyfileobj(self._loss, file)
        np.save(f"{self._stem}.starts.npy", np.array(self._starts, np.int64))
        for growing in (self._bin, self._loss, self._lines):
            growing.close()
        Path(self._loss.name).unlink()
        sums = {ending: sha256(Path(f"{self._stem}.{ending}")) for ending in ("bin", "loss.npy", "starts.npy", "documents.jsonl")}
        return Shard(self._name, self.tokens, self._supervised, len(self._starts) - 1, sums)


def write_index(directory: Path, splits: dict[str, list[Shard]], *, tokenizer: str, vocabulary: int) -> None:
    """Write ``index.json``; ``tokenizer`` is the digest of the tokenizer, ``vocabulary`` the number of its ids."""
    index = {"tokenizer": tokenizer, "vocabulary": vocabulary, "splits": {s: [asdict(x) for x in shards] for s, shards in splits.items()}}
    write_whole(directory / INDEX, index)


@dataclass(frozen=True)
class Split:
    """A split's documents over memory-mapped shards, numbered across them."""

    tokens: list[npt.NDArray[np.uint32]]
    loss: list[npt.NDArray[np.uint8]]
    starts: list[npt.NDArray[np.int64]]
    entries: list[Entry]
    first: npt.NDArray[np.int64]  # index of each shard's first document, and the count

    def __len__(self) -> int:
        return len(self.entries)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per document."""
        return np.concatenate([np.diff(s) for s in self.starts]) if self.starts else np.zeros(0, np.int64)

    def supervised(self) -> npt.NDArray[np.int64]:
        """Tokens with loss per document."""
        sums = [np.add.reduceat(loss, s[:-1], dtype=np.int64) for loss, s in zip(self.loss, self.starts, strict=True)]
        return np.concatenate(sums) if sums else np.zeros(0, np.int64)

    def document(self, index: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """Tokens (T,) and loss mask (T,) of a document."""
        shard, row = self.locate(index)
        span = slice(self.starts[shard][row], self.starts[shard][row + 1])
        return self.tokens[shard][span], self.loss[shard][span]

    def locate(self, index: int) -> tuple[int, int]:
        """The shard that a document is in, and its row there."""
        shard = int(np.searchsorted(self.first, index, side="right")) - 1
        return shard, index - int(self.first[shard])


class Shards:
    """The shards of a directory, whose index is read once."""

    def __init__(self, directory: Path):
        """``ValueError`` where ``index.json`` is missing or damaged."""
        self.directory = directory
        try:
            index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
            self.tokenizer: str = index["tokenizer"]  # digest
            self.vocabulary: int = index["vocabulary"]
            self.splits: dict[str, list[dict[str, Any]]] = index["splits"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory / INDEX} cannot be read ({error}); run 'dvc repro shard'") from None

    def open(self, split: str) -> Split:
        """Map a split's shards, none for a split without documents; ``ValueError`` where their files do not fit each other."""
        return _map(self.directory, self.splits.get(split, []))


def open_split(directory: Path, split: str) -> Split:
    """One split of a directory; where several are needed, ``Shards`` reads the index once."""
    return Shards(directory).open(split)


def _map(directory: Path, shards: list[dict[str, Any]]) -> Split:
    """Every header, length and document border is checked before a token is read."""
    tokens, loss, starts, entries, counts = [], [], [], [], [0]
    for shard in shards:
        stem = directory / shard["name"]
        tokens.append(read_tokens(Path(f"{stem}.bin")))
        try:
            loss.append(np.load(f"{stem}.loss.npy", mmap_mode="r", allow_pickle=False))
            starts.append(np.load(f"{stem}.starts.npy", allow_pickle=False))
            lines = Path(f"{stem}.documents.jsonl").read_text(encoding="utf-8").splitlines()
            entries += [Entry(**json.loads(line)) for line in lines]
        except (OSError, ValueError) as error:
            raise ValueError(f"{stem}: {error}") from None
        except TypeError:
            raise ValueError(f"{stem}.documents.jsonl is of another version of this format; run 'dvc repro shard'") from None
        if len(loss[-1]) != len(tokens[-1]) or starts[-1][-1] != len(tokens[-1]) or len(starts[-1]) != len(lines) + 1:
            raise ValueError(f"{stem}: the files that belong to {stem.name}.bin do not fit it; run 'dvc repro --force shard'")
        counts.append(len(lines))
    return Split(tokens, loss, starts, entries, np.cumsum(counts))


def read_tokens(path: Path) -> npt.NDArray[np.uint32]:
    """The tokens of a ``.bin`` file, memory-mapped; a header that does not fit the file's size is refused."""
    try:
        size = path.stat().st_size
        header = np.fromfile(path, dtype="<i4", count=HEADER)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(header) < HEADER or header[0] != MAGIC or header[1] != VERSION:
        raise ValueError(f"{path} is not a token file (magic {MAGIC}, version {VERSION})")
    if header[2] < 1 or size != 4 * (HEADER + int(header[2])):
        raise ValueError(f"{path}: the header promises {header[2]} tokens, the file's size does not fit that")
    return np.memmap(path, dtype="<u4", mode="r", offset=4 * HEADER)
