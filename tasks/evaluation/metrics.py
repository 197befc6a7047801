"""The metrics of an evaluation in one table: what each is called, which way is better, and how people are shown its figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Literal

Unit = Literal["nll", "bits", "share", "error"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric before it is measured."""

    label: str  # for people, with its unit
    unit: Unit  # nll: nats per token, with a perplexity; share: of items, between 0 and 1
    higher_is_better: bool = False
    per_item: bool = True  # every item has a score; else the metric only exists over all items of a split
    own_weights: bool = False  # an item's weight depends on what the model wrote: a share of the values that it gives
    of_tasks: bool = False  # measured on documents of extraction tasks alone

    def format(self, value: float, *, sign: bool = False) -> str:
        """A value or, with ``sign``, a change, in the metric's own unit: ``25.0 %``, ``1.234``."""
        plus = "+" if sign else ""
        return f"{100 * value:{plus}.1f} %" if self.unit == "share" else f"{value:{plus}.3f}"

    @property
    def headline_label(self) -> str:
        """The label that fits ``headline``."""
        return self.label.replace("nats per ", "perplexity per ")

    def headline(self, value: float) -> str:
        """A value as people read it: a perplexity, a percentage, a number."""
        return f"{exp(value):.2f}" if self.unit == "nll" else self.format(value)

    def headline_change(self, change: float) -> str:
        """The change of a headline, without ``change_unit``: of a perplexity in percent, of a share in points."""
        if self.unit == "nll":
            return f"{100 * (exp(change) - 1):+.1f}"
        return f"{100 * change:+.1f}" if self.unit == "share" else f"{change:+.3f}"

    @property
    def change_unit(self) -> str:
        """What follows a ``headline_change``."""
        return {"nll": " %", "share": " points"}.get(self.unit, "")


def _of_tasks(label: str, *, higher_is_better: bool = True, own_weights: bool = False) -> Metric:
    return Metric(label, "share", higher_is_better=higher_is_better, own_weights=own_weights, of_tasks=True)


# In the order in which people read them.
METRICS: Mapping[str, Metric] = {
    "field_f1": _of_tasks("F1 of extracted fields", own_weights=True),
    "field_f1_few_shot": _of_tasks("F1 of extracted fields, base with examples", own_weights=True),
    "hallucinated": _of_tasks("extracted values that the note does not state", higher_is_better=False, own_weights=True),
    "hallucinated_few_shot": _of_tasks(
        "extracted values that the note does not state, base with examples", higher_is_better=False, own_weights=True
    ),
    "parsed": _of_tasks("extractions that parse under their schema"),
    "parsed_few_shot": _of_tasks("extractions that parse under their schema, base with examples"),
    "exact": _of_tasks("extractions that are right in every field"),
    "field_precision": _of_tasks("extracted values that are right", own_weights=True),
    "field_recall": _of_tasks("stated values that are extracted"),
    "answer_nll": Metric("nats per token of held-out answers", "nll"),
    "answer_content_nll": Metric("nats per content token of held-out answers", "nll"),
    "bits_per_byte": Metric("bits per byte of held-out answers", "bits"),
    "general_nll": Metric("nats per token of general text", "nll"),
    "choice": Metric("right choices of four", "share", higher_is_better=True),
    "consistency": Metric("same choice for a rephrased question", "share", higher_is_better=True),
    "negation": Metric("right on negation, of two", "share", higher_is_better=True),
    "dose": Metric("right on dose, of two", "share", higher_is_better=True),
    "stop": Metric("answers that end by themselves", "share", higher_is_better=True),
    "empty": Metric("empty answers", "share"),
    "repetition": Metric("repeated 4-grams in answers", "share"),
    "extraction": Metric("texts continued word for word", "share"),
    "calibration_error": Metric("expected calibration error of the next token", "error", per_item=False),
}
SCORED = tuple(name for name, metric in METRICS.items() if metric.per_item)  # those that scores.jsonl and the gate know
PER_TOKEN = tuple(name for name, metric in METRICS.items() if metric.unit == "nll")  # of which the exponential is a perplexity
_ORDER = {name: position for position, name in enumerate(METRICS)}
# Registered versions carry scores and decisions under these names.
FORMER_NAMES = {
    "answer_nats": "answer_nll",
    "answer_content_nats": "answer_content_nll",
    "general_nats": "general_nll",
    "invariance": "consistency",
}


def importance(metric: str) -> int:
    """The position of a metric in ``METRICS``, by which tables and lists are sorted; unknown ones come last."""
    return _ORDER.get(metric, len(_ORDER))


def current_name(metric: str) -> str:
    """Today's name of a metric in a file of a registered version."""
    return FORMER_NAMES.get(metric, metric)


def label(metric: str) -> str:
    """What people are told a metric is, by its present or former name; the name itself where it is in no table."""
    name = current_name(metric)
    return METRICS[name].label if name in METRICS else metric
