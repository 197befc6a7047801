"""What MLflow's pages say in words, as Markdown, of the registered model and of a version. Facts alone come from decisions and records; no
value of a record of the corpus is among them."""

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.metrics import label
from tasks.registry.model_card import trained_on

# Those of the table that a version's page shows, by metric and split, as far as they were measured.
SHOWN = (
    ("field_f1", "test"),
    ("field_f1", "ood"),
    ("hallucinated", "test"),
    ("parsed", "test"),
    ("answer_nll", "test"),
    ("general_nll", "general"),
    ("choice", "test"),
    ("stop", "test"),
)
ROWS = 6
OF_MODEL = """\
A language model fine-tuned on medical text. **It is not a medical device**: it makes facts up, and must not be used for diagnosis or
treatment.

`champion` is the version in use, `challenger` the newest that may still become champion, `previous` the one before. The tags `event.…` say
who changed that, when and why. `python -m tasks.registry list` prints the same, `show` what a version was made from, `verify` whether its
files are still those."""


def of_version(decision: Mapping[str, Any], number: int, outcome: str, records: Mapping[str, Mapping[str, Any]], commit: str) -> str:
    """The verdict with its reasons, the numbers that matter with their intervals, what it was made from, and where the rest stands."""
    by_key = {(row["metric"], row["split"]): row for row in decision["table"]}
    rows = [by_key[key] for key in SHOWN if key in by_key][:ROWS]
    lines = [
        f"**{decision['verdict']}, {outcome}** (decision {number})",
        "",
        *(f"* {reason}" for reason in decision["reasons"][:3]),
        "",
        "| metric | split | base | this version, 95 % interval | items |",
        "|---|---|---:|---|---:|",
        *(_row(row) for row in rows),
        "",
        f"The model was {trained_on(records)}. Code: commit `{commit[:12]}`.",
        "",
        "Among the artifacts of the run behind it: `evaluation/report.html` (all scores), `lineage.html` (from the raw files to here), "
        f"`decision-{number}.html` (why), `checkpoint/README.md` (model card), `passport.json` (digests of every file).",
    ]
    return "\n".join(lines)


def _row(row: Mapping[str, Any]) -> str:
    tuned = row["tuned"]
    return (
        f"| {label(row['metric'])} | {row['split']} | {row['base']['value']:.3f} | "
        f"{tuned['value']:.3f} ({tuned['low']:.3f} to {tuned['high']:.3f}) | {row['items']} |"
    )


def describe_version(client: Any, version: Any, text: str) -> None:
    """Give a version this description, unless it has it."""
    if version.description != text:
        client.update_model_version(version.name, version.version, text)


def describe_model(client: Any, name: str) -> None:
    """Give the registered model its description, unless somebody wrote another one."""
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, OF_MODEL)
