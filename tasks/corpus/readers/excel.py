"""Excel workbooks (.xlsx): every sheet is a table with a header, and a cell is text as Excel shows it."""

import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from tasks.corpus.documents import Rejected
from tasks.corpus.readers.columns import Columns, RowRecord, table_columns
from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG, FileOptions, UnreadableError, bad_characters
from tasks.corpus.readers.streams import MAX_RATIO, MAX_WHOLE_FILE, PARQUET_MEMORY, RATIO_FROM, limited_memory

# What openpyxl raises on a damaged workbook, besides what every reader may.
BROKEN = (SyntaxError, TypeError, AttributeError, RuntimeError, ArithmeticError, LookupError, zipfile.BadZipFile, InvalidFileException)
_DECIMALS = re.compile(r"(?:#,##)?0(?:\.(0+))?(%?)")
_DIGITS = Context(prec=1000)  # more than any number of a workbook has
_ZEROS = re.compile(r"0{2,}")


def read_xlsx(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    """Rows of all sheets; positions are a sheet's number and a row's. A formula is what Excel computed last.

    A sheet without a header is rejected, and where no sheet has one, the file: ``UnreadableError``.
    """
    _refuse_bombs(path)
    try:
        yield from _sheets(path, name, options)
    except BROKEN as error:
        raise UnreadableError(f"cannot be read as an Excel workbook ({type(error).__name__})") from None


def _sheets(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    with open(path, "rb") as file:
        with limited_memory(PARQUET_MEMORY), _without_warnings():
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        with closing(workbook):
            problems: list[tuple[str, str]] = []
            readable = False
            for number, sheet in enumerate(workbook.worksheets, 1):
                try:
                    for record in _sheet(sheet, f"sheet {number}", name, options):
                        readable = True
                        yield record
                except UnreadableError as problem:
                    problems.append((f"sheet {number}", str(problem)))
            if problems and not readable:
                raise UnreadableError("; ".join(f"{problem} ({position})" for position, problem in problems))
            yield from (Rejected(name, position, problem) for position, problem in problems)


def _refuse_bombs(path: Path) -> None:
    """``UnreadableError`` for a workbook whose parts unpack to far more than tables do; zipfile unpacks no more than they declare."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.flag_bits & 1 for part in parts):
                raise UnreadableError("is encrypted; save it without a password")
            whole = sum(part.file_size for part in parts if "sharedstrings" in part.filename.lower())
    except (zipfile.BadZipFile, NotImplementedError):
        raise UnreadableError("is no Excel workbook of today's format (.xlsx), or is protected by a password") from None
    size = sum(part.file_size for part in parts)
    if size > max(RATIO_FROM, MAX_RATIO * path.stat().st_size) or whole > MAX_WHOLE_FILE:
        raise UnreadableError(f"unpacks to more than {MAX_RATIO} times its own size, or has more than {MAX_WHOLE_FILE >> 20} MiB of texts")


def _sheet(sheet: Any, title: str, name: str, options: FileOptions) -> Iterator[RowRecord]:
    sheet.reset_dimensions()  # what a file says of its size may be wrong
    columns: Columns | None = None
    for number, row in enumerate(_rows(sheet), 1):
        cells = [_shown(cell) for cell in row]
        if not any(cells):
            continue
        if columns is None:
            while cells and not cells[-1]:
                cells.pop()
            columns = table_columns(cells, options, name)
            continue
        position = f"{title} row {number}"
        text = "".join(cells)
        if any(cells[len(columns.fields) :]):
            yield Rejected(name, position, f"has {len(cells)} cells, the header has {len(columns.fields)}")
        elif problem := TOO_LONG if len(text) > MAX_RECORD else bad_characters(text):
            yield Rejected(name, position, problem)
        elif any(_is_error(cell) for i, cell in enumerate(row[: len(columns.fields)]) if columns.is_used(i)):
            yield Rejected(name, position, "has a cell with an error of Excel in place of a value, or a date that is none")
        else:
            cells += [""] * (len(columns.fields) - len(cells))
            yield from columns.records(cells, name, position)


def _rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    rows = sheet.iter_rows()
    while True:
        with _without_warnings():
            row = next(rows, None)
        if row is None:
            return
        yield row


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without the warnings of openpyxl, which quote cells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_error(cell: Any) -> bool:
    """Whether a cell holds no value but an error; #N/A is how Excel says that there is none."""
    return getattr(cell, "data_type", "") == "e" and cell.value != "#N/A"


def _shown(cell: Any) -> str:
    """A cell as Excel shows it: numbers with the decimals of their format, dates as ISO 8601 has them."""
    value = cell.value
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float():
            return _number(value, str(getattr(cell, "number_format", "") or ""))
        case datetime():
            return str(value.date()) if value.time() == time() else value.isoformat(sep=" ")
        case date() | time() | timedelta():
            return str(value)
        case _:
            return str(value).replace("_x000D_", "").strip()


def _number(value: float, number_format: str) -> str:
    if _ZEROS.fullmatch(number_format) and value % 1 == 0:
        return f"{int(value):0{len(number_format)}d}"
    if shown := _DECIMALS.fullmatch(number_format):
        digits, percent = len(shown[1] or ""), shown[2]
        exact = Decimal(value if isinstance(value, int) else f"{value:.15g}") * (100 if percent else 1)
        # Excel rounds a half away from zero.
        rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _DIGITS) if exact.is_finite() else exact
        return f"{rounded:f}{percent}"
    return f"{value:.15g}" if abs(value) < 1e15 else str(value)
