"""Whose notes FHIR resources hold, and whom they name."""

from pathlib import Path
from typing import Any

from helpers.fhir import COMPOSITION, Export, bundle, note, write

from tasks.corpus.documents import KnownPerson

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
