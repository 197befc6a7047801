"""Readers against what parsers drop, cut or blow up: nothing is lost without a rejection, and memory stays bounded."""

import base64
import gzip
import html
import json
import random
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from helpers.project import ROOT
from helpers.readers import MEDQUAD, PUBMED, fhir_note, read

from tasks.corpus.documents import Document
from tasks.corpus.readers import records, streams, tables
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FILE, UnreadableError
from tasks.corpus.readers.streams import text_encoding

ENCODINGS = "utf-8 UTF8 utf-16 utf-32-le us-ascii latin-1 ISO-8859-15 windows-1252 cp1251 koi8-r macintosh mac-cyrillic shift_jis "


ENCODINGS += "euc-jp euc-kr gb18030 GBK Big5 iso-2022-jp cp437 tis-620 iso-8859-8"


NO_TEXT = ["punycode", "idna", "rot13", "rot_13", "base64", "zip", "bz2", "hex", "quopri", "uu", "unicode_escape", "raw_unicode_escape"]


NO_TEXT += ["utf-7", "undefined", "mbcs", "oem", "palmos?", "x-user-defined", "../../etc", "os", "cp499", "A" * 5_000, "Anna Weiß, 7 May"]


@pytest.mark.parametrize("name", ENCODINGS.split())
def test_encodings_of_text_are_read(tmp_path: Path, name: str) -> None:
    data = base64.b64encode("Fever.".encode(name)).decode()
    attachment = {"contentType": f'text/plain; charset="{name}"; format=flowed', "data": data}
    (document,), rejected = read(tmp_path, "a.ndjson", fhir_note(content=[{"attachment": attachment}]))
    assert document.answer == "Fever." and not rejected
    (document,), rejected = read(tmp_path, "a.csv", "Question,Answer\nq,a\n".encode(name), encoding=name)
    assert document.answer == "a" and not rejected


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_encoding_of_text_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableError, match="has an encoding that is not read") as error:
        text_encoding(name)
    assert (f"({name})" in str(error.value)) == (len(name) < 40 and name.isascii() and name[0] not in "." and "?" not in name)
    started = time.process_time()
    attachment = {"contentType": f"text/plain; charset={name}", "data": base64.b64encode(b"\xff-" * 500_000).decode()}
    note = fhir_note(content=[{"attachment": attachment}])
    documents, rejected = read(tmp_path, "a.ndjson", note + "\n" + fhir_note(resourceType="DiagnosticReport", conclusion="Well."))
    assert [d.answer for d in documents] == ["Well."] and rejected[0][1] in ("has an encoding that is not read",)
    assert read(tmp_path, "a.csv", "Question,Answer\nq,a\n", encoding=name) == ([], [(FILE, "has an encoding that is not read")])
    if '"' not in name:
        xml = MEDQUAD.replace('version="1.0"', f'version="1.0" encoding="{name}"')
        documents, rejected = read(tmp_path, "a.xml", xml)
        assert not documents and rejected[0][0] == FILE
    assert time.process_time() - started < 5


MEASURED = """
import json, sys
from pathlib import Path
from typing import Any
from tasks.corpus.documents import Document
from tasks.corpus.readers.files import read_file, record_files
folder, by_file = Path(sys.argv[1]), {}
for name in record_files(folder):
    by_file[name] = [0, []]
    for record in read_file(folder, name):
        if isinstance(record, Document):
            by_file[name][0] += 1
        elif len(by_file[name][1]) < 5:
            by_file[name][1].append([record.position, record.reason])
# Not ru_maxrss, which a process has from the one that started it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([by_file, peak >> 10]))
"""


