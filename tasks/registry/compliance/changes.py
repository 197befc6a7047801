"""What changed between a version and the champion that it was compared with: code, params, raw files, libraries, scores."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.registry.compliance.entries import Strict
from tasks.registry.compliance.evidence import MAX_LISTED, Evidence
from tasks.registry.standards.bom import raw_files

_COUNTED = ("withdrawn", "allow")  # params that list records or names: how many alone


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
    yield from _raw_files(raw_files(before), raw_files(now))


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
        yield path, str(value)


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path, "not there"), now.get(path, "not there")
        if old != new:
            yield Change(subject=path, before=old, now=new)


def _raw_files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    changed = [path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)]
    for path in changed[:MAX_LISTED]:
        yield Change(subject=f"raw file {path}", before=before.get(path, "not there"), now=now.get(path, "not there"))
    if len(changed) > MAX_LISTED:
        yield Change(subject="raw files", before=f"{len(before):,}", now=f"{len(now):,}, of which {len(changed):,} differ")
