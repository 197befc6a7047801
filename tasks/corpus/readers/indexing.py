"""Making the index of a data folder, before its files are read in parallel: in parts, each on some files, in any process and order."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.corpus.extraction.definitions import NO_TASKS, Task
from tasks.corpus.readers import fhir_index, pubmed
from tasks.corpus.readers.encodings import detected_encoding
from tasks.corpus.readers.fhir_resources import is_fhir, is_fhir_json
from tasks.corpus.readers.records import FileOptions
from tasks.corpus.readers.source_index import IndexWriter
from tasks.corpus.readers.streams import open_bytes
from tasks.runtime.errors import printable
from tasks.runtime.files import whole

LINES, XML = (".jsonl", ".ndjson"), (".xml", ".cda", ".ccda")
INDEXED = (*XML, *LINES, ".json")  # kinds whose reading may need other files
PARTS = 64
MAX_HEAD = 1 << 20  # bytes in which the first resource of a file is looked for
Part = tuple[Path, dict[str, FileOptions], Path, Mapping[str, Task]]


def index_parts(data: Path, files: Mapping[str, FileOptions], directory: Path, tasks: Mapping[str, Task]) -> list[Part]:
    """The arguments of ``write_part`` for all raw files with their options; the parts are files of a directory."""
    names = [name for name in files if ending(name) in INDEXED]
    size = -(-len(names) // PARTS) or 1
    batches = [names[i : i + size] for i in range(0, len(names), size)]
    return [(data, {name: files[name] for name in batch}, directory / f"{i:03d}.sqlite", tasks) for i, batch in enumerate(batches)]


def write_part(data: Path, files: Mapping[str, FileOptions], path: Path, tasks: Mapping[str, Task]) -> None:
    """Write what some files say that readers of others must know."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole(path, unique=True) as partial, IndexWriter(partial) as writer:
        decoded = {name: _decoded(data / name, options) for name, options in files.items()}
        fhir = {name: options for name, options in decoded.items() if _is_fhir(data / name, options)}
        fhir_index.index_files(data, fhir, writer, tasks)
        pubmed.index_files(data, (name for name in files if ending(name) in XML), writer)


def merge_parts(parts: Sequence[Part], files: Mapping[str, FileOptions], path: Path) -> None:
    """Write the index from its parts, which are removed."""
    paths = [part for _, _, part, _ in parts]
    with IndexWriter(path) as writer:
        writer.merge(paths, files)
    for part in paths:
        part.unlink()


def write_index(data: Path, files: Mapping[str, FileOptions], path: Path, tasks: Mapping[str, Task] = NO_TASKS) -> None:
    """Write the index of all raw files in this process."""
    parts = index_parts(data, files, path.with_suffix(".parts"), tasks)
    for part in parts:
        write_part(*part)
    merge_parts(parts, files, path)


def ending(name: str) -> str:
    """The ending of a file's name that says its kind, whether packed or not."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def _decoded(path: Path, options: FileOptions) -> FileOptions:
    """The options with the encoding in which the reader will read a file of resources."""
    try:
        if options.encoding or ending(path.name) not in (*LINES, ".json"):
            return options
        with open_bytes(path) as file:
            head = file.read(MAX_HEAD)
        if b"resourceType" not in head.replace(b"\0", b""):
            return options
        encoding = detected_encoding(path, printable(path.name))
    except (EOFError, OSError, ValueError, zlib.error):
        return options  # its reader says what is wrong
    return options.model_copy(update={"encoding": encoding}) if encoding else options


def _is_fhir(path: Path, options: FileOptions) -> bool:
    try:
        kind = ending(path.name)
        return is_fhir(path, options) if kind in LINES else kind == ".json" and is_fhir_json(path, options)
    except (EOFError, OSError, ValueError, zlib.error):
        return False  # its reader says what is wrong
