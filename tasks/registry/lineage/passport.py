"""The passport of a model version: the digest of every file behind it, in one file; and the comparison of files with it.

A version is exactly the regular files that its passport lists, by content; anything else in it differs. This module knows paths and
digests, nothing of MLflow or DVC.
"""

import json
import os
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from tasks.corpus.annotation.figures import Figures
from tasks.registry.lineage import model_signature
from tasks.registry.lineage.signature import SIGNATURE
from tasks.runtime import artifacts
from tasks.runtime.digests import dvc_digest, sha256
from tasks.runtime.regular_files import read_regular, regular_sha256

FORMAT = 3
FILE = "passport.json"
CHECKPOINT, EVALUATION = str(artifacts.MODEL), str(artifacts.EVALUATION)  # the trees of which a version carries copies
COPY = "checkpoint/"  # where a version carries the former
# What a serving host must have, by what it is called to people.
SERVED = {"weights": "*.safetensors", "config": "config.json", "tokenizer": "tokenizer.json", "template": "tokenizer_config.json"}
OF_RECORDS = ("record", "started", "seconds", "params", "inputs", "outputs", "metrics", "code", "versions", "machine")


@dataclass(frozen=True)
class Finding:
    """What is to be said of one file, or of a tree of which nothing is here.

    ``unstated``: the passport is of an older format, which says nothing of this. ``unknown``: nobody vouches for the passport itself.
    """

    state: Literal["equal", "differs", "absent", "unstated", "unknown"]
    tree: str  # the directory or file that the passport lists it under
    name: str  # the file's path below it
    note: str = ""

    def __str__(self) -> str:
        where = "/".join(part for part in (self.tree, self.name) if part)
        return f"{self.state:8} {where}" + (f"  ({self.note})" if self.note else "")


def passport(
    *,
    version: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    trees: Mapping[str, Path],
    runs: Sequence[Path],
    code: Mapping[str, Any],
    gates: Mapping[str, Any],
    decision: Mapping[str, Any],
    corpus: Sequence[Mapping[str, Any]],
    deidentification: Mapping[str, Any],
    annotation: Figures | None,
) -> dict[str, Any]:
    """All of it but ``artifacts``, the digests of the version's own files, which are made from it, and ``alternatives``, further digests of
    those that MLflow writes anew when it loads a version.

    ``version``: name, number and time; ``trees``: where each path that the records name lies now; ``runs``: the records' files;
    ``corpus``: what is stated of the raw files; ``deidentification``: its recall and damage; ``annotation``: the same on notes of the
    site, as a person marked them. ``ValueError`` where a tree does not hold the bytes that its stage wrote or read.
    """
    recorded = {path: digest for record in records.values() for path, digest in (record["inputs"] | record["outputs"]).items()}
    listed = {}
    for name, path in sorted(trees.items()):
        if (actual := dvc_digest(path)) != recorded[name]:
            raise ValueError(
                f"{path} is not what the runs behind the model read or wrote ({actual}, not {recorded[name]}); run 'dvc repro'"
            )
        listed[name] = {"dvc": actual, "files": digests_of(path)}
    listed |= {path.as_posix(): {"dvc": dvc_digest(path), "files": digests_of(path)} for path in runs}
    return {
        "format": FORMAT,
        "version": dict(version),
        "code": dict(code),
        "corpus": [dict(entry) for entry in corpus],
        "trees": listed,
        "unlisted": {name: digest for name, digest in sorted(recorded.items()) if name not in listed},
        "gates": dict(gates),
        "deidentification": dict(deidentification),
        "annotation": annotation and annotation.model_dump(mode="json"),
        "decision": dict(decision),
        "stages": {stage: {name: record.get(name) for name in OF_RECORDS} for stage, record in records.items()},
    }


def digests_of(path: Path) -> dict[str, str]:
    """SHA-256 of each file below a directory; of a file that is alone, under the empty name."""
    if path.is_file():
        return {"": sha256(path)}
    return {p.relative_to(path).as_posix(): sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}


