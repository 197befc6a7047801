"""Raw files: which there are, and the reader that each gets by its name and content.

Every record is yielded, as a Document, or as Rejected or Skipped with its place and a reason. None is left out silently, and nothing
that a file holds raises an error.
"""

import csv
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tasks.corpus.documents import Record, Rejected, Skipped
from tasks.corpus.manifest import MANIFEST
from tasks.corpus.readers import fhir, fhir_resources, hl7_files, hpo, tables, texts, xml_files
from tasks.corpus.readers.indexing import INDEXED, LINES, XML, ending, write_index
from tasks.corpus.readers.records import FILE, FileOptions, UnreadableError
from tasks.corpus.readers.source_index import FILE_NAME, SourceIndex
from tasks.runtime.digests import files_in

# What parsers raise on a file that is not what its name says, or that takes more memory or depth than there is.
DAMAGE = (EOFError, OSError, zlib.error, ValueError, LookupError, csv.Error, MemoryError, RecursionError)
COMPRESSED = (*XML, *LINES, ".json")  # kinds that are also read as .gz


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


def read_file(data: Path, name: str, options: FileOptions | None = None, index: Path | None = None) -> Iterator[Record]:
    """The records of a file; what cannot be read is rejected with its place, a whole file or its rest with the position FILE.

    ``index`` is what ``write_index`` wrote of all files; without it, one is made for this file.
    """
    empty, options = True, options or FileOptions()
    try:
        with _index(data, name, options, index) as opened:
            for record in _read(data, name, options, opened):
                empty = False
                yield record
    except UnreadableError as error:
        yield Rejected(name, FILE, str(error))
    except DAMAGE as error:  # whose messages may quote the file
        yield Rejected(name, FILE, f"is damaged ({type(error).__name__})")
    else:
        if empty:
            yield Rejected(name, FILE, "holds no records")


@contextmanager
def _index(data: Path, name: str, options: FileOptions, index: Path | None) -> Iterator[SourceIndex]:
    if index is not None:
        with SourceIndex(index) as opened:
            yield opened
        return
    with TemporaryDirectory() as folder:
        files = dict.fromkeys(raw_files(data), FileOptions()) if ending(name) in INDEXED else {}
        write_index(data, files | {name: options}, path := Path(folder) / FILE_NAME)
        with SourceIndex(path) as opened:
            yield opened


def _read(data: Path, name: str, options: FileOptions, index: SourceIndex) -> Iterator[Record]:
    path = data / name
    if path.stat().st_size == 0:
        raise UnreadableError("is empty")
    if index.is_attached(name):
        return iter((Skipped(name, FILE, "is a file that a FHIR resource refers to, with which it is read"),))
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-2:]]
    kind = suffixes[0] if suffixes[1:] == [".gz"] and suffixes[0] in COMPRESSED else (suffixes or [""])[-1]
    with_options: dict[str, Callable[[Path, str, FileOptions], Iterator[Record]]] = {
        ".csv": tables.read_csv,
        ".tsv": tables.read_csv,
        ".parquet": tables.read_parquet,
    }
    with_options |= {".txt": texts.read_text, ".md": texts.read_text, ".hl7": hl7_files.read_hl7}
    with_options |= dict.fromkeys((".html", ".htm", ".xhtml"), texts.read_html)
    without = {".obo": hpo.read_obo, ".hpoa": hpo.read_hpoa, ".rtf": texts.read_rtf}
    if kind in (*LINES, ".json"):
        return _read_json(data, name, kind, options, index)
    if kind in XML:
        return xml_files.read_xml(path, name, index)
    if kind in with_options:
        return with_options[kind](path, name, options)
    if kind in without:
        return without[kind](path, name)
    raise UnreadableError(f"is of a kind that is not read ({kind or 'no ending'}); docs/own-data.md lists those that are")


def _read_json(data: Path, name: str, kind: str, options: FileOptions, index: SourceIndex) -> Iterator[Record]:
    path = data / name
    if kind != ".json":
        is_resources = fhir_resources.is_fhir(path, options)
        return fhir.read_fhir(data, name, options, index) if is_resources else tables.read_jsonl(path, name, options)
    if fhir_resources.is_fhir_json(path, options):
        return fhir.read_fhir(data, name, options, index)
    if index.has_resources(fhir_resources.folder_of(name)):
        return iter((Skipped(name, FILE, "is JSON beside FHIR resources and none itself, such as the manifest of an export"),))
    raise UnreadableError("is JSON that is no FHIR resource; docs/own-data.md lists the kinds that are read")
