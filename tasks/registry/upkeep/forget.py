"""Removes what is left of withdrawn records on this machine, and says what remains elsewhere: ``python -m tasks.registry forget [ID …]``.

The ids are those of ``preprocess.withdrawn`` unless told. `dvc repro` has taken them out of the present outputs; here their older
copies go: DVC's cache, the stages' caches, the lists of rejected records. What the present pipeline needs is never touched.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

from tasks.corpus.documents import private
from tasks.registry import promotion, tracking, versions
from tasks.registry.params import RegisterParams
from tasks.runtime import dvc
from tasks.runtime.artifacts import CHANGES, DVC_LOCK, REJECTED
from tasks.runtime.files import whole
from tasks.runtime.params import read_section

CACHES = (".cache/tokens", ".cache/explain", ".cache/failed-preprocess", ".cache/preprocess", ".cache/shard", ".cache/train")


@dataclass
class Purged:
    """What was removed, and what remains and where."""

    removed: list[str] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)


def purge(ids: set[str]) -> Purged:
    """``ValueError`` where the present outputs still hold one of the ids."""
    purged = Purged()
    cache = dvc.objects_dir(dvc.cache_dir())
    needed = _needed(cache)
    holding = {digest for digest, path in dvc.objects_in(cache) if _holds(path, ids)}
    if present := holding & needed:
        raise ValueError(f"the present outputs still hold records that are to be purged ({len(present)} files); run 'dvc repro' first")
    folders = {digest: members for digest, members in _folders(cache) if holding & set(members)}
    origins = {origin for digest in holding for origin in _origins(dvc.object_path(cache, digest), ids)}
    for digest, path in _raw_copies(cache, {source for source, _ in origins}):
        holding |= {digest} - needed
        if digest in needed:
            purged.remains += [
                f"data/{s}, {position}: the raw record, also in DVC's cache ({digest})" for s, position in origins if s == path
            ]
    gone = (holding | set(folders) | {member for members in folders.values() for member in members}) - needed
    for digest in sorted(gone):
        if (copy := dvc.object_path(cache, digest)).exists():
            copy.unlink()
            purged.removed.append(f"DVC's cache: {digest}")
    with open(_list_of_purged(cache), "a", encoding="utf-8") as file:
        file.writelines(f"{digest}\n" for digest in sorted(gone))
    purged.removed += [f"DVC's run cache: {path.name}" for path in _without_runs(cache.parent.parent / "runs", gone)]
    for directory in map(Path, CACHES):
        is_vague = directory.name == "train" or (directory / CHANGES.name).exists()  # it does not say whose everything is
        if directory.exists() and (is_vague or any(_holds(p, ids) for p in directory.rglob("*") if p.is_file())):
            shutil.rmtree(directory)
            purged.removed.append(str(directory))
    if count := _without_rejected(ids):
        purged.removed.append(f"{REJECTED}: {count} records")
    if ids and CHANGES.exists():  # it does not say of every text whose it was; the next run writes it anew
        CHANGES.unlink()
        purged.removed.append(str(CHANGES))
    purged.remains += _models(set(folders), ids)
    for remote in (line.split()[0] for line in dvc.dvc("remote", "list").splitlines()):
        purged.remains.append(f"DVC's remote {remote}, if it was pushed there: delete there what was removed from DVC's cache")
    return purged


def purged_objects(cache: Path) -> set[str]:
    """Objects that were removed from DVC's cache on purpose, though an older version may name them."""
    path = _list_of_purged(cache)
    return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()


def _list_of_purged(cache: Path) -> Path:
    return cache.parent.parent / "forgotten.txt"


def _folders(cache: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """DVC's directories: each one's digest and its files' paths by digest."""
    for digest, path in dvc.objects_in(cache):
        if digest.endswith(dvc.LISTING):
            yield digest, {member["md5"]: member["relpath"] for member in json.loads(path.read_bytes())}


def _needed(cache: Path) -> set[str]:
    """Every object that dvc.lock and the .dvc files name, with the files of directories."""
    named = {digest for path in (DVC_LOCK, *Path().glob("*.dvc")) if path.is_file() for digest in _digests(YAML(typ="safe").load(path))}
    return named | {member for digest, members in _folders(cache) if digest in named for member in members}


def _digests(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("md5"), str):
            yield node["md5"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _digests(child)


def _holds(path: Path, ids: set[str]) -> bool:
    """Whether a file has a record or a copy of one, as documents, shards, scores and the stages' caches write them, or tokens.py."""
    record_key = re.compile(rb'(?:"(?:id|parent)": |\[)"(?:%s)"' % b"|".join(re.escape(i.encode()) for i in sorted(ids)))
    with open(path, "rb") as file:
        end = b""
        while block := file.read(1 << 22):
            if record_key.search(end + block):
                return True
            end = block[-256:]
    return False


def _origins(path: Path, ids: set[str]) -> Iterator[tuple[str, str]]:
    """Of a documents file, the raw files and the places there that the records come from."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if any(f'"id": "{i}"' in line for i in ids) and '"position"' in line:
                record = json.loads(line)
                yield record["source"], record["position"]


def _raw_copies(cache: Path, sources: set[str]) -> Iterator[tuple[str, str]]:
    """Objects that stand under a raw file's path in a directory, of whatever version: digest and path."""
    for _, members in _folders(cache):
        yield from ((digest, path) for digest, path in members.items() if path in sources)


def _without_runs(runs: Path, gone: set[str]) -> Iterator[Path]:
    for path in sorted(runs.glob("*/*/*")):
        if gone & set(_digests(YAML(typ="safe").load(path))):
            path.unlink()
            yield path


def _without_rejected(ids: set[str]) -> int:
    if not REJECTED.exists():
        return 0
    lines = REJECTED.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("id") not in ids]
    if len(kept) < len(lines):
        with whole(REJECTED) as partial, open(partial, "w", encoding="utf-8", opener=private) as file:
            file.writelines(kept)
    return len(lines) - len(kept)


def _models(folders: set[str], ids: set[str]) -> list[str]:
    """Registered versions that were made from the directories, as their tags say, and whether they came to the records."""
    client, name = tracking.connect(), read_section("register", RegisterParams).name
    sentences = []
    for version in versions.versions_of(client, name):
        if folders & set(version.tags.values()):
            seen = promotion.seen_by(client, version, ids)
            spared = seen and not any(record.taints for record in seen.values())
            word = "which had them in its splits and did not come to them" if spared else "whose weights were trained or scored on them"
            sentences.append(f"{version.name} version {version.version} in the model registry, {word}")
    return sentences
