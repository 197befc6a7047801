"""How much of what is clinical cleaning changes, measured on a sample of the run's own documents, by rule and by type.

Every rule is applied to the raw documents once more, one after the other, so that each change is its rule's. Documents are read as wholes,
so that a confidence interval counts documents, not spans.
"""

import csv
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from tasks.corpus.cleaning.changes import Change
from tasks.corpus.deidentify.clinical_spans import WEAK, ClinicalSpan, find_spans, gaps, is_of_a_person
from tasks.corpus.deidentify.known import NOBODY, KnownPeople, known_people
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.policy import CLINICAL, VALUES
from tasks.corpus.deidentify.recall import Share, wilson
from tasks.corpus.deidentify.trace import IDENTIFIERS, RuleChanges, trace
from tasks.corpus.documents import Document, private, read_lines
from tasks.runtime.pool import are_processes_kept, run_all

MAX_DOCUMENTS = 2000  # the sample: the first documents by id, which are a sample of all, as ids are digests; of each raw file as many
MAX_CHARS = 800_000  # of the sample's documents, of which the last is taken whole
PART = 100  # documents that a process measures at a time
SMALL = 1_000_000  # characters that one process measures sooner than a pool starts
MAX_STRINGS, MAX_STRING = 20, 100  # of the private table: strings per rule, and characters of each
MAX_EXAMPLES = 5  # ids of documents per string
_WORDS = frozenset({"drug", "anatomy", "eponym"})

Rule = tuple[str, str]  # (step, name), as in the counts by rule


@dataclass(frozen=True)
class Damage:
    """How many clinical spans of a type were changed or lost; of ``notes``, how many documents with values lost one."""

    name: str  # of policy.DAMAGE
    documents: int  # that have such spans
    spans: int
    changed: int
    share: float
    low: float  # of Wilson's interval at 95 %, with the number of documents as the number of trials
    high: float


@dataclass(frozen=True)
class RuleDamage:
    """What one rule changed in the sample."""

    step: str  # repairs or identifiers
    rule: str
    documents: int  # that it changed
    changes: int
    per_1000_words: float
    share: float  # of the sample's documents that it changed
    low: float
    high: float
    clinical: list[Damage]  # what of it was clinical, by type; types without any are left out


@dataclass(frozen=True)
class DocumentDamage:
    """What was measured of one document; ``strings`` hold its text, so they go to the private table alone."""

    id: str
    words: int
    spans: Counter[str]  # by type
    changes: Counter[Rule]
    lost: Counter[tuple[Rule, str]]  # by rule and type
    strings: Counter[tuple[Rule, str, str]]  # by rule, before and after


@dataclass(frozen=True)
class MeasuredDamage:
    """The damage of a run: by type, with ``value`` and ``notes``, and by rule. ``documents`` are those of the sample."""

    documents: list[DocumentDamage] = field(repr=False)
    by_type: list[Damage]
    by_rule: list[RuleDamage]

    def report(self) -> dict[str, Any]:
        """All figures, without any text."""
        return {
            "sample": {"documents": len(self.documents), "words": sum(d.words for d in self.documents)},
            "by_type": [asdict(row) for row in self.by_type],
            "by_rule": [asdict(row) for row in self.by_rule],
        }


def measure_damage(work: Path, params: str, withdrawn: Container[str] = ()) -> MeasuredDamage:
    """The damage on the raw documents in ``work``; ``params`` are those of the de-identification as JSON.

    The same params and documents give the same numbers, in whatever order and files the documents come.
    """
    documents, drugs = sample(work, withdrawn), lexicon().drugs
    parts = [(documents[i : i + PART], params, drugs, work) for i in range(0, len(documents), PART)]
    is_small = sum(len(text) for document in documents for text in document.texts()) < SMALL and not are_processes_kept()
    return summarize([d for part in run_all(_measure_part, parts, desc="damage", here=is_small) for d in part])


def summarize(documents: list[DocumentDamage]) -> MeasuredDamage:
    """What was measured of all documents."""
    return MeasuredDamage(documents, list(damage_by_type(documents)), list(_by_rule(documents)))


