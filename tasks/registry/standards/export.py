"""The standards' files of a registered version, written from its passport."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.registry import tracking, versions
from tasks.registry.base_terms import base_terms
from tasks.registry.lineage.passport import FILE, read_passport
from tasks.registry.lineage.signature import signer
from tasks.registry.standards.files import write_standards


def export(which: str, folder: Path) -> list[Path]:
    """Write them to a new directory; the files. ``ValueError`` where there is no such version, or the directory is there."""
    if folder.exists():
        raise ValueError(f"{folder} exists; give a name that does not")
    client = tracking.connect()
    version = versions.find(client, which)
    artifacts = versions.artifact(client, str(version.run_id), "")
    document = passport_of(version, artifacts)
    source = str((document["stages"].get("base", {}).get("params") or {}).get("source", ""))
    lock = artifacts / "requirements.lock"
    config = json.loads((artifacts / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    terms = base_terms(source, family=config["model_type"], vocabulary=config["vocab_size"])
    write_standards(folder, document, terms, signer(), lock=lock.read_text(encoding="utf-8") if lock.exists() else "")
    return sorted(folder.iterdir())


def passport_of(version: Any, artifacts: Path) -> dict[str, Any]:
    """The passport among a version's artifacts; one of format 2, which does not say which version it is, as if it did."""
    document = read_passport(artifacts / FILE)
    if document["version"] is None:
        registered = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
        document |= {"version": {"name": version.name, "number": int(version.version), "made": registered}}
    return document
