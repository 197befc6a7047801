"""The chain from raw files to model: what a stage reads is what the stage before it wrote.

DVC restores an object of its cache without looking at its bytes. So the digest of what is here is compared with the record of the
stage that wrote it, and the record with dvc.lock, which git holds. Where they differ, the message says what was changed.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.runtime import dvc
from tasks.runtime.artifacts import DVC_LOCK, DVC_YAML, RECORDS
from tasks.runtime.digests import dvc_digest

MAX_FILES = 5  # that a message names


@dataclass(frozen=True)
class Producer:
    """A stage that keeps a record, and the digests of its outputs that dvc.lock names (none where DVC has not run it)."""

    stage: str
    record: Path
    outs: tuple[str, ...]
    locked: Mapping[str, str]


def check_inputs(digests: Mapping[str, str], records: Path) -> None:
    """``ValueError`` where an input of a stage is not what the stage that writes it wrote.

    ``digests``: DVC's, by path; ``records``: the directory of the stage's own record. A path that no stage of dvc.yaml writes into
    the chain of these records, and that no .dvc file names, is not looked at.
    """
    writers = {out: producer for producer in producers(records) for out in producer.outs}
    problems_found: list[str] = []
    for path, digest in digests.items():
        name = os.path.relpath(path)
        if name in writers:
            problems_found += _of_output(writers[name], name, digest)
        elif (pointer := Path(f"{name}.dvc")).exists() and digest != (expected := _digests(_yaml(pointer)).get(Path(name).name, digest)):
            if damaged := _damaged(name, expected):
                problems_found.append(
                    f"{name} is not what {pointer} says{damaged}, then bring the files again ('dvc pull {pointer}' where a remote has them)"
                )
            else:
                problems_found.append(
                    f"{name} is not what {pointer} says; run 'dvc repro' without --single-item, which takes in what is there"
                )
    _raise(problems_found)


def check_records(records: Path = RECORDS) -> None:
    """``ValueError`` where a record is not the one that its stage wrote, as dvc.lock has it."""
    _raise(problem for producer in producers(records) for problem in _of_record(producer))


def check(records: Path = RECORDS, stages: Collection[str] = ()) -> None:
    """``ValueError`` where an output of the stages (all, unless told) is not what its stage wrote, or a link between them is broken."""
    _raise(problems(records, stages))


def problems(records: Path = RECORDS, stages: Collection[str] = ()) -> Iterator[str]:
    """What is wrong, in sentences. Reads every output that is here once; one that is absent is nobody's input."""
    whole: dict[str, dict[str, Any]] = {}
    for producer in producers(records):
        if stages and producer.stage not in stages:
            continue
        if record_problems := list(_of_record(producer)):
            yield from record_problems
            continue
        whole[producer.stage] = _read(producer.record)
        for out in producer.outs:
            if out != str(producer.record) and Path(out).exists():
                yield from _of_output(producer, out, dvc_digest(Path(out)))
    for path, problem in broken_links(whole):
        yield f"{path}: {problem}; run 'dvc repro'"