def sample(work: Path, withdrawn: Container[str] = ()) -> list[Document]:
    """The raw documents that are measured: of each raw file as many, the first by id, less those that are withdrawn; one of each id."""
    partitions = {partition: sorted(partition.glob("*.jsonl")) for partition in sorted((work / "raw").glob("*"))}
    files = {path.name for paths in partitions.values() for path in paths}  # each has the records of one raw file
    share = ceil(MAX_DOCUMENTS / max(1, len(files)))
    chosen: dict[str, Document] = {}
    taken = Counter[str]()
    chars = 0
    for paths in partitions.values():
        raw = [(path.name, d) for path in paths if taken[path.name] < share for d in read_lines(path) if d.id not in withdrawn]
        for file, document in sorted(raw, key=lambda pair: (pair[1].id, *pair[1].texts(), pair[1].source)):
            if len(chosen) == MAX_DOCUMENTS or chars > MAX_CHARS:
                return list(chosen.values())
            if document.id not in chosen and taken[file] < share:
                # The answer to a task is values of the record and no text.
                chosen[document.id] = replace(document, answer="") if document.task else document
                taken[file] += 1
                chars += sum(map(len, document.texts()))
    return list(chosen.values())


def above(measured: MeasuredDamage, hard_negatives: Sequence[Share], limits: Mapping[str, float]) -> list[str]:
    """A message for each kind of damage that is above its limit, keys as in ``policy.DAMAGE``.

    On the run's own text the whole interval must be above it, as few documents show little; the templates of hard negatives are many.
    """
    messages = [
        f"{row.name} {row.share:.4f} ({row.low:.4f} to {row.high:.4f}) > {limits[row.name]}"
        for row in measured.by_type
        if row.low > limits.get(row.name, 1)
    ]
    limit = limits.get("hard_negatives", 1)
    return messages + [f"{s.name} {s.share:.4f} > {limit}" for s in hard_negatives if s.half == "all" and s.share > limit]


def metrics_of(measured: MeasuredDamage, hard_negatives: Sequence[Share]) -> dict[str, float]:
    """The figures for the tracker: shares by type, of all and of held-out hard negatives, and changes per 1,000 words."""
    metrics = {f"damage_{row.name}": row.share for row in measured.by_type if row.spans}
    metrics |= {f"damage_{share.half}_hard_negatives": share.share for share in hard_negatives}
    words = sum(d.words for d in measured.documents)
    changes = sum(row.changes for row in measured.by_rule)
    return metrics | {"damage_documents": float(len(measured.documents)), "damage_changes_per_1000_words": _per_1000(changes, words)}


def write_strings(path: Path, documents: Sequence[DocumentDamage]) -> None:
    """The private table: what each rule changed most often in the sample, a file that its owner alone may read."""
    counts = Counter[tuple[Rule, str, str]]()
    examples: dict[tuple[Rule, str, str], list[str]] = {}
    for document in documents:  # sorted by id
        counts.update(document.strings)
        for key in document.strings:
            ids = examples.setdefault(key, [])
            if len(ids) < MAX_EXAMPLES:
                ids.append(document.id)
    shown = Counter[Rule]()
    with open(path, "w", encoding="utf-8", newline="", opener=private) as file:
        table = csv.writer(file)
        table.writerow(["step", "rule", "before", "after", "times", "documents"])
        for (rule, before, after), n in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0])):
            shown[rule] += 1
            if shown[rule] <= MAX_STRINGS:
                table.writerow([*rule, before, after, n, " ".join(examples[rule, before, after])])


def measure_document(document: Document, params: str, drugs: Container[str] = frozenset(), known: KnownPeople = NOBODY) -> DocumentDamage:
    """What cleaning changes in one raw document."""
    texts = document.texts()
    changes, lost, strings = Counter[Rule](), Counter[tuple[Rule, str]](), Counter[tuple[Rule, str, str]]()
    spans, text = list[ClinicalSpan](), ""
    for traced in trace(document, params, known):
        rule = traced.step, traced.rule
        if traced.text != text:  # the types of identifiers have theirs in common
            spans, text = find_spans(traced.text, drugs), traced.text
        changes[rule] += len(traced.changes)
        lost.update((rule, span.type) for span in lost_spans(traced, spans))
        strings.update((rule, change.before[:MAX_STRING], change.after[:MAX_STRING]) for change in traced.changes)
    counted = Counter(span.type for raw in texts for span in find_spans(raw, drugs))
    return DocumentDamage(document.id, sum(len(raw.split()) for raw in texts), counted, changes, lost, strings)


