"""Workbooks and archives, and what stands beside data."""

import gzip
import io
import struct
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from helpers.readers import read

from tasks.corpus.documents import Document, Rejected, Skipped
from tasks.corpus.readers import archives
from tasks.corpus.readers.files import read_file, record_files
from tasks.corpus.readers.records import FILE


def records(directory: Path, name: str, content: bytes | str) -> list[Any]:
    (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(directory, name))


def workbook(path: Path, *sheets: list[list[Any]], **formats: str) -> None:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
        for cell, number_format in formats.items():
            sheet[cell].number_format = number_format
    book.save(path)


def test_every_sheet_of_a_workbook_is_a_table(tmp_path: Path) -> None:
    first: list[list[Any]] = [
        ["Question", "Answer", "group"],
        ["pH?", 7.4, 0],
        ["Sodium?", 140, 17],
        ["When?", date(2019, 3, 21), 17],
        [None],
        ["Well?", True, None],
    ]
    second: list[list[Any]] = [[None], ["text", "split"], ["Seen.", "train"], [datetime(2019, 3, 21, 8, 30), None], ["x", None, "more"]]
    workbook(tmp_path / "b.xlsx", first, [], second, B2="0.00")
    documents, rejected = read(tmp_path, "a.xlsx", (tmp_path / "b.xlsx").read_bytes())
    assert [(d.answer, d.position) for d in documents] == [
        ("7.40", "sheet 1 row 2"),
        ("140", "sheet 1 row 3"),
        ("2019-03-21", "sheet 1 row 4"),
        ("TRUE", "sheet 1 row 6"),
        ("Seen.", "sheet 3 row 3"),
        ("2019-03-21 08:30:00", "sheet 3 row 4"),
    ]
    assert [d.group for d in documents[:2]] == ["qa:0", "qa:17"]
    assert rejected == [("sheet 3 row 5", "has 3 cells, the header has 2")]


