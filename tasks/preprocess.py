"""Raw files to clean Documents, compared with each other, split by group and gated: ``python -m tasks.preprocess``.

Records are worked on file by file and then partition by partition (tasks/corpus/cleaning/passes.py), so memory does not grow with the
corpus, and neither the order of files and rows nor the number of processes changes a byte. What may pass is decided here.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.corpus.cleaning.clean import clean
from tasks.corpus.cleaning.rule_counts import REMOVING, RuleCounts, summarize_removed
from tasks.corpus.cleaning.sizes import short_of_items
from tasks.corpus.documents import SPLITS, private
from tasks.corpus.extraction.definitions import write_tasks
from tasks.corpus.gates import CheckFiles, started_gates
from tasks.corpus.manifest import all_public
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.files import raw_files
from tasks.corpus.readers.left_out import left_out
from tasks.params import read_params
from tasks.runtime.artifacts import CHANGES
from tasks.runtime.files import write_whole
from tasks.runtime.params import PARAMS
from tasks.runtime.pool import kept_processes
from tasks.stage import Out, PrivateOut, StageResult, run_stage

if TYPE_CHECKING:
    from tasks.corpus.expectations import SuiteName

WORK = Path(".cache/preprocess")  # holds raw text, so it goes when the stage ends
FAILED = Path(".cache/failed-preprocess")


def preprocess(data: Path, documents: Out, report: Out, rejected: PrivateOut, *, params: PreprocessParams) -> StageResult:
    """Read, clean, compare, split by group, check, write; every record not taken is counted, and kept in ``rejected``."""
    work = WORK.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    _check_entity_model(params)
    try:
        with started_gates() as check_files:
            with kept_processes():
                cleaned = clean(data.absolute(), work, params)
                counts = cleaned.counts
                _collect(work / "rejected", rejected, private)
                _refuse_if_too_few(counts, data, rejected, params)
                metrics = _measure_deidentification(work, report, rejected, params)
            _gate(check_files, work, report, rejected, params)
        documents.mkdir(parents=True)
        for split in SPLITS:
            if (work / "documents" / split).exists():
                _collect(work / "documents" / split, documents / f"{split}.jsonl")
        write_tasks(cleaned.tasks, documents)
        shutil.move(work / CHANGES.name, rejected.with_name(CHANGES.name))  # it holds text of records too
        _warn_of_few_items(documents)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    public = all_public(data, (name for name in raw_files(data) if not left_out(name)))
    write_whole(
        report / "funnel.json", {"rows": list(counts.rows()), "notes": counts.notes, "decontamination": cleaned.overlap, "public": public}
    )
    metrics |= _count_metrics(counts)
    skipped = f", of which {n:,} hold no text to train on" if (n := counts.total("skipped")) else ""
    print(f"{metrics['documents']:,.0f} documents of {metrics['records']:,.0f} records{skipped}; {summarize_removed(counts)}")
    return StageResult(metrics=metrics, reports=("report",))


def _count_metrics(counts: RuleCounts) -> dict[str, float]:
    """Records, documents by split, and removed records by step."""
    metrics = {"records": counts.total("records", "read", "skipped"), "documents": counts.total("documents")}
    metrics |= {f"removed_{step}": counts.total(step) for step in (*REMOVING, "skipped", "identifiers")}
    by_split = Counter[str]()
    for (step, _, rule), n in counts.counts.items():
        by_split[rule] += n * (step == "documents")
    metrics |= {f"documents_{split}": by_split[split] for split in SPLITS if by_split[split]}
    return {name: float(value) for name, value in metrics.items()}


def _refuse_if_too_few(counts: RuleCounts, data: Path, rejected: Path, params: PreprocessParams) -> None:
    total, bad, used = counts.total("records", "read"), counts.total("read", "clean"), counts.total("documents")
    if not used:
        _keep(rejected)
        raise ValueError(f"{data}: none of {total} records could be used; {summarize_removed(counts)}. They are in {FAILED}")
    if bad / total > params.max_rejected_share:
        _keep(rejected)
        raise ValueError(
            f"{data}: {bad} of {total} records were rejected, more than preprocess.max_rejected_share of "
            f"{params.max_rejected_share} allows; {summarize_removed(counts)}. They are in {FAILED}"
        )


def _warn_of_few_items(documents: Path) -> None:
    """Print where the splits are too small for later gates. Their params change no byte of an output, so the stage depends on none."""
    if PARAMS.exists():
        validate, register = (read_params()[name].model_dump() for name in ("validate", "register"))
        if warning := short_of_items(documents, validate, register):
            print(f"preprocess: {warning}", flush=True)


def _keep(*paths: Path) -> None:
    """Save what explains a failure from being removed with the stage's unfinished outputs."""
    shutil.rmtree(FAILED, ignore_errors=True)
    FAILED.mkdir(parents=True, mode=0o700)
    for path in paths:
        target = FAILED / path.name.removeprefix(".").removesuffix(".partial")
        shutil.copytree(path, target) if path.is_dir() else shutil.copy2(path, target)


