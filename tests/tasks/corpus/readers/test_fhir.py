"""Notes in folders of FHIR resources as servers export them."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fhir import COMPOSITION, Export, attached, bundle, encoded, note, write

from tasks.corpus.documents import Skipped
from tasks.corpus.readers import fhir_resources

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
