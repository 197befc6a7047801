"""Tables as hospitals and databases export them, JSON, headers that say nothing to us, and encodings."""

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers.readers import read

from tasks.corpus.documents import Document, Rejected, Skipped
from tasks.corpus.readers import json_values, streams
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FILE, FileOptions

OMOP = "note_id,person_id,note_event_id,note_date,note_type_concept_id,note_class_concept_id,note_title,note_text,encoding_concept_id\n"


MIMIC = '"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CHARTTIME","STORETIME","CATEGORY","DESCRIPTION","CGID","ISERROR","TEXT"\n'


def records(directory: Path, name: str, content: bytes | str) -> list[Any]:
    (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(directory, name))


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_omops_notes_are_texts_of_persons_under_their_titles(tmp_path: Path, change: Any) -> None:
    rows = '1,17,,2019-03-21,44814637,0,Ward round,"Coughs.\nNo fever.",0\n'
    rows += "2,0,,2019-03-22,1,0,,Well.,0\n3,17.0,,2019-03-22,1,0,Note,Note: rash.,0\n"
    documents, rejected = read(tmp_path, "note.csv", change(OMOP) + rows)
    assert [(d.question, d.answer, d.group) for d in documents] == [
        ("", "Ward round\n\nCoughs.\nNo fever.", "qa:17"),
        ("", "Well.", "qa:0"),
        ("", "Note: rash.", "qa:17"),
    ]
    assert not rejected


def test_mimics_notes_are_grouped_by_subject_and_those_in_error_skipped(tmp_path: Path) -> None:
    rows = '1,22532,167853,2151-08-04,,,"Discharge summary","Report",,,"Admission: well.\nPlan: home."\n'
    rows += '2,22532,1,,,,"Nursing","Report",,1,"Wrong patient."\n'
    first, skipped = records(tmp_path, "NOTEEVENTS.csv.gz", gzip.compress((MIMIC + rows).encode()))
    assert isinstance(first, Document) and (first.answer, first.group) == ("Admission: well.\nPlan: home.", "qa:22532")
    assert skipped == Skipped("NOTEEVENTS.csv.gz", "line 4", "is marked as written in error")
    header = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
    for name in ("discharge.csv", "radiology.csv"):
        ((document,), _) = read(tmp_path, name, header + '10000032-DS-21,10000032,22595853,DS,21,t,t,"Sex: F\n"\n')
        assert (document.answer, document.group) == ("Sex: F", "qa:10000032")


