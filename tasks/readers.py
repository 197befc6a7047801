"""Raw files to Documents: which reader a file gets, and the readers of question/answer tables.

Every record is yielded, as a Document or as Rejected with its place and a reason; none is skipped silently.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

from tasks import hpo, icd10cm
from tasks.documents import MANIFEST, SPLITS, Document, Rejected, content_id
from tasks.progress import progress

TABLES = (".csv", ".jsonl")
# pandas, spreadsheets and R write these where there is no value.
EMPTY = {"", "nan", "n/a", "na", "null", "none"}


def read_corpus(data: Path, other: tuple[str, ...] = ()) -> Iterator[Document | Rejected]:
    """The records of every file in ``data``; those of files that match a pattern of ``other`` go to the split "other".

    An empty, unreadable or unknown file is a ``ValueError`` that names it.
    """
    files = sorted(p for p in data.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(data).parts))
    files = [p for p in files if p.relative_to(data).as_posix() != MANIFEST]
    if not files:
        raise ValueError(f"{data} holds no raw files; build the default corpus with 'python -m tasks.corpus {data}' or add your own")
    for pattern in other:
        if not any(fnmatch(p.relative_to(data).as_posix(), pattern) for p in files):
            raise ValueError(f"params.yaml: preprocess.other names {pattern!r}, and no file in {data} matches it")

    def is_other(path: Path) -> bool:
        return any(fnmatch(path.relative_to(data).as_posix(), pattern) for pattern in other)

    # Those last: where the corpus holds the same record, it is the corpus's.
    files.sort(key=is_other)
    bar = progress(total=sum(p.stat().st_size for p in files), unit="B", what="reading")
    for path in files:
        name = path.relative_to(data).as_posix()
        empty = True
        for record in _read(path, name):
            empty = False
            if is_other(path) and isinstance(record, Document):
                # Never trained on, so its groups are not those of the corpus.
                yield replace(record, split="other", group=f"other:{record.group}")
            else:
                yield record
        if empty:
            raise ValueError(f"{path} holds no records that its reader knows; remove it or replace it")
        bar.update(path.stat().st_size)
    bar.close()


def _read(path: Path, name: str) -> Iterator[Document | Rejected]:
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; remove it or replace it")
    try:
        match path.suffix.lower():
            case ".obo":
                yield from hpo.read_ontology(hpo.parse_obo(path), name)
            case ".hpoa":
                yield from hpo.read_annotations(path, name, hpo.parse_obo(_ontology(path)))
            case ".xml":
                yield from icd10cm.read_tabular(path, name)
            case ".csv":
                yield from read_csv(path, name)
            case ".jsonl":
                yield from read_jsonl(path, name)
            case suffix:
                raise ValueError(f"{path}: files that end in {suffix!r} are not read; use CSV or JSONL with Question and Answer")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); convert it, for example with iconv") from None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not have the structure that files of its kind have ({type(error).__name__})") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not well-formed XML: {error}") from None


def _ontology(annotations: Path) -> Path:
    path = annotations.with_name("hp.obo")
    if not path.exists():
        raise ValueError(f"{annotations} needs {path.name} beside it, for the names of its terms")
    return path


def read_csv(path: Path, name: str) -> Iterator[Document | Rejected]:
    """Rows of a comma-separated file with a header; positions are line numbers."""
    csv.field_size_limit(sys.maxsize)
    # Read whole: a NUL byte or a bad one must be found before any row is used.
    text = path.read_bytes().decode("utf-8-sig")
    if "\0" in text:
        raise ValueError(f"{path} holds NUL bytes; it is not a text file")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [column.strip().lower() for column in next(rows, [])]
        _need_columns(columns, path)
        before = rows.line_num
        for row in rows:
            position, before = f"line {before + 1}", rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                yield Rejected(name, position, f"has {len(row)} cells, the header has {len(columns)}")
            else:
                yield _document(dict(zip(columns, row, strict=True)), name, position)
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from None


def read_jsonl(path: Path, name: str) -> Iterator[Document | Rejected]:
    """One JSON object per line."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            position = f"line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                yield Rejected(name, position, "is not JSON")
                continue
            if not isinstance(record, dict):
                yield Rejected(name, position, "is not a JSON object")
                continue
            record = {str(key).strip().lower(): value for key, value in record.items()}
            if any(not isinstance(record.get(key, ""), str) for key in ("question", "answer", "split", "group")):
                yield Rejected(name, position, "has a question, answer, split or group that is not text")
            else:
                yield _document(record, name, position)


def _need_columns(columns: list[str], path: Path) -> None:
    missing = [column for column in ("question", "answer") if column not in columns]
    if missing:
        raise ValueError(f"{path}: the header has no column {' and no '.join(m.capitalize() for m in missing)}")
    if repeated := {column for column in columns if columns.count(column) > 1}:
        raise ValueError(f"{path}: the header repeats {', '.join(sorted(repeated))}")


def _document(record: Mapping[str, str], name: str, position: str) -> Document | Rejected:
    question, answer = record.get("question", "").strip(), record.get("answer", "").strip()
    if question.lower() in EMPTY or answer.lower() in EMPTY:
        return Rejected(name, position, f"has no {'question' if question.lower() in EMPTY else 'answer'}")
    if not _is_unicode(question + answer):
        return Rejected(name, position, "holds half a character (a lone surrogate)")
    split = record.get("split", "").strip().lower()
    split = {"valid": "validation", "val": "validation", "dev": "validation"}.get(split, split)
    if split and split not in SPLITS:
        return Rejected(name, position, f"has an unknown split (known: {', '.join(SPLITS)})")
    group = record.get("group", "").strip() or content_id(" ".join(question.lower().split()))
    stem = name.rsplit(".", 1)[0]
    return Document(content_id(name, question, answer), question, answer, name, f"qa-{stem}", f"qa:{group}", position, split)


def _is_unicode(text: str) -> bool:
    """JSON can write halves of characters, which no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
