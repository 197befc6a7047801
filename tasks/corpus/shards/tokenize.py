"""Documents to tokens with their loss masks, a partition at a time; unchanged partitions are read from ``.cache/tokens``."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import orjson

from model.tokenizer import vocabulary
from model.tokenizer.segments import Segment, render_segment
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document, from_json, partition_of
from tasks.corpus.shards.format import Entry, TokenizedDocument
from tasks.runtime.digests import code_digest
from tasks.runtime.files import whole

CACHE = Path(".cache/tokens")
THOUGHT_END = "</think>"  # in templates of all models that think
# What decides which ids a text gets, beside the tokenizer's own files and the text.
_CODE = (Path(vocabulary.__file__).parent, Path(__file__).parent)


@dataclass(frozen=True)
class ByteRange:
    """A part of a documents file, the bytes from ``start`` to ``end``: the lines of one partition."""

    path: Path
    start: int
    end: int


def partitions(paths: Sequence[Path]) -> dict[int, list[ByteRange]]:
    """The byte ranges of each partition in these files, each of which is sorted by id."""
    ranges: dict[int, list[ByteRange]] = {}
    for path in paths:
        if not path.exists():
            continue
        with open(path, "rb") as file:
            start = 0
            for partition, lines in groupby(file, key=lambda line: _partition_of_line(line, path)):
                end = start + sum(map(len, lines))
                ranges.setdefault(partition, []).append(ByteRange(path.absolute(), start, end))
                start = end
    return dict(sorted(ranges.items()))


def tokenize(base: Path, ranges: Sequence[ByteRange], loss_on_all: bool, cache: Path) -> str:
    """Tokenize the documents of a partition, in the order of their ids, unless ``cache`` has them; returns the file's name there."""
    lines = b"".join(map(_read, ranges))
    tokenizer = _tokenizer(base)
    key = hashlib.sha256(f"{tokenizer.digest}{loss_on_all}{_code_digest()}\n".encode() + lines).hexdigest()
    path = cache / f"{key[:40]}.npz"
    if path.exists():
        return path.name
    documents = sorted((from_json(orjson.loads(line)) for line in lines.splitlines()), key=lambda d: d.id)
    encoded = list(tokenized(documents, tokenizer, loss_on_all=loss_on_all))
    with whole(path, unique=True) as partial, open(partial, "wb") as file:
        np.savez(
            file,
            tokens=np.concatenate([d.tokens for d in encoded]),
            loss=np.concatenate([d.loss for d in encoded]),
            starts=np.cumsum([0, *(len(d.tokens) for d in encoded)]),
            entries=np.frombuffer(b"\n".join(orjson.dumps([*d.entry]) for d in encoded), np.uint8),
        )
    return path.name


def load(path: Path) -> Iterator[TokenizedDocument]:
    """The documents that ``tokenize`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        tokens, loss, starts = arrays["tokens"], arrays["loss"], arrays["starts"]
        entries = arrays["entries"].tobytes().split(b"\n")
    for i, entry in enumerate(entries):
        span = slice(starts[i], starts[i + 1])
        yield TokenizedDocument(Entry(*orjson.loads(entry)), tokens[span], loss[span])


def tokenized(documents: Sequence[Document], tokenizer: Tokenizer, *, loss_on_all: bool) -> Iterator[TokenizedDocument]:
    """The documents' tokens with their loss masks: questions, answers and earlier turns through the chat template, plain text
    between its borders.
    """
    texts: list[list[str | int]] = []  # of each document, control tokens as their ids
    counts: list[int] = []
    for document in documents:
        contents = document.texts()
        _check_thoughts(contents, document, tokenizer)
        pieces = _pieces(tokenizer, document)
        texts.append([render_segment(piece, contents) if piece.control is None else piece.control for piece in pieces])
        counts += [int(piece.supervised or loss_on_all) for piece in pieces]
    # The text of the template is in every document, and is encoded once.
    distinct = list({text: None for of_document in texts for text in of_document if isinstance(text, str)})
    ids_of: dict[str | int, list[int]] = dict(zip(distinct, tokenizer.encode_batch(distinct), strict=True))
    ids = [ids_of[text] if isinstance(text, str) else [text] for of_document in texts for text in of_document]
    tokens = np.fromiter(chain.from_iterable(ids), np.uint32)
    lengths = np.fromiter(map(len, ids), np.int64)
    loss = np.repeat(np.array(counts, np.uint8), lengths)
    borders = np.cumsum([0, *lengths])[np.cumsum([0, *map(len, texts)])]
    for document, start, end in zip(documents, borders, borders[1:], strict=False):
        entry = Entry(document.id, document.category, document.source, len(document.answer.encode()))
        yield TokenizedDocument(entry, tokens[start:end], loss[start:end])


def _check_thoughts(contents: Sequence[str], document: Document, tokenizer: Tokenizer) -> None:
    """Templates that know thoughts rewrite them, which a template that was rendered without the contents cannot."""
    if THOUGHT_END in (tokenizer.template or "") and any(THOUGHT_END in content for content in contents):
        raise ValueError(
            f"document {document.id} holds {THOUGHT_END}, which the base model's chat template rewrites; take the thoughts out of the "
            "text, or set base.chat_template in params.yaml to 'chatml'"
        )


def _pieces(tokenizer: Tokenizer, document: Document) -> tuple[Segment, ...]:
    if not document.question:
        return tokenizer.plain_text_segments(len(document.texts()) - 1)
    return tokenizer.compile_chat_template((*(role for role, _ in document.before), "user", "assistant"))


def _partition_of_line(line: bytes, path: Path) -> int:
    # A line begins {"id": "0123…. This runs for every line of a corpus, so it does not parse JSON.
    if not line.startswith(b'{"id": "'):
        raise ValueError(f"{path} holds a line that is no document; run 'dvc repro --force preprocess augment'")
    return partition_of(line[8:10].decode())


def _read(part: ByteRange) -> bytes:
    with open(part.path, "rb") as file:
        file.seek(part.start)
        return file.read(part.end - part.start)


@lru_cache(maxsize=1)
def _tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.from_path(base)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    return code_digest(_CODE)
