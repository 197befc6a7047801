"""Decides whether a model may be loaded: its files against its passport, the passport against the registry or a key, and the registry's
decision on the version.

What was verified is what is loaded. Small files are read once, into a private copy. The bytes of the weights must have their digest
while they are loaded.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import lora
from tasks.registry.lineage import passport
from tasks.registry.lineage.passport import COPY
from tasks.runtime import artifacts
from tasks.runtime.regular_files import read_regular

CARD = "README.md"
TASKS = "tasks.json"  # the extraction tasks that it was trained on
ADAPTER = "adapter/"  # in the checkpoint of a version
DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json")
NOT_LOADED = "code/"  # the server runs no code of a version


@dataclass(frozen=True)
class ModelLocation:
    """Where a model is. ``version`` is the registry's number, empty for a directory; ``alias`` is the alias that is followed, if any."""

    name: str
    version: str
    directory: Path
    alias: str = ""


@dataclass(frozen=True)
class Verification:
    """A model's passport with its SHA-256, and the problems that forbid serving it as verified, without paths of this machine."""

    document: dict[str, Any]
    digest: str | None
    problems: tuple[str, ...]

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of each file of weights that the passport lists."""
        return {name: digest for name, digest in files_of(self).items() if name.endswith(".safetensors")}


def files_of(verification: Verification) -> dict[str, str]:
    """SHA-256 of each file of a checkpoint, as its passport lists them."""
    return passport.checkpoint_files(verification.document)


def base_files(verification: Verification) -> dict[str, str]:
    """SHA-256 of each file of the base model on which a version was trained; empty where its passport does not list them."""
    tree = verification.document.get("trees", {}).get(str(artifacts.BASE), {"files": {}})
    return dict(tree["files"])


def deciding(files: Mapping[str, str]) -> dict[str, str]:
    """Those of a base model's files that decide what an adapter of it means: weights, shapes, tokenizer and chat template."""
    return {name: digest for name, digest in files.items() if name in DECIDING or ("/" not in name and name.endswith(".safetensors"))}


def check(location: ModelLocation) -> Verification:
    """Verify everything except the bytes of the weights, which are compared while they are loaded."""
    return _check(location, whole=True)


def check_adapter(location: ModelLocation) -> Verification:
    """Verify the passport of an adapter. The bytes of its files are compared by ``adapter_copy``, which loads no others."""
    return _check(location, whole=False)


def check_as_base(location: ModelLocation, adapter: ModelLocation) -> Verification | None:
    """The verification of a directory by the passport of an adapter, which lists the files of the base model; ``None`` if they differ."""
    vouching = check_adapter(adapter)
    if location.version or vouching.problems or not (files := base_files(vouching)):
        return None
    document = {"format": passport.FORMAT, "artifacts": {COPY + name: digest for name, digest in files.items()}, "alternatives": {}}
    verification = Verification(document, vouching.digest, ())
    findings = passport.compare_deployed(document, location.directory, unread=verification.weights)
    return None if any(finding.state == "differs" for finding in findings) else verification


def _check(location: ModelLocation, *, whole: bool) -> Verification:
    from tasks.registry.lineage import verification

    version, client = None, None
    if location.version:
        from tasks.registry import tracking  # imports MLflow, which a directory does without

        client = tracking.connect()
        version = client.get_model_version(location.name, location.version)
    try:
        report = verification.read(location.directory, version=version, public_key=verification.public_key())
        findings = list(report.findings)
        if report.document and whole:
            weights = Verification(report.document, None, ()).weights
            findings += passport.compare_deployed(report.document, location.directory, unread=weights)
    except (ValueError, OSError) as error:
        return Verification({}, None, (without_path(location.directory, str(error)),))
    problems = [_describe(location.directory, finding) for finding in findings if finding.state in ("differs", "unknown")]
    if client:
        from tasks.registry import promotion

        objection = promotion.objection(client, version, alias=location.alias, verdict=_verdict(report.document))
        problems += [objection] if objection else []
    return Verification(report.document, report.digest or None, tuple(problems))


def _verdict(document: dict[str, Any]) -> str:
    return str(document["decision"]["verdict"]) if document else ""


def _describe(directory: Path, finding: passport.Finding) -> str:
    return f"{finding.name or finding.tree}" + (f" ({without_path(directory, finding.note)})" if finding.note else "")


@contextmanager
def private_copy(location: ModelLocation, verification: Verification) -> Iterator[Path]:
    """A temporary directory of this process alone, from which a verified model is loaded.

    The weights, which may be large, are links in it. ``ValueError`` if a file changed after it was verified.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        for name, digest in passport.checkpoint_files(verification.document).items():
            if name.startswith(NOT_LOADED) or COPY + name in verification.document["alternatives"]:
                continue
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in verification.weights:
                path.symlink_to(location.directory / name)
                continue
            content = read_regular(location.directory / name)
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{name} changed while it was read")
            path.write_bytes(content)
        yield Path(folder)


@contextmanager
def adapter_copy(location: ModelLocation, verification: Verification) -> Iterator[Path]:
    """As ``private_copy``, of an adapter. ``ValueError`` if a file is not the one that the passport lists."""
    listed = files_of(verification)
    with tempfile.TemporaryDirectory(prefix="adapter-") as folder:
        for name in (lora.CONFIG, lora.WEIGHTS):
            if ADAPTER + name not in listed:
                raise ValueError(f"its passport lists no {ADAPTER}{name}; it was not trained with an adapter")
            content = read_regular(adapter_folder(location.directory) / name)
            if hashlib.sha256(content).hexdigest() != listed[ADAPTER + name]:
                raise ValueError(f"{name} is not the file that its passport lists")
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def adapter_folder(directory: Path) -> Path:
    """Where an adapter's files are: in the checkpoint of a version, or in a directory of their own."""
    return directory / ADAPTER if (directory / ADAPTER).is_dir() else directory


def without_path(directory: Path, message: str) -> str:
    """The message without the directory's path, for clients."""
    return message.replace(f"{directory}/", "").replace(str(directory), directory.name)
