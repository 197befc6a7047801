"""Documents packed into rows of equal length, and rows into batches.

    document indices ── shuffled(seed, epoch) ──► windows ──► segments ── best fit ──► (row, state after it) ──► Batch

A document longer than a row is split, not cut; a segment never crosses a row's border. The n-th row depends on nothing but the seed
and the documents. A LoaderState, three small numbers, is all that resuming needs: at most one window is packed again.
It knows nothing of models.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.attention import PackedSequences, packed_sequences
from model.loss import target_positions
from tasks.corpus.shards.format import Split

WINDOW = 4096  # documents that are packed together
LOOP_STREAM = 1  # of the random numbers of loops, so that they differ from others of the same seed
MIN_REPEATED = 24  # tokens of a loop after its first round
MIN_LOOP, MAX_LOOP = 2, 12  # tokens; from a word to a finding with its qualifiers
OPEN_ROWS = 32  # rows that segments may still go into; with documents of 100 tokens and rows of 512 they end up 98 % full


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, stop) of a document; the first one only gives context, as nothing in its row precedes it."""

    document: int
    start: int
    stop: int


PackedRow = list[Segment]


@dataclass(frozen=True, slots=True)
class LoaderState:
    """The position in the endless sequence of rows: the rows of a window of an epoch that are done."""

    epoch: int = 0
    window: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows as tensors: B rows of T tokens."""

    tokens: Tensor  # int64 [B, T]
    packed: PackedSequences  # its segments
    targets: Tensor  # int64 [N]: the tokens with loss, as positions in the flattened rows
    document_indices: tuple[int, ...]  # of the segments, row by row

    @classmethod
    def of(
        cls, tokens_BT: NDArray[np.int64], segment_ids_BT: NDArray[np.int64], loss_mask_BT: NDArray[np.bool_], indices: Iterable[int]
    ) -> "Batch":
        """From arrays; ``segment_ids_BT``: index of the segment in its row, -1 where padded."""
        packed, targets = packed_sequences(torch.from_numpy(segment_ids_BT)), target_positions(torch.from_numpy(loss_mask_BT))
        return cls(torch.from_numpy(tokens_BT), packed, targets, tuple(indices))

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device, which need not have finished what it does."""
        if device.type == "cpu":
            return self
        tokens, targets = (x.pin_memory().to(device, non_blocking=True) for x in (self.tokens, self.targets))
        return replace(self, tokens=tokens, targets=targets, packed=self.packed.to(device))


def segments(indices: Iterable[int], split: Split, seq_len: int) -> Iterator[Segment]:
    """The documents in segments of at most ``seq_len`` tokens, overlapping by the one token that gives the next its context.

    Segments without a token that carries loss are left out.
    """
    for index in indices:
        loss, start = split.document(index)[1], 0
        while start + 1 < len(loss):
            stop = min(start + seq_len, len(loss))
            if loss[start + 1 : stop].any():
                yield Segment(index, start, stop)
            start += seq_len - 1


def pack(parts: Iterator[Segment], seq_len: int) -> Iterator[PackedRow]:
    """Rows of segments by best fit: each segment goes where it leaves the least room.

    With ``OPEN_ROWS`` open and none that fits, the fullest row is done.
    """
    rows: list[PackedRow] = []
    room: list[int] = []
    for segment in parts:
        size = segment.stop - segment.start
        with_room = [i for i, free in enumerate(room) if free >= size]
        if with_room:
            chosen = min(with_room, key=room.__getitem__)
        else:
            if len(rows) == OPEN_ROWS:
                fullest = min(range(len(rows)), key=room.__getitem__)
                room.pop(fullest)
                yield rows.pop(fullest)
            chosen = len(rows)
            rows.append([])
            room.append(seq_len)
        rows[chosen].append(segment)
        room[chosen] -= size
    yield from rows


def training_rows(split: Split, seq_len: int, *, seed: int, start: LoaderState | None = None) -> Iterator[tuple[PackedRow, LoaderState]]:
    """Rows without end, one epoch after the other, each in its own order; with each the state after it."""
    start = start or LoaderState()
    for epoch in count(start.epoch):
        order = np.random.default_rng((seed, epoch)).permutation(len(split))
        windows = range(0, len(order), WINDOW)
        for window in range(start.window if epoch == start.epoch else 0, len(windows)):
            indices = order[windows[window] : windows[window] + WINDOW].tolist()
            for done, row in enumerate(pack(segments(indices, split, seq_len), seq_len)):
                if (epoch, window) > (start.epoch, start.window) or done >= start.rows:
                    yield row, LoaderState(epoch, window, done + 1)


def epoch_rows(split: Split, seq_len: int, *, seed: int, limit: int) -> int:
    """The rows of the first epoch, counted up to ``limit``."""
    rows = 0
    for _, state in training_rows(split, seq_len, seed=seed):
        if state.epoch or rows == limit:
            break
        rows += 1
    return rows