def broken_links(records: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each path that one stage's record names with another digest than another's does, and a sentence about it.

    ``records``: by stage, each with ``inputs`` and ``outputs``, as a passport has them too. Paths that none of them writes, as
    ``data``, must be the same for all that read them.
    """
    first_seen: dict[str, tuple[str, str]] = {}
    for stage, record in records.items():
        for path, digest in record["outputs"].items():
            first_seen[path] = (f"the stage {stage} wrote", digest)
    for stage, record in records.items():
        for path, digest in record["inputs"].items():
            who, expected = first_seen.setdefault(path, (f"the stage {stage} read", digest))
            if digest != expected:
                yield path, f"the stage {stage} read other bytes than {who}"


def bring_back(stage: str) -> list[str]:
    """The outputs of a stage that are gone, copied from DVC's cache as dvc.lock names them; those that came back whole.

    DVC removes a stage's outputs before it starts the stage; this is for one that then did not begin.
    """
    back = []
    for out, expected in _locked().get(stage, {}).items():
        path = Path(out)
        if path.exists():
            continue
        # What is not in the cache, or damaged there, stays away; the stage's own error is what counts.
        with suppress(OSError, ValueError), tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=path.parent) as folder:
            copy = Path(folder) / path.name
            for name, digest in _listed(expected).items():
                target = copy / name if name else copy
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(_object(digest), target)
            if dvc_digest(copy) == expected:
                copy.rename(path)
                back.append(out)
    return back


def producers(records: Path = RECORDS) -> list[Producer]:
    """The stages of dvc.yaml that keep their record in this directory."""
    producers_here, locked = [], _locked()
    for stage, definition in ((_yaml(DVC_YAML) if DVC_YAML.exists() else {}).get("stages") or {}).items():
        outs = tuple(str(out) if isinstance(out, str) else str(next(iter(out))) for out in definition.get("outs", ()))
        record = os.path.relpath(records / f"{stage}.json")
        if record in outs:
            producers_here.append(Producer(stage, Path(record), outs, locked.get(stage, {})))
    return producers_here


def _of_record(producer: Producer) -> Iterator[str]:
    record, stage = producer.record, producer.stage
    if not record.exists():
        yield f"{record}, the record of what the stage {stage} wrote, is missing; run 'dvc repro {stage}'"
    elif (expected := producer.locked.get(str(record))) and dvc_digest(record) != expected:
        yield _differs(stage, str(record), expected)
    elif not isinstance(_read(record).get("outputs"), dict):
        yield f"{record} is not a record of the stage {stage}; remove it and run 'dvc repro --force --single-item {stage}'"


def _of_output(producer: Producer, path: str, digest: str) -> Iterator[str]:
    if record_problems := list(_of_record(producer)):
        yield from record_problems
        return
    written, locked = _read(producer.record)["outputs"].get(path), producer.locked.get(path)
    if written is None or written != (locked or written):
        by_hand = f"after a run of it by hand, 'dvc commit {producer.stage}' is what is missing"
        yield f"{producer.record} and {DVC_LOCK} do not agree on {path}; run 'dvc repro {producer.stage}' ({by_hand})"
    elif digest != written:
        yield _differs(producer.stage, path, written)


def _differs(stage: str, path: str, expected: str) -> str:
    """What happened to an output, from what DVC's cache holds under the names of the bytes that were written."""
    if damage := _damaged(path, expected):
        return f"{path} is not what the stage {stage} wrote{damage}, then run 'dvc repro --force --single-item {stage}'"
    again = f"run 'dvc repro --force --single-item {stage}'"
    try:
        listed = _listed(expected)
    except OSError:
        return f"{path} is not what the stage {stage} wrote, which DVC's cache does not hold; {again}"
    changed = _changed(path, listed)
    kept = all(_object(digest).exists() for digest in listed.values())
    remedy = f"DVC's cache has the bytes that it wrote: remove {path} and run 'dvc checkout {path}'" if kept else again
    return f"{_names(path, changed)} is not what the stage {stage} wrote: it was changed later; {remedy}"


def _damaged(path: str, expected: str) -> str:
    """Of the objects that a path was restored from, those whose bytes are not what their names say, in words; empty for none."""
    lists = _object(expected)
    damaged = [lists] if lists.exists() and f"{dvc_digest(lists)}{lists.suffix}" != expected else []
    changed: list[str] = []
    if not damaged and lists.exists():
        listed = _listed(expected)
        changed = _changed(path, listed)
        objects = [_object(listed[name]) for name in changed if name in listed]
        damaged = [o for o in objects if o.exists() and dvc_digest(o) != f"{o.parent.name}{o.name}"]
    if not damaged:
        return ""
    named = _names("", [os.path.relpath(o) for o in damaged])
    which = f" ({_names(path, changed)})" if any(changed) else ""
    has = (
        "the object {} in DVC's cache has other bytes than its name says"
        if len(damaged) == 1
        else "the objects {} in DVC's cache have other"
    )
    has += "" if len(damaged) == 1 else " bytes than their names say"
    them = "it" if len(damaged) == 1 else "them"
    return f"{which}: {has.format(named)} (damaged, or changed on disk). The run is not at fault. Remove {them} and {path}"


def _changed(path: str, listed: Mapping[str, str]) -> list[str]:
    """Files of an output that are here with other bytes than listed, are gone, or are not listed."""
    top = Path(path)
    here = {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()} if top.is_dir() else {""} if top.exists() else set()
    differing = [n for n, digest in listed.items() if n in here and dvc_digest(top / n if n else top) != digest]
    return sorted([*differing, *(here ^ set(listed))])


def _names(path: str, names: list[str]) -> str:
    shown = ["/".join(part for part in (path, name) if part) for name in names[:MAX_FILES]]
    return (", ".join(shown) or path) + (f" and {len(names) - MAX_FILES} more" if len(names) > MAX_FILES else "")


def _listed(digest: str) -> dict[str, str]:
    """Digests by name of the files that DVC's cache lists under a directory's digest; a file's own, under the empty name."""
    if not digest.endswith(dvc.LISTING):
        return {"": digest}
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(_object(digest).read_bytes())}


def _object(digest: str) -> Path:
    return dvc.object_path(dvc.objects_dir(_cache()), digest)


def _cache() -> Path:
    return _cache_of(str(Path.cwd()))


@cache
def _cache_of(_directory: str) -> Path:
    """DVC's cache of the project here. Only asked for when something is wrong: DVC takes a second to answer."""
    try:
        return dvc.cache_dir()
    except dvc.DvcError:
        return Path(".dvc/cache")


def _locked() -> dict[str, dict[str, str]]:
    """Digests of the outputs of each stage, as DVC wrote them down."""
    stages = (_yaml(DVC_LOCK).get("stages") or {}) if DVC_LOCK.exists() else {}
    return {stage: _digests(entry) for stage, entry in stages.items()}


def _digests(entry: Mapping[str, Any]) -> dict[str, str]:
    return {str(out["path"]): str(out["md5"]) for out in entry.get("outs", ()) if "md5" in out}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _read(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _raise(problems: Iterable[str]) -> None:
    if sentences := list(dict.fromkeys(problems)):
        raise ValueError("; ".join(sentences))
