"""Deduplication over the whole corpus: boilerplate sentences, exact and near-duplicates, groups of alike documents. Numbers only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning.comparison import BANDS
from tasks.corpus.cleaning.corpus_index import CorpusIndex
from tasks.corpus.cleaning.passes import EXACT, KEPT, NEAR, NEAR_EVALUATION, SAME_ANSWER
from tasks.corpus.cleaning.shingles import Hashes
from tasks.corpus.documents import EVALUATION, SPLITS

# Whose copy stays where the same document is in several splits: evaluation stays whole.
_PRIORITY = np.array([3, 1, 0, 2, 4])
RANGES = 16  # of hashes, processed one after the other


def find_boilerplate(work: Path, min_documents: int) -> int:
    """Write the hashes of the sentences that are in at least ``min_documents`` documents; returns their number."""
    frequent = []
    for i in range(RANGES):
        keys = [k[k >> np.uint64(60) == i] for k in (np.load(p, mmap_mode="r") for p in sorted((work / "sentences").glob("[0-9]*.npy")))]
        values, counts = np.unique(np.concatenate(keys), return_counts=True)
        frequent.append(values[counts >= min_documents])
    boilerplate = np.concatenate(frequent)
    np.save(work / "boilerplate.npy", boilerplate)
    return len(boilerplate)


def near_duplicates(index: CorpusIndex, work: Path, threshold: float) -> npt.NDArray[np.int64]:
    """Pairs (P, 2) of documents whose MinHash signatures agree in at least ``threshold`` of their values, the smaller index first."""
    candidates = []
    for band in range(BANDS):
        keys = np.concatenate([np.load(work / "index" / f"{p:03d}.bands.npy", mmap_mode="r")[band] for p in index.partitions])
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        # Each of a run of equal keys is compared with the run's first.
        starts = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0)) if len(order) else order
        members = np.flatnonzero(starts != np.arange(len(order)))
        candidates.append(np.column_stack([order[starts[members]], order[members]]))
    pairs = np.unique(np.concatenate(candidates), axis=0) if candidates else np.zeros((0, 2), np.int64)
    alike = np.zeros(len(pairs), bool)
    signature = _signatures(index, work)
    for i, (one, other) in enumerate(pairs):
        alike[i] = np.mean(signature(int(one)) == signature(int(other))) >= threshold
    return pairs[alike]


def _signatures(index: CorpusIndex, work: Path) -> Callable[[int], npt.NDArray[np.uint32]]:
    """The signature of a document by its index; the files stay memory-mapped, as only a few of their rows are read."""
    maps = [np.load(work / "index" / f"{p:03d}.signature.npy", mmap_mode="r") for p in index.partitions]

    def row(document: int) -> npt.NDArray[np.uint32]:
        i = int(np.searchsorted(index.first, document, side="right")) - 1
        return maps[i][document - index.first[i]]

    return row


def merge_inferred_groups(index: CorpusIndex, pairs: npt.NDArray[np.int64]) -> Hashes:
    """The group of every document: its own, or where no record says it, one for all near-duplicates (a union-find over groups)."""
    inferred_pairs = pairs[index.inferred_group[pairs[:, 0]] & index.inferred_group[pairs[:, 1]]]
    parent: dict[int, int] = {}

    def root(group: int) -> int:
        while (above := parent.get(group, group)) != group:
            parent[group] = parent.get(above, above)
            group = above
        return group

    for one, other in index.group[inferred_pairs].tolist():
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    if not parent:
        return index.group
    values, inverse = np.unique(index.group, return_inverse=True)
    return np.array([root(int(v)) for v in values], np.uint64)[inverse]


def decide_dispositions(
    index: CorpusIndex, split: npt.NDArray[np.int8], pairs: npt.NDArray[np.int64], *, same_answer: int
) -> npt.NDArray[np.uint8]:
    """Which documents stay: of exact duplicates one, of equal answers ``same_answer`` per split, of near-duplicates one in training."""
    disposition = np.full(len(split), KEPT, np.uint8)
    _mark_exact_duplicates(disposition, index, split)
    _mark_repeated_answers(disposition, index, split, same_answer)
    _mark_near_duplicates(disposition, split, pairs)
    return disposition


def _mark_exact_duplicates(disposition: npt.NDArray[np.uint8], index: CorpusIndex, split: npt.NDArray[np.int8]) -> None:
    order = np.lexsort((np.arange(len(split)), _PRIORITY[split], index.pair))
    disposition[order[1:][index.pair[order[1:]] == index.pair[order[:-1]]]] = EXACT


def _mark_repeated_answers(disposition: npt.NDArray[np.uint8], index: CorpusIndex, split: npt.NDArray[np.int8], limit: int) -> None:
    kept = np.flatnonzero((disposition == KEPT) & (index.answer != 0))
    order = kept[np.lexsort((kept, split[kept], index.answer[kept]))]
    new = np.ones(len(order), bool)
    new[1:] = (index.answer[order[1:]] != index.answer[order[:-1]]) | (split[order[1:]] != split[order[:-1]])
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    disposition[order[rank >= limit]] = SAME_ANSWER


def _mark_near_duplicates(disposition: npt.NDArray[np.uint8], split: npt.NDArray[np.int8], pairs: npt.NDArray[np.int64]) -> None:
    evaluated = np.isin(split, [SPLITS.index(s) for s in EVALUATION])
    for one, other in pairs.tolist():
        if disposition[one] != KEPT or disposition[other] != KEPT:
            continue
        if evaluated[one] != evaluated[other]:
            disposition[other if evaluated[one] else one] = NEAR_EVALUATION
        elif not evaluated[one] and split[one] == split[other]:
            disposition[other] = NEAR