def _inside(name: str) -> str:
    """A path that stays below the directory it is looked for in; the empty one is a tree that is a file."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ValueError("leads out of the version")
    return name


_Digests = dict[Annotated[str, AfterValidator(_inside)], Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Version(_Strict):
    name: str
    number: int
    made: str


class _Tree(_Strict):
    dvc: str
    files: _Digests


class _Decision(_Strict):
    verdict: str
    reasons: list[str]
    table: list[dict[str, Any]]


class _Stage(_Strict):
    record: str
    started: str
    seconds: float
    params: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    metrics: dict[str, Any] | None
    code: dict[str, Any] | None


class _Gate(_Strict):
    report: str
    passed: int
    warned: int
    failed: int


class _Share(_Strict):
    name: str
    share: float
    low: float
    high: float


class _Deidentification(_Strict):
    recall: list[_Share] = []
    damage: list[_Share] = []
    entity_model_recall: list[_Share] = []  # of a run with an entity model
    entity_model_damage: list[_Share] = []


class _Passport(_Strict):
    """What is read of a passport, with its types."""

    format: int
    code: dict[str, Any]
    corpus: list[dict[str, Any]]
    trees: dict[Annotated[str, AfterValidator(_inside)], _Tree]
    unlisted: dict[str, str]
    gates: dict[str, _Gate]
    decision: _Decision
    stages: dict[str, _Stage]


class _Passport3(_Passport):
    version: _Version
    artifacts: _Digests
    alternatives: dict[str, list[str]]
    deidentification: _Deidentification = _Deidentification()  # older passports of this format have none
    annotation: Figures | None = None  # nor this; none where nobody annotated


class _Passport2(_Passport):
    package: _Digests
    files: _Digests


_FORMATS: dict[int, type[_Passport]] = {2: _Passport2, 3: _Passport3}


def read_passport(path: Path) -> dict[str, Any]:
    """The passport in a file; ``ValueError`` says what keeps it from being one. One of format 2 gets the fields of format 3."""
    return parse_passport(read_regular(path), str(path))


def parse_passport(content: bytes, called: str) -> dict[str, Any]:
    """As ``read_passport``, of a passport that was read already."""
    refusal = f"{called} is not a passport that this version reads (format {FORMAT})"
    try:
        document = json.loads(content)
        number = document["format"]
        shape = _FORMATS.get(number)
    except (KeyError, TypeError, RecursionError, ValueError):
        raise ValueError(refusal) from None
    if shape is None:
        raise ValueError(f"{called} has format {str(number)[:20]}; this version reads {' and '.join(map(str, _FORMATS))}")
    try:
        shape.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{refusal}: {'.'.join(map(str, first['loc']))[:200]}: {first['msg'].lower()}") from None
    missing = [name for name in (CHECKPOINT, EVALUATION) if name not in document["trees"]]
    if missing:
        raise ValueError(f"{refusal}: it lists no {' and no '.join(missing)}")
    return dict(document) if number == FORMAT else _as_format_3(document)


def _as_format_3(old: dict[str, Any]) -> dict[str, Any]:
    copies = {f"{COPY}{name}": digest for name, digest in (old["trees"][CHECKPOINT]["files"] | old["package"]).items()}
    copies |= {f"evaluation/{name}": digest for name, digest in old["trees"][EVALUATION]["files"].items()}
    return {**old, "version": None, "alternatives": {}, "artifacts": copies | old["files"]}


def is_unstated(document: Mapping[str, Any], name: str) -> bool:
    """Whether the format of a passport did not list files like this one of a version: format 2 left out the lineage page, the gate's
    results, and what MLflow and Python write where a version is loaded as code.
    """
    first, *rest = PurePosixPath(name).parts
    if first == "checkpoint":
        unstated = rest[:1] == ["registered_model_meta"] or "__pycache__" in rest
    else:
        unstated = first.partition("-")[0] == "gate" or (name.endswith(".html") and name.startswith(("lineage", "decision-")))
    return document["format"] == 2 and unstated


def compare_version(document: Mapping[str, Any], directory: Path, *, called: str, later: Mapping[str, str]) -> Iterator[Finding]:
    """The files of a version as the registry holds it. ``later``: digests of what came to it after its passport."""
    others = {name for folder in ("", COPY) for name in (folder + FILE, folder + SIGNATURE)} | {COPY + model_signature.FILE}
    expected = {name: _allowed(document, name) for name in document["artifacts"]} | {name: {digest} for name, digest in later.items()}
    for finding in _compare_exactly(expected, directory, called, others):
        yield _of_its_format(document, finding, finding.name)


def compare_checkpoint(document: Mapping[str, Any], directory: Path, *, called: str, unread: Container[str] = ()) -> Iterator[Finding]:
    """A version's checkpoint alone, as it was deployed or is to be loaded. ``unread``: files of which only the kind is looked at."""
    expected = {name: _allowed(document, COPY + name) for name in checkpoint_files(document)}
    for finding in _compare_exactly(expected, directory, called, {FILE, SIGNATURE, model_signature.FILE}, unread):
        yield _of_its_format(document, finding, COPY + finding.name)


