"""The ``/passport`` route: a model's passport in short, that is its data, its scores and the decision on it."""

from collections.abc import Mapping
from typing import Any

from serve.models import ServedModel
from tasks.evaluation.metrics import label

CORPUS = "data"


def model_info(model: str, served: ServedModel) -> dict[str, Any]:
    """What the page shows of the model that clients call ``model``.

    Without a readable passport it holds only the name, that the model is not verified, and the ``problems`` that say why.
    """
    document = served.verification.document
    decision = document.get("decision", {})
    return {
        "model": model,
        "version": served.location.version or None,
        "verified": served.verified,
        "problems": list(served.verification.problems),
        "passport_sha256": served.digest,
        "made": document.get("stages", {}).get("finetune", {}).get("started"),
        "code": document.get("code"),
        "corpus": _corpus(document),
        "metrics": [row | {"meaning": label(row["metric"])} for row in decision.get("table", [])],
        "decision": {"verdict": decision.get("verdict"), "reasons": decision.get("reasons", [])} if decision else None,
        "card": served.card,
        "tasks": {name: _task(task) for name, task in served.tasks.items()},
    }


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    """How to ask an extraction task as in training, its answers' schema, and how notes state each number: ``HR #``."""
    numbers = [number for field in task.get("fields", {}).values() for number in field.get("numbers", {}).items()]
    return {
        "instructions": task["instructions"],
        "schema": task["schema"],
        "stated": {name: source["stated"] for name, source in numbers},
    }


def _corpus(document: dict[str, Any]) -> list[dict[str, str | None]]:
    """The raw files with their digests and what the manifest states about them."""
    files = document.get("trees", {}).get(CORPUS, {}).get("files", {})
    stated = {entry["path"]: entry for entry in document.get("corpus", [])}
    return [
        {"path": path, "sha256": digest} | {field: stated.get(path, {}).get(field) for field in ("title", "licence", "credit")}
        for path, digest in files.items()
    ]
