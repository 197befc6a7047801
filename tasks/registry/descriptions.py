"""What MLflow's pages say in words, as Markdown, of the registered model and of a version. Facts alone come from decisions and records; no
value of a record of the corpus is among them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.evaluation.metrics import label
from tasks.registry import audit, pages
from tasks.registry.compliance.names import PAGE, newest_folder
from tasks.registry.lineage import passport
from tasks.registry.model_card import trained_on
from tasks.registry.notes import EVALUATED
from tasks.runtime.artifacts import RAW

ROWS, SOURCES, EVENTS, REASON = 6, 3, 5, 200  # rows of scores, names of sources, newest entries of the trail, characters of a reason
LONGEST = 5000  # characters that MLflow's database takes
OF_MODEL = """\
A language model fine-tuned on medical text. **It is not a medical device**: it makes facts up, and must not be used for diagnosis or
treatment.

`champion` is the version in use, `challenger` the newest that may still become champion, `previous` the one before. The tags `event.…` say
who changed that, when and why. `python -m tasks.registry list` prints the same, `show` what a version was made from, `verify` whether its
files are still those."""


@dataclass(frozen=True)
class Described:
    """What is said of a version: its passport, newest decision with its number and outcome, its entries of the audit trail, the regulator's
    folder of one that has it, and where MLflow has it."""

    passport: Mapping[str, Any]
    decision: Mapping[str, Any]
    number: int
    outcome: str
    events: Sequence[audit.Event]
    compliance: str | None
    experiment: str
    run: str
    logged_model: str


def describe_all(client: Any, name: str, changed: Collection[str]) -> None:
    """Describe these versions by number, and every other that has no logged model yet; says which one cannot be described, and why."""
    from tasks.registry import logged_models, versions  # import mlflow, which costs seconds

    for version in versions.versions_of(client, name):
        if str(version.version) in changed or logged_models.TAG not in version.tags:
            try:
                describe(client, version)
            except ValueError as error:
                print(f"{name} version {version.version} has no page of its own among MLflow's models: {error}")


def describe(client: Any, version: Any) -> None:
    """Give a version its logged model, and both their description, unless they have it.

    ``ValueError`` where passport or decision cannot be read.
    """
    from tasks.registry import logged_models, promotion, versions  # import mlflow, which costs seconds

    model = logged_models.link(client, version)
    number, decision = promotion.latest_decision(client, version)
    outcome = client.get_model_version(version.name, version.version).tags.get(f"decision.{number}.outcome", "not decided")
    document = passport.read_passport(versions.artifact(client, version.run_id, passport.FILE))
    happened = [event for event in audit.events(client, version.name) if str(event["version"]) == str(version.version)]
    experiment = logged_models.experiment_of(client, version)
    folder = newest_folder(version.tags)
    described = Described(document, decision, number, outcome, happened[-EVENTS:], folder, experiment, version.run_id, model)
    text = of_version(described)[:LONGEST]
    if version.description != text:
        client.set_logged_model_tags(model, {"mlflow.note.content": text})
        client.update_model_version(version.name, version.version, text)


def of_version(of: Described) -> str:
    """The verdict with its reasons, the numbers that matter with their intervals, data, code, what happened, and links to the rest."""
    by_key = {(row["metric"], row["split"]): row for row in of.decision["table"]}
    rows = [by_key[key] for key in EVALUATED if key in by_key][:ROWS]
    code, stages = (
        of.passport["code"],
        {stage: record | {"metrics": record["metrics"] or {}} for stage, record in of.passport["stages"].items()},
    )
    dirty = ", with uncommitted changes" if code.get("dirty") == "true" else ""
    lines = [
        f"**{of.decision['verdict']}, {of.outcome}** (decision {of.number})",
        "",
        *(f"* {reason}" for reason in of.decision["reasons"][:3]),
        "",
        "| metric | split | base | this version, 95 % interval | items |",
        "|---|---|---:|---|---:|",
        *(_row(row) for row in rows),
        "",
        f"The model was {trained_on(stages)}. Code: commit `{str(code.get('commit'))[:12]}`{dirty}. Data: {_data(of.passport)}.",
        "",
        *_happened(of.events),
        "",
        *(
            f"* [{name}]({pages.artifact(of.experiment, of.run, path)}): {content}"
            for name, path, content in _files(of.number, of.compliance)
        ),
        f"* [logged model]({pages.logged_model(of.experiment, of.logged_model)}): its params, data sets and metrics",
    ]
    return "\n".join(lines)


def _data(document: Mapping[str, Any]) -> str:
    """The raw files' digest and what is stated of them."""
    digest = document["stages"].get("preprocess", {}).get("inputs", {}).get(str(RAW), "unknown")
    names = [str(entry["title"]) for entry in document["corpus"] if entry.get("title")]
    listed = f", {', '.join(names[:SOURCES])}" + (f" and {len(names) - SOURCES} more" if len(names) > SOURCES else "") if names else ""
    return f"`{digest[:12]}`{listed}"


def _happened(events: Sequence[audit.Event]) -> Iterator[str]:
    """The version's entries of the audit trail as a table; people write reasons, which may hold what Markdown would take for its own."""
    if events:
        yield from ("| when | what | who | why |", "|---|---|---|---|")
    for event in events:
        cells = (event["when"][:16].replace("T", " "), event["verb"], event["who"], str(event["why"])[:REASON])
        yield "| " + " | ".join(_MARKUP.sub(r"\\\g<0>", " ".join(str(cell).split())) for cell in cells) + " |"


_MARKUP = re.compile(r"[\\`*_\[\]<>|]")


def _files(number: int, compliance: str | None) -> tuple[tuple[str, str, str], ...]:
    """What a version's page links to: name, path among the artifacts, what it says."""
    evaluation = "evaluation" if number == 1 else f"evaluation-{number}"
    return (
        ("report", f"{evaluation}/report.html", "all scores"),
        ("lineage", "lineage.html", "from the raw files to here"),
        ("decision", f"decision-{number}.html", "why"),
        ("model card", "checkpoint/README.md", "licences, duties, limits"),
        *((("regulator's folder", f"{compliance}/{PAGE}", "what auditors and regulators ask"),) if compliance else ()),
        ("passport", "passport.json", "digests of every file"),
    )


def _row(row: Mapping[str, Any]) -> str:
    tuned = row["tuned"]
    return (
        f"| {label(row['metric'])} | {row['split']} | {row['base']['value']:.3f} | "
        f"{tuned['value']:.3f} ({tuned['low']:.3f} to {tuned['high']:.3f}) | {row['items']} |"
    )


def describe_model(client: Any, name: str) -> None:
    """Give the registered model its description, unless somebody wrote another one."""
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, OF_MODEL)
