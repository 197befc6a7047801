"""What of a model may be loaded: its files compared with their passport, that with the registry or a key, and the registry's decision.

What is verified is what is loaded: small files are read once, into a private copy, and of the weights the very bytes that are loaded must
have their digest.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.registry.lineage import passport
from tasks.registry.lineage.passport import COPY
from tasks.runtime.regular_files import read_regular

CARD = "README.md"
NOT_LOADED = "code/"  # of a version the server runs nothing


@dataclass(frozen=True)
class Place:
    """Where a model lies. ``version`` is the registry's number, and empty of a directory; ``alias`` the one that is followed, if any."""

    name: str
    version: str
    directory: Path
    alias: str = ""


@dataclass(frozen=True)
class Checked:
    """A model's passport, and what keeps the model from being served as verified, in words without paths of this machine."""

    document: dict[str, Any]
    digest: str | None
    problems: tuple[str, ...]

    @property
    def weights(self) -> dict[str, str]:
        return {name: digest for name, digest in passport.checkpoint_files(self.document).items() if name.endswith(".safetensors")}


def check(place: Place) -> Checked:
    """All but the weights' own bytes, which are compared when they are loaded."""
    from tasks.registry import promotion, tracking
    from tasks.registry.lineage import verification

    client = tracking.connect() if place.version else None
    version = client.get_model_version(place.name, place.version) if client else None
    try:
        found = verification.read(place.directory, version=version, public_key=verification.public_key())
        findings = list(found.findings)
        if found.document:
            findings += passport.compare_deployed(found.document, place.directory, unread=Checked(found.document, None, ()).weights)
    except (ValueError, OSError) as error:
        return Checked({}, None, (without(place.directory, str(error)),))
    problems = [_words(place.directory, finding) for finding in findings if finding.state in ("differs", "unknown")]
    if client and (objection := promotion.objection(client, version, alias=place.alias, verdict=_verdict(found.document))):
        problems.append(objection)
    return Checked(found.document, found.digest or None, tuple(problems))


def _verdict(document: dict[str, Any]) -> str:
    return str(document["decision"]["verdict"]) if document else ""


def _words(directory: Path, finding: passport.Finding) -> str:
    return f"{finding.name or finding.tree}" + (f" ({without(directory, finding.note)})" if finding.note else "")


@contextmanager
def private_copy(place: Place, checked: Checked) -> Iterator[Path]:
    """A directory of this process alone, from which a verified model is loaded; ``ValueError`` where a file changed since it was compared.

    The weights, which may be large, are links there; they are compared as they are read.
    """
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        for name, digest in passport.checkpoint_files(checked.document).items():
            if name.startswith(NOT_LOADED) or COPY + name in checked.document["alternatives"]:
                continue
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in checked.weights:
                path.symlink_to(place.directory / name)
                continue
            content = read_regular(place.directory / name)
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{name} changed while it was read")
            path.write_bytes(content)
        yield Path(folder)


def without(directory: Path, words: str) -> str:
    """Words about a directory, without its path."""
    return words.replace(f"{directory}/", "").replace(str(directory), directory.name)
