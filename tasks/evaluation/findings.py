"""The findings of an evaluation in three lists: worse, better, unclear. The terminal, the card, MLflow and every page read them here.

A change is better or worse where its whole 95 % interval lies on one side of zero, and unclear where it does not, or where there are too
few groups of items for an interval. In each list what matters most comes first. Figures are those that people read: perplexities,
percentages.
"""

from collections.abc import Mapping
from typing import Any, Literal

from tasks.evaluation.metrics import METRICS, importance

Verdict = Literal["worse", "better", "unclear"]
VERDICTS: tuple[Verdict, ...] = ("worse", "better", "unclear")  # in the order in which they are read
MAX_CHARACTERS = 4500  # of a list where its reader has a limit: MLflow's is 5,000
OBVIOUS_SPLITS = ("test", "general", "behaviour")  # the metric's label says enough


def findings(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """The sentences of each list. ``metrics``: the table of an evaluation, as in ``metrics.json``."""
    sentences: dict[str, list[str]] = {name: [] for name in VERDICTS}
    rows = [(metric, split, row) for split, parts in metrics.items() for metric, row in parts["all"].items()]
    for metric, split, row in sorted(rows, key=lambda entry: importance(entry[0])):  # splits stay in their order
        sentences[verdict(metric, row)].append(sentence(metric, split, row))
    return sentences


def verdict(metric: str, row: Mapping[str, Any]) -> Verdict:
    """Which list a row of the table belongs to."""
    change = row["change"]
    if "low" not in change or change["low"] <= 0 <= change["high"]:
        return "unclear"
    return "better" if (change["value"] > 0) == METRICS[metric].higher_is_better else "worse"


def sentence(metric: str, split: str, row: Mapping[str, Any]) -> str:
    """``repeated 4-grams in answers 14.2 % → 42.6 % (+28.4 points, 95 % from +10.1 to +45.0; 24 items)``."""
    shown, change = METRICS[metric], row["change"]
    label = shown.headline_label if split in OBVIOUS_SPLITS else f"{shown.headline_label} ({split})"
    base, tuned = (shown.headline(row[role]["value"]) for role in ("base", "tuned"))
    figures = {name: shown.headline_change(value) for name, value in change.items()}
    spread = f", 95 % from {figures['low']} to {figures['high']}" if "low" in figures else ""
    return f"{label} {base} → {tuned} ({figures['value']}{shown.change_unit}{spread}; {row['items']:,} items)"


def tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The lists as text, one entry each, cut where the tracking store would refuse them."""
    return {name: _cut("; ".join(listed)) or "nothing" for name, listed in findings(metrics).items()}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} … (metrics.json has them all)"