def test_whole_numbers_are_names_of_groups_and_ids_and_zero_is_one(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a one", "b two", "c three", "d four"], "group": [0.0, 17.0, None, 17.5]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    documents, _ = read(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes())
    assert [d.group.split(":")[:2] for d in documents if "record" not in d.group] == [["qa", "0"], ["qa", "17"], ["qa", "17.5"]]
    lines = [{"question": "q", "answer": f"a{n}", "group": group} for n, group in enumerate((0, "0", 17, 17.0, "17.0", False))]
    documents, rejected = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [d.group for d in documents] == ["qa:0", "qa:0", "qa:17", "qa:17", "qa:17", "qa:false"] and not rejected
    ids = [{"text": "x y", "nr": value} for value in (0, 0.0, "0", 5)]
    documents, _ = read(tmp_path, "b.jsonl", "\n".join(map(json.dumps, ids)), columns={"id": "nr"})
    assert len({d.id for d in documents}) == 2 and len(documents) == 4


@pytest.mark.parametrize(
    ("line", "question", "answer"),
    [
        (r'"He said \"ouch\"","a ""b"" c"', 'He said "ouch"', 'a "b" c'),
        (r'"one\ntwo","a \\ b"', "one\ntwo", r"a \ b"),
        (r'q,"ends with \"quote\""', "q", 'ends with "quote"'),
        (r'"it\'s","a, b"', "it's", "a, b"),
    ],
)
def test_the_escapes_of_databases_are_undone(tmp_path: Path, line: str, question: str, answer: str) -> None:
    documents, rejected = read(tmp_path, "a.csv", f'Question,Answer,group\n"q \\"0\\" x",a,\\N\n{line},\\N\nlast,"a last one",\\N\n')
    assert [(d.question, d.answer) for d in documents[1:]] == [(question, answer), ("last", "a last one")] and not rejected
    assert all(d.group.startswith("question:") for d in documents)


def test_a_copy_of_postgresql_has_tabs_escapes_and_bare_quotes(tmp_path: Path) -> None:
    text = 'question\tanswer\ttopic\n"Ouch" she said\tone\\ntwo\\tthree\t\\N\nq2\t"Yes", he said\t\\N\nq3\t\\N\t\\N\n'
    documents, rejected = read(tmp_path, "a.tsv", text)
    assert [(d.question, d.answer) for d in documents] == [('"Ouch" she said', "one\ntwo\tthree"), ("q2", '"Yes", he said')]
    assert rejected == [("line 4", "has no answer")] and documents[0].topic == ""


def test_a_line_break_behind_a_backslash_ends_no_row(tmp_path: Path) -> None:
    documents, rejected = read(tmp_path, "a.csv", "Question,Answer,group\nq1,one\\\ntwo,\\N\nq2,a2,\\N\n")
    assert [(d.answer, d.position) for d in documents] == [("one\ntwo", "line 2"), ("a2", "line 4")] and not rejected


def test_backslashes_of_a_file_without_escapes_stay(tmp_path: Path) -> None:
    documents, _ = read(tmp_path, "a.csv", 'Question,Answer\nWhere?,C:\\new\\table\nq,"a \\ b, c"\n')
    assert [d.answer for d in documents] == ["C:\\new\\table", "a \\ b, c"]


def test_excels_first_line_says_the_delimiter(tmp_path: Path) -> None:
    for first in ("sep=;", '\ufeff"sep=;"', "sep=|"):
        delimiter = first.strip('"')[-1]
        documents, rejected = read(tmp_path, "a.csv", f"{first}\r\nQuestion{delimiter}Answer\r\nq{delimiter}a, b\r\n")
        assert [(d.question, d.answer, d.position) for d in documents] == [("q", "a, b", "line 3")] and not rejected


@pytest.mark.parametrize(
    ("name", "value", "answers"),
    [
        ("a.json", [{"question": "q", "answer": "a1"}, {"text": "t2"}], ["a1", "t2"]),
        ("a.json.gz", {"version": 2, "data": [{"question": "q", "answer": "a1"}]}, ["a1"]),
        ("b.json", {"question": "q", "answer": "a1"}, ["a1"]),
        ("c.json", [{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}], ["a"]),
        ("d.json", {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}, ["a"]),
    ],
)
def test_json_may_be_an_array_or_an_object_with_one_list(tmp_path: Path, name: str, value: Any, answers: list[str]) -> None:
    content = json.dumps(value, indent=1).encode()
    documents, rejected = read(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    assert [d.answer for d in documents] == answers and documents[0].position == "item 1" and not rejected


def test_every_bad_item_of_an_array_is_rejected_and_the_rest_is_kept(tmp_path: Path) -> None:
    content = '[{"text": "one"}, 7, {"text": "a", "text": "b"}, {"text": NaN}, {"text": "\\ud800"}, {"text": "two"}]'
    documents, rejected = read(tmp_path, "a.json", content)
    assert [d.answer for d in documents] == ["one", "two"]
    assert rejected == [
        ("item 2", "is not a JSON object"),
        ("item 3", "repeats a key, of which JSON keeps only the last"),
        ("item 4", "is not JSON"),
        ("item 5", "holds half a character"),
    ]
    for broken, reason in (
        ('[{"text": "one"}, {"te', "is not JSON after item 1"),
        ('[{"text": "one"}] x', "goes on after the end"),
        ("", "is empty"),
    ):
        documents, rejected = read(tmp_path, "b.json", broken)
        assert rejected[-1][0] == FILE and rejected[-1][1].startswith(reason) and len(documents) == (1 if broken else 0)
    _, rejected = read(tmp_path, "c.json", json.dumps({"a": [{"text": "x"}], "b": [{"text": "y"}]}))
    assert rejected == [(FILE, "is a JSON object with 2 lists of objects; only one with a single list is read")]


def test_long_arrays_are_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MAX_RECORD", 1 << 18)
    documents, rejected = read(tmp_path, "a.json", json.dumps([{"text": f"{n} " + "x" * 100_000} for n in range(30)]))
    assert len(documents) == 30 and not rejected
    _, rejected = read(tmp_path, "b.json", json.dumps([{"text": "one"}, {"text": "x" * 1_000_000}]))
    assert rejected == [(FILE, "has no whole record after item 1 within 0 million characters")]


def test_a_number_of_any_length_is_a_group(tmp_path: Path) -> None:
    groups = pyarrow.array([Decimal(10) ** 30, Decimal(7)], pyarrow.decimal128(38, 0))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"], "group": groups}), tmp_path / "b.parquet")
    documents, rejected = read(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes())
    assert [d.group for d in documents] == [f"qa:{10**30}", "qa:7"] and not rejected


HEADERS = [
    ("Nr;Frage;Antwort;Krankheit", "{question: Frage, answer: Antwort, topic: Krankheit}"),
    ("id,pregunta,respuesta", "{question: pregunta, answer: respuesta}"),
    ("Pytanie;Odpowiedź;Temat", "{question: Pytanie, answer: Odpowiedź, topic: Temat}"),
    ("Soru;Cevap", "{question: Soru, answer: Cevap}"),
    ("Domanda,Risposta", "{question: Domanda, answer: Risposta}"),
    ("Question,Réponse", "{question: Question, answer: Réponse}"),
    ("patient_id,date,Befund", "{text: Befund, group: patient_id}"),
    ("id,report,impression", "{text: report}"),
    ("PatNr;Aufnahme;Befundtext", "{text: Befundtext}"),
    ("mrn,Discharge Summary", "{text: Discharge Summary, group: mrn}, patient: {MRN: mrn}"),
    ("PatID,First,Last,DOB,Author,Note", "{text: Note, group: PatID}, patient: {NAME: [First, Last], DATE: DOB}, staff: {NAME: Author}"),
    ("Patient_ID;Vorname;Nachname;PLZ", "{group: Patient_ID}, patient: {NAME: [Vorname, Nachname], ZIP: PLZ}"),
]


@pytest.mark.parametrize(("header", "mapping"), HEADERS)
def test_a_header_of_other_names_is_shown_with_the_line_to_write(tmp_path: Path, header: str, mapping: str) -> None:
    (problem,) = records(tmp_path, "x.csv", f"{header}\n")
    assert f'write into params.yaml: preprocess: {{files: {{"x.csv": {{columns: {mapping}}}}}}}' in problem.reason
    names = next(csv.reader([header.replace(";", ",")]))
    assert all((name in problem.reason) != (name in ("PatNr", "Aufnahme")) for name in names)  # which may be values
    assert ("and 2 more" in problem.reason) == ("PatNr" in names)


def test_the_line_of_a_message_is_what_makes_the_file_readable(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    name = "a [1], 'x'.csv"
    (problem,) = records(tmp_path, name, "Nr;Frage: kurz;Antwort\n1;q;a\n")
    line = problem.reason.partition("params.yaml, with its names for ours: ")[2]
    files = YAML(typ="safe").load(line)["preprocess"]["files"]
    assert list(files.values()) == [{"columns": {"question": "NAME", "answer": "Antwort"}}]
    (pattern,) = files
    from tasks.corpus.readers.files import options_for

    options = {pattern: FileOptions(columns={"question": "Frage: kurz", "answer": "Antwort"})}
    assert [r.answer for r in read_file(tmp_path, name, options_for(name, options)) if isinstance(r, Document)] == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        "Anna Smith;1950-12-19;Asthma",
        "What helps?;Rest helps.",
        "Anna Smith;Asthma",
        "7;8",
        "Anna Smith;no;Asthma",
        "Anna Smith;Note;Asthma",
        "DOE_JOHN;CT_HEAD",
    ],
)
def test_a_first_line_that_may_be_a_record_is_not_shown(tmp_path: Path, line: str) -> None:
    (problem,) = records(tmp_path, "x.csv", f"{line}\n{line}\n")
    assert not any(cell in problem.reason for cell in line.split(";") if len(cell) > 4) and "may be a record" in problem.reason


def test_keys_of_json_that_say_nothing_are_shown_with_the_line_to_write(tmp_path: Path) -> None:
    (problem,) = records(tmp_path, "x.jsonl", json.dumps({"frage": "Was?", "antwort": "Das."}))
    assert "{question: frage, answer: antwort}" in problem.reason and "Was" not in problem.reason and problem.position == "line 1"


def test_names_that_may_be_values_are_not_shown(tmp_path: Path) -> None:
    (problem,) = records(tmp_path, "x.csv", "Disease;Report_text_old;Diagnosis;John Doe\n")
    assert "Its columns: Disease, Diagnosis and 2 more" in problem.reason and "Doe" not in problem.reason
    (problem,) = records(tmp_path, "x.jsonl", json.dumps({"date": 1, "status": 2, "John_Doe": 3}))
    assert "date, status and 1 more" in problem.reason and "Doe" not in problem.reason


def test_a_list_takes_the_fields_of_its_object(tmp_path: Path) -> None:
    value = [{"patient_id": n, "id": "x", "notes": [{"text": f"one {n}"}, {"text": f"two {n}", "patient_id": 9}]} for n in (7, 8)]
    (tmp_path / "x.json").write_text(json.dumps(value[0]) + json.dumps(value[1]))
    options = FileOptions(columns={"group": "patient_id"})
    documents = [r for r in read_file(tmp_path, "x.json", options) if isinstance(r, Document)]
    assert [(d.answer, d.group) for d in documents] == [("one 7", "qa:7"), ("two 7", "qa:9"), ("one 8", "qa:8"), ("two 8", "qa:9")]


TEXTS = {
    "cp1252": "Frage;Häufige Müdigkeit, größer – „üblich“",
    "mac_roman": "Häufige Müdigkeit, größer als üblich",
    "cp1250": "Pacjent skarży się na ból głowy, gorączkę i zmęczenie, żółtaczka",
    "iso8859_2": "Pacjent skarży się na ból głowy, gorączkę i zmęczenie, żółtaczka",
    "cp1254": "Hasta ateş ve öksürük şikayetiyle başvurdu. Göğüs ağrısı değil.",
    "cp1251": "Пациент жалуется на головную боль и высокую температуру.",
    "koi8_r": "Пациент жалуется на головную боль и высокую температуру.",
    "utf_16_le": "Häufige Müdigkeit",
    "utf_16_be": "Häufige Müdigkeit",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.csv.gz", "a.jsonl", "a.json"])
def test_an_encoding_is_found_out_and_told(tmp_path: Path, encoding: str, name: str) -> None:
    text = TEXTS[encoding].replace(",", "")
    content = {"csv": f"text\n{text}\n", "txt": text, "jsonl": f'{{"text": "{text}"}}\n', "json": f'[{{"text": "{text}"}}]'}[
        name.split(".")[1]
    ]
    data = content.encode(encoding)
    told, document = records(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)
    assert (told.source, told.encoding, document.answer) == (name, encoding, text)


def test_where_two_encodings_fit_nothing_is_guessed(tmp_path: Path) -> None:
    rows = "Question,Answer\n" + "".join(f"What is Menière {n}?,An illness.\n" for n in range(20))
    (problem,) = records(tmp_path, "x.csv", rows.encode("cp1252"))
    assert problem.position == FILE and "(cp1252, cp1250)" in problem.reason
    assert problem.reason.endswith('preprocess: {files: {"x.csv": {encoding: cp1252}}}')
    documents, rejected = read(tmp_path, "x.csv", rows.encode("cp1252"), encoding="cp1252")
    assert len(documents) == 20 and not rejected


def test_damage_in_utf8_costs_its_rows_alone(tmp_path: Path) -> None:
    good = [f"q{n},Ménière {n}".encode() for n in range(20)]
    documents, rejected = read(tmp_path, "a.csv", b"\n".join([b"Question,Answer", *good, b"q,\xe9\xe8", b"q,\xe9"]))
    assert len(documents) == 20 and rejected == [(f"line {n}", "holds bytes that are not in the file's encoding") for n in (22, 23)]


def test_the_encoding_is_that_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.corpus.readers import encodings

    monkeypatch.setattr(encodings, "PIECE", 1 << 10)
    monkeypatch.setattr(encodings, "SAMPLE", 1 << 8)
    lines = "text\n" + "".join(f"Häufige Müdigkeit {n}\n" for n in range(500))
    told, *documents = records(tmp_path, "a.csv", lines.encode("cp1252"))
    assert told.encoding == "cp1252" and len(documents) == 500
    assert all(isinstance(r, Rejected) for r in records(tmp_path, "b.csv", lines.encode("cp1252") + b"text \x81\n"))
    assert streams.open_text(tmp_path / "a.csv", FileOptions(encoding="cp1252")).read() == lines
