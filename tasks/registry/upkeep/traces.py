"""Where DVC's cache has copies of records, and what was made from them. It removes nothing."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.corpus.byte_search import Matcher, holds
from tasks.runtime import dvc
from tasks.runtime.artifacts import DVC_LOCK, RAW


@dataclass(frozen=True)
class Trace:
    """Something of records that was removed or remains: where, its name there, and why it remains."""

    where: str
    name: str = ""
    why: str = ""

    def __str__(self) -> str:
        return self.where + (f": {self.name}" if self.name else "") + (f", {self.why}" if self.why else "")


def folders(cache: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """DVC's directories: each one's digest and its files' paths by digest."""
    for digest, path in dvc.objects_in(cache):
        if digest.endswith(dvc.LISTING):
            yield digest, {member["md5"]: member["relpath"] for member in json.loads(path.read_bytes())}


def needed(cache: Path) -> set[str]:
    """Every object that dvc.lock and the .dvc files name, with the files of directories."""
    named = {digest for path in (DVC_LOCK, *Path().glob("*.dvc")) if path.is_file() for digest in digests(YAML(typ="safe").load(path))}
    return named | {member for digest, members in folders(cache) if digest in named for member in members}


def digests(node: object) -> Iterator[str]:
    """Every object that a DVC file or an entry of the run cache names."""
    if isinstance(node, dict):
        if isinstance(node.get("md5"), str):
            yield node["md5"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from digests(child)


def runs_in(runs: Path) -> dict[Path, dict[str, Any]]:
    """The entries of DVC's run cache, by file: which stage made what from what."""
    return {path: YAML(typ="safe").load(path) for path in sorted(runs.glob("*/*/*"))}


def derived(runs: Iterable[dict[str, Any]], sources: set[str]) -> set[str]:
    """What stages made from objects, and from that again: shards, models, adapters, evaluations."""
    entries = [(set(digests(run.get("deps"))), set(digests(run.get("outs")))) for run in runs]
    known: set[str] = set()
    while more := {out for deps, outs in entries if deps & (sources | known) for out in outs} - known - sources:
        known |= more
    return known


def has_record(path: Path, ids: set[str]) -> bool:
    """Whether a file has a record or a copy of one, as documents, shards, scores and the stages' caches write them, or tokens.py."""
    if not ids:
        return False
    record_key = re.compile(rb'(?:"(?:id|parent)": |\[)"(?:%s)"' % b"|".join(re.escape(i.encode()) for i in sorted(ids)))
    with open(path, "rb") as file:
        end = b""
        while block := file.read(1 << 22):
            if record_key.search(end + block):
                return True
            end = block[-256:]
    return False


def origins(path: Path, ids: set[str]) -> Iterator[tuple[str, str]]:
    """Of a documents file, the raw files and the places there that the records come from."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if any(f'"id": "{i}"' in line for i in ids) and '"position"' in line:
                record = json.loads(line)
                yield record["source"], record["position"]


def copies_of(cache: Path, paths: set[str]) -> Iterator[tuple[str, str]]:
    """Objects under a raw file's path in a directory, of whatever version: digest and path."""
    for _, members in folders(cache):
        yield from ((digest, path) for digest, path in members.items() if path in paths)


def raw_with(cache: Path, runs: Iterable[dict[str, Any]], matches: Matcher) -> Iterator[str]:
    """Raw files of whatever version that hold what is looked for, whatever they were called."""
    read = {dep["md5"] for run in runs for dep in run.get("deps") or [] if dep.get("path") == str(RAW) and "md5" in dep}
    raw = {member for digest, members in folders(cache) if digest in read for member in members}
    yield from (digest for digest in sorted(raw) if (path := dvc.object_path(cache, digest)).exists() and holds(path, matches))
