"""What of DVC's cache a dvc.lock and a data.dvc need: the digests that they name, and those of the files of each directory.

A directory is an object of its own, the listing, a JSON list of its files. Where one is missing or damaged, what it names is not known.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.runtime.artifacts import DATA_POINTER, DVC_LOCK, DVC_YAML
from tasks.runtime.dvc import LISTING, object_path

POINTERS = (str(DVC_YAML), str(DVC_LOCK), str(DATA_POINTER))


class Listings:
    """The digests that are needed, of ever more versions. Most of them share most directories, and each is read once.

    ``gone``: listings that were removed on purpose with all that they name. ``incomplete``: others may be missing.
    """

    def __init__(self, cache: Path, *, gone: set[str], incomplete: bool):
        self.digests: set[str] = set()
        self._read: set[str] = set()
        self._cache, self._gone, self._incomplete = cache, gone, incomplete

    def add(self, whose: str, pipeline: str, lock: str, data: str, *, here: bool = False) -> None:
        """What the texts of dvc.yaml, dvc.lock and data.dvc name; ``ValueError`` where that cannot be told.

        ``here``: of the workspace, where a stage that never ran, as in a fresh clone, may have left nothing.
        """
        uncached = _uncached(pipeline)
        for path, digest, is_output in (*_named(lock, whose), *_named(data, whose)):
            self.digests.add(digest)
            if digest.endswith(LISTING) and digest not in self._read:
                required = is_output and path not in uncached and digest not in self._gone and not (here and not Path(path).exists())
                self._add_files(digest, f"{path} of {whose}", required=required and not self._incomplete)

    def _add_files(self, digest: str, label: str, *, required: bool) -> None:
        listing = object_path(self._cache, digest)
        try:
            content = listing.read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() + LISTING != digest:
                raise ValueError("other bytes")
            self.digests |= {entry["md5"] for entry in json.loads(content)}
            self._read.add(digest)
        except FileNotFoundError:
            if required:
                raise ValueError(
                    f"{label}: the listing of its files, {digest}, is not in DVC's cache, so that it is not known which they are. "
                    "'dvc fetch' brings it from a remote; --incomplete says that they may go"
                ) from None
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{label}: the listing of its files, {listing}, is damaged; remove it, then bring it back with 'dvc fetch' or 'dvc repro'"
            ) from None


def _named(text: str, whose: str) -> Iterator[tuple[str, str, bool]]:
    """Of a dvc.lock or .dvc file, paths with their digests, and whether they are what was made: code that was read is in no cache."""
    try:
        content = YAML(typ="safe").load(text) or {}
        stages = content["stages"].values() if "stages" in content else [content]
        for stage in stages:
            for is_output in (True, False):
                for entry in stage.get("outs" if is_output else "deps") or []:
                    if digest := entry.get("md5"):
                        yield entry["path"], str(digest), is_output
    except (YAMLError, AttributeError, TypeError, KeyError):
        raise ValueError(f"the dvc.lock or data.dvc of {whose} cannot be read") from None


@cache
def _uncached(pipeline: str) -> frozenset[str]:
    """Paths that dvc.yaml keeps out of the cache."""
    try:
        stages: dict[str, Any] = (YAML(typ="safe").load(pipeline) or {}).get("stages", {})
        outs = [out for stage in stages.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind) or []]
        return frozenset(
            path for out in outs if isinstance(out, dict) for path, options in out.items() if options and options.get("cache") is False
        )
    except (YAMLError, AttributeError, TypeError):
        return frozenset()
