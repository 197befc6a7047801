"""Variants of train documents, and general text against forgetting: ``python -m tasks.augment``.

A variant states the same: it keeps its original's group and split, names it as its parent, and holds the same numbers, negations,
sides, directions, drugs and genes, or it is dropped. Nothing is random: which document gets which variants follows from the seed and
its id.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from tasks.corpus.augmentation import balance, lay
from tasks.corpus.augmentation.methods import METHODS, states_the_same
from tasks.corpus.documents import Document, content_id, read_documents, share, write_documents
from tasks.corpus.extraction.definitions import Task, read_tasks
from tasks.corpus.gates import CheckFiles, started_gates
from tasks.corpus.params import AugmentParams
from tasks.corpus.readers.hpo import lay_synonyms
from tasks.corpus.row_metrics import RowMetrics
from tasks.runtime.files import write_whole
from tasks.stage import Out, StageResult, run_stage

MAX_EXAMPLES = 5
BALANCE = "balance"
WORK = Path(".cache/augment")


@dataclass
class MethodStats:
    """Of a method: on how many documents it was tried, how many variants it gave, and what was dropped."""

    tried: int = 0
    kept: int = 0
    dropped: int = 0  # as the variant did not state the same
    examples: list[str] = field(default_factory=list)  # ids of originals

    def keep(self, original: Document, variant: Document, method: str, key: str) -> Document:
        """Count a variant; as a document of its own, with ``key`` as its id."""
        self.kept += 1
        self.examples = sorted({*self.examples, original.id})[:MAX_EXAMPLES]
        return replace(variant, id=key, method=method, parent=original.id)


def augment(data: Path, documents: Path, variants: Out, report: Out, *, params: AugmentParams) -> StageResult:
    """Write the variants of the train split, and what of the split replay is trained on; originals stay where they are."""
    stats = {name: MethodStats() for name in (*METHODS, BALANCE)}
    terms = lay.lay_terms(pair for path in sorted(data.rglob("*.obo")) for pair in lay_synonyms(path))
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    counts = Counter[str]()
    with started_gates() as check_files:
        with open(WORK / "row-metrics.jsonl", "w", encoding="utf-8") as metrics:
            write_documents(_augmented(documents, terms, params, stats, counts, metrics), variants)
        total = sum(of_method.kept for of_method in stats.values())
        if total:
            _gate(check_files, report)
    shutil.rmtree(WORK)
    report.mkdir(parents=True, exist_ok=True)
    methods = {name: asdict(of_method) for name, of_method in stats.items()}
    write_whole(report / "augment.json", {"methods": methods, "train_documents": counts["documents"], "replayed": counts["replayed"]})
    rows = [f"{of_method.kept:,} {name}" for name, of_method in stats.items() if of_method.kept]
    print(f"{total:,} variants of {counts['documents']:,} train documents: {', '.join(rows) or 'none'}; {counts['replayed']:,} replayed")
    totals = {"train_documents": counts["documents"], "variants": total, "replayed": counts["replayed"]}
    totals |= {f"variants_{name}": s.kept for name, s in stats.items()} | {f"dropped_{name}": s.dropped for name, s in stats.items()}
    return StageResult(metrics={name: float(value) for name, value in totals.items()}, reports=("report",))


def _augmented(
    documents: Path,
    terms: Mapping[str, str],
    params: AugmentParams,
    stats: Mapping[str, MethodStats],
    counts: Counter[str],
    metrics: IO[str],
) -> Iterator[Document]:
    """The variants of every train document, then the replayed ones; ``counts`` and the variants' row metrics are written on the way."""
    tasks, kinds = read_tasks(documents), balance.count_kinds(read_documents(documents, "train"))
    for document in read_documents(documents, "train"):
        counts["documents"] += 1
        counts["characters"] += sum(map(len, document.texts()))
        of_document = _asked_again(document, tasks, kinds, params, stats) if document.task else variants_of(document, params, terms, stats)
        for rank, variant in enumerate(of_document, 1):
            counts["characters"] += sum(map(len, variant.texts()))
            metrics.write(json.dumps(_row_metrics(document, variant, rank)) + "\n")
            yield variant
    yield from _replayed(documents, counts, params)


def variants_of(document: Document, params: AugmentParams, terms: Mapping[str, str], stats: Mapping[str, MethodStats]) -> list[Document]:
    """The variants of a document, by the methods whose share it falls in, in an order that is its own; ``stats`` counts them."""
    variants: list[Document] = []
    for name in sorted(METHODS, key=lambda method: share(params.seed, "order", method, document.id)):
        if len(variants) == params.max_copies or share(params.seed, name, document.id) >= getattr(params, name):
            continue
        stats[name].tried += 1
        variant = METHODS[name](document, params.seed, terms)
        if variant is None or variant.texts() == document.texts():
            continue
        if not states_the_same(document, variant, name):
            stats[name].dropped += 1
            continue
        key = content_id(document.id, name, str(params.seed), *variant.texts())
        variants.append(stats[name].keep(document, variant, name, key))
    return variants


def _asked_again(
    document: Document, tasks: Mapping[str, Task], kinds: Counter[balance.Kind], params: AugmentParams, stats: Mapping[str, MethodStats]
) -> list[Document]:
    """The variants of a task's document. Its note stays as it is, as a changed one would not state what its record holds."""
    often = balance.times(document, kinds, params.balance)
    again = balance.asked_again(document, tasks[document.task].definition.instructions, often, params.seed)
    stats[BALANCE].tried += bool(again)
    keys = (content_id(document.id, BALANCE, str(params.seed), str(rank)) for rank in range(len(again)))
    return [stats[BALANCE].keep(document, variant, BALANCE, key) for variant, key in zip(again, keys, strict=True)]


def _replayed(documents: Path, counts: Counter[str], params: AugmentParams) -> Iterator[Document]:
    """General text up to its share of all characters. In the order of ids, which are digests, so it is a sample of all there is."""
    max_characters = counts["characters"] * params.replay_share / (1 - params.replay_share)
    characters = 0
    for document in read_documents(documents, "replay"):
        characters += sum(map(len, document.texts()))
        if characters > max_characters:
            return
        counts["replayed"] += 1
        yield replace(document, split="train", method="replay")  # it keeps its id, which shows later that it was trained on


def _row_metrics(document: Document, variant: Document, rank: int) -> RowMetrics:
    return {
        "id": variant.id,
        "split": variant.split,
        "method": variant.method or None,
        "without_parent": int(variant.parent != document.id),
        "same_as_parent": int(variant.texts() == document.texts()),
        "other_group": int(variant.group != document.group),
        "changed_facts": int(not states_the_same(document, variant, variant.method)),
        "copies_of_parent": rank,
    }


def _gate(check_files: CheckFiles, report: Path) -> None:
    gate = check_files("augmented-documents", [WORK / "row-metrics.jsonl"], WORK, report)
    print(f"gate {gate.name}: {gate.passed} passed" + "".join(f"; warning: {w}" for w in gate.warned), flush=True)
    if gate.failed:
        raise ValueError(f"the variants do not pass the gate: {'; '.join(gate.failed)}")


if __name__ == "__main__":
    run_stage(augment)
