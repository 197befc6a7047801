"""All passes over the corpus in their order, from raw files to documents in a working directory: what preprocess does with records."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import corpus_wide, passes
from tasks.corpus.cleaning.tally import Tally, told
from tasks.corpus.documents import SPLITS, share
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.files import options_for, raw_files, unmatched
from tasks.corpus.readers.records import FILE
from tasks.runtime.pool import run_all

SMALL = 4_000_000  # bytes of raw files that one process reads sooner than a pool starts


def clean(data: Path, work: Path, params: PreprocessParams) -> tuple[Tally, list[int]]:
    """All passes; the documents stand in ``work`` then. With them the counts, and how many train documents overlap with
    evaluation by 0-10 %, 10-20 % … of their 13-grams.
    """
    names = raw_files(data)
    for key, patterns in (("files", tuple(params.files)), ("other", params.other), ("replay", params.replay)):
        if missed := unmatched(names, patterns):
            raise ValueError(f"params.yaml: preprocess.{key} names {missed[0]!r}, and no file in {data.name} matches it")
    here = sum((data / name).stat().st_size for name in names) < SMALL
    rules = passes.Rules(
        params.min_answer_chars,
        params.max_answer_chars,
        frozenset(params.withdrawn),
        params.boilerplate.min_words,
        params.boilerplate.exempt,
        params.deidentify.model_dump_json(),
    )
    tally = Tally()

    def over_files() -> None:
        arguments = [(data, n, i, _role(n, params), options_for(n, params.files), work) for i, n in enumerate(names)]
        _merge(tally, run_all(passes.read, arguments, desc="reading", here=here))

    def over_partitions(function: Any, what: str, *arguments: Any) -> None:
        partitions = sorted(int(path.name) for path in (work / "raw").glob("*"))
        _merge(tally, run_all(function, [(p, *arguments, work) for p in partitions], desc=what, here=here))

    over_files()
    _refuse_unreadable(tally, data)
    if not tally.total("records"):
        raise ValueError(f"{data.name}: none of {tally.total('read')} records could be read; {told(tally)}")
    over_partitions(passes.clean, "cleaning", rules)
    if missing := params.withdrawn and set(params.withdrawn) - {rule for step, _, rule in tally.counts if step == "withdrawn"}:
        raise ValueError(f"params.yaml: preprocess.withdrawn lists {', '.join(sorted(missing))}, and no record has such an id")
    corpus_wide.find_boilerplate(work, params.boilerplate.min_documents)
    over_partitions(passes.strip, "comparing", rules)

    index = corpus_wide.open_index(work)
    pairs = corpus_wide.near_pairs(index, work, params.near_duplicate)
    group = corpus_wide.regroup(index, pairs)
    split = _splits(index, group, params)
    fate = corpus_wide.decide_fates(index, split, pairs, same_answer=params.same_answer)
    corpus_wide.write_decisions(index, work, split=split, fate=fate)
    corpus_wide.name_groups(index, work, group)
    over_partitions(passes.evaluation_grams, "evaluation's 13-grams")
    corpus_wide.merge_evaluation_grams(work)
    over_partitions(passes.overlap, "overlap with evaluation")
    limits = params.leakage.model_dump()
    leakage = corpus_wide.measure_leakage(index, split, fate, work, **limits)
    fate[leakage.contaminated] = passes.CONTAMINATED
    spread = corpus_wide.splits_of_groups(group, split, fate)
    corpus_wide.write_decisions(index, work, split=split, fate=fate, splits_of_group=spread)
    over_partitions(passes.finish, "writing")
    histogram, _ = np.histogram(leakage.overlap, bins=10, range=(0, 1))
    return tally, histogram.tolist()


def split_of(group: int, params: PreprocessParams) -> str:
    """The split of a group, from its hash and the seed alone: new data moves old only where it makes one group of several."""
    place = share(params.seed, f"{group:016x}")
    if place < params.test_share:
        return "test"
    return "validation" if place < params.test_share + params.validation_share else "train"


def _splits(index: corpus_wide.Index, group: corpus_wide.Hashes, params: PreprocessParams) -> npt.NDArray[np.int8]:
    """Every document's split: as its record says, else its group's."""
    values, places = np.unique(group, return_inverse=True)
    drawn = np.array([SPLITS.index(split_of(int(value), params)) for value in values], np.int8)[places]
    return np.where(index.split > 0, index.split - 1, drawn).astype(np.int8)


def _role(name: str, params: PreprocessParams) -> str:
    """The split of a file that is not part of the corpus proper."""
    for role, patterns in (("other", params.other), ("replay", params.replay)):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return role
    return ""


def _merge(tally: Tally, others: list[Any]) -> None:
    for other in others:
        if other is not None:
            tally.merge(other)


def _refuse_unreadable(tally: Tally, data: Path) -> None:
    """A file of which nothing could be read is no record among many: its owner must know at once."""
    found = [key for key, examples in tally.examples.items() if key[0] == "read" and examples == [FILE]]
    unread = {source: rule for _, source, rule in found}
    if unread:
        unreadable = "; ".join(f"{data.name}/{source} {rule}" for source, rule in sorted(unread.items()))
        raise ValueError(f"{unreadable}. Mend or remove {'it' if len(unread) == 1 else 'them'}")
