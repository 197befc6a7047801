"""What a person reviews of a run, as artifacts of its page in Prefect: scores, the version, what became of the data.

The files that the stages wrote are read; nothing here holds text of records.
"""

import json
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.evaluation.findings import findings
from tasks.runtime import artifacts
from tasks.runtime.artifacts import REGISTRATION

METRICS = artifacts.EVALUATION / artifacts.METRICS
FUNNEL = artifacts.REPORTS / "preprocess" / artifacts.FUNNEL


def registration() -> dict[str, Any]:
    """What register wrote last, empty before it did."""
    return json.loads(REGISTRATION.read_text(encoding="utf-8")) if REGISTRATION.exists() else {}


def publish() -> None:
    """All artifacts; a server that does not take them stops nothing, the run is done."""
    try:
        create_table_artifact(scores(), key="scores", description="Scores with 95 % intervals")
        create_table_artifact(funnel(), key="data", description="What became of the raw records; data-report.html has the pictures")
        for key, address in links().items():
            create_link_artifact(address, key=key)
        create_markdown_artifact(decision(), key="decision", description="The version and the decision on it")
    except Exception as error:
        get_run_logger().warning(f"Prefect did not take the artifacts of this run: {error}")


def scores() -> list[dict[str, str | int]]:
    """A row per metric and split: base, tuned, and the difference to the champion where it was compared."""
    compared = {(c["metric"], c["split"]): c["words"] for c in (registration().get("decision") or {}).get("comparisons", ())}
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    rows: list[dict[str, str | int]] = []
    for split, parts in metrics.items():
        for metric, row in parts["all"].items():
            base, tuned, change = (_interval(row[of]) for of in ("base", "tuned", "change"))
            champion = compared.get((metric, split)) or compared.get((metric, "")) or "not compared"
            rows.append(
                {
                    "metric": metric,
                    "split": split,
                    "items": row["items"],
                    "base": base,
                    "tuned": tuned,
                    "change": change,
                    "champion": champion,
                }
            )
    return rows


def _interval(interval: dict[str, float]) -> str:
    spread = f" ({interval['low']:.4g} to {interval['high']:.4g})" if "low" in interval else ""
    return f"{interval['value']:.4g}{spread}"


def funnel() -> list[dict[str, str | int]]:
    """Records by step, source and the rule that took them out."""
    rows = json.loads(FUNNEL.read_text(encoding="utf-8"))["rows"]
    return [{name: row[name] for name in ("step", "source", "rule", "records")} for row in rows]


def decision() -> str:
    """The version, the decision on it and the findings, as Markdown."""
    registered = registration()
    if not (decided := registered.get("decision")):
        return f"{registered['name']}: no version was made"
    reasons = "\n".join(f"* {reason}" for reason in decided["reasons"])
    listed = findings(json.loads(METRICS.read_text(encoding="utf-8")))
    lists = "\n\n".join(f"**{name}**\n\n" + ("\n".join(f"* {one}" for one in sentences) or "nothing") for name, sentences in listed.items())
    return f"**{registered['name']} version {registered['version']}**: {decided['verdict']}, {decided['outcome']}\n\n{reasons}\n\n{lists}"


def links() -> dict[str, str]:
    """MLflow's pages of the version and of the runs behind it, where MLflow is a server."""
    from tasks.registry import pages, tracking

    registered, server = registration(), tracking.tracking_uri().rstrip("/")
    if not server.startswith("http") or not registered.get("version"):
        return {}
    client = tracking.connect()
    version = client.get_model_version(registered["name"], str(registered["version"]))
    addresses = {"mlflow-version": pages.version(registered["name"], str(registered["version"]))}
    experiment = tracking.experiment_of(client)
    runs = {"register": version.run_id} | {tag.removeprefix("run."): run for tag, run in version.tags.items() if tag.startswith("run.")}
    addresses |= {f"mlflow-run-{stage}": pages.run(experiment, str(run)) for stage, run in runs.items()}
    return {key: f"{server}/{address}" for key, address in addresses.items()}
