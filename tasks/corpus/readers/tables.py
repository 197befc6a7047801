"""Tables of questions and answers or texts: CSV and its relatives, JSON lines, Parquet. One record in memory at a time."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tasks.corpus.documents import Rejected
from tasks.corpus.readers.columns import Columns, RowRecord, columns_of, table_columns
from tasks.corpus.readers.csv_rows import Rows, has_escapes
from tasks.corpus.readers.headers import has_text, missing_columns, repeated
from tasks.corpus.readers.records import READ, TOO_LONG, FileOptions, UnreadableError, bad_characters
from tasks.corpus.readers.streams import MAX_RATIO, PARQUET_MEMORY, RATIO_FROM, limited_memory, numbered, open_text

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 1 << 18  # characters in which the escapes of a database are looked for
# Rows of a Parquet file that are decoded at once, and again where those need too much memory.
BATCHES = (1024, 16, 1)
_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.I)  # the first line that Excel takes the delimiter from


def read_csv(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    """Rows of a table with a header; positions are the numbers of the lines on which rows begin.

    A line that breaks the format is rejected, and reading goes on with the next.
    """
    csv.field_size_limit(sys.maxsize)
    with open_text(path, options) as file:
        escapes = has_escapes(file.read(SAMPLE))
    with open_text(path, options) as file:
        lines = numbered(file)
        line_number, header = next(lines, (0, ""))
        if header and (separator := _SEPARATOR.fullmatch(header)):
            options = options.model_copy(update={"delimiter": options.delimiter or separator[1]})
            line_number, header = next(lines, (0, ""))
        if not header:
            raise UnreadableError("holds no records" if header == "" else "has a first line that is no header: it does not end")
        columns, delimiter = _header(header, name, options)
        rows = Rows(file, line_number, delimiter, escapes=escapes)
        while row := rows.next(len(columns.fields)):
            line_number, cells = row
            position = f"line {line_number}"
            if isinstance(cells, str):
                yield Rejected(name, position, cells)
            elif not any(cell.strip() for cell in cells):
                continue
            elif len(cells) != len(columns.fields):
                yield Rejected(name, position, f"has {len(cells)} cells, the header has {len(columns.fields)}")
            elif problem := bad_characters("".join(cells)):
                yield Rejected(name, position, problem)
            else:
                yield from columns.records(cells, name, position)


def _header(line: str, name: str, options: FileOptions) -> tuple[Columns, str]:
    """The columns, and the delimiter: that of the options, or the one with which the columns are there."""
    delimiter_set = options.delimiter or ("\t" if ".tsv" in PurePosixPath(name.lower()).suffixes[-2:] else "")
    candidates: list[list[str]] = []
    for delimiter in [delimiter_set] if delimiter_set else DELIMITERS:
        try:
            names = next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter, strict=True))
        except (csv.Error, StopIteration):
            continue
        columns = columns_of(names, options)
        if has_text(columns.fields) or columns.people:
            return table_columns(names, options, name), delimiter
        candidates.append(names)
    raise UnreadableError(missing_columns(max(candidates, key=len, default=[]), name))


def read_jsonl(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    """One JSON object per line: question and answer, text, Alpaca's instruction, input and output, or a conversation."""
    with open_text(path, options) as file:
        first = True
        for i, line in numbered(file):
            record = parse_object(line)
            position = f"line {i}"
            if isinstance(record, str):
                yield Rejected(name, position, record)
            else:
                yield from records_of(record, name, position, options, explain=first)
            first = False


def records_of(record: dict[str, Any], name: str, position: str, options: FileOptions, *, explain: bool) -> Iterator[RowRecord]:
    """The document of a JSON object and the people whom it names; ``explain``: where its keys say nothing to us, name them and the line
    to write.
    """
    columns = columns_of(list(record), options)
    if again := repeated(columns.fields):
        yield Rejected(name, position, f"repeats {again}")
    elif record and not columns.people and not {*READ} & {*columns.fields}:
        reason = missing_columns(list(record), name, "record") if explain else "has none of the keys question, answer, text and messages"
        yield Rejected(name, position, reason)
    else:
        yield from columns.records(list(record.values()), name, position)


def parse_object(line: str | None) -> dict[str, Any] | str:
    """The JSON object in a line, or what is wrong with it; None is a line that is too long."""
    if line is None:
        return TOO_LONG
    if problem := bad_characters(line):
        return problem
    try:
        record = json.loads(line.removeprefix("\ufeff"), parse_constant=refuse, object_pairs_hook=no_repeats)
    except REFUSED as refused:
        return str(refused)
    except (ValueError, RecursionError):
        return "is not JSON"
    return record if isinstance(record, dict) else "is not a JSON object"


class _RefusedError(ValueError):
    pass


REFUSED = _RefusedError  # what is JSON to a parser, and yet loses or invents a value


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ``REFUSED`` where a key is repeated."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise _RefusedError("repeats a key, of which JSON keeps only the last")
    return record


def refuse(_: str) -> None:
    """``REFUSED``, for NaN and Infinity."""
    raise _RefusedError("is not JSON (NaN or Infinity)")


def read_parquet(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    """Rows of a Parquet file; positions are row numbers from 1 on."""
    row = unpacked = 0
    try:
        for row, (columns, values) in enumerate(_rows(path, name, options), 1):
            unpacked += sum(len(value) for value in values if isinstance(value, str))
            if unpacked > max(RATIO_FROM, MAX_RATIO * path.stat().st_size):
                raise UnreadableError(f"holds more than {MAX_RATIO} times its own size up to row {row}, as no text does")
            yield from columns.records(values, name, f"row {row}")
    except MemoryError:
        reason = f"cannot be read after row {row}: one row or page needs more than {PARQUET_MEMORY >> 30} GiB of memory"
        raise UnreadableError(reason) from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UnreadableError(f"cannot be read as Parquet after row {row} ({type(error).__name__})") from None


def _rows(path: Path, name: str, options: FileOptions) -> Iterator[tuple[Columns, list[Any]]]:
    """The values of each row with their columns, decoded in ever smaller batches where memory does not suffice."""
    done = 0
    for size in BATCHES:
        try:
            start = done
            for row, record in enumerate(_decoded(path, name, options, size), 1):
                if row > start:
                    yield record
                    done = row
            return
        except MemoryError:
            if size == BATCHES[-1]:
                raise


def _decoded(path: Path, name: str, options: FileOptions, size: int) -> Iterator[tuple[Columns, list[Any]]]:
    """The values of each row with their columns. A few bytes can stand for a page of gigabytes, and each row for a value of a hundred
    million characters, so every step has its limit of memory.
    """
    with limited_memory(PARQUET_MEMORY):
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20)
    with file:
        names = file.schema_arrow.names
        all_columns = table_columns(names, options, name)
        used = [column for i, column in enumerate(names) if all_columns.is_used(i)]
        columns = columns_of(used, options)
        batches = file.iter_batches(batch_size=size, columns=used, use_threads=False)
        while True:
            with limited_memory(PARQUET_MEMORY):
                batch = next(batches, None)
                records = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            for record in records:
                yield columns, list(record.values())
            del batch, records  # before the next ones are decoded
