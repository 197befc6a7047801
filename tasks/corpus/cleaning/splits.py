"""Which split every document is in: as its record says, else by its group, and never an empty one where there are groups enough."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning.comparison import GROUP_KINDS
from tasks.corpus.cleaning.corpus_index import CorpusIndex
from tasks.corpus.cleaning.shingles import Hashes
from tasks.corpus.documents import SPLITS, share
from tasks.corpus.params import PreprocessParams

NEEDED = ("test", "validation", "train")
LARGE, LARGE_OF = 0.5, 20  # a group with more than this share of at least so many documents is told
_KIND_WORDS = {
    "record": "of single records, which nothing keeps together",
    "question": "of records with one question, or of conversations that open alike",
    "topic": "by the column topic",
    "group": "by the column group, a patient, or a file of text",
}
_ADVICE = {
    "record": "Add data, or a column split with train, validation and test.",
    "question": "Where they are different records all the same, say what belongs together: a column group, or in params.yaml "
    "preprocess: {files: {PATTERN: {columns: {group: NAME}}}}; or add a column split with train, validation and test.",
    "topic": "Add data on other topics, name a column group, or add a column split with train, validation and test.",
    "group": "Add data of other groups: what is learned from one patient cannot be tested on the same. If the groups are too wide, "
    "map another column to group, or add a column split with train, validation and test.",
}


def split_of(group: int, params: PreprocessParams) -> str:
    """The split of a group, from its hash and the seed alone: new data moves old only where it makes one group of several."""
    value = share(params.seed, f"{group:016x}")
    if value < params.test_share:
        return "test"
    return "validation" if value < params.test_share + params.validation_share else "train"


def assign_splits(index: CorpusIndex, group: Hashes, params: PreprocessParams) -> tuple[npt.NDArray[np.int8], list[str]]:
    """Every document's split, and what the user must know of it.

    Where no document is in validation or in test, groups of train go there: those whose hash says so, else the nearest one.
    ``ValueError`` says what to do where there are too few groups.
    """
    values, inverse = np.unique(group, return_inverse=True)
    by_group = np.array([SPLITS.index(split_of(int(value), params)) for value in values], np.int8)
    split = np.where(index.split > 0, index.split - 1, by_group[inverse]).astype(np.int8)
    notes = []
    for name in ("test", "validation"):
        if not (split == SPLITS.index(name)).any():
            taken = _groups_for(name, values, inverse, split, params)
            moved = np.isin(inverse, taken)
            split[moved] = SPLITS.index(name)
            if len(taken):
                groups = f"{len(taken):,} group{'s' * (len(taken) > 1)} of train"
                setting = f"preprocess.{name}_share sets how many ({getattr(params, f'{name}_share')})"
                notes.append(f"no record was in {name}: {groups} went there, {moved.sum():,} of {len(split):,} documents; {setting}")
    proper = np.isin(split, [SPLITS.index(name) for name in NEEDED])
    if missing := [name for name in NEEDED if not (split == SPLITS.index(name)).any()]:
        raise ValueError(_too_few(index, inverse, proper, missing))
    return split, [*notes, *_large_groups(index, inverse, proper)]


def _groups_for(
    name: str, values: Hashes, inverse: npt.NDArray[np.int64], split: npt.NDArray[np.int8], params: PreprocessParams
) -> npt.NDArray[np.int64]:
    """Indices of the groups that a split without documents takes, of those that are in train as a whole; train keeps one at least."""
    others = np.zeros(len(values), bool)
    others[inverse[split != SPLITS.index("train")]] = True
    free = np.flatnonzero(~others)
    if len(free) < 2:
        return free[:0]
    low, high = (0.0, params.test_share) if name == "test" else (params.test_share, params.test_share + params.validation_share)
    numbers = np.array([share(params.seed, f"{int(value):016x}") for value in values[free]])
    distance = np.maximum(np.maximum(low - numbers, numbers - high), 0.0)
    inside = free[(numbers >= low) & (numbers < high)]
    return inside if 0 < len(inside) < len(free) else free[np.lexsort((values[free], distance))[:1]]


def _too_few(index: CorpusIndex, inverse: npt.NDArray[np.int64], proper: npt.NDArray[np.bool_], missing: list[str]) -> str:
    """What there is instead of groups for every split, and what to do."""
    counted = list(_by_kind(index, inverse, proper))
    count = sum(groups for _, groups, _ in counted)
    kinds = "; ".join(f"{groups:,} {_KIND_WORDS[kind]}, with {documents:,} documents" for kind, groups, documents in counted)
    largest = max(counted, key=lambda row: row[2])[0] if counted else "record"
    of_one = "everything is one group. " if count == 1 else ""
    return (
        f"there is nothing for {' and '.join(missing)}: {of_one}A group stays in one split, and the {int(proper.sum()):,} documents are of "
        f"{count:,} group{'s' * (count != 1)} ({kinds}). {_ADVICE[largest]}"
    )


def _by_kind(index: CorpusIndex, inverse: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[str, int, int]]:
    """Kind of group, groups, documents; of the chosen documents."""
    for number, kind in enumerate(GROUP_KINDS):
        members = inverse[chosen & (index.kind == number)]
        if len(members):
            yield kind, len(np.unique(members)), len(members)


def _large_groups(index: CorpusIndex, inverse: npt.NDArray[np.int64], proper: npt.NDArray[np.bool_]) -> list[str]:
    """A sentence where most documents are of one group."""
    sizes = np.bincount(inverse[proper])
    largest, count = int(sizes.argmax()), int(proper.sum())
    if count < LARGE_OF or sizes[largest] <= LARGE * count:
        return []
    kind = GROUP_KINDS[int(index.kind[proper & (inverse == largest)][0])]
    return [f"{sizes[largest]:,} of {count:,} documents are one group ({_KIND_WORDS[kind]}) and stay in one split. {_ADVICE[kind]}"]
