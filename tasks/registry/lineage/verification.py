"""Whether the files of a version are those that were registered, and who says so.

A passport speaks for itself only: whoever can write a directory can write another passport into it. So its own digest must be the one
that stands on the version in the registry, or it must carry the signature of a key that the reader names; else its files are consistent
and its origin is unknown.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from ruamel.yaml import YAML

from tasks.registry.compliance.names import DOCUMENT, FOLDER, LATER_TAG
from tasks.registry.lineage import model_signature, passport
from tasks.registry.lineage.certificates import Authorities, UntrustedError
from tasks.registry.lineage.passport import Finding
from tasks.registry.lineage.signature import PUBLIC_KEY, SIGNATURE, Trusted, signed_by
from tasks.registry.lineage.signature import public_key as open_public_key
from tasks.runtime.artifacts import DATA_POINTER, DVC_LOCK
from tasks.runtime.chain import broken_links
from tasks.runtime.regular_files import read_regular, regular_sha256

UNKNOWN_ORIGIN = f"consistent, origin unknown: name the version in the registry or a public key ({PUBLIC_KEY})"


@dataclass(frozen=True)
class Read:
    """A passport as it was read once: what it says, its SHA-256, and what is to be said of its origin.

    ``document`` is empty where it cannot be read; a finding says why then.
    """

    document: dict[str, Any]
    digest: str
    findings: list[Finding]


def public_key() -> Path | None:
    """The key that passports must be signed with, or whose authorities must vouch for it, where the environment names a file."""
    return Path(os.environ[PUBLIC_KEY]) if os.environ.get(PUBLIC_KEY) else None


def read(directory: Path, *, version: Any | None, public_key: Path | None) -> Read:
    """The passport in a version's or a deployed directory; ``version``: the registry's, which it must be the passport of."""
    path = directory / passport.FILE
    if not os.path.lexists(path):
        return Read({}, "", [Finding("differs", passport.FILE, "", "missing")])
    findings: list[Finding] = []
    digest = ""
    try:
        content = read_regular(path)
        digest = hashlib.sha256(content).hexdigest()
        findings += _origin(content, digest, directory, version, public_key)
        document = passport.parse_passport(content, passport.FILE)
        findings += _signed_otherwise(document, digest, directory, public_key)
    except ValueError as error:
        if not any(finding.state == "differs" for finding in findings):
            findings.append(Finding("differs", passport.FILE, "", str(error).replace(f"{directory}/", "")))
        return Read({}, digest, findings)
    broken = [Finding("differs", path, "", sentence) for path, sentence in broken_links(document["stages"])]
    return Read(document, digest, [*findings, *_of_that_version(document, version), *broken])


def _origin(content: bytes, digest: str, directory: Path, version: Any | None, public_key: Path | None) -> Iterator[Finding]:
    passport_signature, of_model = directory / SIGNATURE, _model_signature(directory)
    if version is not None:
        same = digest == version.tags.get("passport.sha256")
        yield Finding("equal" if same else "differs", passport.FILE, "", "its digest on the version")
        yield from _signature_on(version, directory, passport_signature, "passport.signature")
        yield from _signature_on(version, directory, of_model, "model.signature")
    if public_key is not None:
        trusted = open_public_key(public_key)
        path = passport_signature if isinstance(trusted, Ed25519PublicKey) else of_model
        signature = read_regular(path) if os.path.lexists(path) else b""
        if not signature:
            yield Finding("differs", path.name, "", "the version is not signed with a key of this kind")
            return
        name = public_key.name
        by = f"by one for whom {name} vouches" if isinstance(trusted, Authorities) else f"by the owner of {name}"
        reason = _refusal(content, signature, trusted)
        yield Finding("differs", path.name, "", f"not {by}: {reason}") if reason else Finding("equal", path.name, "", by)
    elif version is None:
        yield Finding("unknown", passport.FILE, "", UNKNOWN_ORIGIN)


def _refusal(content: bytes, signature: bytes, trusted: Trusted) -> str:
    """Why a signature is not one of this passport by whom the reader trusts; empty where it is."""
    if isinstance(trusted, Ed25519PublicKey):
        return "" if signed_by(content, signature, trusted) else "another key made it, or it was changed"
    try:
        listed = model_signature.signed_files(signature, trusted)
    except UntrustedError as error:
        return str(error)
    return "" if listed.get(passport.FILE) == hashlib.sha256(content).hexdigest() else "it signs another passport"


def _model_signature(directory: Path) -> Path:
    """Where it is in a version, and in a checkpoint that was deployed alone."""
    checkpoint = directory / "checkpoint"
    return (checkpoint if checkpoint.is_dir() else directory) / model_signature.FILE


def _signed_otherwise(document: dict[str, Any], digest: str, directory: Path, public_key: Path | None) -> Iterator[Finding]:
    """Files of the checkpoint for which the model's signature and the passport name different bytes: other tools would refuse them."""
    path = _model_signature(directory)
    trusted = open_public_key(public_key) if public_key else None
    if trusted is None or isinstance(trusted, Ed25519PublicKey) or not os.path.lexists(path):
        return
    try:
        signed = model_signature.signed_files(read_regular(path), trusted)
    except UntrustedError:
        return  # as _origin says
    rewritten = {name.removeprefix(passport.COPY) for name in document["alternatives"]}  # by loaders; not signed
    listed = passport.checkpoint_files(document) | {passport.FILE: digest}
    names = sorted(name for name in (listed.keys() | signed.keys()) - rewritten if listed.get(name) != signed.get(name))
    yield from (Finding("differs", path.name, name, "the signature and the passport name different bytes") for name in names)


