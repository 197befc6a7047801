"""Documents packed into rows of equal length, and rows into batches.

    document numbers ── shuffled(seed, epoch) ──► windows ──► pieces ── best fit ──► (row, place after it) ──► Batch

A document longer than a row is split, not cut; a piece never crosses a row's border. What comes n-th depends on nothing but the
seed and the documents. A Place, three small numbers, is all the state that resuming needs: at most one window is packed again.
It knows nothing of models.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from tasks.corpus.shards.format import Split

WINDOW = 4096  # documents that are packed together
LOOPS, LOOPED = 1, 24  # of the draws of loops; tokens that come again, at least
SHORTEST_LOOP, LONGEST_LOOP = 2, 12  # tokens; from a word to a finding with its qualifiers
OPEN_ROWS = 32  # rows that pieces may still go into; with documents of 100 tokens and rows of 512 they end up 98 % full


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, stop) of a document; the first one only gives context, as nothing in its row precedes it."""

    document: int
    start: int
    stop: int


Row = list[Piece]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the endless sequence of rows to go on: rows of a window of an epoch that are done."""

    epoch: int = 0
    window: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # int64 [B, T]
    documents: Tensor  # int64 [B, T]: number of the piece in its row, -1 where padded
    supervised: Tensor  # bool [B, T]
    numbers: tuple[int, ...]  # the documents in it, by their number in the split

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.tokens.to(device), self.documents.to(device), self.supervised.to(device), self.numbers)


def pieces(numbers: Iterable[int], split: Split, seq_len: int) -> Iterator[Piece]:
    """The documents in pieces of at most ``seq_len``, overlapping by the one token that gives the next its context; without
    the pieces in which no token carries loss."""
    for number in numbers:
        loss, start = split.document(number)[1], 0
        while start + 1 < len(loss):
            stop = min(start + seq_len, len(loss))
            if loss[start + 1 : stop].any():
                yield Piece(number, start, stop)
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


def training_rows(split: Split, seq_len: int, *, seed: int, start: Place | None = None) -> Iterator[tuple[Row, Place]]:
    """Rows of one epoch after the other, each in an order of its own, without end; with each the place after it."""
    start = start or Place()
    for epoch in count(start.epoch):
        order = np.random.default_rng((seed, epoch)).permutation(len(split))
        windows = range(0, len(order), WINDOW)
        for window in range(start.window if epoch == start.epoch else 0, len(windows)):
            numbers = order[windows[window] : windows[window] + WINDOW].tolist()
            for row, made in enumerate(packed(pieces(numbers, split, seq_len), seq_len)):
                if (epoch, window) > (start.epoch, start.window) or row >= start.rows:
                    yield made, Place(epoch, window, row + 1)


def epoch_rows(split: Split, seq_len: int, *, seed: int, most: int) -> int:
    """How many rows the first epoch has, counted up to ``most``."""
    found = 0
    for _, place in training_rows(split, seq_len, seed=seed):
        if place.epoch or found == most:
            break
        found += 1
    return found


@dataclass(frozen=True)
class Fed:
    """What the first rows of training hold: documents by their number, of which a part counts; tokens, each once per epoch; tokens with
    loss; and the place after the last row."""

    documents: frozenset[int]
    tokens: int
    supervised: int
    place: Place


def fed(split: Split, seq_len: int, *, seed: int, rows: Sequence[int]) -> list[Fed]:
    """What the first so many rows hold, for each of these numbers of rows: packed once more, as nothing but the seed decides it."""
    found: dict[int, Fed] = {0: Fed(frozenset(), 0, 0, Place())}
    documents: set[int] = set()
    tokens = supervised = 0
    for number, (row, place) in enumerate(islice(training_rows(split, seq_len, seed=seed), max(rows)), 1):
        documents.update(piece.document for piece in row)
        tokens += sum(map(_new_tokens, row))
        supervised += supervised_in([row], split)
        if number in rows:
            found[number] = Fed(frozenset(documents), tokens, supervised, place)
    return [found[number] for number in rows]


def epoch_tokens(split: Split, seq_len: int) -> int:
    """The tokens of one epoch: of all documents but those, and those pieces of long ones, that have no loss."""
    lengths, counted = split.lengths(), split.supervised() > 0
    long = np.flatnonzero(counted & (lengths > seq_len)).tolist()
    return int(lengths[counted & (lengths <= seq_len)].sum()) + sum(map(_new_tokens, pieces(long, split, seq_len)))


def _new_tokens(piece: Piece) -> int:
    """The piece's tokens, without the one that the piece before it holds already."""
    return piece.stop - piece.start - bool(piece.start)


def supervised_in(rows: Iterable[Row], split: Split) -> int:
    """Tokens with loss in these rows, on which ``stacked`` puts it."""
    return sum(int(split.document(p.document)[1][p.start + 1 : p.stop].sum()) for row in rows for p in row)


def stacked(rows: Sequence[Row], split: Split, seq_len: int) -> Batch:
    """The rows as tensors; an empty row is all padding."""
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


def looped(rows: Iterable[Row], split: Split, width: int, *, seed: int, step: int) -> Batch:
    """One row of beginnings of these rows' answers, in each of which a few tokens come again and again, as in the loops that a model gets
    caught in; ``supervised`` marks what came again. What is drawn depends on nothing but the seed and the step.
    """
    random = np.random.default_rng((seed, step, LOOPS))
    tokens, documents = np.zeros((1, width), np.int64), np.full((1, width), -1, np.int64)
    again = np.zeros((1, width), bool)
    numbers: list[int] = []
    at = 0
    for piece in (piece for row in rows for piece in row):
        ids, loss = (part[piece.start : piece.stop] for part in split.document(piece.document))
        answer = np.flatnonzero(loss[1:])[:-1] + 1  # without the token that ends it
        answer = answer[answer < width - at - LOOPED - LONGEST_LOOP]  # what there is room for
        if len(answer) <= SHORTEST_LOOP:
            continue
        size = int(random.integers(SHORTEST_LOOP, min(LONGEST_LOOP, len(answer)) + 1))
        end = int(answer[random.integers(size - 1, len(answer))]) + 1
        made = np.concatenate([ids[:end], *[ids[end - size : end]] * -(-LOOPED // size)])
        tokens[0, at : at + len(made)] = made
        documents[0, at : at + len(made)] = len(numbers)
        again[0, at + end : at + len(made)] = True
        numbers.append(piece.document)
        at += len(made)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(documents), torch.from_numpy(again), tuple(numbers))


def sample(split: Split, *, seed: int, supervised: int, seq_len: int) -> list[Row]:
    """Rows of documents drawn without replacement until they hold ``supervised`` tokens with loss (0: all of the split)."""
    chosen, total = [], 0
    for number in np.random.default_rng(seed).permutation(len(split)):
        if supervised and total >= supervised:
            break
        chosen.append(int(number))
        total += int(split.document(int(number))[1].sum())
    return list(packed(pieces(chosen, split, seq_len), seq_len))
