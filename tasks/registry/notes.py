"""The note on a stage's run in MLflow, as Markdown: what the stage does, its headline numbers, what it read and wrote."""

from collections.abc import Mapping
from typing import Any

# What each stage does, and the metrics that its note names.
STAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "base": ("Makes the base model's checkpoint directory.", ("parameters",)),
    "preprocess": ("Reads the raw files, cleans and de-identifies them, and asks the extraction tasks' questions.", ("documents",)),
    "augment": ("Adds variants of training documents.", ("train_documents", "variants")),
    "shard": ("Tokenizes the documents.", ("documents_train", "tokens_train", "documents_test", "tokens_test")),
    "finetune": ("Fine-tunes the base model.", ("loss", "validation_loss", "steps_taken", "tokens_seen", "tokens_per_second")),
    "validate": (
        "Scores the base and the tuned model on the same held-out items.",
        ("test/field_f1/base", "test/field_f1/tuned", "ood/field_f1/tuned", "test/hallucinated/tuned"),
    ),
}


def of_run(record: Mapping[str, Any]) -> str:
    """What a stage does, its headline numbers, and what it read and wrote."""
    does, names = STAGES.get(record["stage"], ("", ()))
    measured = {name: record["metrics"][name] for name in names if name in record["metrics"]}
    table = ["", "| metric | value |", "|---|---:|", *(f"| {name} | {_number(value)} |" for name, value in measured.items())]
    paths = [(verb, path, digest) for verb, of in (("read", "inputs"), ("wrote", "outputs")) for path, digest in record[of].items()]
    lines = [f"* {verb} `{path}` `{digest[:12]}`" for verb, path, digest in paths]
    return "\n".join([does, *(table if measured else []), "", *lines])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
