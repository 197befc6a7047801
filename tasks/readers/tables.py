"""Tables of questions and answers or texts: CSV and its relatives, JSON lines, Parquet. One record in memory at a time."""

import csv
import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tasks.documents import Document, Rejected
from tasks.readers.records import FIELDS, FileOptions, UnreadableError, bad_characters, mapped, numbered, open_text, to_document

DELIMITERS = (",", ";", "\t", "|")
# A quote that is not closed within so many characters is taken for one that never is; the first time, and then.
MOST_CHARACTERS, FEWER_CHARACTERS = 1 << 27, 1 << 20


def read_csv(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Rows of a table with a header; positions are the numbers of the lines on which rows begin.

    A line that breaks the format is rejected, and reading goes on with the next.
    """
    csv.field_size_limit(sys.maxsize)
    with open_text(path, options) as file:
        number, header = next(numbered(file), (0, ""))
        if not header:
            raise UnreadableError("holds no records")
        columns, delimiter = _header(header, path, options)
        lines = _Lines(file, number)
        while row := lines.row(delimiter):
            number, cells = row
            position = f"line {number}"
            if isinstance(cells, str):
                yield Rejected(name, position, cells)
            elif not any(cell.strip() for cell in cells):
                continue
            elif len(cells) != len(columns):
                yield Rejected(name, position, f"has {len(cells)} cells, the header has {len(columns)}")
            elif problem := bad_characters("".join(cells)):
                yield Rejected(name, position, problem)
            else:
                yield to_document(dict(zip(columns, cells, strict=True)), name, position, own_id="id" in options.columns)


def _header(line: str, path: Path, options: FileOptions) -> tuple[list[str], str]:
    """Our names for the columns, and the delimiter: the one that is told, or with which the columns are there."""
    told = options.delimiter or ("\t" if path.suffix.lower() == ".tsv" else "")
    found: list[tuple[list[str], str]] = []
    for delimiter in [told] if told else DELIMITERS:
        try:
            columns = mapped(next(csv.reader([line], delimiter=delimiter, strict=True)), options)
        except (csv.Error, StopIteration):
            continue
        if {"question", "answer"} <= {*columns} or "text" in columns:
            known = [column for column in columns if column in FIELDS]
            if repeated := {column for column in known if known.count(column) > 1}:
                raise UnreadableError(f"has a header that repeats {', '.join(sorted(repeated))}")
            return columns, delimiter
        found.append((columns, delimiter))
    columns = max(found, key=lambda some: len(some[0]))[0] if found else []
    missing = [column.capitalize() for column in ("question", "answer") if column not in columns]
    raise UnreadableError(f"has a header with no column {' and no '.join(missing)}; preprocess.files can map other names")


class _Lines:
    """The rows of a CSV file; the lines of a row that turns out broken are given back, but for its first."""

    def __init__(self, file: Iterator[str], number: int):
        self._file, self._number = file, number
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self._size, self._most = 0, MOST_CHARACTERS

    def row(self, delimiter: str) -> tuple[int, list[str] | str] | None:
        """The number of the line on which the next row begins, with its cells or what is wrong; None at the end."""
        self._taken, self._size = [], 0
        start = self._number + 1
        try:
            cells = next(csv.reader(self, delimiter=delimiter, strict=True), None)
        except (csv.Error, _UnclosedError):
            _, *rest = self._taken
            self._returned.extendleft(reversed(rest))
            self._number -= len(rest)
            if self._size > FEWER_CHARACTERS:
                self._most = FEWER_CHARACTERS  # so that many such lines do not cost the file's length each
            return start, "has a quote that is not closed or stands in a wrong place"
        return None if cells is None else (start, cells)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if len(self._taken) > 1 and self._size > self._most:
            raise _UnclosedError
        line = self._returned.popleft() if self._returned else next(self._file)
        self._number += 1
        self._taken.append(line)
        self._size += len(line)
        return line


class _UnclosedError(Exception):
    pass


def read_jsonl(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """One JSON object per line: question and answer, text, Alpaca's instruction, input and output, or a conversation."""
    with open_text(path, options) as file:
        for number, line in numbered(file):
            position = f"line {number}"
            record = parse_object(line)
            if isinstance(record, str):
                yield Rejected(name, position, record)
                continue
            fields = dict(zip(mapped(list(record), options), record.values(), strict=True))
            if "conversations" in fields:
                fields["messages"] = fields["conversations"]
            if "instruction" in fields and "output" in fields:
                asked = [part for part in (fields["instruction"], fields.get("input")) if part]
                fields["question"] = "\n\n".join(asked) if all(isinstance(part, str) for part in asked) else 0
                fields["answer"] = fields["output"]
            yield to_document(fields, name, position, own_id="id" in options.columns)


def parse_object(line: str) -> dict[str, Any] | str:
    """The JSON object in a line, or what is wrong with it."""
    if problem := bad_characters(line):
        return problem
    try:
        record = json.loads(line.removeprefix("\ufeff"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "is not JSON"
    return record if isinstance(record, dict) else "is not a JSON object"


def _refuse(constant: str) -> None:
    raise UnreadableError(constant)  # NaN and Infinity, which JSON does not have


def read_parquet(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Rows of a Parquet file; positions are row numbers from 1 on."""
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            ours = mapped(names, options)
            if not ({"question", "answer"} <= {*ours} or "text" in ours or "messages" in ours):
                raise UnreadableError("has neither the columns Question and Answer nor a text column; preprocess.files can map other names")
            wanted = [theirs for theirs, field in zip(names, ours, strict=True) if field in FIELDS]
            fields = [field for field in ours if field in FIELDS]
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for record in batch.to_pylist():
                    row += 1
                    yield to_document(dict(zip(fields, record.values(), strict=True)), name, f"row {row}", own_id="id" in options.columns)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UnreadableError(f"cannot be read as Parquet after row {row} ({type(error).__name__})") from None
