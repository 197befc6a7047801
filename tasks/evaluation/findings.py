"""What an evaluation found, in three lists: worse, better, unclear. The terminal, the card, MLflow and every page read them here.

A change is better or worse where its whole 95 % interval lies on one side of zero, and unclear where it does not, or where there are too
few items for an interval. Figures are those that people read: perplexities, percentages.
"""

from collections.abc import Mapping
from math import exp
from typing import Any, Literal

from tasks.evaluation.scores import MORE_IS_BETTER, SHARES

Verdict = Literal["worse", "better", "unclear"]
VERDICTS: tuple[Verdict, ...] = ("worse", "better", "unclear")  # in the order in which they are read
MOST_CHARACTERS = 4500  # of a list where its reader has a limit: MLflow's is 5,000
# What a metric says.
TITLES = {
    "answer_nats": "nats per token of held-out answers",
    "answer_content_nats": "nats per content token of held-out answers",
    "bits_per_byte": "bits per byte of held-out answers",
    "calibration_error": "expected calibration error of the next token",
    "choice": "right choices of four",
    "invariance": "same choice for another wording",
    "negation": "right on negation, of two",
    "dose": "right on dose, of two",
    "stop": "answers that end by themselves",
    "empty": "empty answers",
    "repetition": "repeated 4-grams in answers",
    "general_nats": "nats per token of general text",
    "extraction": "texts continued word for word",
}
SAID = ("test", "general", "behaviour")  # the splits that need not be named, as the metric's title says enough
LESS_IS_BETTER = {"calibration_error"} | {metric for metric, more in MORE_IS_BETTER.items() if not more}
NATS = "nats per "


def findings(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """The sentences of each list. ``metrics``: the table of an evaluation, as in ``metrics.json``."""
    found: dict[str, list[str]] = {name: [] for name in VERDICTS}
    for split, parts in metrics.items():
        for metric, row in parts["all"].items():
            found[verdict(metric, row)].append(sentence(metric, split, row))
    return found


def verdict(metric: str, row: Mapping[str, Any]) -> Verdict:
    change = row["change"]
    if "low" not in change or change["low"] <= 0 <= change["high"]:
        return "unclear"
    return "better" if (change["value"] < 0) == (metric in LESS_IS_BETTER) else "worse"


def sentence(metric: str, split: str, row: Mapping[str, Any]) -> str:
    """``repeated 4-grams in answers 14.2 % → 42.6 % (+28.4 points, 95 % from +10.1 to +45.0; 24 items)``."""
    title = TITLES[metric] if split in SAID else f"{TITLES[metric]} ({split})"
    change = row["change"]
    if metric.endswith("_nats"):
        title = title.replace(NATS, "perplexity per ")
        base, tuned = (f"{exp(row[role]['value']):.2f}" for role in ("base", "tuned"))
        told = {name: f"{100 * (exp(value) - 1):+.1f}" for name, value in change.items()}
        unit = " %"
    elif metric in SHARES:
        base, tuned = (f"{100 * row[role]['value']:.1f} %" for role in ("base", "tuned"))
        told = {name: f"{100 * value:+.1f}" for name, value in change.items()}
        unit = " points"
    else:
        base, tuned = (f"{row[role]['value']:.3f}" for role in ("base", "tuned"))
        told = {name: f"{value:+.3f}" for name, value in change.items()}
        unit = ""
    spread = f", 95 % from {told['low']} to {told['high']}" if "low" in told else ""
    return f"{title} {base} → {tuned} ({told['value']}{unit}{spread}; {row['items']:,} items)"


def tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The lists as text, one entry each, cut where the tracking store would refuse them."""
    return {name: _cut("; ".join(listed)) or "nothing" for name, listed in findings(metrics).items()}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} … (metrics.json has them all)"
