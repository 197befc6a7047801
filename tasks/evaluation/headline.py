"""The ten figures that matter, for ``dvc metrics diff`` and the head of the report. The table has the rest."""

from typing import Any

from tasks.evaluation.table import Table

# Name, split, metric, role and figure; short, as four columns must fit a terminal beside it. Those that were not measured are left out.
FIGURES = (
    ("f1", "test", "field_f1", "tuned"),
    ("f1_base", "test", "field_f1", "base"),
    ("f1_base_shots", "test", "field_f1_few_shot", "base"),
    ("f1_ood", "ood", "field_f1", "tuned"),
    ("hallucinated", "test", "hallucinated", "tuned"),
    ("hallucinated_ood", "ood", "hallucinated", "tuned"),
    ("parsed", "test", "parsed", "tuned"),
    ("perplexity", "test", "answer_nll", "tuned"),
    ("general_ppl", "general", "general_nll", "tuned"),
    ("choice", "test", "choice", "tuned"),
    ("stop", "test", "stop", "tuned"),
    ("repetition", "test", "repetition", "tuned"),
)
DIGITS = 4


def headline(metrics: Table) -> dict[str, float]:
    """The figures by name, rounded; perplexities where the metric is one of likelihood."""
    rows = {name: _row(metrics, split, metric) for name, split, metric, _ in FIGURES}
    return {name: round(_figure(row, role), DIGITS) for name, _, _, role in FIGURES if (row := rows[name]) is not None}


def _row(metrics: Table, split: str, metric: str) -> dict[str, Any] | None:
    row: dict[str, Any] | None = metrics.get(split, {}).get("all", {}).get(metric)
    return row


def _figure(row: dict[str, Any], role: str) -> float:
    return float(row["perplexity"][role] if "perplexity" in row else row[role]["value"])
