"""Making the index of a data folder, before its files are read in parallel."""

import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tasks.corpus.readers import fhir_index, pubmed
from tasks.corpus.readers.fhir_resources import is_fhir, is_fhir_json
from tasks.corpus.readers.records import FileOptions
from tasks.corpus.readers.source_index import IndexWriter

LINES, XML = (".jsonl", ".ndjson"), (".xml", ".cda", ".ccda")


def write_index(data: Path, files: Mapping[str, FileOptions], path: Path) -> None:
    """Write what readers must know of other files than their own; ``files`` are all raw files with their options."""
    with IndexWriter(path) as writer:
        fhir = {name: options for name, options in files.items() if _is_fhir(data / name, options)}
        fhir_index.index_files(data, fhir, frozenset(files), writer)
        pubmed.index_files(data, (name for name in files if ending(name) in XML), writer)


def ending(name: str) -> str:
    """The ending of a file's name that says its kind, whether packed or not."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def _is_fhir(path: Path, options: FileOptions) -> bool:
    try:
        kind = ending(path.name)
        return is_fhir(path, options) if kind in LINES else kind == ".json" and is_fhir_json(path, options)
    except (EOFError, OSError, ValueError, zlib.error):
        return False  # its reader says what is wrong
