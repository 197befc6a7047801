"""What the columns of a table, or the keys of a JSON object, are to us: fields of its records, and whom they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any, TypeAlias

from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped
from tasks.corpus.readers.headers import has_text, missing_columns, repeated
from tasks.corpus.readers.records import EMPTY, READ, FileOptions, UnreadableError, as_name, group_named, mapped, table_record

PATIENT, STAFF = "patient", "staff"
NO_TEXT = "names people and holds no text"  # the reason with which a row is skipped
_TEXTS = frozenset(READ) - {"split", "group", "topic", "id"}
RowRecord: TypeAlias = Document | Rejected | Skipped | KnownPerson


@dataclass(frozen=True, slots=True)
class PersonColumn:
    """A column that holds what somebody is known by."""

    who: str  # PATIENT or STAFF
    type: str  # of identifier, as in policy.TYPES
    index: int


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns in their order; ``fields`` has our names for them, and the file's own in lower case where we have none."""

    fields: tuple[str, ...]
    people: tuple[PersonColumn, ...]  # of PATIENT first
    own_id: bool  # whether params.yaml says which column is the id

    def is_used(self, index: int) -> bool:
        """Whether anything is read from a column."""
        return self.fields[index] in READ or any(column.index == index for column in self.people)

    def records(self, values: Sequence[Any], name: str, position: str) -> Iterator[RowRecord]:
        """The record of a row, which may have fewer values than there are columns, and the people whom the row names."""
        fields = dict(zip(self.fields, values, strict=False))
        record: Document | Rejected | Skipped = Skipped(name, position, NO_TEXT)
        if not self.people or {*self.fields} & _TEXTS:
            record = table_record(fields, name, position, own_id=self.own_id)
        group = group_named(fields) or (record.group if isinstance(record, Document) else "")
        people = list(self._people(values, group))
        if any(person.group == "" for who, person in people if who == PATIENT) and not isinstance(record, Rejected):
            record = Rejected(name, position, "names a patient and has no group")
        yield from (person for who, person in people if who == STAFF or person.group)
        yield record

    def _people(self, values: Sequence[Any], group: str) -> Iterator[tuple[str, KnownPerson]]:
        for who, columns in groupby((c for c in self.people if c.index < len(values)), key=lambda column: column.who):
            identifiers = [(column.type, _shown(values[column.index])) for column in columns]
            if known := tuple((type_, value) for type_, value in identifiers if value.lower() not in EMPTY):
                yield who, KnownPerson(group if who == PATIENT else "", known)


def table_columns(names: Sequence[str], options: FileOptions, name: str) -> Columns:
    """The columns of a table with a header. ``UnreadableError`` where none holds a text or names somebody, one field has two columns, or
    one that params.yaml names is not there.
    """
    columns = columns_of(names, options)
    lowered = [_lowered(column) for column in names]
    for who, column in _people_named(options):
        if (n := lowered.count(_lowered(column))) != 1:
            raise UnreadableError(f"has {n or 'no'} columns {column!r}, which params.yaml names as its {who}'s (preprocess.files)")
    if not has_text(columns.fields) and not columns.people:
        raise UnreadableError(missing_columns(names, name))
    if again := repeated(columns.fields):
        raise UnreadableError(f"has a header that repeats {again}")
    if options.patient and not has_text(columns.fields) and "group" not in columns.fields:
        raise UnreadableError("names patients, and no column is their group; write one into its columns in preprocess.files: {group: NAME}")
    return columns


def columns_of(names: Sequence[str], options: FileOptions) -> Columns:
    """The columns as they are, of a JSON object its keys."""
    index = {_lowered(column): i for i, column in enumerate(names)} if options.patient or options.staff else {}
    named = [
        PersonColumn(who, type_, index[_lowered(column)])
        for who, by_type in ((PATIENT, options.patient), (STAFF, options.staff))
        for type_, columns in by_type.items()
        for column in ((columns,) if isinstance(columns, str) else columns)
        if _lowered(column) in index
    ]
    return Columns(tuple(mapped(list(names), options)), tuple(named), "id" in options.columns)


def _people_named(options: FileOptions) -> Iterator[tuple[str, str]]:
    for who, by_type in ((PATIENT, options.patient), (STAFF, options.staff)):
        for columns in by_type.values():
            yield from ((who, column) for column in ((columns,) if isinstance(columns, str) else columns))


def _lowered(column: str) -> str:
    return column.strip().lower()


def _shown(value: object) -> str:
    """A value as text; of a time its day."""
    return value.isoformat()[:10] if isinstance(value, date) else str(as_name(value)).strip()
