"""Raw files to clean Documents, compared with each other, split by group and gated: ``python -m tasks.preprocess``.

Records are worked on file by file and then partition by partition (tasks/cleaning/passes.py), so memory does not grow with the
corpus, and neither the order of files and rows nor the number of processes changes a byte. What may pass is decided here.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.cleaning import corpus_wide, passes
from tasks.cleaning.tally import Tally
from tasks.digests import sha256
from tasks.documents import MANIFEST, SPLITS, private, share
from tasks.facts import read_facts
from tasks.params.preprocess import PreprocessParams
from tasks.pool import run_all
from tasks.readers.files import options_for, raw_files, unmatched
from tasks.readers.records import FILE
from tasks.record import write_whole
from tasks.stage import Out, PrivateOut, Summary, run_stage

WORK = Path(".cache/preprocess")  # holds raw text, so it goes when the stage ends
FAILED = Path(".cache/failed-preprocess")
REMOVING = ("read", "clean", "duplicates", "leakage", "withdrawn")  # steps that take records out
SMALL = 4_000_000  # bytes of raw files that one process reads sooner than a pool starts


def preprocess(data: Path, documents: Out, report: Out, rejected: PrivateOut, *, params: PreprocessParams) -> Summary:
    """Read, clean, compare, split by group, check, write; every record not taken is counted, and kept in ``rejected``."""
    work = WORK.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    try:
        tally, overlap = clean(data.absolute(), work, params)
        _collect(work / "rejected", rejected, private)
        _refuse_if_too_few(tally, data, rejected, params)
        metrics = _measure_recall(work, report, rejected, params)
        _gate(work, report, rejected, params)
        documents.mkdir(parents=True)
        for split in SPLITS:
            if (work / "documents" / split).exists():
                _collect(work / "documents" / split, documents / f"{split}.jsonl")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    public = all_public(data)
    write_whole(report / "funnel.json", {"rows": list(tally.rows()), "overlap": overlap, "public": public})
    metrics |= {"records": tally.total("records", "read"), "documents": tally.total("documents")}
    metrics |= {f"removed_{step}": tally.total(step) for step in (*REMOVING, "identifiers")}
    by_split = Counter[str]()
    for (step, _, rule), n in tally.counts.items():
        by_split[rule] += n * (step == "documents")
    metrics |= {f"documents_{split}": by_split[split] for split in SPLITS if by_split[split]}
    print(f"{metrics['documents']:,} documents of {metrics['records']:,} records; {_told(tally)}")
    return Summary(metrics={k: float(v) for k, v in metrics.items()}, reports=("report",))


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
        _merge(tally, run_all(passes.read, arguments, what="reading", here=here))

    def over_partitions(function: Any, what: str, *arguments: Any) -> None:
        partitions = sorted(int(path.name) for path in (work / "raw").glob("*"))
        _merge(tally, run_all(function, [(p, *arguments, work) for p in partitions], what=what, here=here))

    over_files()
    _refuse_unreadable(tally, data)
    if not tally.total("records"):
        raise ValueError(f"{data.name}: none of {tally.total('read')} records could be read; {_told(tally)}")
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


def all_public(data: Path) -> bool:
    """Whether the manifest marks every raw file, by its digest, as one that anybody may read."""
    try:
        listed = {f["path"]: f["sha256"] for f in json.loads((data / MANIFEST).read_bytes())["files"] if f["public"] is True}
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return all(listed.get(name) == sha256(data / name) for name in raw_files(data))


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
        told = "; ".join(f"{data.name}/{source} {rule}" for source, rule in sorted(unread.items()))
        raise ValueError(f"{told}. Mend or remove {'it' if len(unread) == 1 else 'them'}")


def _refuse_if_too_few(tally: Tally, data: Path, rejected: Path, params: PreprocessParams) -> None:
    total, bad, taken = tally.total("records", "read"), tally.total("read", "clean"), tally.total("documents")
    if not taken:
        _keep(rejected)
        raise ValueError(f"{data}: none of {total} records could be used; {_told(tally)}. They stand in {FAILED}")
    if bad / total > params.max_rejected_share:
        _keep(rejected)
        raise ValueError(
            f"{data}: {bad} of {total} records were rejected, more than preprocess.max_rejected_share of "
            f"{params.max_rejected_share} allows; {_told(tally)}. They stand in {FAILED}"
        )


def _keep(*paths: Path) -> None:
    """Save what explains a failure from being removed with the stage's unfinished outputs."""
    shutil.rmtree(FAILED, ignore_errors=True)
    FAILED.mkdir(parents=True, mode=0o700)
    for path in paths:
        target = FAILED / path.name.removeprefix(".").removesuffix(".partial")
        shutil.copytree(path, target) if path.is_dir() else shutil.copy2(path, target)


def _measure_recall(work: Path, report: Path, rejected: Path, params: PreprocessParams) -> dict[str, float]:
    """Recall of the de-identification on this run's text; ``ValueError`` where it is lower than the params allow."""
    from tasks.deidentify import recall  # imports spaCy, which every worker process would pay for

    shares = recall.measure(params.deidentify, params.seed, work)
    report.mkdir(parents=True, exist_ok=True)
    write_whole(report / "deidentification.json", {table: [asdict(share) for share in some] for table, some in shares.items()})
    if missed := recall.below([*shares["recall"], *shares["languages"]], params.deidentify.min_recall):
        _keep(report, rejected)
        raise ValueError(
            f"the de-identification finds too little of what is planted: {'; '.join(missed)} (preprocess.deidentify.min_recall). "
            f"The report stands in {FAILED}"
        )
    return {f"recall_{share.half}_{share.name}": share.share for share in shares["recall"]}


def _gate(work: Path, report: Path, rejected: Path, params: PreprocessParams) -> None:
    from tasks import expectations  # imports Great Expectations, which costs seconds that other stages need not pay

    suites = {
        "raw-records": expectations.raw_records(),
        "clean-documents": expectations.clean_documents(min_answer=params.min_answer_chars, max_answer=params.max_answer_chars),
    }
    gates = []
    for name, suite in suites.items():
        facts = read_facts(sorted((work / name).glob("*.jsonl")))
        gates.append(expectations.check(name, facts, suite, work, report))
        print(f"gate {name}: {gates[-1].passed} passed" + "".join(f"; warning: {w}" for w in gates[-1].warned), flush=True)
    if failed := [f"{gate.name}: {told}" for gate in gates for told in gate.failed]:
        _keep(report, rejected)
        raise ValueError(f"the data do not pass the gate: {'; '.join(failed)}. The report stands in {FAILED}")


def _collect(directory: Path, path: Path, opener: Callable[[str, int], int] | None = None) -> None:
    """The files of a directory as one, in order."""
    with open(path, "wb", opener=opener) as whole:
        for part in sorted(directory.glob("*.jsonl")):
            with open(part, "rb") as file:
                shutil.copyfileobj(file, whole)


def _told(tally: Tally) -> str:
    counts = Counter({(source, rule): n for (step, source, rule), n in tally.counts.items() if step in REMOVING})
    rows = [f"{n:,} in {source}: {rule}" for (source, rule), n in counts.most_common(8)]
    return "not taken: " + ("; ".join(rows) + (" …" if len(counts) > 8 else "") if rows else "none")


if __name__ == "__main__":
    run_stage(preprocess)
