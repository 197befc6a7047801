"""What an entity model adds to the rules and what it harms, measured on a run's own text: recall, damage, hard negatives, speed.

All is measured with the model and without it, on the same texts, so that what its marks alone cause is known.
"""

import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from tasks.corpus.cleaning.changes import Change, repaired
from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.deidentify.clinical_spans import ClinicalSpan, find_spans
from tasks.corpus.deidentify.damage import MAX_STRING, PART, DocumentDamage, MeasuredDamage, Rule, above, lost_spans, sample, summarize
from tasks.corpus.deidentify.document import BORDER
from tasks.corpus.deidentify.entity_marks import by_line
from tasks.corpus.deidentify.entity_models import Entity
from tasks.corpus.deidentify.known import known_people
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.pii_templates import PiiTemplate, fill, read_templates
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams, TokenClassifierParams
from tasks.corpus.deidentify.recall import HARD_NEGATIVES, PII, Share, host_texts, inject, is_covered, mean_share
from tasks.corpus.deidentify.trace import IDENTIFIERS, RuleChanges, trace_identifiers
from tasks.corpus.documents import Document
from tasks.runtime.artifacts import CHANGES
from tasks.runtime.pool import run_all

STEP = "entity model"  # of changes, beside repairs and identifiers
UNLISTED = "unlisted"  # of what the model would change if no list of words were asked
BY_MODEL, BY_RULES, BY_BOTH = "model", "rules", "both"
TEMPLATES = 60  # that a process measures at a time


@dataclass(frozen=True)
class EntityFigures:
    """The figures of a run's entity model. Damage and hard negatives are what its marks change and the rules do not."""

    recall: dict[str, list[Share]]  # by type, of the model by itself, the rules, and both
    hard_negatives: list[Share]
    damage: MeasuredDamage
    unlisted: MeasuredDamage  # what the model marks before any list is asked
    words_per_second: float  # of the model, on one core; it differs from run to run, so no file of the stage has it

    def report(self) -> dict[str, Any]:
        """All that is the same in every run with the same params and documents."""
        rows = zip(self.damage.by_type, self.unlisted.by_type, strict=True)
        by_type = [asdict(row) | {"unlisted": unlisted.share} for row, unlisted in rows]
        return {
            "recall": {by: [asdict(row) for row in shares] for by, shares in self.recall.items()},
            "hard_negatives": [asdict(row) for row in self.hard_negatives],
            "damage": self.damage.report() | {"by_type": by_type},
        }

    def metrics(self) -> dict[str, float]:
        """The figures for the tracker."""
        metrics = {f"entity_model_recall_{row.name}": row.share for row in self.recall[BY_MODEL]}
        metrics |= {f"entity_model_damage_{row.name}": row.share for row in self.damage.by_type if row.spans}
        metrics |= {f"entity_model_damage_{row.half}_hard_negatives": row.share for row in self.hard_negatives}
        return metrics | {"entity_model_words_per_second": round(self.words_per_second, 1)}

    def summary(self) -> str:
        """What it finds and changes, and how fast, in a line."""
        recall = ", ".join(f"{by_model.name} {by_model.share:.3f}" for by_model in self.recall[BY_MODEL])
        changes = sum(row.per_1000_words for row in self.damage.by_rule)
        return (
            f"by itself the model finds {recall}; its marks alone change {changes:.2f} places per 1,000 words; "
            f"it reads {self.words_per_second:,.0f} words/s on one core"
        )

    def above(self, limits: Mapping[str, float]) -> list[str]:
        """A message where the changes that the model alone causes are above a limit of ``max_damage``."""
        harmed = above(self.damage, self.hard_negatives, limits)
        return (
            [
                f"the entity model changes too much of what is clinical, beyond what the rules change: {'; '.join(harmed)} "
                f"(preprocess.max_damage); {self.summary()}. Take it out of preprocess.deidentify.entity_model, or raise the limits: "
                f"{CHANGES.name} lists its marks, as the step {STEP!r}"
            ]
            if harmed
            else []
        )


def measure(params: DeidentifyParams, seed: int, work: Path, withdrawn: Container[str] = ()) -> EntityFigures | None:
    """The figures of the params' entity model on the documents in ``work`` that recall and damage are measured on; None without a model.

    Each template is injected once, with English names where it is written in English.
    """
    if not params.entity_model:
        return None
    types = _types(params)
    hosts, both, rules = host_texts(work), params.model_dump_json(), params.model_copy(update={"entity_model": ""}).model_dump_json()
    templates = [(table, t) for table in (PII, HARD_NEGATIVES) for t in read_templates(table) if table != PII or t.name in types]
    parts = [(templates[i : i + TEMPLATES], hosts, both, rules, seed) for i in range(0, len(templates), TEMPLATES)]
    injected = [row for part in run_all(_measure_templates, parts, desc="entity model: injected identifiers") for row in part]
    documents, drugs = sample(work, withdrawn), lexicon().drugs
    parts_of_sample = [(documents[i : i + PART], both, rules, drugs, work) for i in range(0, len(documents), PART)]
    measured = [row for part in run_all(_measure_documents, parts_of_sample, desc="entity model: damage") for row in part]
    words, seconds = sum(row.damage.words for row in measured), sum(row.seconds for row in measured)
    return EntityFigures(
        {by: list(_recall(injected, by)) for by in (BY_MODEL, BY_RULES, BY_BOTH)},
        list(_hard_negatives(injected)),
        summarize([row.damage for row in measured]),
        summarize([row.unlisted for row in measured]),
        words / max(seconds, 1e-9),
    )


