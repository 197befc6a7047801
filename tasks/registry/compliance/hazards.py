"""The hazards of a version in the manner of ISO 14971: what may go wrong, how often that was measured, and what stands against it.

Severity, probability of harm and residual risk are a person's to say; what was not measured says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.evaluation.metrics import METRICS, current_name, label
from tasks.registry.compliance import evidence as known
from tasks.registry.compliance.entries import Strict, is_not_measured
from tasks.registry.compliance.evidence import Evidence, Source

ASSESSED = ("severity", "probability", "residual_risk")


@dataclass(frozen=True)
class Hazard:
    """A hazard before anything of it was measured."""

    hazard: str
    situation: str
    harm: str
    metrics: tuple[tuple[str, str], ...] = ()  # of the evaluation, with their splits
    sources: tuple[Source, ...] = field(default=())  # of what else was measured
    controls: tuple[Source, ...] = field(default=())


HAZARDS: Mapping[str, Hazard] = {
    "invented_values": Hazard(
        "The model states a value that the note does not state",
        "Somebody takes the value over without looking at the note",
        "Wrong treatment or record",
        (("hallucinated", "test"), ("hallucinated", "ood")),
    ),
    "wrong_values": Hazard(
        "The model extracts a wrong value, or leaves one out",
        "A missing or wrong value is not noticed",
        "Wrong or late treatment, wrong record",
        (("field_precision", "test"), ("field_recall", "test"), ("field_f1", "ood")),
    ),
    "misread_meaning": Hazard(
        "The model overlooks a negation or takes one dose for another",
        "An answer about a patient turns into its opposite",
        "Wrong treatment",
        (("negation", "behaviour"), ("dose", "behaviour")),
    ),
    "wrong_answers": Hazard(
        "The model answers a question wrongly, in words that convince",
        "Somebody without the knowledge to check acts on the answer",
        "Wrong or late treatment",
        (("choice", "test"), ("consistency", "test"), ("answer_nll", "test"), ("answer_nll", "ood")),
    ),
    "memorized_text": Hazard(
        "The model continues text of its training data word for word",
        "Somebody who may use the model reads what they must not read",
        "Disclosure of a patient's data",
        (("extraction", "train"), ("extraction", "test")),
    ),
    "missed_identifiers": Hazard(
        "An identifier of a person stays in the training text",
        "The model or its shards show it",
        "Disclosure of a patient's data",
        sources=(known.recall, known.annotation),
        controls=(known.least_recall,),
    ),
    "damaged_text": Hazard(
        "The cleaning changes clinical text, a value for instance",
        "The model learns from text that says something else than the note",
        "Wrong answers",
        sources=(known.damage, known.annotation),
        controls=(known.max_damage,),
    ),
    "useless_answers": Hazard(
        "Answers do not end, are empty or repeat themselves",
        "Time is lost, or what matters is overlooked",
        "Late treatment",
        (("stop", "test"), ("empty", "test"), ("repetition", "test")),
    ),
    "lost_abilities": Hazard(
        "Fine-tuning takes abilities that the base model had",
        "The model fails at what people take for granted",
        "Wrong answers",
        (("general_nll", "general"),),
    ),
    "unequal_performance": Hazard(
        "The model is worse for some groups of patients",
        "Patients of a group are served worse, unnoticed",
        "Unequal treatment",
        sources=(known.fairness,),
    ),
}


class Figure(Strict):
    """A metric of this version with its 95 % interval."""

    metric: str
    split: str
    items: int
    value: float
    low: float
    high: float


class AssessedHazard(Strict):
    """A hazard with what was measured of it and what a person says."""

    id: str
    hazard: str
    situation: str
    harm: str
    figures: list[Figure]
    evidence: list[str]
    controls: list[str]
    statements: dict[str, str]
    state: Literal["stated", "to be filled in"]
    measured: bool


def assessed(evidence: Evidence, statements: Mapping[str, str]) -> Iterator[AssessedHazard]:
    """Each hazard, with the statements of a form by their keys."""
    for name, hazard in HAZARDS.items():
        sentences = [sentence for source in _sources(hazard) for sentence in source(evidence)]
        stated = {key: statements[f"hazards.{name}.{key}"] for key in ASSESSED}
        yield AssessedHazard(
            id=name,
            hazard=hazard.hazard,
            situation=hazard.situation,
            harm=hazard.harm,
            figures=list(_figures(evidence, hazard)),
            evidence=sentences,
            controls=[*_gate(evidence, hazard), *(sentence for source in hazard.controls for sentence in source(evidence))],
            statements=stated,
            state="stated" if all(stated.values()) else "to be filled in",
            measured=not all(map(is_not_measured, sentences)),
        )


def _sources(hazard: Hazard) -> tuple[Source, ...]:
    return (*(known.scores(metric, split) for metric, split in hazard.metrics), *hazard.sources)


def _figures(evidence: Evidence, hazard: Hazard) -> Iterator[Figure]:
    for metric, split in hazard.metrics:
        if row := evidence.row(metric, split):
            tuned = row["tuned"]
            yield Figure(metric=metric, split=split, items=row["items"], value=tuned["value"], low=tuned["low"], high=tuned["high"])


def _gate(evidence: Evidence, hazard: Hazard) -> Iterator[str]:
    """The limits that the gate sets to these metrics."""
    names = {metric for metric, _ in hazard.metrics}
    for rule in evidence.gate.get("thresholds", []):
        if (metric := current_name(rule["metric"])) in names:
            than = " less the base model's" if rule["figure"] == "change" else ""
            for word, limit in (("at least", _value(rule, "min", "least")), ("at most", _value(rule, "max", "most"))):
                if limit is not None:
                    yield f"Gate: {_named(metric, rule)}{than}: {word} {METRICS[metric].format(limit)}"
    for rule in _value(evidence.gate, "guardrails", "guarded") or []:
        metric, instead = current_name(rule["metric"]), current_name(rule.get("unless", ""))
        if metric in names and instead not in {measured for measured, _ in evidence.rows}:
            yield f"Gate: {_named(metric, rule)}: worse than the champion's by at most {METRICS[metric].format(rule['margin'])}"


def _value(content: Mapping[str, Any], key: str, former: str) -> Any:
    """A value of params, which older versions have under a former key."""
    return content.get(key, content.get(former))


def _named(metric: str, rule: Mapping[str, Any]) -> str:
    return label(metric) + (f", split {rule['split']}" if rule.get("split") else "")