@dataclass(frozen=True)
class Consumed:
    """What the first rows of training contain."""

    documents: frozenset[int]  # by index; a part of one counts
    tokens: int  # each once per epoch
    supervised: int  # tokens with loss
    loader: LoaderState  # after the last row


def consumed(split: Split, seq_len: int, *, seed: int, rows: Sequence[int]) -> list[Consumed]:
    """What the first n rows contain, for each n in ``rows``; they are packed again, as nothing but the seed decides them."""
    by_count: dict[int, Consumed] = {0: Consumed(frozenset(), 0, 0, LoaderState())}
    documents: set[int] = set()
    tokens = supervised = 0
    for done, (row, state) in enumerate(islice(training_rows(split, seq_len, seed=seed), max(rows)), 1):
        documents.update(segment.document for segment in row)
        tokens += sum(map(_new_tokens, row))
        supervised += count_supervised([row], split)
        if done in rows:
            by_count[done] = Consumed(frozenset(documents), tokens, supervised, state)
    return [by_count[n] for n in rows]


def epoch_tokens(split: Split, seq_len: int) -> int:
    """The tokens of one epoch: of all documents except those, and those segments of long ones, without loss."""
    lengths, counted = split.lengths(), split.supervised() > 0
    long = np.flatnonzero(counted & (lengths > seq_len)).tolist()
    return int(lengths[counted & (lengths <= seq_len)].sum()) + sum(map(_new_tokens, segments(long, split, seq_len)))


def _new_tokens(segment: Segment) -> int:
    """The segment's tokens, without the one that the segment before it has already."""
    return segment.stop - segment.start - bool(segment.start)


def count_supervised(rows: Iterable[PackedRow], split: Split) -> int:
    """Tokens with loss in these rows, as in the ``targets`` of ``collate``."""
    return sum(int(split.document(s.document)[1][s.start + 1 : s.stop].sum()) for row in rows for s in row)


def collate(rows: Sequence[PackedRow], split: Split, seq_len: int) -> Batch:
    """The rows as tensors [len(rows), seq_len]; an empty row is all padding."""
    tokens = np.zeros((len(rows), seq_len), np.int64)
    segment_ids = np.full((len(rows), seq_len), -1, np.int64)
    loss_mask = np.zeros((len(rows), seq_len), bool)
    for b, row in enumerate(rows):
        start = 0
        for segment_id, segment in enumerate(row):
            ids, loss = split.document(segment.document)
            end = start + segment.stop - segment.start
            tokens[b, start:end] = ids[segment.start : segment.stop]
            segment_ids[b, start:end] = segment_id
            loss_mask[b, start + 1 : end] = loss[segment.start + 1 : segment.stop]
            start = end
    return Batch.of(tokens, segment_ids, loss_mask, (segment.document for row in rows for segment in row))


def loop_batch(rows: Iterable[PackedRow], split: Split, width: int, *, seed: int, step: int) -> Batch:
    """One row [1, width] of prefixes of these rows' answers, each ending in a few tokens that repeat, like the loops of a model.

    ``targets`` are the repetitions. Nothing but the seed and the step decides what is sampled.
    """
    random = np.random.default_rng((seed, step, LOOP_STREAM))
    tokens, segment_ids = np.zeros((1, width), np.int64), np.full((1, width), -1, np.int64)
    repeated = np.zeros((1, width), bool)
    indices: list[int] = []
    start = 0
    for segment in (segment for row in rows for segment in row):
        ids, loss = (part[segment.start : segment.stop] for part in split.document(segment.document))
        answer = np.flatnonzero(loss[1:])[:-1] + 1  # without the token that ends it
        answer = answer[answer < width - start - MIN_REPEATED - MAX_LOOP]  # what there is room for
        if len(answer) <= MIN_LOOP:
            continue
        size = int(random.integers(MIN_LOOP, min(MAX_LOOP, len(answer)) + 1))
        end = int(answer[random.integers(size - 1, len(answer))]) + 1
        text = np.concatenate([ids[:end], *[ids[end - size : end]] * -(-MIN_REPEATED // size)])
        tokens[0, start : start + len(text)] = text
        segment_ids[0, start : start + len(text)] = len(indices)
        repeated[0, start + end : start + len(text)] = True
        indices.append(segment.document)
        start += len(text)
    return Batch.of(tokens, segment_ids, repeated, indices)


def sample(split: Split, *, seed: int, supervised: int, seq_len: int) -> list[PackedRow]:
    """Rows of documents sampled without replacement until they hold ``supervised`` tokens with loss (0: all of the split)."""
    chosen, total = [], 0
    for index in np.random.default_rng(seed).permutation(len(split)):
        if supervised and total >= supervised:
            break
        chosen.append(int(index))
        total += int(split.document(int(index))[1].sum())
    return list(pack(segments(chosen, split, seq_len), seq_len))