def _types(params: DeidentifyParams) -> frozenset[str]:
    """What the model marks and the policy does not keep."""
    model = params.entity_model
    types = model.labels.values() if isinstance(model, TokenClassifierParams) else ("NAME",)
    return frozenset(type_ for type_ in types if params.action(type_) != "keep")


@dataclass(frozen=True)
class _Injected:
    """What became of one template: the shares of its spans that were detected, or touched, by whom."""

    table: str
    template: PiiTemplate
    spans: int
    hits: dict[str, float]


def _measure_templates(
    templates: Sequence[tuple[str, PiiTemplate]], hosts: Sequence[str], both: str, rules: str, seed: int
) -> list[_Injected]:
    analyzer, by_rules = get_analyzer(both), get_analyzer(rules)
    measured = []
    for table, template in templates:
        rng = Random(f"{seed} {template.text} {STEP}")
        filled = inject(fill(template.text, rng), rng.choice(hosts), rng)
        detected = {
            BY_MODEL: analyzer.analyze(filled.text, by_rules=False),
            BY_BOTH: analyzer.analyze(filled.text),
            BY_RULES: by_rules.analyze(filled.text),
        }
        hits = Counter[str]()
        for start, end in filled.spans:
            for by, spans in detected.items():
                touched = any(span.start < end and start < span.end for span in spans)
                hits[by] += is_covered(filled.text, start, end, spans) if table == PII else touched
        measured.append(_Injected(table, template, len(filled.spans), {by: hits[by] / len(filled.spans) for by in detected}))
    return measured


def _recall(injected: Sequence[_Injected], by: str) -> Iterator[Share]:
    rows = sorted((row for row in injected if row.table == PII), key=lambda row: list(TYPES).index(row.template.name))
    for name, group in groupby(rows, key=lambda row: row.template.name):
        of_type = list(group)
        yield mean_share(name, "all", [row.hits[by] for row in of_type], sum(row.spans for row in of_type))


def _hard_negatives(injected: Sequence[_Injected]) -> Iterator[Share]:
    """Of all, and of those that are held out, what the model touches and the rules do not."""
    rows = [row for row in injected if row.table != PII]
    for half, members in (("all", rows), ("held-out", [row for row in rows if row.template.held_out])):
        by_model_alone = [max(0.0, row.hits[BY_BOTH] - row.hits[BY_RULES]) for row in members]
        yield mean_share("hard_negatives", half, by_model_alone, sum(row.spans for row in members))


@dataclass(frozen=True)
class _Measured:
    """What the model does to one document: to its clinical spans with and without the lists, and the seconds that it takes."""

    damage: DocumentDamage
    unlisted: DocumentDamage
    seconds: float


def _measure_documents(documents: Sequence[Document], both: str, rules: str, drugs: Container[str], work: Path) -> list[_Measured]:
    analyzer, known, measured = get_analyzer(both), known_people(work), list[_Measured]()
    for document in documents:
        clean = repaired(document)
        text = BORDER.join(clean.texts())
        start = time.thread_time()
        entities = analyzer.entities(text)
        seconds = time.thread_time() - start
        spans = find_spans(text, drugs)
        of_rules = list(trace_identifiers(clean, rules, known))
        by_model = _added(document.id, text, spans, list(trace_identifiers(clean, both, known)), of_rules)
        measured.append(_Measured(by_model, _added(document.id, text, spans, _unlisted(entities, text), of_rules), seconds))
    return measured


def _unlisted(entities: Sequence[Entity], text: str) -> list[RuleChanges]:
    """The changes of a model's entities as they are."""
    changes = [Change(start, end, text[start:end], f"[{type_}]") for start, end, type_ in by_line(entities, text)]
    return [RuleChanges(IDENTIFIERS, UNLISTED, text, changes)]


def _added(
    id_: str, text: str, spans: Sequence[ClinicalSpan], of_model: Sequence[RuleChanges], of_rules: Sequence[RuleChanges]
) -> DocumentDamage:
    """What the changes of a model add to those of the rules: places, and clinical spans that are lost, each once."""
    positions = {(change.start, change.end) for traced in of_rules for change in traced.changes}
    lost_before = {span for traced in of_rules for span in lost_spans(traced, spans)}
    changes, strings, lost = Counter[Rule](), Counter[tuple[Rule, str, str]](), dict[ClinicalSpan, Rule]()
    for traced in of_model:
        rule = STEP, traced.rule
        own = [change for change in traced.changes if (change.start, change.end) not in positions]
        changes[rule] += len(own)
        strings.update((rule, change.before[:MAX_STRING], change.after[:MAX_STRING]) for change in own)
        lost |= {span: rule for span in lost_spans(traced, spans) if span not in lost_before}
    by_type = Counter((rule, span.type) for span, rule in lost.items())
    return DocumentDamage(id_, len(text.split()), Counter(span.type for span in spans), +changes, by_type, strings)
