"""Documents packed into rows of equal length, and rows into batches.

    document numbers ── shuffled(seed, epoch) ──► pieces ── best fit ──► rows ── stacked ──► Batch

A document longer than a row is split, not cut; a piece never crosses a row's border. What comes n-th depends on nothing but the
seed and the lengths, so "rows consumed" is all the state that resuming needs. It knows nothing of models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.tokenfile import Split

OPEN_ROWS = 32  # rows that pieces may still go into; with documents of 100 tokens and rows of 512 they end up 98 % full


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, stop) of a document; the first one only gives context, as nothing in its row precedes it."""

    document: int
    start: int
    stop: int


Row = list[Piece]


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # int64 [B, T]
    documents: Tensor  # int64 [B, T]: number of the piece in its row, -1 where padded
    supervised: Tensor  # bool [B, T]
    numbers: tuple[int, ...]  # the documents in it, by their number in the split

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.tokens.to(device), self.documents.to(device), self.supervised.to(device), self.numbers)


def pieces(numbers: Sequence[int], lengths: npt.NDArray[np.int64], seq_len: int) -> Iterator[Piece]:
    """The documents in pieces of at most ``seq_len``, overlapping by the one token that gives the next its context."""
    for number in numbers:
        length, start = int(lengths[number]), 0
        while start + 1 < length:
            yield Piece(number, start, min(start + seq_len, length))
            start += seq_len - 1


def packed(parts: Iterator[Piece], seq_len: int) -> Iterator[Row]:
    """Rows of pieces: each piece goes where it leaves the least room; the fullest row leaves when too many are open."""
    rows: list[Row] = []
    room: list[int] = []
    for piece in parts:
        size = piece.stop - piece.start
        fitting = [i for i, free in enumerate(room) if free >= size]
        if fitting:
            at = min(fitting, key=room.__getitem__)
        else:
            if len(rows) == OPEN_ROWS:
                fullest = min(range(len(rows)), key=room.__getitem__)
                room.pop(fullest)
                yield rows.pop(fullest)
            at = len(rows)
            rows.append([])
            room.append(seq_len)
        rows[at].append(piece)
        room[at] -= size
    yield from rows


def training_rows(lengths: npt.NDArray[np.int64], seq_len: int, *, seed: int) -> Iterator[Row]:
    """Rows of one epoch after the other, each in an order of its own, without end."""
    for epoch in count():
        order = np.random.default_rng((seed, epoch)).permutation(len(lengths))
        yield from packed(pieces([int(n) for n in order], lengths, seq_len), seq_len)


def batches(rows: Iterator[Row], split: Split, seq_len: int, size: int) -> Iterator[Batch]:
    """The rows, ``size`` at a time."""
    while chunk := list(islice(rows, size)):
        yield stacked(chunk, split, seq_len)


def stacked(rows: Sequence[Row], split: Split, seq_len: int) -> Batch:
    tokens = np.zeros((len(rows), seq_len), np.int64)
    documents = np.full((len(rows), seq_len), -1, np.int64)
    supervised = np.zeros((len(rows), seq_len), bool)
    for b, row in enumerate(rows):
        at = 0
        for number, piece in enumerate(row):
            ids, loss = split.document(piece.document)
            end = at + piece.stop - piece.start
            tokens[b, at:end] = ids[piece.start : piece.stop]
            documents[b, at:end] = number
            supervised[b, at + 1 : end] = loss[piece.start + 1 : piece.stop]
            at = end
    numbers = tuple(piece.document for row in rows for piece in row)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(documents), torch.from_numpy(supervised), numbers)


def sample(split: Split, *, seed: int, supervised: int, seq_len: int) -> list[Row]:
    """Rows of documents drawn without replacement until they hold ``supervised`` tokens with loss (0: all of the split)."""
    chosen, total = [], 0
    for number in np.random.default_rng(seed).permutation(len(split)):
        if supervised and total >= supervised:
            break
        chosen.append(int(number))
        total += int(split.document(int(number))[1].sum())
    return list(packed(pieces(chosen, split.lengths(), seq_len), seq_len))
