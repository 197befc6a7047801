"""Whole exports through pass 1, and what their bad parts cost: counts, who is named where, memory."""

import base64
import json
import logging
import stat
import zlib
from pathlib import Path

import pytest

from tasks.corpus.cleaning import known_people, passes
from tasks.corpus.cleaning.rule_counts import RuleCounts
from tasks.corpus.documents import Document, Rejected
from tasks.corpus.extraction.definitions import NO_TASKS
from tasks.corpus.readers.files import options_for, raw_files, read_file
from tasks.corpus.readers.indexing import write_index
from tasks.corpus.readers.records import FILE, FileOptions
from tasks.corpus.readers.source_index import FILE_NAME
from tasks.corpus.report import _funnel_section


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def note(text: str, **fields: object) -> str:
    attachment = {"contentType": "text/plain", "data": encoded(text)}
    resource = {"resourceType": "DocumentReference", "subject": {"reference": "Patient/17"}, "content": [{"attachment": attachment}]}
    return json.dumps(resource | fields)


def test_what_is_skipped_is_counted_apart_and_who_is_named_stays_in_the_work_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, work, counts = tmp_path / "data", tmp_path / "work", RuleCounts()
    data.mkdir()
    work.mkdir(mode=0o700)
    patient = {"resourceType": "Patient", "id": "17", "name": [{"text": "Zebulon\nQuartermain"}], "birthDate": "1950-12-19"}
    (data / "Patient.ndjson").write_text(json.dumps(patient))
    (data / "notes.ndjson").write_text("\n".join([note("Coughs."), note("Wrong.", status="entered-in-error"), "{"]))
    names = raw_files(data)
    write_index(data, {name: options_for(name, {}) for name in names}, work / FILE_NAME)
    with caplog.at_level(logging.DEBUG):
        for i, name in enumerate(names):
            counts.merge(passes.read(data, [(name, "", FileOptions())], i, passes.Intake(30_000, NO_TASKS, ()), work))
    rows = list(counts.rows())
    assert {(row["step"], row["source"], row["rule"]): row["records"] for row in rows if row["step"] != "records"} == {
        ("read", "notes.ndjson", "is not JSON"): 1,
        ("skipped", "Patient.ndjson", "is a FHIR Patient, which holds no note"): 1,
        ("skipped", "notes.ndjson", "has the status entered-in-error"): 1,
    }
    assert (counts.total("records"), counts.total("read"), counts.total("skipped")) == (1, 1, 2)
    section = _funnel_section(rows)
    assert "no text to train on" in section["funnel_picture"] and sum(row["records"] for row in section["removed"]) == 3
    (person,) = known_people.read_known(work)
    assert person.identifiers == (("NAME", "Zebulon Quartermain"), ("DATE", "1950-12-19")) and person.group.startswith("patient:")
    mode = (work / "known" / "00000.jsonl").stat().st_mode
    assert not mode & (stat.S_IRWXG | stat.S_IRWXO)
    told = json.dumps(rows) + caplog.text + str(capsys.readouterr())
    told += "".join(path.read_text() for folder in ("raw", "rejected") for path in (work / folder).rglob("*.jsonl"))
    assert "Quartermain" not in told and "1950" not in told and "Patient/17" not in told


def packed(path: Path, head: bytes, piece: bytes, times: int) -> None:
    press = zlib.compressobj(wbits=31)
    path.write_bytes(press.compress(head) + b"".join(press.compress(piece) for _ in range(times)) + press.flush())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        (
            "a.ndjson.gz",
            b'{"resourceType": "DocumentReference", "content": [{"attachment": {"data": "',
            "is a gzip file that holds more than",
        ),
        (
            "a.json.gz",
            b'{"resourceType": "Bundle", "entry": [{"resource": {"x": "',
            "is a ",
        ),
        ("a.xml.gz", b'<ClinicalDocument xmlns="urn:hl7-org:v3"><title>', "is a gzip file that holds more than"),
    ],
)
def test_a_gzip_bomb_in_an_export_is_named_and_the_rest_is_read(tmp_path: Path, name: str, head: bytes, reason: str) -> None:
    packed(tmp_path / name, head, b"A" * (1 << 20), 90)
    (tmp_path / "b.ndjson").write_text(note("Coughs."))
    records = [record for name in raw_files(tmp_path) for record in read_file(tmp_path, name)]
    assert [r.answer for r in records if isinstance(r, Document)] == ["Coughs."]
    (bad,) = (r for r in records if isinstance(r, Rejected))
    assert (bad.source, bad.position) == (name, "document" if "xml" in name else FILE) and bad.reason.startswith(reason)
