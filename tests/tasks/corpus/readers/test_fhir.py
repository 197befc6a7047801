"""Folders of FHIR resources as servers export them."""

import base64
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.corpus.cleaning import known_people
from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped
from tasks.corpus.readers import attachments, fhir_resources, records, streams
from tasks.corpus.readers.files import raw_files, read_file
from tasks.corpus.readers.indexing import write_index
from tasks.corpus.readers.records import FILE, FileOptions


class Export:
    """What a folder of raw files becomes, read with one index as the pipeline does."""

    def __init__(self, data: Path):
        index = data.parent / "index.sqlite"
        index.unlink(missing_ok=True)
        write_index(data, dict.fromkeys(raw_files(data), FileOptions()), index)
        self.records = [(name, record) for name in raw_files(data) for record in read_file(data, name, None, index)]
        self.documents = [r for _, r in self.records if isinstance(r, Document)]
        self.texts = [d.answer for d in self.documents]
        self.rejected = [(n, r.position, r.reason) for n, r in self.records if isinstance(r, Rejected)]
        self.skipped = [r.reason for _, r in self.records if isinstance(r, Skipped) and "holds no note" not in r.reason]
        self.people = [r for _, r in self.records if isinstance(r, KnownPerson)]

    def reasons(self) -> list[str]:
        return [reason.split(" (")[0] for _, _, reason in self.rejected]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(data: Path, name: str, *resources: dict[str, Any] | str) -> None:
    text = "\n".join(resource if isinstance(resource, str) else json.dumps(resource) for resource in resources)
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    (data / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def encoded(text: str | bytes, width: int = 0) -> str:
    code = base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
    return "\r\n".join(code[i : i + width] for i in range(0, len(code), width)) if width else code


def note(text: str | bytes = "Coughs.", type_: str | None = "text/plain", patient: Any = "Patient/17", **fields: Any) -> dict[str, Any]:
    attachment = {"data": encoded(text)} | ({"contentType": type_} if type_ is not None else {})
    subject = {"reference": patient} if isinstance(patient, str) else patient
    return {"resourceType": "DocumentReference", "status": "current", "subject": subject, "content": [{"attachment": attachment}]} | fields


def attached(**attachment: Any) -> dict[str, Any]:
    return note(content=[{"attachment": attachment}])


def bundle(*resources: dict[str, Any], **fields: Any) -> dict[str, Any]:
    entries = [{"fullUrl": r.pop("fullUrl"), "resource": r} if "fullUrl" in r else {"resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | fields


XHTML = '<?xml version="1.0" encoding="UTF-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Fever</p><p>Rash</p></body></html>'
TYPES: dict[str, tuple[str | bytes, str | None, str]] = {
    "plain": ("Coughs.", "text/plain", "Coughs."),
    "no type": ("Coughs.", None, "Coughs."),
    "other case and parameters": ("Müde.".encode("latin-1"), "Text/PLAIN; format=flowed; Charset=ISO-8859-1", "Müde."),
    "html": ("<p>Fever</p><p>Rash</p>", "text/html; charset=utf-8", "Fever\n\nRash"),
    "xhtml": (XHTML, "application/xhtml+xml", "Fever\n\nRash"),
    "html in the encoding that it says": ("<html><head><meta charset='cp1252'></head><p>Müde".encode("cp1252"), "text/html", "Müde"),
    "rtf": (rb"{\rtf1\ansi Fever\par Rash}", "application/rtf", "Fever\nRash"),
    "rtf as text": (rb"{\rtf1\ansi Fever\par Rash}", "text/rtf; charset=us-ascii", "Fever\nRash"),
    "utf-16 with a mark": ("Müde.".encode("utf-16"), "text/plain", "Müde."),
    "html without a type": ("<html><body><p>Fever</p></body></html>", "application/octet-stream", "Fever"),
}


@pytest.mark.parametrize("name", TYPES)
def test_attachments_are_read_by_their_type(data: Path, name: str) -> None:
    content, type_, expected = TYPES[name]
    write(data, "a.ndjson", note(content, type_))
    export = Export(data)
    assert export.texts == [expected] and not export.rejected


def test_base64_may_have_line_breaks(data: Path) -> None:
    write(data, "a.ndjson", attached(contentType="text/plain", data=encoded("Coughs. " * 30, 76)))
    assert Export(data).texts == [("Coughs. " * 30).strip()]


def test_base64_of_base64_is_named_and_never_trained_on(data: Path) -> None:
    write(data, "a.ndjson", note(encoded("The patient coughs at night.", 76)), note("HbA1c6"), note("ABCDEFGHIJKLMNOPQRSTUVWX"))
    export = Export(data)
    assert export.reasons() == ["holds a note that is encoded twice in base64"] and export.texts == ["HbA1c6", "ABCDEFGHIJKLMNOPQRSTUVWX"]


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.jsonl", "b/DocumentReference/1.ndjson"])
def test_notes_are_read_from_lines(data: Path, name: str) -> None:
    write(data, name, note())
    assert Export(data).texts == ["Coughs."]


@pytest.mark.parametrize("form", ["file", "alphabetical", "line", "nested", "resource", "gz"])
def test_notes_are_read_from_bundles(data: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_resources, "_HEAD", 400)  # entries are divided among several pieces
    several = bundle(note("One."), {"resourceType": "Patient", "id": "17"}, note("Two."), note("Three " * 200))
    if form == "line":
        write(data, "a.ndjson", several)
    elif form == "nested":
        write(data, "a.ndjson", bundle(several))
    elif form == "resource":
        write(data, "a.json", note("One."))
    else:
        text = json.dumps(several, indent=(form == "file" and 2) or None, sort_keys=form == "alphabetical")
        write(data, "a.json.gz" if form == "gz" else "a.json", text)
    export = Export(data)
    assert export.texts == ["One.", "Two.", ("Three " * 200).strip()][: 1 if form == "resource" else 3] and not export.rejected


def test_other_resources_are_skipped_by_name_and_what_is_none_is_rejected(data: Path) -> None:
    write(data, "a.ndjson", {"resourceType": "Observation"}, {"resourceType": "Ann Smith"}, {"x": 1}, note(), "{")
    write(data, "manifest.json", {"transactionTime": "2026", "output": []})
    write(data, "sub/x.json", {"text": 1})
    export = Export(data)
    assert [r.reason for _, r in export.records if isinstance(r, Skipped)] == ["is a FHIR Observation, which holds no note"]
    assert export.rejected == [
        ("a.ndjson", "line 2", "is no FHIR resource"),
        ("a.ndjson", "line 3", "is no FHIR resource"),
        ("a.ndjson", "line 5", "is not JSON"),
        ("sub/x.json", "item 1", "has a question, answer, text, split or group that is not text"),
    ]


def test_json_beside_resources_is_skipped(data: Path) -> None:
    write(data, "fhir/a.ndjson", note())
    write(data, "fhir/manifest.json", {"output": []})
    assert Export(data).skipped == ["is JSON beside FHIR resources and none itself, such as the manifest of an export"]


COMPOSITION = {
    "resourceType": "Composition",
    "status": "final",
    "title": "Discharge summary",
    "subject": {"reference": "Patient/17"},
    "section": [
        {
            "title": "Course",
            "text": {"status": "generated", "div": "<div><p>Fever.</p></div>"},
            "section": [
                {
                    "title": "Labs",
                    "text": {"div": "<div><table><tr><td>Sodium</td><td>140</td></tr></table></div>"},
                }
            ],
        },
        {"title": "Empty", "entry": [{"reference": "Composition/1"}]},
        {"code": {"text": "Plan"}, "text": {"div": "<div>Rest.</div>"}},
    ],
}


def test_notes_are_read_from_all_types_that_hold_them(data: Path) -> None:
    report = {"resourceType": "DiagnosticReport", "status": "final", "subject": {"reference": "Patient/17"}}
    form = {"contentType": "text/plain", "data": encoded("Chest x-ray.\nNo finding.")}
    impression = {"resourceType": "ClinicalImpression", "description": "Day 1.", "summary": "Better.", "note": [{"text": "Rest."}]}
    write(
        data,
        "a.ndjson",
        COMPOSITION,
        COMPOSITION | {"section": [], "text": {"div": "<div>Only this.</div>"}},
        report | {"presentedForm": [form], "conclusion": "No finding."},
        report | {"presentedForm": [form], "conclusion": "Pneumonia."},
        report | {"conclusion": "Anaemia."},
        report | {"result": []},
        impression,
    )
    export = Export(data)
    assert export.texts == [
        "Discharge summary\n\nCourse\nFever.\n\nLabs\nSodium | 140\n\nPlan\nRest.",
        "Discharge summary\n\nOnly this.",
        "Chest x-ray.\nNo finding.",
        "Chest x-ray.\nNo finding.\n\nPneumonia.",
        "Anaemia.",
        "Day 1.\n\nBetter.\n\nRest.",
    ]
    assert export.skipped == ["is a FHIR DiagnosticReport without a text"] and not export.rejected
    assert len({d.group for d in export.documents[:5]}) == 1


@pytest.mark.parametrize(
    "url",
    ["Binary/b1", "https://x.org/fhir/Binary/b1", "Binary/b1/_history/2", "https://x.org/fhir/Binary/b1/_history/2", "/Binary/b1"],
)
@pytest.mark.parametrize("type_", ["text/html", None])
def test_text_is_taken_from_a_binary_of_the_folder(data: Path, url: str, type_: str | None) -> None:
    write(
        data,
        "Binary.ndjson.gz",
        {"resourceType": "Binary", "id": "b1", "contentType": "text/html", "data": encoded("<p>Fever</p><p>Rash</p>")},
    )
    write(data, "DocumentReference.ndjson", attached(url=url) if type_ is None else attached(url=url, contentType=type_))
    export = Export(data)
    assert export.texts == ["Fever\n\nRash"] and not export.rejected
    assert export.skipped == ["is a FHIR Binary, which is read where a note refers to it"]


def test_text_is_taken_from_what_a_bundle_or_a_resource_contains(data: Path) -> None:
    binary = {"resourceType": "Binary", "contentType": "text/plain", "data": encoded("In a bundle.")}
    contained = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": encoded("Contained.")}
    write(
        data,
        "a.json",
        bundle(binary | {"fullUrl": "urn:uuid:1"}, attached(url="urn:uuid:1"), attached(url="#b") | {"contained": [contained]}),
    )
    export = Export(data)
    assert export.texts == ["In a bundle.", "Contained."] and not export.rejected


def test_text_is_taken_from_a_file_of_the_data_folder_and_read_once(data: Path) -> None:
    (data.parent / "secret.txt").write_text("Secret.")
    write(data, "fhir/notes/one two.html", "<p>Fever</p>")
    write(data, "top.txt", "Top.")
    urls = [
        "notes/one%20two.html",
        "../top.txt",
        "../../secret.txt",
        "/etc/hostname",
        "file:///etc/hostname",
        "http://x.org/a.txt",
        "..",
        "",
    ]
    write(data, "fhir/a.ndjson", *(attached(url=url) for url in urls))
    export = Export(data)
    assert export.texts == ["Fever", "Top."] and len(export.rejected) == len(urls) - 2
    assert (
        export.reasons()[:5] == ["holds a note only by an address that is neither a Binary of the export nor a file of the data folder"] * 5
    )
    assert export.skipped == ["is a file that a FHIR resource refers to, with which it is read"] * 2


def test_a_binary_that_is_missing_or_cannot_be_read_is_named_and_costs_nothing_else(data: Path) -> None:
    pdf = {"resourceType": "Binary", "id": "pdf", "contentType": "application/pdf", "data": "AAAA"}
    broken = {"resourceType": "Binary", "id": "broken", "contentType": "text/plain", "data": "*"}
    twice = {"resourceType": "Binary", "id": "twice", "contentType": "text/plain", "data": encoded(encoded("The patient coughs at night."))}
    urls = ["Binary/none", "Binary/pdf", "Binary/broken", "Binary/twice", "#none"]
    write(data, "a.ndjson", pdf, broken, twice, *(attached(url=url) for url in urls), note())
    export = Export(data)
    assert export.texts == ["Coughs."] and export.reasons() == [
        "refers to a Binary that is not in the export",
        "holds a note that is neither text, HTML, RTF nor a clinical document",
        "refers to a Binary that holds a note that is not base64",
        "refers to a Binary that holds a note that is encoded twice in base64",
        "refers to a Binary that it does not contain",
    ]


def test_a_scan_beside_a_text_is_skipped_and_one_alone_is_rejected(data: Path) -> None:
    scan, text = ({"attachment": {"contentType": type_, "data": encoded("Coughs.")}} for type_ in ("application/pdf", "text/plain"))
    write(
        data, "a.ndjson", note(content=[scan, text]), note(content=[scan]), note(b"%PDF-1.4 \xff", None), note(b"\x89PNG\r\n", "image/png")
    )
    export = Export(data)
    assert export.texts == ["Coughs."] and len(export.skipped) == 1 and export.skipped[0].endswith("beside a text that is read")
    assert export.reasons() == ["holds a note that is neither text, HTML, RTF nor a clinical document"] * 3
    assert export.rejected[0][2].endswith("(application/pdf)")


def test_formats_of_one_note_are_one_note_and_others_are_others(data: Path) -> None:
    html = {"attachment": {"contentType": "text/html", "data": encoded("<ul><li>Sodium 140</li></ul><p>Rest in bed &amp; fluids</p>")}}
    text = {"attachment": {"contentType": "text/plain", "data": encoded("Sodium 140\nRest in bed & fluids")}}
    other = {"attachment": {"contentType": "text/plain", "data": encoded("Sodium 141\nRest in bed & fluids")}}
    write(data, "a.ndjson", note(content=[text, html, other]))
    export = Export(data)
    assert export.texts == ["Sodium 140\nRest in bed & fluids", "Sodium 141\nRest in bed & fluids"]
    assert export.skipped == ["is a note that its resource holds in another format too"]


CDA = (
    '<ClinicalDocument xmlns="urn:hl7-org:v3"><author><assignedAuthor><assignedPerson><name>Ann Lee</name></assignedPerson>'
    "</assignedAuthor></author>"
    "<component><structuredBody><component><section><title>Plan</title><text><paragraph>Rest.</paragraph></text></section></component>"
    "</structuredBody></component></ClinicalDocument>"
)


def test_a_clinical_document_in_a_resource_is_read_as_one(data: Path) -> None:
    write(
        data,
        "a.ndjson",
        note(CDA, "application/xml"),
        note("<a/>", "text/xml"),
        note("<!DOCTYPE a [<!ENTITY b 'x'>]><a>&b;</a>", "text/xml"),
    )
    export = Export(data)
    assert export.texts == ["Plan\nRest."] and ("NAME", "Ann Lee") in export.people[0].identifiers
    assert export.reasons() == ["holds XML that is no clinical document", "holds XML that defines entities, which are not expanded"]


def test_withdrawn_notes_are_skipped(data: Path) -> None:
    states = [{"status": "entered-in-error"}, {"status": "superseded"}, {"docStatus": "entered-in-error"}, {"docStatus": "cancelled"}]
    write(
        data,
        "a.ndjson",
        *(note(f"{i}", **state) for i, state in enumerate(states)),
        COMPOSITION | {"status": "entered-in-error"},
        note("Preliminary.", docStatus="preliminary"),
    )
    export = Export(data)
    assert export.texts == ["Preliminary."] and not export.rejected
    assert export.skipped[0] == "has the status entered-in-error" and len(export.skipped) == 5


def test_replaced_notes_are_skipped_and_a_circle_of_them_is_not_lost(data: Path) -> None:
    def replacing(id_: str, other: str, **fields: Any) -> dict[str, Any]:
        return note(f"{id_}.", id=id_, relatesTo=[{"code": "replaces", "target": {"reference": f"DocumentReference/{other}"}}], **fields)

    write(data, "a.ndjson", note("old.", id="old", docStatus="preliminary"), note("kept.", id="kept"))
    write(data, "b.ndjson", replacing("new", "old", docStatus="final"), replacing("wrong", "kept", status="entered-in-error"))
    write(data, "c.ndjson", replacing("a", "b"), replacing("b", "a"), replacing("self", "self"), replacing("x", "gone"))
    export = Export(data)
    assert export.texts == ["kept.", "new.", "a.", "b.", "self.", "x."]
    assert export.skipped == ["is a note that another replaces", "has the status entered-in-error"]


def test_of_a_notes_versions_the_newest_is_read_and_once(data: Path) -> None:
    def version(text: str, number: str, updated: str) -> dict[str, Any]:
        return note(text, id="n", meta={"versionId": number, "lastUpdated": updated})

    write(data, "a.ndjson", version("First.", "1", "2026-01-01T10:00:00Z"), version("Third.", "3", "2026-01-01T10:00:00-05:00"))
    write(data, "b.ndjson", version("Second.", "2", "2026-01-01T12:00:00Z"), version("Third.", "3", "2026-01-01T15:00:00Z"))
    write(data, "other/a.ndjson", version("Of another server.", "1", "2025-01-01T10:00:00Z"))
    export = Export(data)
    assert export.texts == ["Third.", "Of another server."]
    assert sorted(export.skipped) == ["is a note that the export holds more than once"] + ["is an older version of a note"] * 2


MRN = {"system": "urn:oid:1.2.3", "value": "MRN7"}
SAME_PATIENT: list[Any] = [
    "Patient/17",
    "https://x.org/fhir/Patient/17",
    "Patient/17/_history/2",
    "https://x.org/fhir/Patient/17/_history/2",
    "urn:uuid:17",
    "Patient?identifier=urn:oid:1.2.3|MRN7",
    {"identifier": MRN},
    {"identifier": {"value": "MRN7"}},
    {"reference": "Patient/17", "display": "Ann Smith"},
    "#p",
    "Patient/old",
]


def test_a_patient_is_one_whatever_the_form_of_the_reference(data: Path) -> None:
    patient = {
        "resourceType": "Patient",
        "id": "17",
        "identifier": [MRN],
        "link": [{"other": {"reference": "Patient/old"}, "type": "replaces"}],
    }
    old = {"resourceType": "Patient", "id": "old", "link": [{"other": {"reference": "Patient/17"}, "type": "replaced-by"}]}
    contained: dict[str, Any] = {"contained": [{"resourceType": "Patient", "id": "p", "identifier": [MRN]}]}
    write(data, "z.json", bundle(patient | {"fullUrl": "urn:uuid:17"}, old))
    write(data, "a.ndjson", *(note(f"{i}", patient=form, **contained) for i, form in enumerate(SAME_PATIENT)))
    write(
        data,
        "b.ndjson",
        note("other", patient="Patient/18"),
        note("nobody", patient=None),
        note("unknown", patient={"identifier": {"value": "9"}}),
    )
    write(data, "other/a.ndjson", note("of another server", patient="Patient/17"))
    export = Export(data)
    groups = [d.group for d in export.documents]
    assert len(export.texts) == len(SAME_PATIENT) + 4 and len(set(groups[: len(SAME_PATIENT)])) == 1
    assert len(set(groups)) == 5 and groups[len(SAME_PATIENT) + 1].startswith("record:")
    assert not any("17" in group.split(":")[0] or "MRN7" in group for group in groups)


def test_a_patient_in_a_bundle_needs_no_id(data: Path) -> None:
    write(
        data, "a.json", bundle({"resourceType": "Patient", "fullUrl": "urn:uuid:9", "name": [{"text": "Ann"}]}, note(patient="urn:uuid:9"))
    )
    export = Export(data)
    assert export.people == [KnownPerson(export.documents[0].group, (("NAME", "Ann"),))]


PATIENT = {
    "resourceType": "Patient",
    "id": "17",
    "name": [
        {"use": "official", "family": "Smith", "given": ["Ann", "Mary"], "prefix": ["Dr."]},
        {"use": "maiden", "family": "O'Hara"},
        {"text": "Annie\nSmith"},
    ],
    "identifier": [
        {"type": {"coding": [{"code": "MR"}]}, "value": "123"},
        {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-12-3456"},
        {"type": {"coding": [{"code": "DL"}]}, "value": "S99"},
        {"type": {"coding": [{"code": "MB"}]}, "value": "P1"},
        {"type": {"coding": [{"code": "AN"}]}, "value": "A1"},
        {"value": "loose"},
    ],
    "telecom": [{"system": "phone", "value": "555-1"}, {"system": "fax", "value": "555-2"}, {"system": "email", "value": "a@b.org"}],
    "address": [{"line": ["1 Main St", "Apt 2"], "city": "Lowell", "state": "MA", "postalCode": "01850", "country": "US"}],
    "birthDate": "1950-12-19",
    "deceasedDateTime": "2026-01-02T10:00:00Z",
    "contact": [{"name": {"text": "Bob Smith"}, "telecom": [{"system": "phone", "value": "555-3"}]}],
}


def test_people_are_known_by_all_that_resources_say(data: Path) -> None:
    org = {
        "resourceType": "Organization",
        "name": "Mercy",
        "alias": ["Mercy West"],
        "telecom": [{"system": "url", "value": "https://m.org"}],
    }
    npi = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893"}
    doctor = {
        "resourceType": "Practitioner",
        "identifier": [npi],
        "name": [{"family": "Lee", "given": ["Kim"]}],
        "qualification": [{"identifier": [{"value": "MD77"}]}],
    }
    kin = {"resourceType": "RelatedPerson", "patient": {"reference": "Patient/17"}, "name": [{"text": "Sue Smith"}], "birthDate": "1980"}
    visit = {"resourceType": "Encounter", "subject": {"reference": "Patient/17"}, "identifier": [{"value": "V5"}]}
    ward = {"resourceType": "Location", "name": "Ward 3", "physicalType": {"coding": [{"code": "wa"}]}}
    department = {"resourceType": "Organization", "name": "Cardiology", "type": [{"coding": [{"code": "dept"}]}]}
    write(data, "a.ndjson", PATIENT, kin, visit, doctor, org, ward, department, {"resourceType": "Location", "name": "Clinic"}, note())
    export = Export(data)
    group = export.documents[0].group
    patient, *others = export.people
    assert patient.group == group and set(patient.identifiers) == {
        *(("NAME", name) for name in ("Ann Mary Smith", "O'Hara", "Annie Smith", "Bob Smith")),
        *(("MRN", value) for value in ("123", "loose")),
        *(("PHONE", value) for value in ("555-1", "555-3")),
        ("SSN", "999-12-3456"),
        ("LICENSE", "S99"),
        ("PLAN", "P1"),
        ("ACCOUNT", "A1"),
        ("FAX", "555-2"),
        ("EMAIL", "a@b.org"),
        *(("ADDRESS", part) for part in ("1 Main St", "Apt 2", "Lowell")),
        ("ZIP", "01850"),
        *(("DATE", day) for day in ("1950-12-19", "2026-01-02")),
    }
    assert others == [
        KnownPerson(group, (("NAME", "Sue Smith"), ("DATE", "1980"))),
        KnownPerson(group, (("OTHER", "V5"),)),
        KnownPerson("", (("NAME", "Kim Lee"), ("NPI", "1234567893"), ("LICENSE", "MD77"))),
        KnownPerson("", (("FACILITY", "Mercy"), ("FACILITY", "Mercy West"), ("URL", "https://m.org"))),
        KnownPerson("", (("FACILITY", "Clinic"),)),
    ]


def test_people_are_known_by_the_names_of_references_too(data: Path) -> None:
    doctor, ward = {"reference": "Practitioner/1", "display": "Kim Lee, MD"}, {"reference": "Organization/1", "display": "Cardiology"}
    one = note("One.", patient={"reference": "Patient/17", "display": "Smith, Ann"}, author=[doctor, ward], custodian=ward)
    write(
        data,
        "a.ndjson",
        one,
        one,
        COMPOSITION | {"attester": [{"mode": "legal", "party": {"type": "Practitioner", "display": "Raj Kumar"}}]},
    )
    export = Export(data)
    group = export.documents[0].group
    names = [KnownPerson(group, (("NAME", "Smith, Ann"),)), *(KnownPerson("", (("NAME", name),)) for name in ("Kim Lee, MD", "Raj Kumar"))]
    assert export.people == names


def test_circles_of_references_end(data: Path) -> None:
    a = {"resourceType": "Patient", "id": "a", "link": [{"other": {"reference": "Patient/b"}}]}
    b = {"resourceType": "Patient", "id": "b", "link": [{"other": {"reference": "Patient/a"}}, {"other": {"reference": "Patient/b"}}]}
    looped = note("One.", patient="#p", contained=[{"resourceType": "Patient", "id": "p", "link": [{"other": {"reference": "#p"}}]}])
    document = attached(url="#d") | {"contained": [attached(url="#d") | {"id": "d"}], "id": "d"}
    sections: dict[str, Any] = {"title": "x", "text": {"div": "<div>x</div>"}}
    for _ in range(60):
        sections = {"section": [sections]}
    nested: dict[str, Any] = note("Deep.")
    for _ in range(8):
        nested = bundle(nested)
    write(data, "a.ndjson", a, b, looped, document, COMPOSITION | {"section": [sections]}, nested, note("Two.", patient="Patient/a"))
    export = Export(data)
    assert export.texts == ["One.", "Two."] and export.reasons() == [
        "refers to a Binary that it does not contain",
        "has sections more than 50 levels deep",
        "is a Bundle within more than 5 others",
    ]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(attachments, "MAX_ATTACHMENT", 1000)
    for module in (streams, records, fhir_resources):
        monkeypatch.setattr(module, "MAX_RECORD", 5000)
    monkeypatch.setattr(fhir_resources, "_HEAD", 100)
    return iter(())


@pytest.mark.usefixtures("small_limits")
def test_what_is_too_large_is_named_and_the_rest_is_read(data: Path) -> None:
    write(data, "a.ndjson", note("x" * 1500), note("y" * 8000), note())
    write(
        data,
        "b.ndjson",
        {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": encoded("z" * 1500)},
        attached(url="Binary/b"),
    )
    write(data, "c.json", bundle(note("One."), note("x" * 8000), note("Two.")))
    export = Export(data)
    assert export.texts == ["Coughs.", "One."] and [(n, p) for n, p, _ in export.rejected] == [
        ("a.ndjson", "line 1"),
        ("a.ndjson", "line 2"),
        ("b.ndjson", "line 2"),
        ("c.json", FILE),
    ]
    assert export.rejected[-1][2].startswith("is a Bundle of which entry 2")


@pytest.mark.parametrize(
    "text", ['{"resourceType": "Bundle", "entry": [{"resource": {}}, {"resource', '{"resourceType": "Bundle", "entry": [}']
)
def test_a_broken_bundle_is_named(data: Path, text: str) -> None:
    write(data, "a.json", text)
    assert [(n, p) for n, p, _ in Export(data).rejected] == [("a.json", FILE)]


def test_resources_of_another_structure_are_rejected_and_the_rest_is_read(data: Path) -> None:
    odd: list[Any] = [
        note(content=["x"]),
        note(content=7),
        note(relatesTo="x", content=[{"attachment": {"data": 7}}]),
        COMPOSITION | {"section": ["x"]},
        COMPOSITION | {"section": [{"text": "x"}]},
        {"resourceType": "DiagnosticReport", "conclusion": 7},
        {"resourceType": "ClinicalImpression", "summary": 7},
        note(contained="x", subject="x", meta=7, content=[{"attachment": {"contentType": 7, "data": "eA=="}}]),
    ]
    write(data, "a.ndjson", *odd, {"resourceType": "Patient", "name": 7, "telecom": ["x"], "link": 7}, note())
    export = Export(data)
    assert export.texts == ["Coughs."] and [p for _, p, _ in export.rejected] == [f"line {n}" for n in range(1, len(odd) + 1)]


@pytest.mark.parametrize("indent", [None, 2])
def test_several_bundles_of_a_file_are_read_or_named(data: Path, indent: int | None) -> None:
    write(data, "a.json", *(json.dumps(bundle(note(text)), indent=indent) for text in ("One.", "Two.")))
    export = Export(data)
    if indent:
        assert export.texts == ["One."] and export.reasons() == [
            "goes on after the end of its Bundle, which is not JSON; several are read as lines, each on one"
        ]
    else:
        assert export.texts == ["One.", "Two."] and not export.rejected


def test_lines_in_a_json_file_are_read(data: Path) -> None:
    write(data, "a.json", note("One.", id="1"), note("Two.", id="2"), note("Two, again.", id="2", meta={"versionId": "2"}), "{")
    export = Export(data)
    assert export.texts == ["One.", "Two, again."] and export.rejected == [("a.json", "line 4", "is not JSON")]


@pytest.mark.parametrize("form", ["file", "line"])
def test_what_a_record_says_is_no_reason(data: Path, form: str) -> None:
    odd = {"resourceType": "Bundle", "entry": [{"resource": "John Smith, HIV positive"}, "John Smith", {"resource": note()}], "total": 3}
    write(data, "a.json" if form == "file" else "a.ndjson", odd)
    export = Export(data)
    assert export.texts == ["Coughs."] and export.reasons() == [
        "does not have the structure of its resource type",
        "is not a JSON object",
    ]


def test_half_characters_and_odd_states_cost_their_record_alone(data: Path, tmp_path: Path) -> None:
    half = "x\ud83d"
    patient = {"resourceType": "Patient", "id": half, "identifier": [{"system": half, "value": half}], "name": [{"text": f"Ann {half}"}]}
    patient["link"] = [{"other": {"reference": f"Patient/{half}"}}]
    notes = [
        note(
            "One.", patient=f"Patient/{half}", id=half, docStatus=["final"], relatesTo=[{"code": "replaces", "target": {"reference": half}}]
        )
    ]
    notes += [note("Two.", patient={"identifier": {"system": half, "value": half}}), note("Three.", id="3", status={"a": 1})]
    write(data, "a.ndjson", patient, *notes)
    export = Export(data)
    assert export.texts == ["One.", "Two.", "Three."] and not export.rejected
    assert export.documents[0].group == export.documents[1].group != export.documents[2].group
    with known_people.writer(tmp_path, "a") as write_known:
        for person in export.people * 2:
            write_known(person)
    (person,) = known_people.read_known(tmp_path)
    assert person.group == export.documents[0].group and ("NAME", "Ann x?") in person.identifiers


def test_a_file_and_a_folder_may_have_any_name(data: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    write(data, f"{folder}/b\xe9\udce9.ndjson", note("One.", id="1"), note("Two.", id="2"), attached(url="c\udce9.txt"))
    (data / folder / "c\udce9.txt").write_text("Attached.")
    export = Export(data)
    assert sorted(export.texts) == ["Attached.", "One.", "Two."] and not export.rejected
    assert all(document.source.isprintable() for document in export.documents)


def test_versions_of_notes_are_told_apart_in_any_encoding(data: Path) -> None:
    versions = [note("Müde.", id="é1", title="Müde, größer, für", meta={"versionId": str(n)}) for n in (1, 2)]
    versions[1]["content"] = note("Sehr müde.")["content"]
    text = "\n".join(json.dumps(version, ensure_ascii=False) for version in versions)
    (data / "a.ndjson").write_bytes(text.encode("latin-1"))
    export = Export(data)
    assert export.texts == ["Sehr müde."] and export.skipped == ["is an older version of a note"]


def test_of_two_forms_of_a_note_the_longer_is_kept(data: Path) -> None:
    words = "the patient coughs at night and sleeps badly " * 50
    forms = [{"attachment": {"contentType": "text/plain", "data": encoded(text)}} for text in (words, f"{words}\nAddendum: fever.")]
    write(data, "a.ndjson", note(content=forms))
    export = Export(data)
    assert len(export.texts) == 1 and export.texts[0].endswith("Addendum: fever.") and len(export.skipped) == 1


def test_questions_beside_resources_are_read(data: Path) -> None:
    write(data, "a.ndjson", note())
    write(data, "faq.json", {"version": 1, "items": [{"question": "q", "answer": "a"}]})
    write(data, "list.json", json.dumps([{"question": "q", "answer": "b"}]))
    write(data, "_generator_metadata.json", {"seed": 7, "counts": {"Patient": 3}, "files": [{"type": "Patient", "url": "x"}]})
    write(data, "export.json", {"transactionTime": "2026", "output": [{"type": "Patient", "url": "x"}], "error": []})
    export = Export(data)
    assert export.texts == ["Coughs.", "a", "b"] and not export.rejected and len(export.skipped) == 2


def test_a_compositions_patient_may_be_in_a_list(data: Path) -> None:
    write(data, "a.ndjson", note(), COMPOSITION | {"subject": [{"reference": "Patient/17"}]})
    assert len({document.group for document in Export(data).documents}) == 1
