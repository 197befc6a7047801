"""What a stage's run shows in MLflow: its headline metrics, and a note as Markdown. All its metrics are in its file ``metrics.csv``."""

import csv
import io
from collections.abc import Mapping
from typing import Any

METRICS_FILE = "metrics.csv"
# What people look for in an evaluation, by metric and split, as far as it was measured.
EVALUATED = (
    ("field_f1", "test"),
    ("field_f1", "ood"),
    ("hallucinated", "test"),
    ("parsed", "test"),
    ("answer_nll", "test"),
    ("general_nll", "general"),
    ("choice", "test"),
    ("stop", "test"),
)
SCORES = tuple(f"{split}/{metric}/tuned" for metric, split in EVALUATED)  # the same as metrics of a run
# What each stage does, and its headline metrics; an experiment is one run of several stages.
STAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "base": ("Makes the base model's checkpoint directory.", ("parameters",)),
    "preprocess": (
        "Reads the raw files, cleans and de-identifies them, and asks the extraction tasks' questions.",
        ("records", "documents", "documents_train", "documents_test", "recall_held-out_NAME", "recall_held-out_DATE", "damage_drug"),
    ),
    "augment": ("Adds variants of training documents.", ("train_documents", "variants", "replayed")),
    "shard": (
        "Tokenizes the documents.",
        ("documents_train", "tokens_train", "supervised_train", "documents_validation", "documents_test", "tokens_test"),
    ),
    "finetune": (
        "Fine-tunes the base model.",
        ("best_validation_loss", "steps_taken", "documents_seen", "tokens_seen", "epochs_seen"),
    ),
    "validate": ("Scores the base and the tuned model on the same held-out items.", SCORES),
    "experiment": ("Training and evaluation of a DVC experiment.", ("validation_loss", *SCORES)),
}


def headline(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Of a stage's metrics those that its run shows; all of a stage that is not in the table."""
    return {name: metrics[name] for name in STAGES[stage][1] if name in metrics} if stage in STAGES else dict(metrics)


def metrics_csv(metrics: Mapping[str, float]) -> str:
    """All metrics of a run as a table with a header."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("metric", "value"))
    table.writerows(metrics.items())
    return file.getvalue()


def of_run(record: Mapping[str, Any]) -> str:
    """What a stage does, its headline metrics, what it read and wrote, and where its other metrics are."""
    does, measured = STAGES.get(record["stage"], ("",))[0], headline(record["stage"], record["metrics"])
    table = ["", "| metric | value |", "|---|---:|", *(f"| {name} | {_number(value)} |" for name, value in measured.items())]
    paths = [(verb, path, digest) for verb, of in (("read", "inputs"), ("wrote", "outputs")) for path, digest in record[of].items()]
    lines = [f"* {verb} `{path}` `{digest[:12]}`" for verb, path, digest in paths]
    return "\n".join([does, *(table if measured else []), "", *lines, "", f"All metrics: `{METRICS_FILE}` among the artifacts."])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
