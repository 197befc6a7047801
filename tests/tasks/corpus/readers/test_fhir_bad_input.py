"""FHIR resources that are large, broken, circular or of odd forms: named, and the rest is read."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fhir import COMPOSITION, Export, attached, bundle, encoded, note, write

from tasks.corpus.cleaning import known_people
from tasks.corpus.readers import attachments, fhir_resources, records, streams
from tasks.corpus.readers.records import FILE


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