def _check_entity_model(params: PreprocessParams) -> None:
    """``ValueError`` where it cannot be read, before a corpus is."""
    if params.deidentify.entity_model:
        from tasks.corpus.deidentify.analyzer import get_analyzer

        get_analyzer(params.deidentify.model_dump_json())


def _measure_deidentification(work: Path, report: Path, rejected: Path, params: PreprocessParams) -> dict[str, float]:
    """Recall and damage on this run's text; ``ValueError`` where recall is lower, or damage higher, than the params allow."""
    from tasks.corpus.deidentify import damage, entity_figures, known_recall, recall  # pool processes import this module too

    shares = recall.measure_recall(params.deidentify, params.seed, work)
    deidentify, withdrawn = params.deidentify.model_dump_json(), frozenset(params.withdrawn)
    measured = damage.measure_damage(work, deidentify, withdrawn)
    without_known = known_recall.measure_known(work, deidentify, withdrawn)
    of_model = entity_figures.measure(params.deidentify, params.seed, work, withdrawn)
    damage.write_strings(work / CHANGES.name, [*measured.documents, *(of_model.damage.documents if of_model else ())])
    report.mkdir(parents=True, exist_ok=True)
    tables = {table: [asdict(row) for row in rows] for table, rows in shares.items()}
    limits = {"min_recall": params.deidentify.min_recall, "max_damage": params.max_damage}
    figures = {"damage": measured.report(), "without_known": without_known, "limits": limits}
    write_whole(report / "deidentification.json", tables | figures | ({"entity_model": of_model.report()} if of_model else {}))
    hard_negatives = shares["all_hard_negatives"]
    problems = []
    if missed := recall.below([*shares["recall"], *shares["languages"]], params.deidentify.min_recall):
        missing = f"the de-identification finds too few of the injected identifiers: {'; '.join(missed)}"
        problems.append(f"{missing} (preprocess.deidentify.min_recall)")
    if harmed := damage.above(measured, hard_negatives, params.max_damage):
        problems.append(f"cleaning changes too much of what is clinical: {'; '.join(harmed)} (preprocess.max_damage)")
    problems += of_model.above(params.max_damage) if of_model else []
    if problems:
        _keep(report, rejected, work / CHANGES.name)
        raise ValueError(f"{'; '.join(problems)}. The report is in {FAILED}")
    recalls = {f"recall_{share.half}_{share.name}": share.share for share in shares["recall"]}
    if of_model:
        print(f"entity model: {of_model.summary()}", flush=True)
    return recalls | damage.metrics_of(measured, hard_negatives) | (of_model.metrics() if of_model else {})


def _gate(check_files: CheckFiles, work: Path, report: Path, rejected: Path, params: PreprocessParams) -> None:
    options: dict[SuiteName, dict[str, int]] = {
        "raw-records": {},
        "clean-documents": {"min_answer": params.min_answer_chars, "max_answer": params.max_answer_chars},
    }
    gates = []
    for name, limits in options.items():
        gates.append(check_files(name, sorted((work / name).glob("*.jsonl")), work, report, **limits))
        print(f"gate {name}: {gates[-1].passed} passed" + "".join(f"; warning: {w}" for w in gates[-1].warned), flush=True)
    if failed := [f"{gate.name}: {problem}" for gate in gates for problem in gate.failed]:
        _keep(report, rejected)
        raise ValueError(f"the data do not pass the gate: {'; '.join(failed)}. The report is in {FAILED}")


def _collect(directory: Path, path: Path, opener: Callable[[str, int], int] | None = None) -> None:
    """Write the files of a directory, in order, as one file."""
    with open(path, "wb", opener=opener) as target:
        for part in sorted(directory.glob("*.jsonl")):
            with open(part, "rb") as file:
                shutil.copyfileobj(file, target)


if __name__ == "__main__":
    run_stage(preprocess)
