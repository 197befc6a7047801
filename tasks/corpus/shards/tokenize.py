"""Documents to tokens with their loss masks, a partition at a time; unchanged partitions are read from ``.cache/tokens``."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import orjson

from model.tokenizer import vocabulary
from model.tokenizer.tokenizer import Segment, Tokenizer, render_segment
from tasks.corpus.documents import Document, from_json, partition_of
from tasks.corpus.shards.format import Entry, TokenizedDocument
from tasks.runtime.digests import code_digest

CACHE = Path(".cache/tokens")
# What decides which ids a text gets, beside the tokenizer's own files and the text.
_CODE = (Path(vocabulary.__file__).parent, Path(__file__).parent)


@dataclass(frozen=True)
class Stretch:
    """A part of a documents file: the lines of one partition."""

    path: Path
    start: int
    end: int


def partitions(paths: Sequence[Path]) -> dict[int, list[Stretch]]:
    """Where in these files, each sorted by id, the documents of each partition stand."""
    found: dict[int, list[Stretch]] = {}
    for path in paths:
        if not path.exists():
            continue
        with open(path, "rb") as file:
            start = 0
            for partition, lines in groupby(file, key=lambda line: _partition_of_line(line, path)):
                end = start + sum(map(len, lines))
                found.setdefault(partition, []).append(Stretch(path.absolute(), start, end))
                start = end
    return dict(sorted(found.items()))


def tokenize(base: Path, stretches: Sequence[Stretch], all_count: bool, cache: Path) -> str:
    """Tokenize the documents of a partition, in the order of their ids, unless ``cache`` has them: the name of the file there."""
    lines = b"".join(map(_read, stretches))
    tokenizer = _tokenizer(base)
    key = hashlib.sha256(f"{tokenizer.digest}{all_count}{_code_digest()}\n".encode() + lines).hexdigest()
    path = cache / f"{key[:40]}.npz"
    if path.exists():
        return path.name
    documents = sorted((from_json(orjson.loads(line)) for line in lines.splitlines()), key=lambda d: d.id)
    made = list(tokenized(documents, tokenizer, all_count=all_count))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        np.savez(
            file,
            tokens=np.concatenate([d.tokens for d in made]),
            loss=np.concatenate([d.loss for d in made]),
            starts=np.cumsum([0, *(len(d.tokens) for d in made)]),
            entries=np.frombuffer(b"\n".join(orjson.dumps([*d.entry]) for d in made), np.uint8),
        )
    partial.rename(path)
    return path.name


def load(path: Path) -> Iterator[TokenizedDocument]:
    """The documents that ``tokenize`` wrote."""
    with np.load(path, allow_pickle=False) as found:
        tokens, loss, starts = found["tokens"], found["loss"], found["starts"]
        entries = found["entries"].tobytes().split(b"\n")
    for number, entry in enumerate(entries):
        where = slice(starts[number], starts[number + 1])
        yield TokenizedDocument(Entry(*orjson.loads(entry)), tokens[where], loss[where])


def tokenized(documents: Sequence[Document], tokenizer: Tokenizer, *, all_count: bool) -> Iterator[TokenizedDocument]:
    """The documents' tokens with their loss masks: questions, answers and earlier turns through the chat template, running text
    between its borders.
    """
    texts: list[list[str | int]] = []  # of each document, control tokens as their ids
    counts: list[int] = []
    for document in documents:
        contents = document.texts()
        pieces = _pieces(tokenizer, document)
        texts.append([render_segment(piece, contents) if piece.control is None else piece.control for piece in pieces])
        counts += [int(piece.supervised or all_count) for piece in pieces]
    # What the template says stands in every document, and is encoded once.
    distinct = list({text: None for of_document in texts for text in of_document if isinstance(text, str)})
    known: dict[str | int, list[int]] = dict(zip(distinct, tokenizer.encode_batch(distinct), strict=True))
    ids = [known[text] if isinstance(text, str) else [text] for of_document in texts for text in of_document]
    tokens = np.fromiter(chain.from_iterable(ids), np.uint32)
    lengths = np.fromiter(map(len, ids), np.int64)
    loss = np.repeat(np.array(counts, np.uint8), lengths)
    borders = np.cumsum([0, *lengths])[np.cumsum([0, *map(len, texts)])]
    for document, start, end in zip(documents, borders, borders[1:], strict=False):
        entry = Entry(document.id, document.kind, document.source, len(document.answer.encode()))
        yield TokenizedDocument(entry, tokens[start:end], loss[start:end])


def _pieces(tokenizer: Tokenizer, document: Document) -> tuple[Segment, ...]:
    if not document.question:
        return tokenizer.plain_text_segments(len(document.texts()) - 1)
    return tokenizer.compile_chat_template((*(role for role, _ in document.before), "user", "assistant"))


def _partition_of_line(line: bytes, path: Path) -> int:
    # A line begins {"id": "0123…: asked of every line of a corpus, so not parsed.
    if not line.startswith(b'{"id": "'):
        raise ValueError(f"{path} holds a line that is no document; run 'dvc repro --force preprocess augment'")
    return partition_of(line[8:10].decode())


def _read(stretch: Stretch) -> bytes:
    with open(stretch.path, "rb") as file:
        file.seek(stretch.start)
        return file.read(stretch.end - stretch.start)


@lru_cache(maxsize=1)
def _tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.from_path(base)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    return code_digest(_CODE)
