"""What it adds to know people: recall and damage of the rules with and without the people whom the data names, on the run's own text."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.cleaning.changes import repaired
from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.deidentify.damage import PART, Damage, DocumentDamage, damage_by_type, measure_document, sample
from tasks.corpus.deidentify.document import BORDER
from tasks.corpus.deidentify.known import known_people
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.recall import is_covered, wilson
from tasks.corpus.documents import Document
from tasks.runtime.pool import are_processes_kept, run_all

SMALL = 200_000  # characters that one process measures sooner than a pool starts


@dataclass(frozen=True)
class KnownShare:
    """Of the places where known people are named in the sample, those that the rules alone find."""

    name: str  # type of identifier
    documents: int  # with such places
    spans: int
    covered: int
    share: float
    low: float  # of Wilson's interval at 95 %, with the number of documents as the number of trials
    high: float


@dataclass(frozen=True)
class _Measured:
    spans: Counter[str]
    covered: Counter[str]
    damage: DocumentDamage  # of the rules alone


def measure_known(work: Path, params: str, withdrawn: Container[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """``recall``: what the rules alone find of known people, by type; ``damage``: that of the rules alone, by type. Both on the sample that
    ``damage.measure_damage`` takes, and empty where the data names nobody.
    """
    if not known_people(work):
        return {"recall": [], "damage": []}
    documents, drugs = sample(work, withdrawn), lexicon().drugs
    parts = [(documents[i : i + PART], params, drugs, work) for i in range(0, len(documents), PART)]
    is_small = sum(len(text) for document in documents for text in document.texts()) < SMALL and not are_processes_kept()
    measured = [m for part in run_all(_measure_part, parts, desc="known people", here=is_small) for m in part]
    damage: list[Damage] = list(damage_by_type([m.damage for m in measured]))
    types = sorted({type_ for m in measured for type_ in m.spans})
    return {"recall": [asdict(_share(type_, measured)) for type_ in types], "damage": [asdict(row) for row in damage if row.spans]}


def _measure_part(documents: Sequence[Document], params: str, drugs: Container[str], work: Path) -> list[_Measured]:
    return [_measure(document, params, drugs, work) for document in documents]


def _measure(document: Document, params: str, drugs: Container[str], work: Path) -> _Measured:
    analyzer = get_analyzer(params)
    text = BORDER.join(repaired(document).texts())
    known = [span for span in known_people(work).find(text, document.group) if analyzer.params.action(span.type) != "keep"]
    detected = analyzer.analyze(text) if known else []
    covered = [span for span in known if is_covered(text, span.start, span.end, detected)]
    by_type, covered_by_type = (Counter(span.type for span in spans) for spans in (known, covered))
    return _Measured(by_type, covered_by_type, measure_document(document, params, drugs))


def _share(type_: str, measured: Sequence[_Measured]) -> KnownShare:
    documents = sum(bool(m.spans[type_]) for m in measured)
    spans, covered = sum(m.spans[type_] for m in measured), sum(m.covered[type_] for m in measured)
    share = covered / spans
    return KnownShare(type_, documents, spans, covered, round(share, 4), *wilson(share, documents))
