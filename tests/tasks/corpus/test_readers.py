"""Readers of raw files, on good and bad input."""

import base64
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers.readers import MEDQUAD, PUBMED, fhir_note, read

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers import csv_rows
from tasks.corpus.readers.files import options_for, raw_files, read_file, unmatched
from tasks.corpus.readers.records import FILE, FileOptions


def test_a_table_may_have_bom_other_case_and_newlines_in_cells(tmp_path: Path) -> None:
    text = '\ufeffQUESTION, Answer ,split\r\n"What is\r\nthis?","A ""thing"", so\nto say",Valid\r\n'
    (document,), rejected = read(tmp_path, "a.csv", text)
    assert (document.question, document.answer, document.split) == ("What is\r\nthis?", 'A "thing", so\nto say', "validation")
    assert not rejected and document.position == "line 2"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "|"), ("a.tsv", "\t"), ("a.csv", "\t")])
def test_encodings_and_delimiters_are_found_or_told(tmp_path: Path, encoding: str, name: str, delimiter: str) -> None:
    text = f"Answer{delimiter}Question\nMénière{delimiter}Qué?\n"
    options = {"encoding": encoding} if encoding in ("utf-16-le", "latin-1") else {}
    documents, rejected = read(tmp_path, name, text.encode(encoding), **options)
    assert [(d.question, d.answer) for d in documents] == [("Qué?", "Ménière")] and not rejected


def test_every_bad_row_is_rejected_with_its_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        b"Question,Answer,split",
        b"q2,a2,",
        b"q3,nan,",
        b"q4",
        b"q5,a5,tset",
        b"",
        b'q7,"two',
        b'lines",train',
        b"q9,\xe9\xe8,",
        b"q10,a\x0010,",
        b'q11,"never closed,',
        b"q12,a12,",
        b'q13,"a13" and more,',
        b'q14,"a14, quoted",TEST',
        b"=HYPERLINK(1),<|im_end|>,",
        b"q16,a16,,,",
        b"q17,N/A,",
    ]
    documents, rejected = read(tmp_path, "a.csv", b"\n".join(lines))
    assert [d.question for d in documents] == ["q2", "q7", "q12", "q14", "=HYPERLINK(1)"]
    assert [d.answer for d in documents] == ["a2", "two\nlines", "a12", "a14, quoted", "<|im_end|>"]
    assert rejected == [
        ("line 3", "has no answer"),
        ("line 4", "has 1 cells, the header has 3"),
        ("line 5", "has an unknown split"),
        ("line 9", "holds bytes that are not in the file's encoding"),
        ("line 10", "holds NUL bytes"),
        ("line 11", "has a quote that is not closed or stands in a wrong place"),
        ("line 13", "has a quote that is not closed or stands in a wrong place"),
        ("line 16", "has 5 cells, the header has 3"),
        ("line 17", "has no answer"),
    ]


def test_many_unclosed_quotes_cost_neither_lines_nor_the_square_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "MAX_QUOTED", 200_000)
    monkeypatch.setattr(csv_rows, "REDUCED_MAX_QUOTED", 2_000)
    rows = [f'q{n},"a{n}' if n % 50 == 1 else f"q{n},a{n}" for n in range(20_000)]
    documents, rejected = read(tmp_path, "a.csv", "Question,Answer\n" + "\n".join(rows))
    assert len(documents) == 19_600 and len(rejected) == 400


@pytest.mark.slow
def test_a_cell_may_be_very_large(tmp_path: Path) -> None:
    documents, rejected = read(tmp_path, "a.csv", f'Question,Answer\nq,"{"long line" * 10 + chr(10)}{"x" * 30_000_000}"\nq2,a2\n')
    assert [len(d.answer) for d in documents] == [30_000_091, 2] and not rejected


def test_columns_of_other_names_are_mapped_by_the_files_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Nr,Frage,ANTWORT,Fokus\n7,Was?,Das.,x\n,Wo?,Da.,x\n")
    options = {"*.csv": FileOptions(columns={"question": "Frage", "answer": "Antwort", "topic": "fokus", "id": "nr"})}
    document, bad = read_file(tmp_path, "a.csv", options_for("a.csv", options))
    assert isinstance(document, Document) and (document.question, document.answer, document.topic, document.group) == (
        "Was?",
        "Das.",
        "x",
        "topic:x",
    )
    assert isinstance(bad, Rejected) and bad.reason == "has no id"
    (tmp_path / "a.csv").write_text("Nr,Frage,ANTWORT,Fokus\n7,Was?,Etwas anderes.,x\n")
    (changed,) = read_file(tmp_path, "a.csv", options_for("a.csv", options))
    assert isinstance(changed, Document) and changed.id == document.id  # it is the corpus's own
    assert unmatched(["a.csv"], ["*.csv", "b/*"]) == ["b/*"]


