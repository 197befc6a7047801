"""Which text files belong together: each is a group of its own, unless ``preprocess.files`` says what their names have in common."""

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tasks.corpus.readers.records import FileOptions

KINDS = (".txt", ".md", ".html", ".htm", ".xhtml", ".rtf")
_NUMBERED = re.compile(r"(?P<stem>.*\d.*?)(?P<between>[-_ .])\d+")  # case-01-2: the second of a first number


def group_of(name: str, options: FileOptions) -> str:
    """The group of a text file: what the bracket of ``options.group`` matches in its name, else the name."""
    match = re.search(options.group, name) if options.group else None
    return match[1] if match and match[1] else name


def advice(names: Iterable[str], files: Mapping[str, FileOptions]) -> list[str]:
    """For each folder whose text files seem to be several of one patient by their names: the line of params.yaml to write."""
    folders: dict[tuple[str, str, str], Counter[str]] = {}
    for path in map(PurePosixPath, names):
        numbered = _NUMBERED.fullmatch(path.stem)
        if path.suffix.lower() in KINDS and numbered and not any(fnmatchcase(str(path), pattern) for pattern in files):
            folders.setdefault((str(path.parent), path.suffix, numbered["between"]), Counter())[numbered["stem"]] += 1
    return [_advice(*key, stems) for key, stems in sorted(folders.items()) if 1 < len(stems) < stems.total()]


def _advice(folder: str, suffix: str, between: str, stems: Counter[str]) -> str:
    pattern = f"*{suffix}" if folder == "." else f"{glob.escape(folder)}/*{suffix}"
    group = f"(.*){'[.]' if between == '.' else between}[0-9]+"
    line = f"preprocess: {{files: {{{json.dumps(pattern)}: {{group: {json.dumps(group)}}}}}}}"
    return (
        f"each of the {stems.total():,} text files of {folder} is a group of its own, so that those of one patient can be in different "
        f"splits. If those whose names differ in the last number alone belong together ({len(stems):,} groups), "
        f"write into params.yaml: {line}"
    )
