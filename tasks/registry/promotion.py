"""Who is champion, and how that came to be: ``python -m tasks.registry promote|rollback|list``.

The aliases of the registered model are `champion`, `challenger` (the newest version that may still become champion) and `previous`. What
happened to them stands in the audit trail (audit.py); the champions' order, which a rollback goes back along, is read from that. Whether
a version is good enough is not decided here, nor what a decision leads to (outcomes.py).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tasks.corpus.params import PreprocessParams
from tasks.evaluation.scores import read_scores
from tasks.registry import tracking, versions
from tasks.registry.audit import append, events
from tasks.runtime.params import read_section
from tasks.training.exposure import FILE as SEEN
from tasks.training.exposure import Seen, read_seen, seen_digest

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
EXPOSURE = "2"  # of what a taint follows from: a version that was asked before it is asked again
TRAINING = ("train", "validation")  # the splits that training reads


def champions(happened: Iterable[dict[str, Any]]) -> list[str]:
    """Who was champion before whom, the present one last; those that were rolled back are not among them."""
    line: list[str] = []
    for event in happened:
        if event["verb"] == "promote":
            line.append(str(event["version"]))
        elif event["verb"] == "rollback":
            line.pop()
    return line


def promote(client: tracking.MlflowClient, name: str, version: str, *, who: str, why: str, evidence: str = "") -> None:
    """Make a version champion; one that is already stays it. ``evidence``: the SHA-256 of the decision."""
    version = str(version)  # MLflow gives numbers, and wants text
    line = champions(events(client, name))
    if line[-1:] != [version]:
        # The event first: aliases follow from the events, whatever a process that was killed left of them.
        append(client, name, "promote", version, who=who, why=why, evidence=evidence)
        line.append(version)
    _set_aliases(client, name, line)
    if versions.aliases(client, name).get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def rollback(client: tracking.MlflowClient, name: str, *, who: str, why: str) -> str:
    """The version that was champion before, and is again; ``ValueError`` where there is none that may be."""
    line = champions(events(client, name))
    if len(line) < 2:
        raise ValueError(f"{name} has had no champion before {'version ' + line[0] if line else 'this'}; there is nothing to go back to")
    mark_tainted(client, name, withdrawn())
    if tainted := client.get_model_version(name, line[-2]).tags.get("tainted"):
        raise ValueError(f"{name} version {line[-2]} is tainted ({tainted}); promote another version instead")
    append(client, name, "rollback", line[-1], who=who, why=why)
    _set_aliases(client, name, line[:-1])
    return line[-2]


def _set_aliases(client: tracking.MlflowClient, name: str, line: list[str]) -> None:
    present = versions.aliases(client, name)
    for alias, version_line in ((CHAMPION, line[-1:]), (PREVIOUS, line[-2:-1])):
        if version_line and str(present.get(alias)) != version_line[0]:
            client.set_registered_model_alias(name, alias, version_line[0])
        elif not version_line and alias in present:
            client.delete_registered_model_alias(name, alias)


def objection(client: tracking.MlflowClient, version: Any, *, alias: str, verdict: str) -> str:
    """What stands against letting a version answer, in words; empty where nothing does.

    ``alias``: through which it was found: who is champion the recorded events say, and an alias can be moved without one. ``verdict``: its
    passport's, which counts unless it is empty.
    """
    label, line = f"version {version.version}", champions(events(client, version.name))
    if tainted := version.tags.get("tainted"):
        return f"{label} is tainted: {tainted}"
    newest = version.tags.get(f"decision.{decisions(version)}.verdict", "")
    if verdict == "refused" or (newest == "refused" and str(version.version) not in line):
        return f"{label} was refused when it was registered" if verdict == "refused" else f"{label} was refused by its newest decision"
    if alias == CHAMPION and line[-1:] != [str(version.version)]:
        by_events = f"the champion is version {line[-1]}" if line else "there is no champion"
        return f"the alias {CHAMPION} points at {label}, but no promotion of it is recorded; {by_events}"
    return ""


def decisions(version: Any) -> int:
    """How many decisions a version carries."""
    return sum(tag.startswith("decision.") and tag.endswith(".case") for tag in version.tags)


def latest_decision(client: tracking.MlflowClient, version: Any, number: int = 0) -> tuple[int, dict[str, Any]]:
    """The newest decision on a version, or that of a number, and its number."""
    number = number or decisions(version)
    if not number:
        raise ValueError(f"{version.name} version {version.version} carries no decision; run 'dvc repro register'")
    path = versions.artifact(client, version.run_id, f"decision-{number}.json")
    return number, json.loads(path.read_text(encoding="utf-8"))


def seen_by(client: tracking.MlflowClient, version: Any, ids: Iterable[str]) -> dict[str, Seen] | None:
    """Of these records those that a version knows, with the split they were in and what it did with them; none where it does not say.

    A later evaluation may have scored records that were not in its corpus: their split is ``none``.
    """
    try:
        path = versions.artifact(client, version.run_id, SEEN)
    except ValueError:
        return None
    id_of = {seen_digest(i): i for i in ids}
    exposure = {id_of[digest]: seen for digest, seen in read_seen(path) if digest in id_of}
    for key in _scored_by(client, version, set(id_of.values())):
        seen = exposure.get(key, Seen("none", "unused"))
        if seen.use == "unused" or (seen.use == "unknown" and seen.split not in TRAINING):
            exposure[key] = Seen(seen.split, "scored")
    return exposure


def _scored_by(client: tracking.MlflowClient, version: Any, ids: set[str]) -> set[str]:
    """Of these records those with a score in one of the evaluations that a version carries."""
    scored = set()
    for number in range(1, decisions(version) + 1):
        try:
            folder = versions.artifact(client, version.run_id, f"evaluation-{number}" if number > 1 else "evaluation")
        except ValueError:
            continue  # its files were removed
        scored |= {score.id for score in read_scores(folder)} & ids
    return scored


def withdrawn() -> tuple[str, ...]:
    """The records that params.yaml withdraws now."""
    return read_section("preprocess", PreprocessParams).withdrawn


def mark_tainted(client: tracking.MlflowClient, name: str, ids: Iterable[str]) -> list[str]:
    """Mark the versions that saw one of these records, or may have; the numbers of those that were not marked before. A version that
    had one in a split, and did not come to it, is not tainted, and says so by the tag ``spared``.
    """
    withdrawn_ids = sorted(set(ids))
    if not withdrawn_ids:
        return []
    marked = []
    for version in versions.versions_of(client, name):
        # A further decision may have scored more.
        asked = hashlib.sha256("\n".join([EXPOSURE, str(decisions(version)), *withdrawn_ids]).encode()).hexdigest()[:16]
        if version.tags.get("taint.asked") == asked:
            continue
        exposures = list((seen_by(client, version, withdrawn_ids) or {}).values())
        if word := _tainted_by(exposures):
            if version.tags.get("tainted") != word:
                client.set_model_version_tag(name, version.version, "tainted", word)
                append(client, name, "taint", version.version, who="register", why=word, evidence=asked)
                marked.append(version.version)
        elif exposures and version.tags.get("spared") != (word := f"{_records(len(exposures))} in its splits, which it did not come to"):
            client.set_model_version_tag(name, version.version, "spared", word)
            append(client, name, "spare", version.version, who="register", why=word, evidence=asked)
        client.set_model_version_tag(name, version.version, "taint.asked", asked)
    return marked


def taint_of(version: Any) -> str:
    """What is to be said of a version and withdrawn records; empty where nothing is."""
    if tainted := version.tags.get("tainted"):
        return f"tainted: {tainted}"
    return f"not tainted: {spared}" if (spared := version.tags.get("spared")) else ""


def _tainted_by(exposures: Iterable[Seen]) -> str:
    """In words what a version did with the records that it must not have seen; empty where it saw none."""
    uses = Counter(seen.use for seen in exposures if seen.taints)
    trained, maybe = uses["trained"] + uses["selected"], uses["unknown"]
    sure = uses.total() - maybe
    words = [f"saw {_records(sure)}, {trained} of them in training"] if sure else []
    if maybe:
        words.append(f"may have seen {_records(maybe)}: an older version, which lists its splits and not what it came to")
    return "; ".join(words)


def _records(count: int) -> str:
    return f"{count} withdrawn record{'' if count == 1 else 's'}"


def show(name: str) -> None:
    """Print every version with its decisions, then what happened to the aliases; ``ValueError`` where the model is not registered."""
    client = tracking.connect()
    roles: dict[str, list[str]] = {}
    try:
        for alias, number in versions.aliases(client, name).items():
            roles.setdefault(str(number), []).append(alias)
    except tracking.MlflowException:
        raise ValueError(f"there is no registered model {name} in {tracking.tracking_uri()}") from None
    for version in versions.versions_of(client, name):
        dirty = "" if version.tags.get("code.dirty") == "false" else ", dirty"
        print(f"{name} version {version.version}  {' '.join(sorted(roles.get(str(version.version), [])))}".rstrip())
        print(f"  commit {version.tags.get('code.commit', 'unknown')[:12]}{dirty}, checkpoint {version.tags.get('checkpoint')}")
        if taint := taint_of(version):
            print(f"  {taint}")
        for decision in range(1, 1 + decisions(version)):
            words = " ".join(version.tags.get(f"decision.{decision}.{of}", "") for of in ("verdict", "outcome"))
            print(f"  decision {decision}: {words}. {version.tags.get(f'decision.{decision}.reason', '')}")
    print()
    for event in events(client, name):
        print(f"{event['when']}  {event['verb']:8} version {event['version']} by {event['who']}: {event['why']}")
