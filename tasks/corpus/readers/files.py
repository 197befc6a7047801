"""Raw files: which there are, and the reader that each gets by its name and content.

Every record is yielded, as a Document or as Rejected with its place and a reason; none is skipped silently, and nothing that a file
holds raises an error.
"""

import csv
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tasks.corpus.documents import Decoded, Record, Rejected, Skipped
from tasks.corpus.extraction.definitions import NO_TASKS, Task
from tasks.corpus.manifest import MANIFEST
from tasks.corpus.readers import archives, excel, fhir, fhir_resources, file_groups, hl7_files, hpo, json_values, tables, texts, xml_files
from tasks.corpus.readers.encodings import detected_encoding
from tasks.corpus.readers.indexing import INDEXED, LINES, XML, ending, write_index
from tasks.corpus.readers.left_out import left_out
from tasks.corpus.readers.records import FILE, FileOptions, UnreadableError
from tasks.corpus.readers.source_index import FILE_NAME, SourceIndex
from tasks.runtime.digests import files_in
from tasks.runtime.errors import printable

# What parsers raise on a file that is not what its name says, or that takes more memory or depth than there is.
DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, ValueError, LookupError, csv.Error, MemoryError, RecursionError)
DAMAGE += (TypeError, AttributeError, ArithmeticError)
TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".md")  # whose encoding is found out where it is not said
COMPRESSED = (*XML, *TEXTS)  # kinds that are also read as .gz


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


def record_files(data: Path) -> list[str]:
    """The names of the raw files, and in place of an archive's those of its members: ``archive.zip/member.csv``."""
    names = []
    for name in raw_files(data):
        try:
            names += [f"{name}/{member}" for member in archives.members(data / name)] if archives.is_archive(name) else [name]
        except UnreadableError:
            names.append(name)  # which read_file rejects
    return names


def size_of(data: Path, name: str) -> int:
    """The bytes of a raw file, or of an archive's member as it is packed."""
    path, member = archives.container_of(data, name)
    return archives.packed_size(path, member) if member else path.stat().st_size


def read_file(
    data: Path, name: str, options: FileOptions | None = None, index: Path | None = None, tasks: Mapping[str, Task] = NO_TASKS
) -> Iterator[Record]:
    """The records of a file; what cannot be read is rejected with its place, a whole file or its rest with the position FILE.

    ``index`` is what ``write_index`` wrote of all files; without it, one is made for this file. ``tasks`` are those that ask about
    notes. A source is the file's name, with escapes for what cannot be printed.
    """
    source, empty = printable(name), True
    if reason := left_out(name):
        yield Skipped(source, FILE, reason)
        return
    try:
        path, member = archives.container_of(data, name)
        options = options or FileOptions()
        with (
            archives.unpacked(path, member) if member else nullcontext(path) as opened,
            _index(data, name, options, index, tasks) as others,
        ):
            for record in _read_decoded(_Opened(opened, data, name, options, others, tasks)):
                empty = False
                yield record
    except UnreadableError as error:
        yield Rejected(source, FILE, str(error))
    except DAMAGE as error:  # whose messages may quote the file
        yield Rejected(source, FILE, f"is damaged ({type(error).__name__})")
    else:
        if empty:
            yield Rejected(source, FILE, "holds no records")


@dataclass(frozen=True)
class _Opened:
    """A raw file that is read: where its bytes are, its name in ``data``, and what is known of other files."""

    path: Path
    data: Path
    name: str
    options: FileOptions
    index: SourceIndex
    tasks: Mapping[str, Task]

    @property
    def source(self) -> str:
        """The name as records have it."""
        return printable(self.name)


@contextmanager
def _index(data: Path, name: str, options: FileOptions, index: Path | None, tasks: Mapping[str, Task]) -> Iterator[SourceIndex]:
    if index is not None:
        with SourceIndex(index) as opened:
            yield opened
        return
    with TemporaryDirectory() as folder:
        files = dict.fromkeys(raw_files(data), FileOptions()) if ending(name) in INDEXED else {}
        of_this = {name: options} if (data / name).is_file() else {}
        write_index(data, files | of_this, path := Path(folder) / FILE_NAME, tasks)
        with SourceIndex(path) as opened:
            yield opened


def _read_decoded(file: _Opened) -> Iterator[Record]:
    """The records of a file, first of all its encoding where that had to be found out."""
    if file.path.stat().st_size == 0:
        raise UnreadableError("is empty")
    if file.index.is_attached(file.name):
        yield Skipped(file.source, FILE, "is a file that a FHIR resource refers to, with which it is read")
        return
    if _kind(file.name) in TEXTS and not file.options.encoding and (encoding := detected_encoding(file.path, file.source)):
        file = replace(file, options=file.options.model_copy(update={"encoding": encoding}))
        yield Decoded(file.source, encoding)
    yield from _read(file)


def _kind(name: str) -> str:
    """The ending that says how a file is read, without that of gzip."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-2:]]
    return suffixes[0] if suffixes[1:] == [".gz"] and suffixes[0] in COMPRESSED else (suffixes or [""])[-1]


def _read(file: _Opened) -> Iterator[Record]:
    kind, path, name = _kind(file.name), file.path, file.source
    with_options: dict[str, Callable[[Path, str, FileOptions], Iterator[Record]]] = {
        ".csv": tables.read_csv,
        ".tsv": tables.read_csv,
        ".parquet": tables.read_parquet,
        ".xlsx": excel.read_xlsx,
        ".txt": texts.read_text,
        ".md": texts.read_text,
        ".rtf": texts.read_rtf,
        ".hl7": hl7_files.read_hl7,
    }
    with_options |= dict.fromkeys((".html", ".htm", ".xhtml"), texts.read_html)
    without: dict[str, Callable[[Path, str], Iterator[Record]]] = {".obo": hpo.read_obo, ".hpoa": hpo.read_hpoa}
    if file.options.group and kind not in file_groups.KINDS:
        raise UnreadableError("has a group in preprocess.files, which only text files have; of a table write {columns: {group: NAME}}")
    if kind in (*LINES, ".json"):
        return _read_json(file, kind)
    if kind in XML:
        return xml_files.read_xml(path, name, file.index)
    if kind in with_options:
        return with_options[kind](path, name, file.options)
    if kind in without:
        return without[kind](path, name)
    if kind == ".zip":
        archives.members(path)  # says what is wrong with it
    raise UnreadableError(f"is of a kind that is not read ({kind or 'no ending'}); docs/own-data.md lists those that are")


def _read_json(file: _Opened, kind: str) -> Iterator[Record]:
    has_resources = (fhir_resources.is_fhir_json if kind == ".json" else fhir_resources.is_fhir)(file.path, file.options)
    if has_resources and not (file.data / file.name).is_file():
        raise UnreadableError("holds FHIR resources within an archive; unpack it, as they refer to each other")
    if has_resources:
        return fhir.read_fhir(file.data, file.name, file.options, file.index, file.tasks)
    if kind != ".json":
        return tables.read_jsonl(file.path, file.source, file.options)
    if file.index.has_resources(fhir_resources.folder_of(file.name)) and not json_values.has_records(file.path, file.options):
        return iter((Skipped(file.source, FILE, "is JSON beside FHIR resources and none itself, such as the manifest of an export"),))
    return json_values.read_json(file.path, file.source, file.options)
