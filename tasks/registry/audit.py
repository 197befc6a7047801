"""The audit trail of a registered model: who did what to which version, when, why and on which evidence.

Entries are tags ``event.<n>`` of the registered model, never changed. Each holds the SHA-256 of the one before, so that a removed, changed
or reordered one shows; whoever noted the last digest (``head``) can also show that none was taken off the end.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from tasks.runtime.git import code_version

if TYPE_CHECKING:
    from tasks.registry.tracking import MlflowClient

EVENT = "event."
COLUMNS = ("number", "when", "who", "verb", "version", "why", "evidence", "commit", "previous", "sha256")
Event = dict[str, Any]


def events(client: "MlflowClient", name: str) -> list[Event]:
    """All entries, oldest first."""
    return [json.loads(text) for text in _texts(client.get_registered_model(name).tags).values()]


def append(client: "MlflowClient", name: str, verb: str, version: str, *, who: str, why: str, evidence: str = "") -> None:
    """Add an entry. ``evidence``: the SHA-256 of what was decided on: a passport, a decision, params."""
    while True:
        texts = _texts(client.get_registered_model(name).tags)
        event = {"verb": verb, "version": int(version), "who": who, "when": datetime.now(UTC).isoformat(timespec="seconds"), "why": why}
        event |= {"commit": code_version().get("commit"), "evidence": evidence, "previous": _digest_before(list(texts.values()))}
        tag, text = f"{EVENT}{max(texts, default=0) + 1:05d}", json.dumps(event)
        client.set_registered_model_tag(name, tag, text)
        if client.get_registered_model(name).tags.get(tag) == text:  # else another process wrote the same number
            return


def _texts(tags: Mapping[str, str]) -> dict[int, str]:
    """The entries as they are stored, by their numbers."""
    numbered = {int(tag.removeprefix(EVENT)): text for tag, text in tags.items() if tag.startswith(EVENT)}
    return dict(sorted(numbered.items()))


def _digest_before(texts: list[str]) -> str:
    """What the next entry holds: the digest of the last one or, where that is older than the chain, of all that there are."""
    if not texts:
        return ""
    last = texts[-1:] if any('"previous": ' in text for text in texts) else texts
    return hashlib.sha256("\n".join(last).encode()).hexdigest()


def problems(client: "MlflowClient", name: str, *, head: str = "") -> Iterator[str]:
    """What is wrong with the trail, in sentences. ``head``: a digest that somebody noted, which must be that of an entry."""
    texts = _texts(client.get_registered_model(name).tags)
    for number in sorted(set(range(1, max(texts, default=0) + 1)) - texts.keys()):
        yield f"entry {number} is missing"
    so_far: list[str] = []
    for number, text in texts.items():
        try:
            event = json.loads(text)
            stated = event.get("previous")
        except (ValueError, AttributeError):
            yield f"entry {number} is no entry"
            stated = None
        if stated is None and any('"previous": ' in earlier for earlier in so_far):
            yield f"entry {number} has no digest of the one before"
        elif stated is not None and stated != _digest_before(so_far):
            yield f"entry {number} does not follow the one before: one of them was changed, moved or removed"
        so_far.append(text)
    if head and head not in map(_sha256, so_far):
        yield f"no entry has the digest {head}: the end was removed, or the trail was written anew"


def head(client: "MlflowClient", name: str) -> str:
    """The digest of the last entry; empty where there is none."""
    texts = list(_texts(client.get_registered_model(name).tags).values())
    return _sha256(texts[-1]) if texts else ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_csv(client: "MlflowClient", name: str, file: TextIO) -> None:
    """The entries as a table with a header."""
    table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
    table.writeheader()
    for number, text in _texts(client.get_registered_model(name).tags).items():
        table.writerow({"number": number, "sha256": _sha256(text)} | json.loads(text))
