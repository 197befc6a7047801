"""The passport of a model version: the digest of every file behind it, in one file; and the comparison of files with it.

It knows paths and digests, nothing of MLflow or DVC: standard library, and cryptography for signatures (Ed25519, RFC 8032).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.digests import dvc_digest, sha256

FORMAT = 2
FILE, SIGNATURE = "passport.json", "passport.sig"
CHECKPOINT, EVALUATION = "artifacts/model", "artifacts/evaluation"  # the trees of which a version carries copies
# What a serving host must have, by what it is called to people.
SERVED = {"weights": "*.safetensors", "config": "config.json", "tokenizer": "tokenizer.json", "template": "tokenizer_config.json"}
OF_RECORDS = ("record", "started", "seconds", "params", "inputs", "outputs", "metrics", "code", "versions", "machine")


@dataclass(frozen=True)
class Finding:
    """What is to be said of one file, or of a tree of which nothing is here."""

    state: Literal["equal", "differs", "absent"]
    tree: str  # the directory or file that the passport lists it under
    name: str  # the file's path below it
    note: str = ""

    def __str__(self) -> str:
        where = "/".join(part for part in (self.tree, self.name) if part)
        return f"{self.state:8} {where}" + (f"  ({self.note})" if self.note else "")


def passport(
    *,
    records: Mapping[str, Mapping[str, Any]],
    trees: Mapping[str, Path],
    package: Path,
    files: Sequence[Path],
    code: Mapping[str, Any],
    gates: Mapping[str, Any],
    decision: Mapping[str, Any],
    corpus: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``trees``: where each path that the records name lies now; ``package``: what the version's checkpoint carries besides;
    ``corpus``: what is stated of the raw files.

    ``ValueError`` where a tree does not hold the bytes that its stage wrote or read.
    """
    known = {path: digest for record in records.values() for path, digest in (record["inputs"] | record["outputs"]).items()}
    listed = {}
    for name, path in sorted(trees.items()):
        if (found := dvc_digest(path)) != known[name]:
            raise ValueError(f"{path} is not what the runs behind the model read or wrote ({found}, not {known[name]}); run 'dvc repro'")
        listed[name] = {"dvc": found, "files": _digests(path)}
    return {
        "format": FORMAT,
        "code": dict(code),
        "corpus": [dict(entry) for entry in corpus],
        "trees": listed,
        "unlisted": {name: digest for name, digest in sorted(known.items()) if name not in listed},
        "package": _digests(package),
        "files": {path.name: sha256(path) for path in files},
        "gates": dict(gates),
        "decision": dict(decision),
        "stages": {stage: {name: record.get(name) for name in OF_RECORDS} for stage, record in records.items()},
    }


def _digests(path: Path) -> dict[str, str]:
    """Of each file below a directory; of a file that is alone, under the empty name."""
    if path.is_file():
        return {"": sha256(path)}
    return {p.relative_to(path).as_posix(): sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}


def read_passport(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        _ = found["trees"][CHECKPOINT]["files"], found["trees"][EVALUATION]["files"], found["package"], found["files"]
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a passport that this version reads (format {FORMAT})") from None
    if found["format"] != FORMAT:
        raise ValueError(f"{path} has format {found['format']}; this version reads {FORMAT}")
    return found


def compare(tree: str, wanted: Mapping[str, str], directory: Path, *, others: Sequence[str] | None = ()) -> Iterator[Finding]:
    """Each file of a tree with what lies below ``directory``. Files that the passport does not list differ too, except ``others``;
    with none of those told, whatever lies there may.
    """
    if not directory.exists():
        yield Finding("absent", tree, "")
        return
    for name, digest in wanted.items():
        path = directory / name if name else directory
        if not path.is_file():
            yield Finding("absent", tree, name)
        else:
            yield Finding("equal" if sha256(path) == digest else "differs", tree, name)
    if others is not None and directory.is_dir():
        present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
        for name in sorted(present - set(wanted) - set(others)):
            yield Finding("differs", tree, name, "the passport does not list it")


def compare_checkpoint(document: Mapping[str, Any], directory: Path, *, called: str) -> Iterator[Finding]:
    """A version's checkpoint, as the registry holds it or as it was deployed."""
    wanted = {**document["trees"][CHECKPOINT]["files"], **document["package"]}
    # Python writes its caches beside code that runs.
    for finding in compare(called, wanted, directory, others=(FILE, SIGNATURE)):
        if "__pycache__" not in finding.name:
            yield finding


def compare_deployed(document: Mapping[str, Any], directory: Path) -> Iterator[Finding]:
    """What a serving host must have: an absent file is told as one that differs."""
    for finding in compare_checkpoint(document, directory, called=str(directory)):
        yield Finding("differs", finding.tree, finding.name, "missing") if finding.state == "absent" else finding
    for what, pattern in SERVED.items():
        if not any(directory.glob(pattern)):
            yield Finding("differs", str(directory), pattern, f"no {what}")


def sign(document: Path, key: Path) -> Path:
    """Write the signature of a passport beside it, by the private key in a PEM file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{key} holds no private key that can be read; make one with: openssl genpkey -algorithm ed25519") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{key} holds a key of another kind than Ed25519")
    path = document.with_name(SIGNATURE)
    path.write_text(private.sign(document.read_bytes()).hex() + "\n", encoding="ascii")
    return path


def check_signature(document: Path, public_key: Path) -> Finding:
    """Whether the passport carries the signature of this key's owner."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"{public_key} holds no public key that can be read (PEM)") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError(f"{public_key} holds a key of another kind than Ed25519")
    path = document.with_name(SIGNATURE)
    if not path.exists():
        return Finding("differs", SIGNATURE, "", "the passport is not signed")
    try:
        public.verify(bytes.fromhex(path.read_text(encoding="ascii")), document.read_bytes())
    except (InvalidSignature, ValueError):
        return Finding("differs", SIGNATURE, "", f"not by the owner of {public_key}")
    return Finding("equal", SIGNATURE, "", f"by the owner of {public_key}")