def _allowed(document: Mapping[str, Any], name: str) -> set[str]:
    return {document["artifacts"][name], *document["alternatives"].get(name, ())}


def checkpoint_files(document: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the files of a version's checkpoint, by their path below it."""
    return {name.removeprefix(COPY): digest for name, digest in document["artifacts"].items() if name.startswith(COPY)}


def _of_its_format(document: Mapping[str, Any], finding: Finding, name: str) -> Finding:
    if finding.state == "differs" and finding.note == UNLISTED and is_unstated(document, name):
        return Finding("unstated", finding.tree, finding.name, f"format {document['format']} lists no such files")
    return finding


def compare_deployed(document: Mapping[str, Any], directory: Path, *, unread: Container[str] = ()) -> Iterator[Finding]:
    """What a serving host must have: an absent file is told as one that differs."""
    for finding in compare_checkpoint(document, directory, called=str(directory), unread=unread):
        yield Finding("differs", finding.tree, finding.name, "missing") if finding.state == "absent" else finding
    for label, pattern in SERVED.items():
        if not any(directory.glob(pattern)):
            yield Finding("differs", str(directory), pattern, f"no {label}")


UNLISTED = "the passport does not list it"


def _compare_exactly(
    expected: Mapping[str, Container[str]], directory: Path, called: str, others: Container[str], unread: Container[str] = ()
) -> Iterator[Finding]:
    """Each regular file that must be there, and everything else that is there, except the files ``others``."""
    kinds = dict(_entries(directory))
    for name, digests in expected.items():
        kind = kinds.pop(name, None)
        if kind == "file":
            same = name in unread or regular_sha256(directory / name) in digests
            yield Finding("equal" if same else "differs", called, name)
        elif kind is None:
            yield Finding("absent", called, name)
        else:
            yield Finding("differs", called, name, f"is a {kind}, not a regular file")
    for name, kind in sorted(kinds.items()):
        if kind != "file":
            yield Finding("differs", called, name, f"is a {kind}")
        elif name not in others:
            yield Finding("differs", called, name, UNLISTED)


def _entries(directory: Path) -> Iterator[tuple[str, str]]:
    """Everything below a directory but the directories that lead to it, with what it is; links are not followed."""
    for folder, folders, files in os.walk(directory, onerror=_raise):
        here = Path(folder)
        for name in (*folders, *files):
            mode = (here / name).lstat().st_mode
            if stat.S_ISDIR(mode) and any(os.scandir(here / name)):
                continue
            kind = next((word for is_a, word in _KINDS.items() if is_a(mode)), "special file")
            yield (here / name).relative_to(directory).as_posix(), kind


_KINDS = {stat.S_ISREG: "file", stat.S_ISLNK: "link", stat.S_ISDIR: "directory without files", stat.S_ISFIFO: "named pipe"}


def _raise(error: OSError) -> None:
    raise error


def compare(tree: str, expected: Mapping[str, str], directory: Path) -> Iterator[Finding]:
    """Each file of a tree of the pipeline with what lies there; files that the passport does not list differ too.

    Here links to files count as the files, as they do for DVC, whose cache they may lead into.
    """
    if not directory.exists():
        yield Finding("absent", tree, "")
        return
    for name, digest in expected.items():
        path = directory / name if name else directory
        if not path.is_file():
            yield Finding("absent", tree, name) if not path.exists() else Finding("differs", tree, name, "is no file")
        else:
            yield Finding("equal" if sha256(path) == digest else "differs", tree, name)
    if directory.is_dir():
        present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir()}
        for name in sorted(present - set(expected)):
            yield Finding("differs", tree, name, UNLISTED)
