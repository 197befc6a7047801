"""What people are shown of a model's passport: what it was made from, what it scored, why it was taken."""

from typing import Any

from serve.models import Served
from tasks.registry.model_card import metric_label

CORPUS = "data"


def panel(model: str, served: Served) -> dict[str, Any]:
    """Of a model without a passport that can be read, only what it is called and that it is not verified, and why."""
    document = served.checked.document
    decision = document.get("decision", {})
    return {
        "model": model,
        "version": served.place.version or None,
        "verified": served.verified,
        "problems": list(served.checked.problems),
        "passport_sha256": served.digest,
        "made": document.get("stages", {}).get("finetune", {}).get("started"),
        "code": document.get("code"),
        "corpus": _corpus(document),
        "metrics": [row | {"meaning": metric_label(row["metric"])} for row in decision.get("table", [])],
        "decision": {"verdict": decision.get("verdict"), "reasons": decision.get("reasons", [])} if decision else None,
        "card": served.card,
    }


def _corpus(document: dict[str, Any]) -> list[dict[str, str | None]]:
    """The raw files with their digests, and what is stated of them."""
    files = document.get("trees", {}).get(CORPUS, {}).get("files", {})
    stated = {entry["path"]: entry for entry in document.get("corpus", [])}
    return [
        {"path": path, "sha256": digest} | {what: stated.get(path, {}).get(what) for what in ("title", "licence", "credit")}
        for path, digest in files.items()
    ]
