"""Every document of the corpus as numbers, in the order of their ids: what is decided on all of them at once works on this index.

The passes write its columns by partition; decisions go back to them the same way. It holds no text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning.passes import KEPT
from tasks.corpus.cleaning.shingles import Hashes


@dataclass(frozen=True)
class CorpusIndex:
    """One entry per document of N: hashes and flags, concatenated over the partitions."""

    partitions: list[int]  # those that have documents
    first: npt.NDArray[np.int64]  # index of each partition's first document, and N at the end
    group: Hashes
    inferred_group: npt.NDArray[np.bool_]  # no record says which group it is of
    kind: npt.NDArray[np.int8]  # of the group, as an index into GROUP_KINDS
    pair: Hashes
    answer: Hashes
    split: npt.NDArray[np.int8]  # as given, one more than its index in SPLITS; 0: not given

    def rows_of(self, i: int) -> slice:
        """The documents of the ``i``-th partition."""
        return slice(self.first[i], self.first[i + 1])


def open_index(work: Path) -> CorpusIndex:
    """Read the columns that the pass ``strip`` wrote into ``work``."""
    partitions = sorted(int(path.name[:3]) for path in (work / "index").glob("[0-9]*.split.npy"))

    def column(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate([np.load(work / "index" / f"{p:03d}.{name}.npy").astype(dtype) for p in partitions])

    sizes = [len(np.load(work / "index" / f"{p:03d}.split.npy", mmap_mode="r")) for p in partitions]
    return CorpusIndex(
        partitions,
        np.cumsum([0, *sizes]),
        column("group", np.uint64),
        column("inferred_group", np.bool_),
        column("kind", np.int8),
        column("pair", np.uint64),
        column("answer", np.uint64),
        column("split", np.int8),
    )


def write_decisions(index: CorpusIndex, work: Path, **columns: npt.NDArray[Any]) -> None:
    """Hand decisions to the passes: each column has one value per document, and is written by partition."""
    (work / "decisions").mkdir(exist_ok=True)
    for i, p in enumerate(index.partitions):
        np.save(work / "decisions" / f"{p:03d}.first.npy", index.first[i])
        for name, column in columns.items():
            np.save(work / "decisions" / f"{p:03d}.{name}.npy", column[index.rows_of(i)])


def name_groups(index: CorpusIndex, work: Path, group: Hashes) -> None:
    """Name every document's group by the id of the group's first document.

    The name of a group in the raw files, perhaps a patient's number, goes no further.
    """
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    leader = first[inverse]
    ids = [np.load(work / "index" / f"{p:03d}.id.npy", mmap_mode="r") for p in index.partitions]
    for i, p in enumerate(index.partitions):
        leaders = leader[index.rows_of(i)]
        names = np.empty(len(leaders), "S24")
        partition_of_leader = np.searchsorted(index.first, leaders, side="right") - 1
        for j in np.unique(partition_of_leader):
            mask = partition_of_leader == j
            names[mask] = ids[j][leaders[mask] - index.first[j]]
        np.save(work / "decisions" / f"{p:03d}.group.npy", names)


def splits_of_groups(group: Hashes, split: npt.NDArray[np.int8], disposition: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each document, in how many splits its group has documents that stay."""
    kept = disposition == KEPT
    pairs = np.unique(np.column_stack([group[kept], split[kept].astype(np.uint64)]), axis=0)
    groups, counts = np.unique(pairs[:, 0], return_counts=True)
    return counts[np.minimum(np.searchsorted(groups, group), len(groups) - 1)] if len(groups) else np.zeros(len(group), np.int64)
