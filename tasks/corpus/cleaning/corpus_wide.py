"""What is decided on the whole corpus, between the passes: boilerplate, duplicates, groups, splits, leakage. Numbers only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning.passes import BANDS, EXACT, KEPT, NEAR, NEAR_EVALUATION, SAME_ANSWER
from tasks.corpus.cleaning.shingles import Hashes
from tasks.corpus.documents import EVALUATION, SPLITS

TRAIN = SPLITS.index("train")
# Whose copy stays where the same document stands in several splits: evaluation stays whole.
_PRIORITY = np.array([3, 1, 0, 2, 4])
RANGES = 16  # of hashes, looked at one after the other


def find_boilerplate(work: Path, min_documents: int) -> int:
    """Write the hashes of the sentences that stand in so many documents; how many they are."""
    found = []
    for part in range(RANGES):
        keys = [k[k >> np.uint64(60) == part] for k in (np.load(p, mmap_mode="r") for p in sorted((work / "sentences").glob("[0-9]*.npy")))]
        values, counts = np.unique(np.concatenate(keys), return_counts=True)
        found.append(values[counts >= min_documents])
    boilerplate = np.concatenate(found)
    np.save(work / "boilerplate.npy", boilerplate)
    return len(boilerplate)


@dataclass(frozen=True)
class Index:
    """What is known of every document, in the order of their ids, a number each."""

    partitions: list[int]  # those that have documents
    first: npt.NDArray[np.int64]  # number of each one's first document, and the count of all
    group: Hashes
    weak: npt.NDArray[np.bool_]
    pair: Hashes
    answer: Hashes
    split: npt.NDArray[np.int8]  # as given, one more than its place in SPLITS; 0: not given


def open_index(work: Path) -> Index:
    partitions = sorted(int(path.name[:3]) for path in (work / "index").glob("[0-9]*.split.npy"))

    def column(name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate([np.load(work / "index" / f"{p:03d}.{name}.npy").astype(kind) for p in partitions])

    sizes = [len(np.load(work / "index" / f"{p:03d}.split.npy", mmap_mode="r")) for p in partitions]
    return Index(
        partitions,
        np.cumsum([0, *sizes]),
        column("group", np.uint64),
        column("weak", np.bool_),
        column("pair", np.uint64),
        column("answer", np.uint64),
        column("split", np.int8),
    )


def near_pairs(index: Index, work: Path, threshold: float) -> npt.NDArray[np.int64]:
    """Pairs of documents whose signatures are alike in ``threshold`` of their places, the smaller number first."""
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


def _signatures(index: Index, work: Path) -> Callable[[int], npt.NDArray[np.uint32]]:
    # Read, not mapped: only a few rows of a file that may be large are looked at.
    maps = [np.load(work / "index" / f"{p:03d}.signature.npy", mmap_mode="r") for p in index.partitions]

    def row(number: int) -> npt.NDArray[np.uint32]:
        place = int(np.searchsorted(index.first, number, side="right")) - 1
        return maps[place][number - index.first[place]]

    return row


def regroup(index: Index, pairs: npt.NDArray[np.int64]) -> Hashes:
    """The group of every document: its own, or where nothing said it, one for all that are alike."""
    weak_pairs = pairs[index.weak[pairs[:, 0]] & index.weak[pairs[:, 1]]]
    parent: dict[int, int] = {}

    def root(group: int) -> int:
        while (above := parent.get(group, group)) != group:
            parent[group] = parent.get(above, above)
            group = above
        return group

    for one, other in index.group[weak_pairs].tolist():
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    if not parent:
        return index.group
    values, places = np.unique(index.group, return_inverse=True)
    return np.array([root(int(v)) for v in values], np.uint64)[places]


def decide_fates(index: Index, split: npt.NDArray[np.int8], pairs: npt.NDArray[np.int64], *, same_answer: int) -> npt.NDArray[np.uint8]:
    """Which documents stay: of exact duplicates one, of equal answers so many per split, of near-duplicates one in training."""
    fate = np.full(len(split), KEPT, np.uint8)
    order = np.lexsort((np.arange(len(split)), _PRIORITY[split], index.pair))
    fate[order[1:][index.pair[order[1:]] == index.pair[order[:-1]]]] = EXACT

    kept = np.flatnonzero((fate == KEPT) & (index.answer != 0))
    order = kept[np.lexsort((kept, split[kept], index.answer[kept]))]
    new = np.ones(len(order), bool)
    new[1:] = (index.answer[order[1:]] != index.answer[order[:-1]]) | (split[order[1:]] != split[order[:-1]])
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    fate[order[rank >= same_answer]] = SAME_ANSWER

    evaluated = np.isin(split, [SPLITS.index(s) for s in EVALUATION])
    for one, other in pairs.tolist():
        if fate[one] != KEPT or fate[other] != KEPT:
            continue
        if evaluated[one] != evaluated[other]:
            fate[other if evaluated[one] else one] = NEAR_EVALUATION
        elif not evaluated[one] and split[one] == split[other]:
            fate[other] = NEAR
    return fate


def write_decisions(index: Index, work: Path, **columns: npt.NDArray[Any]) -> None:
    """Hand the decisions to the passes, by partition."""
    (work / "decisions").mkdir(exist_ok=True)
    for place, p in enumerate(index.partitions):
        where = slice(index.first[place], index.first[place + 1])
        np.save(work / "decisions" / f"{p:03d}.first.npy", index.first[place])
        for name, column in columns.items():
            np.save(work / "decisions" / f"{p:03d}.{name}.npy", column[where])


def name_groups(index: Index, work: Path, group: Hashes) -> None:
    """Hand every document its group's name: the id of the group's first. What a group is called in the raw files, a patient's number
    perhaps, goes no further.
    """
    _, first, places = np.unique(group, return_index=True, return_inverse=True)
    leader = first[places]
    ids = [np.load(work / "index" / f"{p:03d}.id.npy", mmap_mode="r") for p in index.partitions]
    for place, p in enumerate(index.partitions):
        wanted = leader[index.first[place] : index.first[place + 1]]
        names = np.empty(len(wanted), "S24")
        of = np.searchsorted(index.first, wanted, side="right") - 1
        for other in np.unique(of):
            names[of == other] = ids[other][wanted[of == other] - index.first[other]]
        np.save(work / "decisions" / f"{p:03d}.group.npy", names)


def merge_evaluation_grams(work: Path) -> None:
    """The 13-grams of all evaluation documents: sorted with their documents, and each once for looking up."""
    found = np.concatenate([np.load(path) for path in sorted((work / "grams").glob("[0-9]*.npy"))])
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    np.save(work / "evaluation-pairs.npy", found)
    np.save(work / "evaluation-grams.npy", np.unique(found[:, 0]))


@dataclass(frozen=True)
class Leakage:
    """How much of each train document stands in one evaluation document."""

    overlap: npt.NDArray[np.float64]  # of train documents, the greatest share of their 13-grams
    contaminated: npt.NDArray[np.int64]  # the numbers of those that must leave


def measure_leakage(index: Index, split: npt.NDArray[np.int8], fate: npt.NDArray[np.uint8], work: Path, **limits: float) -> Leakage:
    """Overlap of train with evaluation by 13-grams, those in more than ``max_docs`` train documents not counted.

    A document leaves with more than ``max_overlap`` of its grams in one evaluation document, or with its whole answer there.
    """
    sizes = np.concatenate([np.load(p) for p in sorted((work / "overlap").glob("[0-9]*.sizes.npy"))]).astype(np.int64)
    shared = np.concatenate([np.load(p) for p in sorted((work / "overlap").glob("[0-9][0-9][0-9].npy"))])
    _, inverse, counts = np.unique(shared[:, 0], return_inverse=True, return_counts=True)
    common = counts[inverse] > limits["max_docs"]
    train = {int(number): i for i, number in enumerate(sizes[:, 0])}
    at = np.array([train[int(n)] for n in shared[:, 1]], np.int64)
    size = sizes[:, 1] - np.bincount(at[common], minlength=len(sizes))
    answer_size = sizes[:, 2] - np.bincount(at[common], weights=shared[common, 2].astype(float), minlength=len(sizes)).astype(np.int64)

    evaluation = np.load(work / "evaluation-pairs.npy", mmap_mode="r")
    counted, at = shared[~common], at[~common]
    low = np.searchsorted(evaluation[:, 0], counted[:, 0], side="left")
    high = np.searchsorted(evaluation[:, 0], counted[:, 0], side="right")
    repeat = high - low
    rows = np.repeat(np.arange(len(counted)), repeat)
    offsets = np.arange(len(rows)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    against = np.asarray(evaluation[:, 1])[np.repeat(low, repeat) + offsets].astype(np.int64)
    key, inverse, together = np.unique(at[rows] * len(split) + against, return_inverse=True, return_counts=True)
    answers = np.bincount(inverse, weights=counted[rows, 2].astype(float), minlength=len(key))
    documents = key // max(len(split), 1)
    overlap, whole = np.zeros(len(sizes)), np.zeros(len(sizes), bool)
    np.maximum.at(overlap, documents, together / np.maximum(size[documents], 1))
    np.logical_or.at(whole, documents, (answers >= answer_size[documents]) & (answer_size[documents] > 0))

    # Answers too short for a 13-gram: the same one in an evaluation document.
    kept = fate == KEPT
    evaluated = kept & np.isin(split, [SPLITS.index(s) for s in EVALUATION]) & (index.answer != 0)
    short = sizes[sizes[:, 2] == 0, 0]
    values, counts = np.unique(index.answer[kept & (split == TRAIN)], return_counts=True)
    rare = values[counts <= limits["max_docs"]]
    same = short[np.isin(index.answer[short], np.intersect1d(rare, index.answer[evaluated]))]
    leaves = sizes[(overlap > limits["max_overlap"]) | whole, 0]
    return Leakage(overlap, np.union1d(leaves, same))


def splits_of_groups(group: Hashes, split: npt.NDArray[np.int8], fate: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each document, in how many splits its group is."""
    kept = fate == KEPT
    pairs = np.unique(np.column_stack([group[kept], split[kept].astype(np.uint64)]), axis=0)
    groups, counts = np.unique(pairs[:, 0], return_counts=True)
    return counts[np.minimum(np.searchsorted(groups, group), len(groups) - 1)] if len(groups) else np.zeros(len(group), np.int64)