def _signature_on(version: Any, directory: Path, signature: Path, tag: str) -> Iterator[Finding]:
    """The file of a signature, with what the registry says of it."""
    expected = version.tags.get(tag)
    if expected is None and not (os.path.lexists(signature) and "passport.signed" not in version.tags):
        return  # there is none, or the version is older: its tag says only that there is one
    if expected is None or not os.path.lexists(signature) or regular_sha256(signature) != expected:
        note = "the version was registered without one" if expected is None else "not the one that it was registered with"
        yield Finding("differs", signature.relative_to(directory).as_posix(), "", note)


def _of_that_version(document: dict[str, Any], version: Any | None) -> Iterator[Finding]:
    """Whether the passport names the version that it was found on."""
    stated = document["version"]
    if stated is None:
        yield Finding("unstated", passport.FILE, "", f"format {document['format']} does not say of which version it is")
    elif version is not None and (stated["name"], stated["number"]) != (version.name, int(version.version)):
        yield Finding("differs", passport.FILE, "", f"it is that of {stated['name']} version {stated['number']}")


def verify(version: Any | None, *, deployed: Path | None, public_key: Path | None) -> Iterator[Finding]:
    """Every file that a passport names: in the registry and in this directory or, instead, in the directory of a serving host."""
    if deployed:
        if not deployed.is_dir():
            raise ValueError(f"{deployed} is no directory")
        passport_read = read(deployed, version=version, public_key=public_key)
        yield from passport_read.findings
        yield from passport.compare_deployed(passport_read.document, deployed) if passport_read.document else ()
        return
    assert version is not None
    from tasks.registry import tracking, versions  # import MLflow, which a deployed directory does without

    folder = versions.artifact(tracking.connect(), version.run_id, "")
    passport_read = read(folder, version=version, public_key=public_key)
    yield from passport_read.findings
    if passport_read.document:
        yield from in_registry(folder, version, passport_read)
        yield from here(passport_read.document)


def in_registry(folder: Path, version: Any, passport_read: Read) -> Iterator[Finding]:
    """A version's artifacts: exactly what its passport and its further decisions list."""
    from tasks.registry.promotion import decisions

    called = f"{version.name}/{version.version}"
    later: dict[str, str] = {}
    for number in range(2, decisions(version) + 1):
        name = f"decision-{number}.json"
        digest = version.tags.get(f"decision.{number}.sha256", "")
        later[name] = digest
        if (folder / name).is_file() and regular_sha256(folder / name) == digest:
            decision = json.loads((folder / name).read_bytes())
            later |= {f"evaluation-{number}/{path}": sha for path, sha in decision["evaluation"].items()}
            later |= decision.get("files") or decision.get("beside", {})  # the latter up to format 1
    yield from passport.compare_version(passport_read.document, folder, called=called, later=later | _later_forms(folder, version))
    # The checkpoint carries copies, so that it can be deployed alone.
    for name, tag in ((passport.FILE, "passport.sha256"), (SIGNATURE, "passport.signature")):
        stored, copy = folder / name, folder / "checkpoint" / name
        expected = version.tags.get(tag) or (regular_sha256(stored) if os.path.lexists(stored) else None)
        actual = regular_sha256(copy) if os.path.lexists(copy) else None
        if actual != expected:
            yield Finding("absent" if actual is None else "differs", f"{called}/checkpoint", name)


def _later_forms(folder: Path, version: Any) -> dict[str, str]:
    """Digests of the regulator's folders that came after the passport; those of their files stand in the document of each."""
    later: dict[str, str] = {}
    for tag, digest in version.tags.items():
        if (match := LATER_TAG.fullmatch(tag)) is None:
            continue
        name = f"{FOLDER}-{match[1]}/{DOCUMENT}"
        later[name] = digest
        if (folder / name).is_file() and regular_sha256(folder / name) == digest:
            files = json.loads((folder / name).read_bytes())["files"]
            later |= {f"{FOLDER}-{match[1]}/{path}": sha for path, sha in files.items()}
    return later


def here(document: dict[str, Any]) -> Iterator[Finding]:
    """The trees in this directory. Where DVC's files say that another version of one is here, that one is absent."""
    present = _pointers(DVC_LOCK, DATA_POINTER)
    for name, tree in document["trees"].items():
        if present.get(name, tree["dvc"]) != tree["dvc"] and Path(name).exists():
            yield Finding("absent", name, "", "another version of it is here, as DVC's files say")
        else:
            yield from passport.compare(name, tree["files"], Path(name))
    for name in document["unlisted"]:
        yield Finding("absent", name, "", "its files were not there when the passport was written")


def _pointers(*files: Path) -> dict[str, str]:
    """Digests by path, as DVC's files in this directory have them."""
    digests: dict[str, str] = {}
    for content in (YAML(typ="safe").load(path) for path in files if path.exists()):
        stages = content.get("stages", {"": content}).values()
        digests |= {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", []) if "md5" in out}
    return digests
