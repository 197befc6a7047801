"""The rows of CSV and its relatives, one in memory at a time; broken ones are told, and the escapes of databases undone."""

import csv
import re
from collections import deque
from typing import IO

from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG

# A quote that is not closed within so many characters counts as one that never is; the first time, and after that.
MAX_QUOTED, REDUCED_MAX_QUOTED = MAX_RECORD, 1 << 20
BROKEN = "has a quote that is not closed or stands in a wrong place"
# MySQL's and PostgreSQL's escapes. Each is one of Unicode's noncharacters, which no text has, until the row is in cells.
_ESCAPES = {"\\": "\ufdd0", '"': "\ufdd1", "n": "\ufdd2", "r": "\ufdd3", "t": "\ufdd4", "\n": "\ufdd2", "'": "\ufdd5"}
_VALUES = str.maketrans(dict(zip("\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4\ufdd5", "\\\"\n\r\t'", strict=True)))
_ESCAPE = re.compile(r"""\\(\\|"|'|n|r|t|\n)""")
# What only files with such escapes have: \N alone in a cell, or an escaped quote within a text.
_ESCAPED_FILE = re.compile(r"""(?:^|[,;\t|])\\N(?=[,;\t|\r\n])|(?<!\\)\\"(?=[^,;\t|\r\n"])""", re.M)


def has_escapes(sample: str) -> bool:
    """Whether the beginning of a file has a database's escapes, which then count in all of it."""
    return bool(_ESCAPED_FILE.search(sample))


class Rows:
    """The rows of a CSV file; the lines of a row that turns out broken are given back, but for its first."""

    def __init__(self, file: IO[str], line_number: int, delimiter: str, *, escapes: bool):
        self._file, self._line_number, self._delimiter = file, line_number, delimiter
        self._escapes = self._escaped = escapes  # of the file, and of the row that is read
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self._size, self._max_quoted = 0, MAX_QUOTED

    def next(self, columns: int) -> tuple[int, list[str] | str] | None:
        """The number of the line on which the next row begins, with its cells or what is wrong; None at the end."""
        start = self._line_number + 1
        try:
            cells = self._attempt(self._escapes)
            if cells is None and self._taken and not self._escapes and any("\\" in line for line in self._taken):
                self._give_back(0)
                cells = self._attempt(True)
        except _TooLongError:
            return start, TOO_LONG
        if cells is None and not self._taken:
            return None
        if cells is None:
            first = self._taken[0]
            self._give_back(1)
            cells = self._unquoted(first, columns)
        return start, BROKEN if cells is None else cells

    def _attempt(self, escapes: bool) -> list[str] | None:
        """The cells of the next row; None where it is broken, or there is none: then no line was taken."""
        self._taken, self._size, self._escaped = [], 0, escapes
        try:
            cells: list[str] | None = next(csv.reader(self, delimiter=self._delimiter, strict=True), None)
        except (csv.Error, _UnclosedError):
            return None
        return [cell.translate(_VALUES) for cell in cells] if cells and escapes else cells

    def _unquoted(self, line: str, columns: int) -> list[str] | None:
        """The cells of a line between tabs, where a database has written quotes as they are."""
        cells = line.rstrip("\r\n").split(self._delimiter)
        if self._delimiter != "\t" or len(cells) != columns:
            return None
        return [_ESCAPE.sub(_protect, cell).translate(_VALUES) for cell in cells] if self._escapes else cells

    def _give_back(self, kept: int) -> None:
        """Return the lines that were taken, but for the first so many."""
        rest = self._taken[kept:]
        self._returned.extendleft(reversed(rest))
        self._line_number -= len(rest)
        if kept and self._size > REDUCED_MAX_QUOTED:
            self._max_quoted = REDUCED_MAX_QUOTED  # so that many such lines do not cost the file's length each

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> str:
        if len(self._taken) > 1 and self._size > self._max_quoted:
            raise _UnclosedError
        line = self._line()
        if self._escaped:
            line = _ESCAPE.sub(_protect, line)
            while line.endswith("\ufdd2") and self._size <= self._max_quoted and (more := self._line(missing="")):
                line += _ESCAPE.sub(_protect, more)  # a line break behind a backslash ends no row
        return line

    def _line(self, missing: str | None = None) -> str:
        line = self._returned.popleft() if self._returned else self._file.readline(MAX_RECORD)
        if not line:
            if missing is None:
                raise StopIteration
            return missing
        self._line_number += 1
        if len(line) == MAX_RECORD and not line.endswith(("\n", "\r")):
            while line and not line.endswith(("\n", "\r")):
                line = self._file.readline(MAX_RECORD)
            raise _TooLongError
        self._taken.append(line)
        self._size += len(line)
        return line


def _protect(escape: re.Match[str]) -> str:
    return _ESCAPES[escape[1]]


class _UnclosedError(Exception):
    pass


class _TooLongError(Exception):
    pass
