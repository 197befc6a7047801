"""Patterns that are compiled when they are first needed, and kept in ``.cache/patterns``: those of all names take seconds to compile.

``regex`` pickles a pattern as its compiled program. The sources are ours; nothing of a record is in them.
"""

import hashlib
import json
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import regex

from tasks.runtime.files import whole

PATTERNS = Path(__file__).parents[3] / ".cache/patterns"  # of this project, wherever it is run


class LazyPattern:
    """A pattern that is compiled, or read as it was compiled before, once a text passes its prefilter."""

    def __init__(self, source: str, lists: Mapping[str, Sequence[str]]):
        self._source, self._lists = source, lists

    def finditer(self, text: str, start: int, end: int) -> Iterator[regex.Match[str]]:
        """As that of a compiled pattern."""
        return self._compiled.finditer(text, start, end)

    @cached_property
    def _compiled(self) -> regex.Pattern[str]:
        parts = [self._source, json.dumps(self._lists, sort_keys=True), regex.__version__, sys.version]
        path = PATTERNS / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.pickle"
        try:
            kept = pickle.loads(path.read_bytes())
        except Exception:  # none is kept, or a damaged one, which may raise anything
            kept = None
        if isinstance(kept, regex.Pattern) and kept.pattern == self._source:
            return kept
        compiled: regex.Pattern[str] = regex.compile(self._source, ignore_unused=True, **self._lists)
        PATTERNS.mkdir(parents=True, exist_ok=True)
        with whole(path, unique=True) as partial:
            partial.write_bytes(pickle.dumps(compiled))
        return compiled
