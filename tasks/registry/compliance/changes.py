"""What changed between a version and the champion that it was compared with: code, params, raw files, libraries, scores."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from tasks.registry.compliance.entries import Strict
from tasks.registry.compliance.evidence import MAX_LISTED, Evidence
from tasks.registry.standards.bom import raw_files

_COUNTED = ("withdrawn", "allow", "prompts")  # params that list records, names or texts: how many alone


class Change(Strict):
    """Something that is another than it was."""

    subject: str
    before: str
    now: str


class ChangeLog(Strict):
    """The changes from the champion of the first decision. ``scores``: the challenger's less the champion's, in sentences."""

    compared_with: str
    verdict: str
    reasons: list[str]
    scores: list[str]
    changes: list[Change]


def change_log(evidence: Evidence) -> ChangeLog:
    """The log; without a champion it has no changes, and says so."""
    decided, compared = evidence.document["decision"], evidence.compared
    before = compared.passport if compared else None
    return ChangeLog(
        compared_with=_compared_with(evidence),
        verdict=decided["verdict"],
        reasons=list(decided["reasons"]),
        scores=[str(comparison.get("words", "")) for comparison in evidence.comparisons],
        changes=list(_changes(before, evidence.document)) if before else [],
    )


def _compared_with(evidence: Evidence) -> str:
    if evidence.compared is None:
        return "There was no champion to compare with"
    name, number = evidence.document["version"]["name"], evidence.compared.number
    return f"{name} version {number}" + ("" if evidence.compared.passport else ", whose passport cannot be read any more")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    old, new = str(before["code"].get("commit")), str(now["code"].get("commit"))
    if old != new:
        yield Change(subject="code", before=old, now=new)
    for subject in ("params", "versions"):
        yield from _differences(_of_stages(before, subject), _of_stages(now, subject))
    yield from _raw_files(before, now)


def _of_stages(document: Mapping[str, Any], subject: str) -> dict[str, str]:
    """Params or libraries of all stages, by their paths."""
    return {
        f"{subject}: {path}": shown
        for stage, content in document["stages"].items()
        for path, shown in _flat(stage, content.get(subject) or {})
    }


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif path.rpartition(".")[2] in _COUNTED and isinstance(value, list):
        yield path, f"{len(value)} entries"
    else:
        # Where a file lay on a machine is nobody's business.
        yield path, PurePath(value).name if isinstance(value, str) and value.startswith("/") else str(value)


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path, "not there"), now.get(path, "not there")
        if old != new:
            yield Change(subject=path, before=old, now=new)


def _raw_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Those that the manifest calls public by name; of others, whose names may be somebody's, how many."""
    old, new = raw_files(before), raw_files(now)
    public = {entry["path"] for entry in (*before["corpus"], *now["corpus"]) if entry.get("public") is True}
    changed = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    listed = [path for path in changed if path in public][:MAX_LISTED]
    for path in listed:
        yield Change(subject=f"raw file {path}", before=old.get(path, "not there"), now=new.get(path, "not there"))
    if rest := len(changed) - len(listed):
        yield Change(subject="raw files", before=f"{len(old):,}", now=f"{len(new):,}; {rest:,} others were added, changed or removed")
