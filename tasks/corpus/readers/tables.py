"""Tables of questions and answers or texts: CSV and its relatives, JSON lines, Parquet. One record in memory at a time."""

import csv
import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.records import FIELDS, MAX_RECORD, TOO_LONG, FileOptions, UnreadableError, bad_characters, mapped, to_document
from tasks.corpus.readers.streams import MAX_RATIO, PARQUET_MEMORY, RATIO_FROM, limited_memory, numbered, open_text

DELIMITERS = (",", ";", "\t", "|")
# A quote that is not closed within so many characters counts as one that never is; the first time, and after that.
MAX_QUOTED, REDUCED_MAX_QUOTED = MAX_RECORD, 1 << 20
# Rows of a Parquet file that are decoded at once, and again where those need too much memory.
BATCHES = (1024, 16, 1)


def read_csv(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Rows of a table with a header; positions are the numbers of the lines on which rows begin.

    A line that breaks the format is rejected, and reading goes on with the next.
    """
    csv.field_size_limit(sys.maxsize)
    with open_text(path, options) as file:
        line_number, header = next(numbered(file), (0, ""))
        if not header:
            raise UnreadableError("holds no records" if header == "" else "has a first line that is no header: it does not end")
        columns, delimiter = _header(header, path, options)
        lines = _Lines(file, line_number)
        while row := lines.row(delimiter):
            line_number, cells = row
            position = f"line {line_number}"
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
    """Our names for the columns, and the delimiter: that of the options, or the one with which the columns are there."""
    delimiter_set = options.delimiter or ("\t" if path.suffix.lower() == ".tsv" else "")
    candidates: list[list[str]] = []
    for delimiter in [delimiter_set] if delimiter_set else DELIMITERS:
        try:
            columns = mapped(next(csv.reader([line], delimiter=delimiter, strict=True)), options)
        except (csv.Error, StopIteration):
            continue
        if {"question", "answer"} <= {*columns} or "text" in columns:
            fields = [column for column in columns if column in FIELDS]
            if again := _repeated(fields):
                raise UnreadableError(f"has a header that repeats {again}")
            return columns, delimiter
        candidates.append(columns)
    columns = max(candidates, key=len, default=[])
    missing = [column.capitalize() for column in ("question", "answer") if column not in columns]
    raise UnreadableError(f"has a header with no column {' and no '.join(missing)}; preprocess.files can map other names")


def _repeated(names: list[str]) -> str:
    """The fields that are more than once among names: one of their values would be lost."""
    return ", ".join(sorted({name for name in names if name in FIELDS and names.count(name) > 1}))


class _Lines:
    """The rows of a CSV file; the lines of a row that turns out broken are given back, but for its first."""

    def __init__(self, file: IO[str], line_number: int):
        self._file, self._line_number = file, line_number
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self._size, self._max_quoted = 0, MAX_QUOTED

    def row(self, delimiter: str) -> tuple[int, list[str] | str] | None:
        """The number of the line on which the next row begins, with its cells or what is wrong; None at the end."""
        self._taken, self._size = [], 0
        start = self._line_number + 1
        try:
            cells = next(csv.reader(self, delimiter=delimiter, strict=True), None)
        except _TooLongError:
            return start, TOO_LONG
        except (csv.Error, _UnclosedError):
            _, *rest = self._taken
            self._returned.extendleft(reversed(rest))
            self._line_number -= len(rest)
            if self._size > REDUCED_MAX_QUOTED:
                self._max_quoted = REDUCED_MAX_QUOTED  # so that many such lines do not cost the file's length each
            return start, "has a quote that is not closed or stands in a wrong place"
        return None if cells is None else (start, cells)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if len(self._taken) > 1 and self._size > self._max_quoted:
            raise _UnclosedError
        line = self._returned.popleft() if self._returned else self._file.readline(MAX_RECORD)
        if not line:
            raise StopIteration
        self._line_number += 1
        if len(line) == MAX_RECORD and not line.endswith(("\n", "\r")):
            while line and not line.endswith(("\n", "\r")):
                line = self._file.readline(MAX_RECORD)
            raise _TooLongError
        self._taken.append(line)
        self._size += len(line)
        return line


class _UnclosedError(Exception):
    pass


class _TooLongError(Exception):
    pass


def read_jsonl(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """One JSON object per line: question and answer, text, Alpaca's instruction, input and output, or a conversation."""
    with open_text(path, options) as file:
        for i, line in numbered(file):
            position = f"line {i}"
            record = parse_object(line)
            if isinstance(record, str):
                yield Rejected(name, position, record)
                continue
            names = mapped(list(record), options)
            if again := _repeated(names):
                yield Rejected(name, position, f"repeats {again}")
                continue
            fields = dict(zip(names, record.values(), strict=True))
            if "conversations" in fields:
                fields["messages"] = fields["conversations"]
            if "instruction" in fields and "output" in fields:
                parts = [part for part in (fields["instruction"], fields.get("input")) if part]
                fields["question"] = "\n\n".join(parts) if all(isinstance(part, str) for part in parts) else 0
                fields["answer"] = fields["output"]
            yield to_document(fields, name, position, own_id="id" in options.columns)


def parse_object(line: str | None) -> dict[str, Any] | str:
    """The JSON object in a line, or what is wrong with it; None is a line that is too long."""
    if line is None:
        return TOO_LONG
    if problem := bad_characters(line):
        return problem
    try:
        record = json.loads(line.removeprefix("\ufeff"), parse_constant=_refuse, object_pairs_hook=_once)
    except _RepeatedError:
        return "repeats a key, of which JSON keeps only the last"
    except (ValueError, RecursionError):
        return "is not JSON"
    return record if isinstance(record, dict) else "is not a JSON object"


class _RepeatedError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise _RepeatedError
    return record


def _refuse(constant: str) -> None:
    raise UnreadableError(constant)  # NaN and Infinity, which JSON does not have


def read_parquet(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Rows of a Parquet file; positions are row numbers from 1 on."""
    row = unpacked = 0
    try:
        for row, record in enumerate(_rows(path, options), 1):
            unpacked += sum(len(value) for value in record.values() if isinstance(value, str))
            if unpacked > max(RATIO_FROM, MAX_RATIO * path.stat().st_size):
                raise UnreadableError(f"holds more than {MAX_RATIO} times its own size up to row {row}, as no text does")
            yield to_document(record, name, f"row {row}", own_id="id" in options.columns)
    except MemoryError:
        reason = f"cannot be read after row {row}: one row or page needs more than {PARQUET_MEMORY >> 30} GiB of memory"
        raise UnreadableError(reason) from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UnreadableError(f"cannot be read as Parquet after row {row} ({type(error).__name__})") from None


def _rows(path: Path, options: FileOptions) -> Iterator[dict[str, Any]]:
    """The fields of each row, decoded in ever smaller batches where memory does not suffice."""
    done = 0
    for size in BATCHES:
        try:
            start = done
            for row, record in enumerate(_decoded(path, options, size), 1):
                if row > start:
                    yield record
                    done = row
            return
        except MemoryError:
            if size == BATCHES[-1]:
                raise


def _decoded(path: Path, options: FileOptions, size: int) -> Iterator[dict[str, Any]]:
    """The fields of each row. A few bytes can stand for a page of gigabytes, and each row for a value of a hundred million
    characters, so every step has its limit of memory."""
    with limited_memory(PARQUET_MEMORY):
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20)
    with file:
        names = file.schema_arrow.names
        fields = mapped(names, options)
        if not ({"question", "answer"} <= {*fields} or "text" in fields or "messages" in fields):
            raise UnreadableError("has neither the columns Question and Answer nor a text column; preprocess.files can map other names")
        if again := _repeated(fields):
            raise UnreadableError(f"has columns that repeat {again}")
        columns = [name for name, field in zip(names, fields, strict=True) if field in FIELDS]
        fields = [field for field in fields if field in FIELDS]
        batches = file.iter_batches(batch_size=size, columns=columns, use_threads=False)
        while True:
            with limited_memory(PARQUET_MEMORY):
                batch = next(batches, None)
                records = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            for record in records:
                yield dict(zip(fields, record.values(), strict=True))
            del batch, records  # before the next ones are decoded
