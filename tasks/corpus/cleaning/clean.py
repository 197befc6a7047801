"""All passes over the corpus in their order, from raw files to documents in a working directory: what preprocess does with records."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import corpus_index, decontamination, dedup, passes
from tasks.corpus.cleaning.corpus_index import CorpusIndex
from tasks.corpus.cleaning.rule_counts import RuleCounts, summarize_removed
from tasks.corpus.cleaning.shingles import Hashes
from tasks.corpus.documents import SPLITS, share
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.files import options_for, raw_files, unmatched
from tasks.corpus.readers.indexing import index_parts, merge_parts, write_part
from tasks.corpus.readers.records import FILE
from tasks.corpus.readers.source_index import FILE_NAME
from tasks.runtime.pool import run_all

SMALL = 4_000_000  # bytes of raw files that one process reads sooner than a pool starts


def clean(data: Path, work: Path, params: PreprocessParams) -> tuple[RuleCounts, list[int]]:
    """Run all passes; the documents are in ``work`` then.

    Returns the counts by rule, and ten numbers: how many train documents have 0-10 %, 10-20 % … of their 13-grams in evaluation.
    ``ValueError`` where params name files or records that do not exist, or nothing can be read.
    """
    corpus = _Corpus(data, work, params, _checked_files(data, params))
    corpus.over_files()
    _refuse_unreadable(corpus.counts, data)
    if not corpus.counts.total("records"):
        removed = summarize_removed(corpus.counts)
        raise ValueError(f"{data.name}: none of {corpus.counts.total('read')} records could be read; {removed}")
    rules = _rules(params)
    corpus.over_partitions(passes.clean, "cleaning", rules)
    _refuse_unknown_withdrawn(corpus.counts, params)
    dedup.find_boilerplate(work, params.boilerplate.min_documents)
    corpus.over_partitions(passes.strip, "comparing", rules)
    return corpus.counts, _decide(corpus)


@dataclass
class _Corpus:
    """The raw files on their way through the passes, and what became of their records so far."""

    data: Path
    work: Path
    params: PreprocessParams
    names: list[str]
    counts: RuleCounts = field(default_factory=RuleCounts)

    def over_files(self) -> None:
        """Pass 1."""
        files = self.params.files
        with_options = {name: options_for(name, files) for name in self.names}
        parts = index_parts(self.data, with_options, self.work / "index-parts")
        run_all(write_part, parts, desc="indexing", here=self._is_small())
        merge_parts(parts, with_options, self.work / FILE_NAME)
        arguments = [(self.data, n, i, _role(n, self.params), options_for(n, files), self.work) for i, n in enumerate(self.names)]
        self._merge(run_all(passes.read, arguments, desc="reading", here=self._is_small()))

    def over_partitions(self, function: Callable[..., RuleCounts | None], title: str, *arguments: Any) -> None:
        """A pass over every partition that has records."""
        partitions = sorted(int(path.name) for path in (self.work / "raw").glob("*"))
        self._merge(run_all(function, [(p, *arguments, self.work) for p in partitions], desc=title, here=self._is_small()))

    def _is_small(self) -> bool:
        return sum((self.data / name).stat().st_size for name in self.names) < SMALL

    def _merge(self, parts: list[Any]) -> None:
        for part in parts:
            if part is not None:
                self.counts.merge(part)


def _decide(corpus: _Corpus) -> list[int]:
    """What needs the whole corpus at once: groups, splits, duplicates and leakage; then the documents are written.

    Returns the histogram of the overlap of train documents with evaluation.
    """
    params, work = corpus.params, corpus.work
    index = corpus_index.open_index(work)
    pairs = dedup.near_duplicates(index, work, params.near_duplicate)
    group = dedup.merge_inferred_groups(index, pairs)
    split = _splits(index, group, params)
    disposition = dedup.decide_dispositions(index, split, pairs, same_answer=params.same_answer)
    corpus_index.write_decisions(index, work, split=split, disposition=disposition)
    corpus_index.name_groups(index, work, group)
    corpus.over_partitions(passes.evaluation_grams, "evaluation's 13-grams")
    decontamination.merge_evaluation_grams(work)
    corpus.over_partitions(passes.train_grams, "overlap with evaluation")
    max_docs, max_overlap = params.leakage.max_docs, params.leakage.max_overlap
    contamination = decontamination.measure_contamination(index, split, disposition, work, max_docs=max_docs, max_overlap=max_overlap)
    disposition[contamination.contaminated] = passes.CONTAMINATED
    splits_of_group = corpus_index.splits_of_groups(group, split, disposition)
    corpus_index.write_decisions(index, work, split=split, disposition=disposition, splits_of_group=splits_of_group)
    corpus.over_partitions(passes.finish, "writing")
    histogram, _ = np.histogram(contamination.overlap, bins=10, range=(0, 1))
    return [int(count) for count in histogram]


def split_of(group: int, params: PreprocessParams) -> str:
    """The split of a group, from its hash and the seed alone: new data moves old only where it makes one group of several."""
    value = share(params.seed, f"{group:016x}")
    if value < params.test_share:
        return "test"
    return "validation" if value < params.test_share + params.validation_share else "train"


def _splits(index: CorpusIndex, group: Hashes, params: PreprocessParams) -> npt.NDArray[np.int8]:
    """Every document's split: as its record says, else its group's."""
    values, inverse = np.unique(group, return_inverse=True)
    by_group = np.array([SPLITS.index(split_of(int(value), params)) for value in values], np.int8)[inverse]
    return np.where(index.split > 0, index.split - 1, by_group).astype(np.int8)


def _rules(params: PreprocessParams) -> passes.Rules:
    return passes.Rules(
        params.min_answer_chars,
        params.max_answer_chars,
        frozenset(params.withdrawn),
        params.boilerplate.min_words,
        params.boilerplate.exempt,
        params.deidentify.model_dump_json(),
    )


def _checked_files(data: Path, params: PreprocessParams) -> list[str]:
    """The raw files; ``ValueError`` where a pattern of the params matches none of them."""
    names = raw_files(data)
    for key, patterns in (("files", tuple(params.files)), ("ood", params.ood), ("replay", params.replay)):
        if missed := unmatched(names, patterns):
            raise ValueError(f"params.yaml: preprocess.{key} names {missed[0]!r}, and no file in {data.name} matches it")
    return names


def _role(name: str, params: PreprocessParams) -> str:
    """The split of a file that is not part of the corpus proper."""
    for role, patterns in (("ood", params.ood), ("replay", params.replay)):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return role
    return ""


def _refuse_unreadable(counts: RuleCounts, data: Path) -> None:
    """A file of which nothing could be read is no record among many: its owner must know at once."""
    unreadable = {source: rule for (step, source, rule), examples in counts.examples.items() if step == "read" and examples == [FILE]}
    if unreadable:
        files = "; ".join(f"{data.name}/{source} {rule}" for source, rule in sorted(unreadable.items()))
        raise ValueError(f"{files}. Repair or remove {'it' if len(unreadable) == 1 else 'them'}")


def _refuse_unknown_withdrawn(counts: RuleCounts, params: PreprocessParams) -> None:
    withdrawn = {rule for step, _, rule in counts.counts if step == "withdrawn"}
    if missing := set(params.withdrawn) - withdrawn:
        raise ValueError(f"params.yaml: preprocess.withdrawn lists {', '.join(sorted(missing))}, and no record has such an id")
