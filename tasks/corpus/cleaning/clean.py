"""All passes over the corpus in their order, from raw files to documents in a working directory: what preprocess does with records."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.cleaning import copy_forward, corpus_index, decontamination, dedup, grams, passes
from tasks.corpus.cleaning.example_counts import count_examples
from tasks.corpus.cleaning.rule_counts import RuleCounts, summarize_removed
from tasks.corpus.cleaning.splits import assign_splits
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.extraction.definitions import Task, load_tasks
from tasks.corpus.extraction.examples import learnable
from tasks.corpus.manifest import DEFAULT_PATTERNS
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers import file_groups
from tasks.corpus.readers.files import options_for, raw_files, record_files, size_of, unmatched
from tasks.corpus.readers.indexing import index_parts, merge_parts, write_part
from tasks.corpus.readers.left_out import BY_NAME
from tasks.corpus.readers.records import FILE
from tasks.corpus.readers.sections import MAX_PART_CHARS
from tasks.corpus.readers.source_index import FILE_NAME
from tasks.runtime.pool import run_all

MAX_LISTED = 20  # files that a message names
BATCH_BYTES, BATCH_FILES = 1 << 20, 500  # of raw files that are read in one step
SMALL = 4_000_000  # bytes of raw files that one process reads sooner than a pool starts


@dataclass(frozen=True)
class Cleaned:
    """What all passes made of a corpus, besides its documents."""

    counts: RuleCounts
    overlap: list[int]  # of train documents: how many have 0-10 %, 10-20 % … of their 13-grams in evaluation
    tasks: Mapping[str, Task]  # of which documents ask, with what enough of them state


def clean(data: Path, work: Path, params: PreprocessParams) -> Cleaned:
    """Run all passes; the documents are in ``work`` then.

    ``ValueError`` where params name files or records that do not exist, or nothing can be read.
    """
    corpus = _read(data, work, params)
    rules = _rules(params, corpus.tasks)
    lexicon()  # built once, before several processes need it
    corpus.over_partitions(passes.clean, "cleaning", rules)
    _refuse_unknown_withdrawn(corpus.counts, params)
    dedup.find_boilerplate(work, params.boilerplate.min_documents)
    copy_forward.find_copies(work, params.copy_forward)
    corpus.over_partitions(passes.strip, "comparing", rules)
    return _decide(corpus)


def read_corpus(data: Path, work: Path, params: PreprocessParams) -> None:
    """Pass 1 alone: the raw documents by partition, and who the files name, are in ``work`` then. ``ValueError`` as ``clean``."""
    _read(data, work, params)


@dataclass
class _Corpus:
    """The raw files on their way through the passes, and what became of their records so far."""

    data: Path
    work: Path
    params: PreprocessParams
    names: list[str]
    tasks: Mapping[str, Task]
    counts: RuleCounts = field(default_factory=RuleCounts)

    def over_files(self) -> None:
        """Pass 1."""
        options = {
            name: options_for(name, self.params.files) for name in self.names if (self.data / name).is_file()
        }  # no archive's members
        parts = index_parts(self.data, options, self.work / "index-parts", self.tasks)
        run_all(write_part, parts, desc="indexing", here=self._is_small)
        merge_parts(parts, options, self.work / FILE_NAME)
        limit = min(MAX_PART_CHARS, self.params.max_answer_chars * 9 // 10)  # less than an answer may have, as repairs can make text longer
        intake = passes.Intake(limit, self.tasks, self.params.shares)
        arguments = [(self.data, files, i, intake, self.work) for i, files in enumerate(self._batches())]
        self._merge(run_all(passes.read, arguments, desc="reading", here=self._is_small))

    def _batches(self) -> Iterator[list[passes.RawFile]]:
        """The raw files, small ones together, so that a hundred thousand notes are no hundred thousand parts."""
        batch: list[passes.RawFile] = []
        size = 0
        for name in self.names:
            batch.append((name, _role(name, self.params), options_for(name, self.params.files)))
            size += size_of(self.data, name)
            if size > BATCH_BYTES or len(batch) == BATCH_FILES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def over_partitions(self, function: Callable[..., RuleCounts | None], title: str, *arguments: Any) -> None:
        """A pass over every partition that has records."""
        self._merge(self._run(function, title, *arguments))

    def examples(self) -> RuleCounts:
        """The train documents that state each number of a task."""
        total = RuleCounts()
        for counts in self._run(count_examples, "counting examples") if self.tasks else []:
            total.merge(counts)
        return total

    def _run(self, function: Callable[..., RuleCounts | None], title: str, *arguments: Any) -> list[Any]:
        partitions = sorted(int(path.name) for path in (self.work / "raw").glob("*"))
        return run_all(function, [(p, *arguments, self.work) for p in partitions], desc=title, here=self._is_small)

    def announce(self, notes: list[str]) -> None:
        """Print what the user must know now, and keep it for the reports."""
        self.counts.notes += notes
        print("".join(f"preprocess: {note}\n" for note in notes), end="", flush=True)

    @cached_property
    def _is_small(self) -> bool:
        return sum((self.data / name).stat().st_size for name in raw_files(self.data)) < SMALL

    def _merge(self, parts: list[Any]) -> None:
        for part in parts:
            if part is not None:
                self.counts.merge(part)


def _read(data: Path, work: Path, params: PreprocessParams) -> _Corpus:
    corpus = _Corpus(data, work, params, _checked_files(data, params), load_tasks(params.tasks, data))
    corpus.over_files()
    _refuse_unreadable(corpus.counts, data)
    corpus.announce([*_about_files(corpus.counts), *file_groups.advice(corpus.names, params.files)])
    if not corpus.counts.total("records"):
        raise ValueError(f"{data.name}: {_nothing_read(corpus.counts)}")
    return corpus


def _decide(corpus: _Corpus) -> Cleaned:
    """What needs the whole corpus at once: groups, splits, duplicates, leakage, few examples; then the documents are written."""
    params, work = corpus.params, corpus.work
    index = corpus_index.open_index(work)
    pairs = dedup.near_duplicates(index, work, params.near_duplicate)
    group = dedup.merge_inferred_groups(index, pairs)
    split, notes = assign_splits(index, group, params)
    corpus.announce(notes)
    disposition = dedup.decide_dispositions(index, split, pairs, same_answer=params.same_answer)
    corpus_index.write_decisions(index, work, split=split, disposition=disposition)
    corpus_index.name_groups(index, work, group)
    corpus.over_partitions(grams.evaluation_grams, "evaluation's 13-grams")
    decontamination.merge_evaluation_grams(work)
    corpus.over_partitions(grams.train_grams, "overlap with evaluation")
    max_docs, max_overlap = params.leakage.max_docs, params.leakage.max_overlap
    contamination = decontamination.measure_contamination(index, split, disposition, work, max_docs=max_docs, max_overlap=max_overlap)
    disposition[contamination.contaminated] = passes.CONTAMINATED
    splits_of_group = corpus_index.splits_of_groups(group, split, disposition)
    corpus_index.write_decisions(index, work, split=split, disposition=disposition, splits_of_group=splits_of_group)
    tasks = _learnable(corpus)
    corpus.over_partitions(passes.finish, "writing", tasks)
    histogram, _ = np.histogram(contamination.overlap, bins=10, range=(0, 1))
    asked = {task for step, _, task in corpus.counts.counts if step == "questions"}
    return Cleaned(corpus.counts, [int(n) for n in histogram], {name: task for name, task in tasks.items() if name in asked})


def _learnable(corpus: _Corpus) -> dict[str, Task]:
    """The tasks without the numbers that too few train documents state, which is said."""
    examples, tasks = corpus.examples().counts, {}
    for name, task in corpus.tasks.items():
        documents = {number: n for (of_task, _, number), n in examples.items() if of_task == name}
        kept = learnable(task, documents, corpus.params.min_examples)
        if documents and kept.dropped:
            fewer = f"fewer than {corpus.params.min_examples} train documents state (preprocess.min_examples)"
            corpus.announce([f"{name} does not ask for what {fewer}: {', '.join(kept.dropped)}"])
        if kept.task:
            tasks[name] = kept.task
    return tasks


def _rules(params: PreprocessParams, tasks: Mapping[str, Task]) -> passes.Rules:
    return passes.Rules(
        params.min_answer_chars,
        params.max_answer_chars,
        frozenset(params.withdrawn),
        params.boilerplate.min_words,
        params.boilerplate.exempt,
        params.deidentify.model_dump_json(),
        tasks,
    )


def _checked_files(data: Path, params: PreprocessParams) -> list[str]:
    """The raw files; ``ValueError`` where a pattern of the params matches none of them, and is not one of the default corpus."""
    names = record_files(data)
    for key, patterns in (
        ("files", tuple(params.files)),
        ("ood", params.ood),
        ("replay", params.replay),
        ("shares", tuple(rule.files for rule in params.shares)),
    ):
        if missed := [pattern for pattern in unmatched(names, patterns) if pattern not in DEFAULT_PATTERNS]:
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
        files = "; ".join(f"{data.name}/{source} {rule}" for source, rule in sorted(unreadable.items())[:MAX_LISTED])
        more = f"; and {len(unreadable) - MAX_LISTED:,} more files" if len(unreadable) > MAX_LISTED else ""
        raise ValueError(f"{files}{more}. Repair or remove {'it' if len(unreadable) == 1 else 'them'}, or write what is said")


def _nothing_read(counts: RuleCounts) -> str:
    """What became of the files where no record could be read."""
    if rejected := counts.total("read"):
        return f"none of {rejected} records could be read; {summarize_removed(counts)}"
    sources = sorted({source for step, source, _ in counts.counts if step == "skipped"})
    return f"holds nothing to train on; {_listed(sources)} {'is' if len(sources) == 1 else 'are'} left out by name or kind"


def _about_files(counts: RuleCounts) -> list[str]:
    """Which files are read in an encoding that was found out, and which are left out by their names."""
    by_encoding: dict[str, list[str]] = {}
    for step, source, encoding in sorted(counts.counts):
        if step == "encodings":
            by_encoding.setdefault(encoding, []).append(source)
    notes = [
        f"not UTF-8, and read in {encoding}, as their bytes show (preprocess.files can set another encoding): {_listed(sources)}"
        for encoding, sources in by_encoding.items()
    ]
    left_out = sorted(source for step, source, reason in counts.counts if step == "skipped" and reason.startswith(BY_NAME))
    return notes + [f"left out by their names, as no data: {_listed(left_out)}"] * bool(left_out)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _refuse_unknown_withdrawn(counts: RuleCounts, params: PreprocessParams) -> None:
    withdrawn = {rule for step, _, rule in counts.counts if step == "withdrawn"}
    if missing := set(params.withdrawn) - withdrawn:
        raise ValueError(f"params.yaml: preprocess.withdrawn lists {', '.join(sorted(missing))}, and no record has such an id")
