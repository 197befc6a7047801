"""Files of JSON that is not one object per line: an array of records, an object with one list of them, or several objects.

One value is in memory at a time; FHIR resources are not read here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tasks.corpus.documents import Rejected
from tasks.corpus.readers.columns import RowRecord
from tasks.corpus.readers.headers import guessed, has_text
from tasks.corpus.readers.records import MAX_RECORD, READ, FileOptions, UnreadableError, bad_characters, mapped
from tasks.corpus.readers.streams import open_text
from tasks.corpus.readers.tables import REFUSED, no_repeats, parse_object, records_of, refuse

_OF_ALL = frozenset(("group", "topic", "split", "id"))  # what an object may say of all items of its list
_SPACE = " \t\r\n\ufeff"


def read_json(path: Path, name: str, options: FileOptions) -> Iterator[RowRecord]:
    """The records of a file; positions count them from 1 on. ``UnreadableError`` where what follows is no JSON."""
    with open_text(path, options) as file:
        for i, value in enumerate(_records(_Values(file), options), 1):
            position = f"item {i}"
            if isinstance(value, str):
                yield Rejected(name, position, value)
            elif not isinstance(value, dict):
                yield Rejected(name, position, "is not a JSON object")
            elif problem := bad_characters(json.dumps(value, ensure_ascii=False)):
                yield Rejected(name, position, problem)
            else:
                yield from records_of(value, name, position, options, explain=i == 1)


def _records(values: "_Values", options: FileOptions) -> Iterator[Any]:
    """The items of an array at the top, or of the only list in an object that is no record itself; a str is what is wrong with one."""
    if values.peek() == "[":
        yield from values.array()
        if values.peek():
            raise UnreadableError("goes on after the end of its array, which is not JSON")
        return
    while values.peek():
        value = values.next()
        yield from _lists_of(value, options) if isinstance(value, dict) else [value]


def _lists_of(value: dict[str, Any], options: FileOptions) -> list[Any]:
    lists = [items for items in value.values() if isinstance(items, list) and any(isinstance(item, dict) for item in items)]
    if not lists or ({*READ} - _OF_ALL) & {*mapped(list(value), options)}:
        return [value]
    if len(lists) > 1:
        raise UnreadableError(f"is a JSON object with {len(lists)} lists of objects; only one with a single list is read")
    return [_with_fields_of(value, item, options) if isinstance(item, dict) else item for item in lists[0]]


def _with_fields_of(whole: dict[str, Any], item: dict[str, Any], options: FileOptions) -> dict[str, Any]:
    """An item with the fields that its object says of all items, such as the patient; its own count first, and an id is its own alone."""
    further = [key for key, value in whole.items() if key not in item and not isinstance(value, dict | list)]
    names = mapped([*item, *further], options)
    own = {*names[: len(item)], "id"}
    return item | {key: whole[key] for key, name in zip(further, names[len(item) :], strict=True) if name not in own}


def has_records(path: Path, options: FileOptions) -> bool:
    """Whether a file is other than one object that describes files, as the manifest of an export does."""
    with open_text(path, options) as file:
        text = file.read(MAX_RECORD + 1)
    whole = parse_object(text) if len(text) <= MAX_RECORD else ""
    if not isinstance(whole, dict):
        return True
    if "transactionTime" in whole or isinstance(whole.get("output"), list):
        return False
    items = [item for value in whole.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    return any(has_text(mapped(list(record), options)) or guessed(list(record))[1] for record in (whole, *items))


class _Values:
    """The values of JSON text, each decoded when it is whole; the text before it is forgotten."""

    def __init__(self, file: IO[str]):
        self._file, self._text, self._start, self._ended, self._count = file, "", 0, False, 0
        self._strict = json.JSONDecoder(parse_constant=refuse, object_pairs_hook=no_repeats)
        self._any = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._start < len(self._text) and self._text[self._start] in _SPACE:
                self._start += 1
            if self._start < len(self._text):
                return self._text[self._start]
            if not self._more():
                return ""

    def array(self) -> Iterator[Any]:
        """The items of an array, at whose beginning the text is."""
        self._start += 1
        while self.peek() != "]":
            yield self.next()
            if self.peek() == ",":
                self._start += 1
            elif self.peek() != "]":
                raise UnreadableError(f"is not JSON after item {self._count}")
        self._start += 1

    def next(self) -> Any:
        """The next value, or as a str what keeps it from being read."""
        self.peek()
        while True:
            try:
                value, end = self._decoded()
            except (ValueError, RecursionError):
                end = -1
            # A number or word may go on behind the text that is there.
            if end >= 0 and (end < len(self._text) or self._text[end - 1] in '}]"' or self._ended):
                self._start, self._count = end, self._count + 1
                return value
            if len(self._text) - self._start > MAX_RECORD:
                raise UnreadableError(f"has no whole record after item {self._count} within {MAX_RECORD >> 20} million characters")
            if not self._more() and end < 0:
                raise UnreadableError(f"is not JSON after item {self._count}")

    def _decoded(self) -> tuple[Any, int]:
        try:
            return self._strict.raw_decode(self._text, self._start)
        except REFUSED as problem:
            _, end = self._any.raw_decode(self._text, self._start)
            return str(problem), end

    def _more(self) -> bool:
        """Read as much again as there is, so that decoding a long value anew costs twice its length and not the square of it."""
        self._text = self._text[self._start :]
        self._start = 0
        piece = self._file.read(max(1 << 16, len(self._text)))
        self._text += piece
        self._ended = not piece
        return not self._ended