def lost_spans(traced: RuleChanges, spans: Sequence[ClinicalSpan]) -> Iterator[ClinicalSpan]:
    """The clinical spans of a text that a rule changed or lost."""
    starts, ends = [c.start for c in traced.changes], [c.end for c in traced.changes]
    for span in spans:
        near = traced.changes[bisect_left(ends, span.start) : bisect_right(starts, span.end)]
        if any(_loses(traced, span, change) for change in near):
            yield span


def _loses(traced: RuleChanges, span: ClinicalSpan, change: Change) -> bool:
    """Whether a change that overlaps a span or touches it loses it."""
    is_inside = (change.start < span.end and span.start < change.end) or span.start < change.start == change.end < span.end
    joins_lines = "\n" in change.before and "\n" not in change.after
    if span.type == "row":
        splits = is_inside and "\n" in change.after and "\n" not in change.before
        return joins_lines or splits or (is_inside and "|" in change.before and "|" not in change.after)
    if span.type == "columns":
        return is_inside and _joins_columns(traced.text, change)
    if span.type == "heading" and change.is_blank():
        return joins_lines and (change.end <= span.start or traced.text[span.end : change.start].strip() == "")
    if not is_inside or change.is_blank() or change.is_composed():
        return False
    return traced.step != IDENTIFIERS or not _is_of_an_identifier(traced.text, span, change)


def _joins_columns(text: str, change: Change) -> bool:
    around = gaps(text, max(0, change.start - 1), change.end + 1)
    return any(change.start < end and start < change.end for start, end in around) and not re.search(r"\t|  | \|", change.after)


def _is_of_an_identifier(text: str, span: ClinicalSpan, change: Change) -> bool:
    """Whether a mask is right although it holds a clinical span: a number that is part of a longer one, a word that is a person's name."""
    if span.type in WEAK:
        return bool(re.search(r"\w", text[change.start : span.start] + text[span.end : change.end]))
    return span.type in _WORDS and is_of_a_person(text, change.start)


def _measure_part(documents: Sequence[Document], params: str, drugs: Container[str], work: Path) -> list[DocumentDamage]:
    known = known_people(work)
    return [measure_document(document, params, drugs, known) for document in documents]


def damage_by_type(measured: Sequence[DocumentDamage]) -> Iterator[Damage]:
    """The damage by type, first of values of all kinds and of notes."""
    rules = {rule for document in measured for rule in document.changes}
    yield _damage("value", measured, rules, tuple(VALUES))
    with_values = [d for d in measured if any(d.spans[type_] for type_ in VALUES)]
    changed = sum(any(type_ in VALUES for _, type_ in d.lost) for d in with_values)
    share = changed / max(1, len(with_values))
    yield Damage("notes", len(with_values), len(with_values), changed, round(share, 4), *wilson(share, len(with_values)))
    yield from (_damage(type_, measured, rules, (type_,)) for type_ in CLINICAL)


def _damage(name: str, measured: Sequence[DocumentDamage], rules: Container[Rule], types: Sequence[str]) -> Damage:
    """Of the spans of some types, those that some rules changed."""
    documents = sum(any(d.spans[type_] for type_ in types) for d in measured)
    spans = sum(d.spans[type_] for d in measured for type_ in types)
    changed = sum(n for d in measured for (rule, type_), n in d.lost.items() if rule in rules and type_ in types)
    share = min(1.0, changed / max(1, spans))  # a repair can make spans, which another rule then changes
    return Damage(name, documents, spans, changed, round(share, 4), *wilson(share, documents))


def _by_rule(measured: Sequence[DocumentDamage]) -> Iterator[RuleDamage]:
    words = sum(d.words for d in measured)
    for rule in sorted({rule for document in measured for rule in document.changes}):
        documents, changes = sum(rule in d.changes for d in measured), sum(d.changes[rule] for d in measured)
        share = documents / len(measured)
        by_type = [_damage(type_, measured, {rule}, (type_,)) for type_ in CLINICAL]
        clinical = [row for row in by_type if row.changed]
        interval = wilson(share, len(measured))
        yield RuleDamage(*rule, documents, changes, _per_1000(changes, words), round(share, 4), *interval, clinical)


def _per_1000(count: int, words: int) -> float:
    return round(1000 * count / max(1, words), 3)
