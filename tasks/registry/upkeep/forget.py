"""Removes what is left of withdrawn records on this machine, and says what remains elsewhere: ``python -m tasks.registry forget [ID …]``.

The ids are those of ``preprocess.withdrawn`` unless given. `dvc repro` has taken them out of the present outputs; here their older
copies go: DVC's cache with all that was made from them, the stages' caches, the lists of rejected records, and remotes that are named.
What the present pipeline needs is never touched.
"""

import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.corpus.byte_search import holds, of_ids, of_words
from tasks.corpus.documents import private
from tasks.registry import promotion, tracking, versions
from tasks.registry.params import RegisterParams
from tasks.registry.upkeep import remotes
from tasks.registry.upkeep.traces import Trace, copies_of, derived, digests, folders, has_record, needed, origins, raw_with, runs_in
from tasks.runtime import dvc
from tasks.runtime.artifacts import CHANGES, REJECTED
from tasks.runtime.files import whole
from tasks.runtime.params import read_section
from tasks.runtime.record import PENDING

CACHES = (".cache/tokens", ".cache/explain", ".cache/failed-preprocess", ".cache/preprocess", ".cache/shard", ".cache/train")
KEPT_CACHES = (PENDING, Path(".cache/tests"))  # records of runs that the tracking store waits for; other projects


@dataclass(frozen=True)
class Subject:
    """Whose copies are looked for: ids of records and, of a patient, raw files and numbers that raw files know the patient by."""

    ids: frozenset[str]
    files: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


@dataclass
class Purged:
    """What was removed, and what remains and where."""

    removed: list[Trace] = field(default_factory=list)
    remains: list[Trace] = field(default_factory=list)


def purge(subject: Subject, *, remote_names: Collection[str] = ()) -> Purged:
    """``ValueError`` where the present outputs still hold one of the ids, or there is no such remote."""
    if unknown := sorted(set(remote_names) - set(remotes.names())):
        raise ValueError(f"there is no DVC remote {', '.join(unknown)}; 'dvc remote list' shows which there are")
    cache = dvc.objects_dir(dvc.cache_dir())
    purged = Purged()
    holding = _without_objects(cache, subject, purged)
    _without_caches(set(subject.ids), purged)
    purged.remains += _models(holding, set(subject.ids))
    for name in remotes.names():
        if name in remote_names:
            deleted, remaining = remotes.delete(name, purged_objects(cache) - needed(cache))
            purged.removed += deleted
            purged.remains += remaining
        else:
            why = f"if it was pushed there: delete there what was removed from DVC's cache, or name it: --remote {name}"
            purged.remains.append(Trace(f"DVC's remote {name}", why=why))
    return purged


def _without_objects(cache: Path, subject: Subject, purged: Purged) -> set[str]:
    """Remove objects from DVC's cache; the directories that held records."""
    ids, present = set(subject.ids), needed(cache)
    matches = of_ids(ids)
    naming = {digest for digest, path in dvc.objects_in(cache) if holds(path, matches)}
    holding = {digest for digest in naming if has_record(dvc.object_path(cache, digest), ids)}
    if still := holding & present:
        raise ValueError(f"the present outputs still hold records that are to be purged ({len(still)} files); run 'dvc repro' first")
    runs = runs_in(cache.parent.parent / "runs")
    listed = dict(folders(cache))
    with_records = {digest for digest, members in listed.items() if holding & set(members)}
    locations = {location for digest in holding for location in origins(dvc.object_path(cache, digest), ids)}
    raw = dict(copies_of(cache, {_file_of(source) for source, _ in locations} | set(subject.files)))
    for digest in raw.keys() & present if not subject.files else ():  # else who calls has read the present files again
        record = f"the raw record, also in DVC's cache ({digest})"
        purged.remains += [Trace(f"data/{s}, {position}", record) for s, position in locations if _file_of(s) == raw[digest]]
    products = derived(runs.values(), holding | with_records)
    whole_folders = products | {digest for digest, members in listed.items() if naming & set(members)}
    gone = naming | whole_folders | set(raw) | set(raw_with(cache, runs.values(), of_words(subject.numbers)))
    gone |= {member for digest in whole_folders for member in listed.get(digest, ())}
    gone -= present
    # The list first: after an interruption the remotes must still learn what is to go.
    with open(_list_of_purged(cache), "a", encoding="utf-8") as file:
        file.writelines(f"{digest}\n" for digest in sorted(gone - purged_objects(cache)))
    for digest in sorted(gone):
        if (copy := dvc.object_path(cache, digest)).exists():
            copy.unlink()
            purged.removed.append(Trace("DVC's cache", digest))
    for path in [path for path, run in runs.items() if gone & set(digests(run))]:
        path.unlink()
        purged.removed.append(Trace("DVC's run cache", path.name))
    return with_records


def _file_of(source: str) -> str:
    """The raw file of a record, which is the archive where it comes out of one."""
    return source.partition(".zip/")[0] + ".zip" if ".zip/" in source else source


def _without_caches(ids: set[str], purged: Purged) -> None:
    for directory in map(Path, CACHES):
        is_vague = directory.name == "train" or (directory / CHANGES.name).exists()  # it does not say whose everything is
        if directory.exists() and (is_vague or any(has_record(p, ids) for p in directory.rglob("*") if p.is_file())):
            shutil.rmtree(directory)
            purged.removed.append(Trace(str(directory)))
    matches = of_ids(ids)
    for path in sorted(path for path in Path(".cache").rglob("*") if path.is_file()):
        if not any(path.is_relative_to(kept) for kept in KEPT_CACHES) and holds(path, matches):
            path.unlink()
            purged.removed.append(Trace(".cache", str(path)))
    if count := _without_rejected(ids):
        purged.removed.append(Trace(str(REJECTED), f"{count} records"))
    if ids and CHANGES.exists():  # it does not say of every text whose it was; the next run writes it anew
        CHANGES.unlink()
        purged.removed.append(Trace(str(CHANGES)))


def purged_objects(cache: Path) -> set[str]:
    """Objects that were removed from DVC's cache on purpose, though an older version may name them."""
    path = _list_of_purged(cache)
    return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()


def _list_of_purged(cache: Path) -> Path:
    return cache.parent.parent / "forgotten.txt"


def _without_rejected(ids: set[str]) -> int:
    if not REJECTED.exists():
        return 0
    lines = REJECTED.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("id") not in ids]
    if len(kept) < len(lines):
        with whole(REJECTED) as partial, open(partial, "w", encoding="utf-8", opener=private) as file:
            file.writelines(kept)
    return len(lines) - len(kept)


def _models(folders_with_records: set[str], ids: set[str]) -> Iterator[Trace]:
    """Registered versions that were made from the directories, as their tags say, and whether they came to the records."""
    client, name = tracking.connect(), read_section("register", RegisterParams).name
    for version in versions.versions_of(client, name):
        seen = promotion.seen_by(client, version, ids)
        if seen or folders_with_records & set(version.tags.values()):
            spared = seen and not any(record.taints for record in seen.values())
            word = "which had them in its splits and did not come to them" if spared else "whose weights were trained or scored on them"
            yield Trace(f"{version.name} version {version.version} in the model registry", why=word)
