"""Who is champion, and how that came to be: ``python -m tasks.registry promote|rollback|list``.

The aliases of the registered model are `champion`, `challenger` (the newest version that may still become champion) and `previous`. What
happened to them stands in the audit trail (audit.py); the champions' order, which a rollback goes back along, is read from that. Whether
a version is good enough is not decided here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from tasks.corpus.params import PreprocessParams
from tasks.evaluation.scores import read_scores
from tasks.registry import tracking, versions
from tasks.registry.audit import append, events
from tasks.registry.params import RegisterParams
from tasks.runtime.params import read_section
from tasks.training.exposure import FILE as SEEN
from tasks.training.exposure import Seen, read_seen, seen_digest

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
EXPOSURE = "2"  # of what a taint follows from: a version that was asked before it is asked again
TRAINING = ("train", "validation")  # the splits that training reads
PROMOTABLE = ("first", "better")


class Outcome(StrEnum):
    """What a decision led to. The value is the text of the version's tag ``decision.<n>.outcome``."""

    PROMOTED = "promoted"
    KEPT = "kept"
    REFUSED = "refused"
    TAINTED = "tainted"
    NEEDS_ALLOW_DIRTY = "waits for --allow-dirty"
    NEEDS_REASON = "waits for --why, as another version became champion meanwhile"
    NEEDS_COMPLIANCE = "waits for compliance.yaml"
    NEEDS_SIGN_OFF = "waits for sign-off"


CLOSED = (Outcome.REFUSED, Outcome.TAINTED, Outcome.PROMOTED)  # outcomes after which the version is no challenger


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


def apply_decision(
    client: tracking.MlflowClient,
    name: str,
    version: str,
    number: int,
    decision: dict[str, Any],
    *,
    sign_off: bool,
    compliance: bool = False,
) -> str:
    """Do once what a decision leads to, and write it on the version as ``decision.<n>.outcome``: the text of an ``Outcome``.

    ``sign_off``: a person promotes; ``compliance``: no field of the regulator's folder may be empty.
    """
    tags = client.get_model_version(name, version).tags
    if earlier := tags.get(f"decision.{number}.outcome"):
        return earlier
    outcome = _outcome(client, name, version, decision, tags, _demanded(sign_off=sign_off, compliance=compliance))
    if outcome is Outcome.PROMOTED:
        if compliance:
            _add_compliance(client, client.get_model_version(name, version))
        evidence = tags.get(f"decision.{number}.sha256", "")
        promote(client, name, version, who="register", why=f"decision {number}: {decision['reasons'][0]}", evidence=evidence)
    newest = str(version) == str(versions.versions_of(client, name)[-1].version)
    if outcome not in CLOSED and newest and str(version) not in champions(events(client, name)):
        client.set_registered_model_alias(name, CHALLENGER, version)
    client.set_model_version_tag(name, version, f"decision.{number}.outcome", outcome.value)
    return outcome.value


def _outcome(
    client: tracking.MlflowClient, name: str, version: str, decision: dict[str, Any], tags: dict[str, str], demanded: Outcome
) -> Outcome:
    """``demanded``: the outcome where nothing else stands against a promotion."""
    if decision["verdict"] == "refused":
        return Outcome.REFUSED
    if decision["verdict"] not in PROMOTABLE:
        return Outcome.KEPT
    if tags.get("tainted"):
        return Outcome.TAINTED
    if tags.get("code.dirty") != "false":
        return Outcome.NEEDS_ALLOW_DIRTY
    if str(versions.aliases(client, name).get(CHAMPION, "")) not in (_compared(decision), str(version)):
        return Outcome.NEEDS_REASON
    return demanded


def _demanded(*, sign_off: bool, compliance: bool) -> Outcome:
    """What the params wait for."""
    if compliance:
        from tasks.registry.compliance.export import empty_fields

        if empty_fields():
            return Outcome.NEEDS_COMPLIANCE
    return Outcome.NEEDS_SIGN_OFF if sign_off else Outcome.PROMOTED


def _add_compliance(client: tracking.MlflowClient, version: Any) -> None:
    """``ValueError`` where the form of the regulator's folder has empty fields."""
    from tasks.registry.compliance.export import add_newest  # what writes it costs time, which serving does not pay

    add_newest(client, version)


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


def _compared(decision: dict[str, Any]) -> str:
    """The version that was champion when a decision was made; empty where there was none."""
    return str((decision["champion"] or {}).get("version", ""))


def promote_by_hand(name: str, which: str, *, by: str, why: str, allow_dirty: bool) -> str:
    """Promote on a person's word; ``ValueError`` says what stands against it."""
    client = tracking.connect()
    version = versions.find(client, which)
    if version.name != name:
        raise ValueError(f"{which} is not of {name}, the model of params.yaml")
    mark_tainted(client, name, withdrawn())
    version = client.get_model_version(name, version.version)
    label = f"{name} version {version.version}"
    number, decision = latest_decision(client, version)
    reasons = " ".join(decision["reasons"])
    if tainted := version.tags.get("tainted"):
        raise ValueError(f"{label} is tainted and cannot be promoted: {tainted}")
    if decision["verdict"] == "refused":
        raise ValueError(f"{label} was refused by decision {number} and cannot be promoted: {reasons}")
    if decision["verdict"] not in PROMOTABLE and not why:
        raise ValueError(f"{label} was not found better by decision {number}: {reasons} If it is to be champion all the same, say --why")
    compared, present = _compared(decision), str(versions.aliases(client, name).get(CHAMPION, ""))
    if present not in (compared, str(version.version)) and not why:
        then = f"version {compared}" if compared else "no champion"
        raise ValueError(f"{label} was compared with {then}, and version {present or 'none'} is champion now; say --why")
    if version.tags.get("code.dirty") != "false" and not allow_dirty:
        raise ValueError(f"{label} was made with uncommitted code and cannot be rebuilt from its commit; --allow-dirty promotes it anyway")
    if read_section("register", RegisterParams).compliance == "required":
        _add_compliance(client, version)
    evidence = version.tags[f"decision.{number}.sha256"]
    word = f"signed off on decision-{number}.json ({evidence[:12]})" + (f": {why}" if why else "")
    append(client, name, "sign-off", version.version, who=by, why=word, evidence=evidence)
    promote(client, name, version.version, who=by, why=word + (" (dirty allowed)" if allow_dirty else ""), evidence=evidence)
    client.set_model_version_tag(name, version.version, f"decision.{number}.outcome", Outcome.PROMOTED.value)
    return version.version


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
