"""Columns that params.yaml names as those of patients and staff: their rows' people are looked for, in tables of every kind."""

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FILE, FileOptions

OPTIONS = FileOptions(
    columns={"text": "Note", "group": "PatID"},
    patient={"NAME": ("First", "Last"), "MRN": "PatID", "DATE": "Born"},
    staff={"NAME": "Author"},
)
HEADER = ["PatID", "First", "Last", "Born", "Author", "Note"]
ROWS: list[list[Any]] = [
    ["100234", "Ann", "Smith", "1950-12-19", "Dr. R. Kumar", "Coughs."],
    ["100235", "", "Diaz", "", "", "Well."],
]


def csv_table(header: list[str], rows: list[list[Any]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in [header, *rows]).encode()


def json_lines(header: list[str], rows: list[list[Any]]) -> bytes:
    return "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows).encode()


def json_array(header: list[str], rows: list[list[Any]]) -> bytes:
    return json.dumps([dict(zip(header, row, strict=True)) for row in rows]).encode()


def parquet(header: list[str], rows: list[list[Any]]) -> bytes:
    target = io.BytesIO()
    dated = [[date.fromisoformat(v) if name == "Born" and v else v or None for name, v in zip(header, row, strict=True)] for row in rows]
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(header, map(list, zip(*dated, strict=True)), strict=True))), target)
    return target.getvalue()


def workbook(header: list[str], rows: list[list[Any]]) -> bytes:
    book, target = openpyxl.Workbook(), io.BytesIO()
    for row in [header, *rows]:
        book.active.append([date.fromisoformat(v) if isinstance(v, str) and v[4:5] == "-" else v for v in row])
    book.save(target)
    return target.getvalue()


KINDS: list[tuple[str, Callable[[list[str], list[list[Any]]], bytes]]] = [
    ("notes.csv", csv_table),
    ("notes.jsonl", json_lines),
    ("notes.json", json_array),
    ("notes.parquet", parquet),
    ("notes.xlsx", workbook),
]


def read(directory: Path, name: str, content: bytes, options: FileOptions = OPTIONS) -> list[Any]:
    (directory / name).write_bytes(content)
    return list(read_file(directory, name, options))


@pytest.mark.parametrize(("name", "table"), KINDS)
def test_a_row_names_its_patient_and_staff(tmp_path: Path, name: str, table: Callable[..., bytes]) -> None:
    records = read(tmp_path, name, table(HEADER, ROWS))
    assert [record for record in records if isinstance(record, KnownPerson)] == [
        KnownPerson("qa:100234", (("NAME", "Ann"), ("NAME", "Smith"), ("MRN", "100234"), ("DATE", "1950-12-19"))),
        KnownPerson("", (("NAME", "Dr. R. Kumar"),)),
        KnownPerson("qa:100235", (("NAME", "Diaz"), ("MRN", "100235"))),
    ]
    assert [(d.answer, d.group) for d in records if isinstance(d, Document)] == [("Coughs.", "qa:100234"), ("Well.", "qa:100235")]
    assert len(records) == 5


@pytest.mark.parametrize(("name", "table"), KINDS)
def test_a_table_of_people_alone_holds_no_text_and_is_counted(tmp_path: Path, name: str, table: Callable[..., bytes]) -> None:
    options = FileOptions(columns={"group": "PatID"}, patient={"NAME": ("First", "Last")})
    people = read(tmp_path, name, table(HEADER[:3], [row[:3] for row in ROWS]), options)
    assert [record for record in people if isinstance(record, KnownPerson)] == [
        KnownPerson("qa:100234", (("NAME", "Ann"), ("NAME", "Smith"))),
        KnownPerson("qa:100235", (("NAME", "Diaz"),)),
    ]
    assert [record.reason for record in people if isinstance(record, Skipped)] == ["names people and holds no text"] * 2
    assert len(people) == 4


def test_a_note_without_a_group_has_its_patient_for_itself(tmp_path: Path) -> None:
    options = FileOptions(columns={"text": "Note"}, patient={"NAME": "Last"})
    first, document, *_ = read(tmp_path, "notes.csv", b"Last,Note\nSmith,Coughs.\nDiaz,Well.\n", options)
    assert first == KnownPerson(document.group, (("NAME", "Smith"),))


def test_a_patient_whose_group_is_empty_is_rejected_and_its_staff_is_kept(tmp_path: Path) -> None:
    options = FileOptions(columns={"group": "PatID"}, patient={"NAME": "Last"}, staff={"NAME": "Author"})
    staff, rejected = read(tmp_path, "people.csv", b"PatID,Last,Author\n,Smith,Kumar\n", options)
    assert staff == KnownPerson("", (("NAME", "Kumar"),))
    assert rejected == Rejected("people.csv", "line 2", "names a patient and has no group")


@pytest.mark.parametrize(
    ("header", "options", "reason"),
    [
        ("PatID,Note", {"patient": {"NAME": "Surname"}}, "has no columns 'Surname', which params.yaml names as its patient's"),
        ("Note,Last,LAST", {"staff": {"NAME": "last"}}, "has 2 columns 'last', which params.yaml names as its staff's"),
        ("Last,First", {"patient": {"NAME": "Last"}}, "names patients, and no column is their group"),
    ],
)
def test_columns_of_people_that_are_not_there_are_named(tmp_path: Path, header: str, options: dict[str, Any], reason: str) -> None:
    options["columns"] = {"text": "Note"} if "Note" in header else {}
    (rejected,) = read(tmp_path, "notes.csv", f"{header}\na,b\n".encode(), FileOptions(**options))
    assert rejected.position == FILE and rejected.reason.startswith(reason)


def test_a_type_that_nobody_is_known_by_is_refused() -> None:
    with pytest.raises(ValidationError, match="'AGE' is no type of identifier that people are looked for by"):
        FileOptions(patient={"AGE": "Alter"})
