"""The audit trail of a registered model: who did what to which version, when, why and on which evidence.

Entries are tags ``event.<n>`` of the registered model, never changed. Each holds the SHA-256 of the one before, so that a removed, changed
or reordered one shows; whoever noted the last digest can also show that none was taken off the end.
"""

import csv
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from tasks.registry import hash_chain
from tasks.runtime.git import code_version

if TYPE_CHECKING:
    from tasks.registry.tracking import MlflowClient

EVENT = "event."
COLUMNS = ("trail", "number", "when", "who", "verb", "model", "version", "why", "evidence", "commit", "previous", "sha256")
Event = dict[str, Any]


def events(client: "MlflowClient", name: str) -> list[Event]:
    """All entries, oldest first."""
    return [json.loads(text) for text in texts(client, name).values()]


def texts(client: "MlflowClient", name: str) -> dict[int, str]:
    """All entries as they are stored, by their numbers."""
    return _texts(client.get_registered_model(name).tags)


def append(client: "MlflowClient", name: str, verb: str, version: str, *, who: str, why: str, evidence: str = "") -> None:
    """Add an entry. ``evidence``: the SHA-256 of what was decided on: a passport, a decision, params."""
    while True:
        stored = texts(client, name)
        event = {"verb": verb, "version": int(version), "who": who, "when": datetime.now(UTC).isoformat(timespec="seconds"), "why": why}
        event |= {"commit": code_version().get("commit"), "evidence": evidence, "previous": hash_chain.digest_before(list(stored.values()))}
        tag, text = f"{EVENT}{max(stored, default=0) + 1:05d}", json.dumps(event)
        client.set_registered_model_tag(name, tag, text)
        if client.get_registered_model(name).tags.get(tag) == text:  # else another process wrote the same number
            return


def _texts(tags: Mapping[str, str]) -> dict[int, str]:
    """The entries as they are stored, by their numbers."""
    numbered = {int(tag.removeprefix(EVENT)): text for tag, text in tags.items() if tag.startswith(EVENT)}
    return dict(sorted(numbered.items()))


def write_csv(entries: Mapping[str, Mapping[int, str]], file: TextIO) -> None:
    """Entries by their numbers, of each trail by its name, as one table with a header."""
    table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
    table.writeheader()
    for trail, numbered in entries.items():
        for number, text in numbered.items():
            table.writerow({"trail": trail, "number": number, "sha256": hash_chain.sha256(text)} | json.loads(text))