def test_what_excel_shows_is_read_and_errors_are_rejected(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows: list[list[Any]] = [["text", "group", "other"], [0.125, "a", "#DIV/0!"], [2.5, 99_887_766, None], ["x", "#VALUE!", None]]
    rows += [["y", "#N/A", None], [1e300, "a", None], [0.285, "a", None]]
    workbook(tmp_path / "b.xlsx", rows, A2="0.00", A3="0", B3="yyyy-mm-dd", A6="0", A7="0%")
    documents, rejected = read(tmp_path, "a.xlsx", (tmp_path / "b.xlsx").read_bytes())
    assert [d.answer for d in documents] == ["0.13", "y", "1" + "0" * 300, "29%"] and documents[1].group.startswith("record:")
    reason = "has a cell with an error of Excel in place of a value, or a date that is none"
    assert rejected == [("sheet 1 row 3", reason), ("sheet 1 row 4", reason)] and not recwarn.list


@pytest.mark.parametrize("name", [".", "", "./."])
def test_a_member_of_an_archive_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.txt", "x")
        with archive.open(zipfile.ZipInfo(name), "w") as member:
            member.write(b"y")
    assert record_files(tmp_path) == ["a.zip"]
    (problem,) = read_file(tmp_path, "a.zip")
    assert problem == Rejected("a.zip", FILE, "is an archive with a file that has no name")


def test_a_workbook_without_a_header_or_none_at_all_is_told(tmp_path: Path) -> None:
    workbook(tmp_path / "b.xlsx", [["Question", "Answer"], ["q", "a"]], [["Legend"], ["x"]])
    documents, rejected = read(tmp_path, "a.xlsx", (tmp_path / "b.xlsx").read_bytes())
    assert len(documents) == 1 and rejected[0][0] == "sheet 2" and rejected[0][1].startswith("has a header with no column")
    workbook(tmp_path / "b.xlsx", [["Frage", "Antwort"], ["q", "a"]])
    (problem,) = records(tmp_path, "a.xlsx", (tmp_path / "b.xlsx").read_bytes())
    assert problem.position == FILE and '{"a.xlsx": {columns: {question: Frage, answer: Antwort}}}' in problem.reason
    for content, reason in (
        (b"PK\3\4broken", "is no Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "is no Excel workbook"),
        (zipped(a="x"), "cannot be read"),
    ):
        assert read(tmp_path, "c.xlsx", content)[1][0][1].startswith(reason)
    with zipfile.ZipFile(tmp_path / "d.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"x" * (70 << 20))
    assert records(tmp_path, "d.xlsx", (tmp_path / "d.xlsx").read_bytes())[0].reason.startswith("unpacks to more than 200 times")


def zipped(**members: str | bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def test_each_member_of_an_archive_is_read_by_its_ending(tmp_path: Path) -> None:
    members: dict[str, str | bytes] = {
        "notes/a.csv": "Question,Answer\nq,a\n",
        "b.jsonl.gz": gzip.compress(b'{"text": "t"}\n'),
        "README.md": "Read me.",
        "c.txt": "Müde.".encode("cp1252"),
        "__MACOSX/._c.txt": "x",
    }
    (tmp_path / "set.zip").write_bytes(zipped(**members))
    names = record_files(tmp_path)
    assert names == sorted(f"set.zip/{name}" for name in members)
    of_all = [record for name in names for record in read_file(tmp_path, name)]
    assert [(d.source, d.answer) for d in of_all if isinstance(d, Document)] == [
        ("set.zip/b.jsonl.gz", "t"),
        ("set.zip/c.txt", "Müde."),
        ("set.zip/notes/a.csv", "a"),
    ]
    assert [r.source for r in of_all if isinstance(r, Skipped)] == ["set.zip/README.md", "set.zip/__MACOSX/._c.txt"]


def test_hostile_archives_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reasons(content: bytes) -> list[str]:
        (tmp_path / "a.zip").write_bytes(content)
        archives._archive.cache_clear()
        return [record.reason for name in record_files(tmp_path) for record in read_file(tmp_path, name) if isinstance(record, Rejected)]

    assert reasons(b"PK\3\4broken") == ["is no ZIP archive, or a damaged one"]
    assert reasons(zipped()) == ["is an archive without files"]
    assert reasons(zipped(**{"b.zip": zipped(a="x")})) == ["is an archive within an archive, which is not read; unpack the outer one"]
    assert "leads out of it" in reasons(zipped(**{"../x.csv": "Question,Answer\nq,a\n"}))[0]
    assert "leads out of it" in reasons(zipped(**{"/etc/x.csv": "Question,Answer\nq,a\n"}))[0]
    plain = zipped(**{"x.csv": "Question,Answer\nq,a\n"})
    at = plain.index(b"PK\1\2") + 8
    assert reasons(plain[:at] + struct.pack("<H", 1) + plain[at + 2 :]) == ["is encrypted; unpack the archive with its password"]
    assert reasons(plain[:45] + b"?" + plain[46:]) and "cannot be unpacked" in reasons(plain[:45] + b"?" + plain[46:])[0]
    monkeypatch.setattr(archives, "RATIO_FROM", 1 << 20)
    assert "unpacks to more than 200 times its own size" in reasons(zipped(**{"x.csv": "x" * (4 << 20)}))[0]
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert "more than 2 files" in reasons(zipped(a="1", b="2", c="3"))[0]


@pytest.mark.parametrize(
    "name", ["LICENSE", "LICENCE.txt", "README", "README.de.md", "changelog.md", "a.csv.sha256", "SHA256SUMS", "MD5SUMS"]
)
@pytest.mark.parametrize("folder", ["", "ward/"])
def test_what_stands_beside_data_is_left_out_by_name_and_told(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / "ward").mkdir()
    (record,) = records(tmp_path, folder + name, "Some text.")
    assert isinstance(record, Skipped) and record.position == FILE and record.reason.startswith("is left out by its name")


@pytest.mark.parametrize("name", ["licence-renewals.csv", "readmission.txt", "notes.log.csv", "license.csv"])
def test_data_with_a_name_alike_is_read(tmp_path: Path, name: str) -> None:
    documents, _ = read(tmp_path, name, "text\nSeen.\n")
    assert documents


def test_a_name_with_a_line_break_is_shown_with_an_escape(tmp_path: Path) -> None:
    name = "ward\n1.csv"
    (tmp_path / name).write_text("Question,Answer\nq,a\nq,\n")
    document, problem = read_file(tmp_path, name)
    assert isinstance(document, Document) and isinstance(problem, Rejected) and document.source == problem.source == "ward\\n1.csv"