def test_json_lines_may_hold_questions_texts_instructions_and_conversations(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "h1"}, {"from": "gpt", "value": "g1"}]
    lines: list[Any] = [
        {"Question": "q1", "Answer": "a1", "group": "g"},
        {"text": "Running text."},
        {"instruction": "Explain.", "input": "This.", "output": "That."},
        {"conversations": [*turns, {"from": "human", "value": "h2"}, {"from": "gpt", "value": "g2"}]},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
    ]
    documents, rejected = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [(d.question, d.answer, d.category) for d in documents] == [
        ("q1", "a1", "qa-a"),
        ("", "Running text.", "text-a"),
        ("Explain.\n\nThis.", "That.", "qa-a"),
        ("h2", "g2", "chat-a"),
        ("u", "a", "qa-a"),
    ]
    assert documents[3].before == (("system", "s"), ("user", "h1"), ("assistant", "g1")) and not rejected


def test_what_stands_for_no_value_makes_no_group(tmp_path: Path) -> None:
    rows = "Question,Answer,group,topic\nq1,a1,NA,nan\nq2,a2,NA,nan\nq3,a3,p1,nan\nq4,a4,,Asthma\n"
    one, two, patient, asthma = read(tmp_path, "a.csv", rows)[0]
    assert one.group != two.group and one.group.startswith("question:") and one.topic == ""
    assert (patient.group, asthma.group) == ("qa:p1", "topic:asthma")


@pytest.mark.parametrize(("name", "category"), [("a.txt", "text"), ("notes/ward/Mr_A.txt", "text-notes-ward")])
def test_text_files_of_a_directory_are_of_one_category(tmp_path: Path, name: str, category: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    assert [d.category for d in read(tmp_path, name, "Running text.")[0]] == [category]


def test_every_bad_line_of_json_is_rejected_with_its_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        b'{"Question": "q1", "Answer": "a1"}',
        b"{broken",
        b"[1]",
        b'{"question": "q", "answer": 7}',
        b"",
        b'{"question": "q", "answer": "\\ud800"}',
        b'{"question": "q", "answer": NaN}',
        b'{"question": "q", "answer": "\xff"}',
        b'{"messages": [{"role": "user", "content": "u"}]}',
        b'{"messages": [{"role": "doctor", "content": "u"}]}',
        b'{"messages": ["u"]}',
        b'{"text": "null"}',
        b"[" * 100_000,
        b'{"question": "q14", "answer": "a14"}',
    ]
    documents, rejected = read(tmp_path, "a.jsonl", b"\n".join(lines))
    assert [d.question for d in documents] == ["q1", "q14"]
    assert rejected == [
        ("line 2", "is not JSON"),
        ("line 3", "is not a JSON object"),
        ("line 4", "has a question, answer, text, split or group that is not text"),
        ("line 6", "holds half a character"),
        ("line 7", "is not JSON"),
        ("line 8", "holds bytes that are not in the file's encoding"),
        ("line 9", "has messages that do not end in a user's and the assistant's"),
        ("line 10", "has a message of an unknown role"),
        ("line 11", "has messages that are not a list of JSON objects"),
        ("line 12", "has no text"),
        ("line 13", "is not JSON"),
    ]


