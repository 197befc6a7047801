"""Raw files: which there are, and the reader that each gets by its name and content.

Every record is yielded, as a Document or as Rejected with its place and a reason; none is skipped silently, and nothing that a file
holds raises an error.
"""

import csv
import zlib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.manifest import MANIFEST
from tasks.corpus.readers import fhir, hpo, tables, texts, xml_files
from tasks.corpus.readers.records import FILE, FileOptions, UnreadableError
from tasks.runtime.digests import files_in

# What parsers raise on a file that is not what its name says, or that takes more memory or depth than there is.
DAMAGE = (EOFError, OSError, zlib.error, ValueError, LookupError, csv.Error, MemoryError, RecursionError)
COMPRESSED = (".xml", ".jsonl", ".ndjson")  # kinds that are also read as .gz


def raw_files(data: Path) -> list[str]:
    """The names of the raw files in ``data``, sorted; ``ValueError`` where there are none, or something that is no file."""
    paths = [p.relative_to(data) for p in files_in(data)] if data.exists() else []
    names = sorted(p.as_posix() for p in paths if not any(part.startswith(".") for part in p.parts) and p.as_posix() != MANIFEST)
    if not names:
        raise ValueError(f"{data} holds no raw files; build the default corpus with 'python -m tasks.corpus {data}' or add your own")
    return names


def options_for(name: str, files: Mapping[str, FileOptions]) -> FileOptions:
    """The options of the first pattern that the name matches."""
    return next((options for pattern, options in files.items() if fnmatchcase(name, pattern)), FileOptions())


def unmatched(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The patterns that no name matches."""
    names = list(names)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def read_file(data: Path, name: str, options: FileOptions | None = None) -> Iterator[Document | Rejected]:
    """The records of a file; what cannot be read is rejected with its place, a whole file or its rest with the position FILE."""
    empty = True
    try:
        for record in _read(data / name, name, options or FileOptions()):
            empty = False
            yield record
    except UnreadableError as error:
        yield Rejected(name, FILE, str(error))
    except DAMAGE as error:  # whose messages may quote the file
        yield Rejected(name, FILE, f"is damaged ({type(error).__name__})")
    else:
        if empty:
            yield Rejected(name, FILE, "holds no records")


def _read(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    if path.stat().st_size == 0:
        raise UnreadableError("is empty")
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-2:]]
    kind = suffixes[0] if suffixes[1:] == [".gz"] and suffixes[0] in COMPRESSED else (suffixes or [""])[-1]
    with_options = {".csv": tables.read_csv, ".tsv": tables.read_csv, ".parquet": tables.read_parquet}
    with_options |= {".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".txt": texts.read_text, ".md": texts.read_text}
    without = {".xml": xml_files.read_xml, ".obo": hpo.read_obo, ".hpoa": hpo.read_hpoa}
    if kind in with_options:
        return with_options[kind](path, name, options)
    if kind in without:
        return without[kind](path, name)
    raise UnreadableError(f"is of a kind that is not read ({kind or 'no ending'}); docs/own-data.md lists those that are")


def _read_json_lines(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    return (fhir.read_fhir if fhir.is_fhir(path, options) else tables.read_jsonl)(path, name, options)
