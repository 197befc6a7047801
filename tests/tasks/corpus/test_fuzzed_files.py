"""Mutations of good files of every format: each record is a document or rejected, and nothing is raised."""

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from helpers.readers import MEDQUAD, PUBMED, fhir_note

from tasks.corpus.documents import Decoded, Document, KnownPerson
from tasks.corpus.readers.files import read_file, record_files
from tasks.corpus.readers.records import EMPTY

ROWS = [(f"What is {n}?", f'It is "{n}", so, to say;\nyes.') for n in range(12)]


def table() -> bytes:
    lines = "".join('"{}","{}"\n'.format(q, a.replace('"', '""')) for q, a in ROWS)
    return f"Question,Answer\n{lines}".encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"Question": [q for q, _ in ROWS], "Answer": [a for _, a in ROWS]}), sink)
    return sink.getvalue()


def workbook() -> bytes:
    sink, book = io.BytesIO(), openpyxl.Workbook()
    for row in [("Question", "Answer"), *ROWS]:
        book.worksheets[0].append(row)
    book.save(sink)
    return sink.getvalue()


def archive() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("a.csv", table())
    return sink.getvalue()


NOTE = {"content": [{"attachment": {"data": "Q291Z2hzLg=="}}]}
GOOD: dict[str, bytes] = {
    "a.csv": table(),
    "a.tsv": table().replace(b'","', b'"\t"').replace(b"Question,", b"Question\t"),
    "b.csv": table().decode().encode("utf-16"),
    "a.jsonl": "\n".join(json.dumps({"Question": q, "Answer": a}) for q, a in ROWS).encode(),
    "a.ndjson": "\n".join(fhir_note(content=[{"attachment": {"data": "Q291Z2hzLg=="}}]) for _ in ROWS).encode(),
    "a.parquet": parquet(),
    "a.xlsx": workbook(),
    "a.json": json.dumps([{"Question": q, "Answer": a} for q, a in ROWS]).encode(),
    "b.json": json.dumps({"rows": [{"Question": q, "Answer": a} for q, a in ROWS]}).encode(),
    "c.csv": b'text\tgroup\n"It is \\"so\\""\t\\N\n' * 6,
    "d.csv": "Frage;Häufige Müdigkeit, größer – „üblich“\n".encode("cp1252") * 12,
    "a.md": "\n\n".join(a for _, a in ROWS).encode(),
    "a.xml": MEDQUAD.encode(),
    "b.xml": PUBMED.encode(),
    "c.xml.gz": gzip.compress(PUBMED.encode()),
    "a.obo": b'format-version: 1.2\n\n[Term]\nid: HP:1\nname: Skin\ndef: "It is skin." []\n\n[Term]\nid: HP:2\nname: Dry\nis_a: HP:1\n',
    "d.xml": (
        b"<ICD10CM.tabular><chapter><section><diag><name>L02</name><desc>Abscess</desc><excludes1><note>x (L01)</note></excludes1>"
        b"</diag></section></chapter></ICD10CM.tabular>"
    ),
    "c.json": b'{"resourceType": "Bundle", "entry": [%s]}' % b", ".join([b'{"resource": %s}' % fhir_note(**NOTE).encode()] * 4),
    "a.html": b"<html><body><h1>Plan</h1><table><tr><td>Na</td><td>140</td></tr></table><ul><li>a &amp; b</li></ul></body></html>",
    "a.rtf": rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 Fever\par M\'fc\u8364?\trowd\cellx1\pard\intbl K\cell 4.1\cell\row}",
    "e.xml": (
        b'<ClinicalDocument xmlns="urn:hl7-org:v3"><title>T</title><recordTarget><patientRole><id root="1" extension="7"/></patientRole>'
        b"</recordTarget><component><structuredBody><component><section><title>Plan</title><text><list><item>a</item></list></text>"
        b"</section></component></structuredBody></component></ClinicalDocument>"
    ),
    "a.hl7": b"MSH|^~\\&|LAB\rPID|1||7^^^A^MR||Smith^Ann\rOBR|1\rOBX|1|TX|R^Report||one \\T\\ two||||||F\rOBX|2|NM|N^Na||140|mmol/L|||||F\r"
    * 3,
}
PIECES = [b"\0", b'"', b"\n", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"<", b"&x;", b",", b"\t", b"\xc3", b"nan", b"<|im_end|>", b"=1+1"]


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(PIECES) * rng.choice([1, 1, 3, 200]) + data[at:]


def cut(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:end] + data[start:]


def recode(data: bytes, rng: random.Random) -> bytes:
    return data.decode("latin-1").encode(rng.choice(["utf-8", "utf-16-le", "utf-16", "utf-7"]))


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [flip, flip, insert, insert, cut, repeat, recode]


@pytest.mark.parametrize("name", GOOD)
def test_a_mutated_file_gives_documents_and_rejections_and_no_error(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    for _ in range(170):
        data = GOOD[name]
        for _ in range(rng.choice([1, 1, 2, 4])):
            data = rng.choice(MUTATIONS)(data, rng) if data else data
        (tmp_path / name).write_bytes(data)
        records = list(read_file(tmp_path, name))
        assert records, "a file gave nothing at all"
        for record in records:
            if isinstance(record, KnownPerson):
                continue
            assert record.source == name and (isinstance(record, Decoded) or record.position)
            if isinstance(record, Document):
                assert record.answer.lower() not in EMPTY
                record.answer.encode(), record.question.encode()


def test_a_mutated_archive_gives_documents_and_rejections_and_no_error(tmp_path: Path) -> None:
    rng = random.Random(1)
    for n in range(300):
        data = rng.choice(MUTATIONS)(archive(), rng)
        (folder := tmp_path / str(n)).mkdir()
        (folder / "a.zip").write_bytes(data)
        assert [record for name in record_files(folder) for record in read_file(folder, name)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson"])
def test_one_bad_line_costs_no_line_after_it(tmp_path: Path, name: str) -> None:
    rng = random.Random(1)
    rows = GOOD[name].replace(b";\nyes", b"; yes").split(b"\n")
    for _ in range(40):
        bad = rows[:]
        bad[2] = insert(bad[2], rng).replace(b"\n", b" ").replace(b"\r", b" ")
        (tmp_path / name).write_bytes(b"\n".join(bad))
        questions = [r.question or r.position for r in read_file(tmp_path, name) if isinstance(r, Document)]
        assert len(questions) >= 11 and questions[-1] in ("What is 11?", "line 12")