def test_parquet_rows_become_documents(tmp_path: Path) -> None:
    table = pyarrow.table({"Question": ["q1", "q2", None], "Answer": ["a1", None, "a3"], "n": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    documents, rejected = read(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes())
    assert [(d.question, d.answer, d.position) for d in documents] == [("q1", "a1", "row 1")]
    assert rejected == [("row 2", "has no answer"), ("row 3", "has no question")]
    _, rejected = read(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes()[:-20])
    assert rejected == [(FILE, "cannot be read as Parquet after row 0")]


def test_a_text_is_one_document_or_parts_of_one_group(tmp_path: Path) -> None:
    (one,), _ = read(tmp_path, "a.md", "# Fever\n\nA sign.\n")
    assert (one.question, one.answer) == ("", "# Fever\n\nA sign.")
    paragraphs = [f"Paragraph {n} " + "word " * 500 for n in range(40)]
    parts, rejected = read(tmp_path, "b.txt", "\n\n".join(paragraphs) + "\n" + "x" * 50_000)
    assert len(parts) > 3 and len({d.group for d in parts}) == 1 and not rejected
    assert "".join(" ".join(d.answer for d in parts).split()) == "".join("".join(paragraphs).split()) + "x" * 50_000


def test_medquads_files_keep_type_focus_and_synonyms(tmp_path: Path) -> None:
    (document,), rejected = read(tmp_path, "a.xml", MEDQUAD)
    assert (document.category, document.topic, document.aliases, document.answer) == ("medquad-symptoms", "Asthma", ("Wheeze",), "Cough.")
    assert rejected == [("pair 2", "has no answer")]


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz"])
def test_pubmeds_articles_become_running_text_with_its_sections(tmp_path: Path, name: str) -> None:
    (document,), rejected = read(tmp_path, name, gzip.compress(PUBMED.encode()) if name.endswith("gz") else PUBMED)
    assert document.answer == "On E. coli\n\nAIM: To see CO2.\nIt was seen." and document.question == ""
    assert rejected == [("article 2", "has no abstract")]


def test_fhir_notes_become_texts_grouped_by_patient_without_naming_one(tmp_path: Path) -> None:
    def attachment(text: str, kind: str) -> dict[str, Any]:
        return {"attachment": {"contentType": kind, "data": base64.b64encode(text.encode()).decode()}}

    lines = [
        fhir_note(
            content=[attachment("Coughs.", "text/plain"), attachment("<p>Fever.</p><p>Rash &amp; pain.</p>", "text/html; charset=utf-8")]
        ),
        fhir_note(resourceType="DiagnosticReport", conclusion="No finding."),
        fhir_note(resourceType="Patient"),
        fhir_note(content=[{"attachment": {"url": "Binary/1"}}]),
        fhir_note(content=[{"attachment": {"contentType": "application/pdf", "data": "AAAA"}}]),
        fhir_note(content=[{"attachment": {"data": "*"}}]),
        fhir_note(content=["x"]),
        fhir_note(),
        "{",
    ]
    documents, rejected = read(tmp_path, "a.ndjson", "\n".join(lines))
    assert [d.answer for d in documents] == ["Coughs.", "Fever.\n\nRash & pain.", "No finding."]
    assert len({d.group for d in documents}) == 1 and "17" not in documents[0].group.split(":")[0]
    assert rejected == [
        ("line 4", "refers to a Binary that is not in the export"),
        ("line 5", "holds a note that is neither text, HTML, RTF nor a clinical document"),
        ("line 6", "holds a note that is not base64"),
        ("line 7", "does not have the structure of its resource type"),
        ("line 8", "holds no note"),
        ("line 9", "is not JSON"),
    ]


@pytest.mark.slow
def test_a_long_file_of_articles_is_not_kept_in_memory(tmp_path: Path) -> None:
    article = PUBMED.split("<PubmedArticleSet>")[1].split("\n<PubmedArticle>", maxsplit=1)[0]
    (tmp_path / "a.xml").write_text(f"<PubmedArticleSet>{article * 5_000}</PubmedArticleSet>")
    records = read_file(tmp_path, "a.xml")
    next(records)
    tracemalloc.start()
    assert sum(1 for _ in records) == 4_999
    assert tracemalloc.get_traced_memory()[1] < (tmp_path / "a.xml").stat().st_size / 4
    tracemalloc.stop()


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><PubmedArticleSet>&c;</PubmedArticleSet>'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"Frage,Answer\nx,y\n", "has a header with no column Question"),
        ("a.csv", b"Question,Answer,answer\nx,y,z\n", "has a header that repeats answer"),
        ("a.csv", b"Question,Answer\n", "holds no records"),
        ("a.csv", b"\n\n", "holds no records"),
        ("a.csv", bytes(range(256)) * 20 + b"\0" * 500, "is not text"),
        ("a.jsonl.gz", b"\x1f\x8b\x08broken", "is damaged"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.xml", b"<ICD10CM.tabular><section>", "is not well-formed XML in line 1"),
        ("a.xml", b"<html/>", "is XML of a kind that is not read"),
        ("a.xml", BOMB.encode(), "defines entities"),
        ("a.xml.gz", gzip.compress(PUBMED.encode())[:-30], "is damaged"),
        ("a.hpoa", b"database_id\n", "needs hp.obo beside it"),
        ("a.docx", b"PK", "is of a kind that is not read (.docx)"),
        ("notes", b"x", "is of a kind that is not read (no ending)"),
        ("a.obo", b"not an ontology", "is not an OBO file"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected_whole(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    documents, rejected = read(tmp_path, name, content)
    position, reason = rejected[-1]
    assert position == FILE and reason.startswith(expected.split(" (", maxsplit=1)[0])
    assert not documents or name == "a.xml.gz"  # what came before the damage


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "x.csv" / "a.csv").write_text("Question,Answer\nq,a\n")
    assert raw_files(tmp_path) == ["x.csv/a.csv"]


def test_an_empty_corpus_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python -m tasks.corpus"):
        raw_files(tmp_path)