def read_apart(folder: Path) -> tuple[dict[str, list[Any]], int]:
    """What a process reads in a folder, by file: documents and the first rejections; and the MiB that it needed at most."""
    command = [sys.executable, "-c", MEASURED, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    by_file, peak = json.loads(done.stdout)
    return by_file, peak


GOOD_CSV = "Question,Answer\nq,a\n"


def packed(path: Path, head: bytes, piece: bytes, times: int, tail: bytes = b"") -> None:
    """A gzip file that unpacks to a thousand times its size."""
    press = zlib.compressobj(wbits=31)
    with open(path, "wb") as file:
        file.write(press.compress(head))
        for _ in range(times):
            file.write(press.compress(piece))
        file.write(press.compress(tail) + press.flush())


BOMBS = {
    "lines.jsonl.gz": (b"", (b" " * 1023 + b"\n") * (1 << 10), b"", "is a gzip file that holds more than"),
    "line.jsonl.gz": (b'{"text": "', b"x" * (1 << 20), b'"}\n', "is a gzip file that holds more than"),
    "text.xml.gz": (b"<PubmedArticleSet><PubmedArticle><MedlineCitation>", b"x" * (1 << 20), b"", "holds more than 32 MiB without"),
    "attribute.xml.gz": (b'<PubmedArticleSet><PubmedArticle a="', b"x" * (1 << 20), b'"/>', "holds more than 32 MiB without"),
    "comment.xml.gz": (b"<PubmedArticleSet><!--", b"x" * (1 << 20), b"-->", "holds more than 32 MiB without"),
    "doctype.xml.gz": (b"<!DOCTYPE a [<!--", b"x" * (1 << 20), b"-->]><a/>", "holds more than 32 MiB without"),
    "elements.xml.gz": (b"<PubmedArticleSet><PubmedArticle><a>", b"<b/>" * (1 << 18), b"", "holds more than 1,048,576 elements"),
    "deep.xml.gz": (b"<PubmedArticleSet>", b"<b>" * (1 << 18), b"", "is XML nested more than"),
    "codes.xml.gz": (b"<ICD10CM.tabular><section>", b"<diag/>" * (1 << 17), b"", "holds more than 1,048,576 elements"),
    "deepcodes.xml.gz": (b"<ICD10CM.tabular><section>", b"<diag>" * (1 << 17), b"", "is XML nested more than"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_gzip_bomb_is_rejected_in_bounded_memory_and_the_rest_of_the_folder_is_read(tmp_path: Path, name: str) -> None:
    head, piece, tail, reason = BOMBS[name]
    packed(tmp_path / name, head, piece, 400, tail)
    (tmp_path / "z.csv").write_text(GOOD_CSV)
    by_file, peak = read_apart(tmp_path)
    documents, rejected = by_file[name]
    assert documents == 0 and rejected[-1][0] == FILE and rejected[-1][1].startswith(reason)
    assert by_file["z.csv"] == [1, []] and peak < 800


@pytest.mark.slow
def test_bombs_in_archives_and_workbooks_are_rejected_in_bounded_memory(tmp_path: Path) -> None:
    piece = b"x" * (1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("b.csv", "w", force_zip64=True) as member:
        member.write(b"Question,Answer\nq,")
        for _ in range(1_000):
            member.write(piece)
    with zipfile.ZipFile(tmp_path / "c.xlsx", "w", zipfile.ZIP_DEFLATED) as book, book.open("xl/worksheets/sheet1.xml", "w") as sheet:
        sheet.write(b"<worksheet><sheetData>" + b"<row/>" * 10)
        for _ in range(300):
            sheet.write(b"<row/>" * 200_000)
    (tmp_path / "z.csv").write_text(GOOD_CSV)
    by_file, peak = read_apart(tmp_path)
    for name in ("a.zip/b.csv", "c.xlsx"):
        assert by_file[name][0] == 0 and by_file[name][1][0][1].startswith("unpacks to more than 200 times its own size")
    assert by_file["z.csv"] == [1, []] and peak < 800


@pytest.mark.slow
def test_a_long_array_and_a_long_workbook_are_read_in_bounded_memory(tmp_path: Path) -> None:
    with open(tmp_path / "a.json", "w", encoding="utf-8") as file:
        file.write("[" + ",\n".join(json.dumps({"text": f"{n} " + "fever " * 100}) for n in range(100_000)) + "]")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in [("Question", "Answer"), *((f"What is {n}?", n) for n in range(50_000))]:
        sheet.append(row)
    book.save(tmp_path / "b.xlsx")
    by_file, peak = read_apart(tmp_path)
    assert by_file == {"a.json": [100_000, []], "b.xlsx": [50_000, []]} and peak < 400


@pytest.mark.slow
def test_records_of_gigabytes_are_rejected_and_those_after_them_are_read(tmp_path: Path) -> None:
    def long(path: Path, head: str, end: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(head)
            for _ in range(200):
                file.write("é" * (1 << 20))
            file.write(end)

    long(tmp_path / "a.jsonl", '{"text": "', f'"}}\n{json.dumps({"text": "after"})}\n')
    long(tmp_path / "b.csv", "Question,Answer\nq,", "\nq2,a2\n")
    by_file, peak = read_apart(tmp_path)
    assert by_file["a.jsonl"] == [1, [["line 1", records.TOO_LONG]]]
    assert by_file["b.csv"] == [1, [["line 2", records.TOO_LONG]]]
    assert peak < 800


@pytest.mark.slow
def test_small_parquet_files_that_expand_to_gigabytes_are_rejected_in_bounded_memory(tmp_path: Path) -> None:
    big = "x" * (60 << 20)
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 40, pyarrow.int32()), pyarrow.array([big]))
    written = {"compression": "zstd", "data_page_size": 1 << 30}
    questions = pyarrow.array(["q"] * 40)
    table = pyarrow.table({"Question": questions, "Answer": repeated})
    pyarrow.parquet.write_table(table, tmp_path / "dictionary.parquet", dictionary_pagesize_limit=1 << 30, **written)
    del repeated, table
    table = pyarrow.table({"Question": ["q"], "Answer": ["y" * (700 << 20)]})
    pyarrow.parquet.write_table(table, tmp_path / "value.parquet", use_dictionary=False, **written)
    growing = pyarrow.array(["x" * (1 << 20) + "y" * n for n in range(300)])
    encoding = {"Question": "PLAIN", "Answer": "DELTA_BYTE_ARRAY"}
    table = pyarrow.table({"Question": ["q"] * 300, "Answer": growing})
    pyarrow.parquet.write_table(table, tmp_path / "delta.parquet", use_dictionary=False, column_encoding=encoding, **written)
    del table, growing
    assert all(path.stat().st_size < 100_000 for path in tmp_path.iterdir())
    (tmp_path / "z.csv").write_text(GOOD_CSV)
    by_file, peak = read_apart(tmp_path)
    assert by_file["dictionary.parquet"][1][0] == ["row 1", records.TOO_LONG]
    assert by_file["dictionary.parquet"][1][-1][1].startswith("holds more than 200 times its own size")
    documents, ((position, reason),) = by_file["value.parquet"]
    assert documents == 0 and position == FILE and reason.startswith(("cannot be read after row 0", "holds more than 200 times"))
    assert by_file["delta.parquet"][1][-1][1].startswith("holds more than 200 times its own size")
    assert by_file["z.csv"] == [1, []] and peak < 2_500  # a value of 700 MiB, as bytes, as Arrow has it and as text


@pytest.mark.slow
def test_a_parquet_file_of_long_texts_is_read_in_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PARQUET_MEMORY", 1 << 27)
    rng = random.Random(1)
    texts = [rng.randbytes(1 << 19).hex() for _ in range(200)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", use_dictionary=False, write_batch_size=4)
    rows = list(read_file(tmp_path, "a.parquet"))
    assert [d.answer for d in rows if isinstance(d, Document)] == texts
    assert [d.position for d in rows if isinstance(d, Document)] == [f"row {n}" for n in range(1, 201)]


def test_text_that_packs_well_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RATIO_FROM", 1 << 16)
    lines = "".join(json.dumps({"question": f"What is {n}?", "answer": f"A sign of disease {n}."}) + "\n" for n in range(20_000))
    documents, rejected = read(tmp_path, "a.jsonl.gz", gzip.compress(lines.encode()))
    assert len(documents) == 20_000 and not rejected


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"answer": "one", "question": "q", "answer": "two"}', "repeats a key, of which JSON keeps only the last"),
        ("a.jsonl", '{"answer": "one", "question": "q", "Answer": "two"}', "repeats answer"),
        (
            "a.xml",
            MEDQUAD.replace("</Answer></QAPair>\n", "</Answer><Answer>More.</Answer></QAPair>\n"),
            "has more than one question or answer",
        ),
        ("a.xml", "<PubmedArticleSet><PubmedBookArticle/></PubmedArticleSet>", "is a book's entry, which is not read"),
        ("a.xml", MEDQUAD.replace("<Answer>Cough.", "<Answer>&copy; Cough."), "is not well-formed XML in line 3"),
        ("a.xml", MEDQUAD.replace("?>", ' encoding="gb18030"?>', 1), "is damaged"),
    ],
)
def test_what_a_parser_would_drop_is_rejected(tmp_path: Path, name: str, content: str, reason: str) -> None:
    _, rejected = read(tmp_path, name, content)
    assert rejected[0][1] == reason


HPOA = "database_id\tdisease_name\tqualifier\treference\thpo_id\tfrequency\taspect\n"


@pytest.mark.parametrize(
    ("content", "position", "reason"),
    [
        ("database_id\tx\n1\t2\n", FILE, "has a header with no column disease_name, qualifier, hpo_id, frequency, aspect"),
        (HPOA + "O:1\tFlu\t\tr\tHP:1\n", "line 2", "has 5 cells, the header has 7"),
        (HPOA + f"O:1\t{'x' * 200_000}\t\tr\tHP:7\t\tP\n", "O:1 HP:7", "names a term that the ontology does not have"),
    ],
)
def test_a_bad_row_of_annotations_is_rejected_and_the_rest_is_read(tmp_path: Path, content: str, position: str, reason: str) -> None:
    (tmp_path / "hp.obo").write_text("[Term]\nid: HP:1\nname: Skin\n")
    documents, rejected = read(tmp_path, "phenotype.hpoa", content + "O:2\tPox\t\tr\tHP:1\t1.2.3%\tP\n" * (position != FILE))
    assert rejected == [(position, reason)] and [d.topic for d in documents] == ["Pox"] * (position != FILE)


def test_entities_stay_refused_in_every_kind_of_xml(tmp_path: Path) -> None:
    for text in (MEDQUAD.split("\n", 1)[1], PUBMED.split(">", 2)[2], "<ICD10CM.tabular/>"):
        documents, rejected = read(tmp_path, "a.xml", f'<!DOCTYPE a [<!ENTITY b "{html.escape("x")}">]>{text}')
        assert not documents and rejected == [(FILE, "defines entities, which are not expanded: they can be made to fill any memory")]


def test_a_line_just_as_long_as_allowed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, taken in ((29, True), (28, False)):
        monkeypatch.setattr(streams, "MAX_RECORD", most)
        documents, rejected = read(tmp_path, "a.jsonl", '{"text": "' + "x" * 16 + '"}\n' + '{"text": "y"}\n')
        assert [d.answer for d in documents] == (["x" * 16] if taken else []) + ["y"]
        assert [position for position, _ in rejected] == ([] if taken else ["line 1"])
