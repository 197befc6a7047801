"""Questions about notes of a FHIR export, with answers from its structured resources."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from helpers.fhir import note, write

from tasks.corpus.documents import Document, NotAsked
from tasks.corpus.extraction.definitions import Task, load_tasks, note_of, read_tasks, write_tasks
from tasks.corpus.extraction.examples import learnable
from tasks.corpus.extraction.pairs import keep_stated
from tasks.corpus.extraction.statements import is_rounded, stated_numbers
from tasks.corpus.readers.files import raw_files, read_file
from tasks.corpus.readers.indexing import write_index
from tasks.corpus.readers.records import FileOptions

PATIENT, STAY = {"reference": "Patient/17"}, {"reference": "Encounter/3"}


def observation(code: str, value: float, time: str = "2025-01-01", **fields: Any) -> dict[str, Any]:
    coding = {"coding": [{"system": "http://loinc.org", "code": code}]}
    resource = {"resourceType": "Observation", "status": "final", "subject": PATIENT, "encounter": STAY, "effectiveDateTime": time}
    return resource | {"code": coding, "valueQuantity": {"value": value}} | fields


def pressure(high: float, low: float) -> dict[str, Any]:
    parts = [{"code": {"coding": [{"code": code}]}, "valueQuantity": {"value": v}} for code, v in (("8480-6", high), ("8462-4", low))]
    return observation("85354-9", 0) | {"component": parts, "valueQuantity": {}}


def drug(name: str, patient: dict[str, str] = PATIENT, kind: str = "MedicationRequest") -> dict[str, Any]:
    return {"resourceType": kind, "status": "active", "subject": patient, "medicationCodeableConcept": {"text": name}}


def condition(code: str, name: str, **fields: Any) -> dict[str, Any]:
    coding = {"coding": [{"code": code, "display": name}], "text": name.split(maxsplit=1)[0]}
    return {"resourceType": "Condition", "subject": PATIENT, "code": coding} | fields


def asked(folder: Path, text: str, *resources: dict[str, Any], tasks: tuple[str, ...] = ("measurements",)) -> tuple[list[Any], list[str]]:
    """The answers of the questions about a note, and why nothing is asked."""
    data = folder / "data"
    write(data, "notes.ndjson", note(text, context={"encounter": [STAY]}))
    write(data, "record.ndjson", *resources)
    loaded, index = load_tasks(tasks, data), folder / "index.sqlite"
    index.unlink(missing_ok=True)
    write_index(data, dict.fromkeys(raw_files(data), FileOptions()), index, loaded)
    records = [record for name in raw_files(data) for record in read_file(data, name, None, index, loaded)]
    questions = [record for record in records if isinstance(record, Document) and record.task]
    for question in questions:
        assert note_of(question) == text and question.category == f"extract-{question.task}" and question.group.startswith("patient:")
        jsonschema.validate(json.loads(question.answer), loaded[question.task].schema)
    return [json.loads(question.answer) for question in questions], [r.reason for r in records if isinstance(r, NotAsked)]


def test_an_answer_holds_what_the_record_has_and_the_note_states(tmp_path: Path) -> None:
    text = "BP 131/68 mmHg, HR 86/min, T 37.6°C. AST 25.0 U/L. Continue atorvastatin, Sertraline 50mg."
    record = [pressure(131, 68), observation("8867-4", 86), observation("8310-5", 37.62), observation("1920-8", 25)]
    record += [observation("2708-6", 95), drug("Atorvastatin"), drug("Sertraline", kind="MedicationAdministration"), drug("Aspirin")]
    (answer,), problems = asked(tmp_path, text, *record)
    assert answer["vital_signs"] == {"systolic_bp": 131, "diastolic_bp": 68, "heart_rate": 86, "temperature": 37.6}
    assert answer["laboratory"] == {"ast": 25.0} and answer["medications"] == ["atorvastatin", "Sertraline"] and not problems


def test_a_value_of_another_stay_is_none_of_this_note(tmp_path: Path) -> None:
    _, problems = asked(
        tmp_path, "HR 86, T 37.0", observation("8310-5", 37), observation("8867-4", 86, encounter={"reference": "Encounter/4"})
    )
    assert problems == ["measurements: states a number that its record does not have"]


def test_of_two_stated_values_the_last_counts_if_it_was_measured_last(tmp_path: Path) -> None:
    record = [observation("2708-6", 91, "2025-01-01T08:00:00Z"), observation("2708-6", 95, "2025-01-02T08:00:00Z")]
    (answer,), _ = asked(tmp_path, "SpO2 91%, today SpO2 95%", *record)
    assert answer["vital_signs"] == {"spo2": 95}
    assert asked(tmp_path, "SpO2 95%, yesterday SpO2 91%", *record) == (
        [],
        ["measurements: states several values of one kind, of which the last is not the one that was measured last"],
    )


def test_a_drug_that_only_other_records_have_is_not_guessed_at(tmp_path: Path) -> None:
    record = [drug("Aspirin"), drug("Salbutamol", {"reference": "Patient/18"})]
    assert asked(tmp_path, "Continue Aspirin, Salbutamol.", *record) == (
        [],
        ["measurements: states a name that other records have and its own has not"],
    )


def test_a_short_name_counts_where_it_stands_in_capitals(tmp_path: Path) -> None:
    (answer,), _ = asked(tmp_path, "IV_fluid: NS 100 mL/h, as ns is due, and ab, x", *map(drug, ("NS", "ab", "X", "KD")))
    assert answer["medications"] == ["NS"]


def test_nothing_is_asked_where_the_note_states_nothing_or_is_long(tmp_path: Path) -> None:
    assert asked(tmp_path, "Doing well.", observation("8867-4", 86)) == ([], [])
    assert asked(tmp_path, "Well. " * 400 + "HR 86", observation("8867-4", 86)) == (
        [],
        ["measurements: is longer than the task's max_chars"],
    )


def test_answers_have_at_most_so_many_names(tmp_path: Path) -> None:
    names = [f"Drugname{letter}" for letter in "abcdefghijklm"]
    record = [drug(name) for name in names]
    (answer,), _ = asked(tmp_path, ", ".join(names[:12]), *record)
    assert answer["medications"] == names[:12]
    assert asked(tmp_path, ", ".join(names), *record) == ([], ["measurements: states more names than the task's max_items"])
    schema = load_tasks(("measurements",), tmp_path)["measurements"].schema["properties"]["medications"]
    assert schema["maxItems"] == 12 and schema["x-unique"]


def test_problems_have_codes_the_longer_name_counts_and_refuted_ones_do_not(tmp_path: Path) -> None:
    refuted = {"verificationStatus": {"coding": [{"code": "refuted"}]}}
    record = [condition("N18", "Chronic kidney disease"), condition("N18.9", "Chronic kidney disease, unspecified")]
    (answer,), _ = asked(
        tmp_path, "Chronic kidney disease, unspecified; gout", *record, condition("M10.9", "gout", **refuted), tasks=("problems",)
    )
    assert answer == {"problems": [{"name": "Chronic kidney disease, unspecified", "code": "N18.9"}]}


def test_what_is_no_code_does_not_pass_for_one(tmp_path: Path) -> None:
    assert asked(tmp_path, "Gout; asthma", condition("see Ann Smith", "Gout"), tasks=("problems",)) == ([], [])


def test_a_stay_is_asked_about_once_and_its_last_stated_values_count(tmp_path: Path) -> None:
    data, progress = tmp_path / "data", {"coding": [{"system": "http://loinc.org", "code": "11506-3"}]}
    of_stay: Any = {"context": {"encounter": [STAY]}, "type": progress}
    notes = [
        note("Day 2. HR 80/min. Stop aspirin, asthma", id="b", date="2025-01-02T09:00:00Z", **of_stay),
        note("Day 1. HR 96/min, WBC 9,100 /uL", id="a", date="2025-01-01T23:00:00-05:00", **of_stay),  # in UTC the same day, before
        note("Nurse: HR 70/min", id="c", date="2025-01-03", **of_stay | {"type": {"coding": [{"code": "34746-8"}]}}),
        note("HR 60/min", id="d", date="2025-01-04", **of_stay | {"context": {"encounter": [{"reference": "Encounter/9"}]}}),
    ]
    write(data, "notes.ndjson", *notes)
    record = [observation("8867-4", 96, "2025-01-01"), observation("8867-4", 80, "2025-01-02"), observation("8867-4", 96, "2025-01-05")]
    record += [observation("6690-2", 9100), drug("Aspirin"), condition("J45", "asthma", encounter=STAY)]
    write(data, "record.ndjson", *record)
    tasks, index = load_tasks(("discharge",), data), tmp_path / "index.sqlite"
    write_index(data, dict.fromkeys(raw_files(data), FileOptions()), index, tasks)
    records = list(read_file(data, "notes.ndjson", None, index, tasks))
    (question,) = (record for record in records if isinstance(record, Document) and record.task)
    assert note_of(question) == "Day 1. HR 96/min, WBC 9,100 /uL\n\nDay 2. HR 80/min. Stop aspirin, asthma"
    assert json.loads(question.answer) == {
        "vital_signs": {"heart_rate": 80},
        "laboratory": {"wbc": 9100},
        "medications": ["aspirin"],
        "diagnoses": [{"name": "asthma", "code": "J45"}],
    }
    assert question.position == "line 2, line 1"
    # The other stay states a number that its record lacks.
    assert [r.reason for r in records if isinstance(r, NotAsked)] == ["discharge: states a number that its record does not have"]


def test_a_stay_with_too_many_notes_is_not_asked_about(tmp_path: Path) -> None:
    of_stay: Any = {"context": {"encounter": [STAY]}, "type": {"coding": [{"code": "11506-3"}]}}
    write(tmp_path / "data", "notes.ndjson", *(note(f"{n} HR 80/min. " + "Well. " * 200, id=str(n), **of_stay) for n in range(3)))
    tasks, index = load_tasks(("discharge",), tmp_path), tmp_path / "index.sqlite"
    write_index(tmp_path / "data", {"notes.ndjson": FileOptions()}, index, tasks)
    records = list(read_file(tmp_path / "data", "notes.ndjson", None, index, tasks))
    assert [r.reason for r in records if isinstance(r, NotAsked)] == ["discharge: has more notes than the task's max_chars"]
    assert not any(isinstance(record, Document) and record.task for record in records)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("HR 86/min", "HR #", ["86"]),
        ("HR: 86 bpm", "HR #", ["86"]),
        ("heart rate was 86.", "heart rate #", ["86"]),
        ("Heart Rate of 86", "heart rate #", ["86"]),
        ("hr 86", "HR #", []),  # a label in capitals is one in capitals alone
        ("CHR 86", "HR #", []),
        ("BP 131/68", "BP #/*", ["131"]),
        ("BP 131/68", "BP */#", ["68"]),
        ("BP 131/68/2", "BP */#", []),
        ("T 37.6°C", "T #", ["37.6"]),
        ("WBC 10,451 /uL", "WBC #", ["10,451"]),
        ("K21.9 gastritis", "K #", []),  # a code
        ("CA15-3", "Ca #", []),
        ("Sodium bicarbonate 500mg", "bicarbonate #", []),  # a dose
        ("glucose 95 mg/dL", "glucose #", ["95"]),
        ("glucose 95 mg", "glucose #", []),
    ],
)
def test_how_notes_state_numbers(text: str, pattern: str, expected: list[str]) -> None:
    assert stated_numbers(text, (pattern,)) == expected


def test_a_stated_number_may_be_rounded_but_not_wrong() -> None:
    assert is_rounded("37.6", 37.58) and is_rounded("38", 37.58) and is_rounded("10,451", 10451.0)
    assert not is_rounded("37.6", 37.66) and not is_rounded("37", 37.58)


def test_an_answer_loses_what_cleaning_took_out_of_the_note(tmp_path: Path) -> None:
    (task,) = load_tasks(["measurements"], tmp_path).values()
    answer = json.dumps({"vital_signs": {"heart_rate": 86, "spo2": 95}, "laboratory": {}, "medications": ["Smith's mixture", "Aspirin"]})
    document = Document("1" * 24, "Extract.\n\nHR 86. [NAME]'s mixture, aspirin.", answer, "a", task.category, "g", "1", task=task.name)
    kept = json.loads(keep_stated(document, task).answer)
    assert kept == {"vital_signs": {"heart_rate": 86}, "laboratory": {}, "medications": ["Aspirin"]}
    assert keep_stated(Document(**{**asdict_of(document), "question": "Extract.\n\nNothing."}), task).answer == ""


def test_what_too_few_train_documents_state_is_not_asked_for(tmp_path: Path) -> None:
    (task,) = load_tasks(["measurements"], tmp_path).values()
    documents = {"vital_signs.heart_rate": 20, "vital_signs.spo2": 19, "laboratory.ast": 21}
    kept = learnable(task, documents, 20)
    assert kept.task and list(kept.task.schema["properties"]["vital_signs"]["properties"]) == ["heart_rate"]
    assert list(kept.task.schema["properties"]["laboratory"]["properties"]) == ["ast"]
    assert "vital_signs.spo2" in kept.dropped and "laboratory.egfr" in kept.dropped
    properties = task.schema["properties"]
    assert len(kept.dropped) == sum(len(properties[field]["properties"]) for field in ("vital_signs", "laboratory")) - 2
    answer = json.dumps({"vital_signs": {"heart_rate": 86, "spo2": 95}, "laboratory": {}, "medications": []})
    document = Document("1" * 24, "Extract.\n\nHR 86, SpO2 95%.", answer, "a", task.category, "g", "1", task=task.name)
    assert json.loads(keep_stated(document, kept.task).answer)["vital_signs"] == {"heart_rate": 86}
    without = learnable(task, {}, 1)
    assert without.task and list(without.task.definition.fields) == ["medications"]
    assert not keep_stated(document, without.task).answer
    (own,) = load_tasks((_own_task(tmp_path),), tmp_path).values()
    assert learnable(own, {}, 1).task is None


def _own_task(data: Path) -> str:
    (data / "pain.task.yaml").write_text(OWN)
    return "pain.task.yaml"


def asdict_of(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in document.__slots__}


OWN = """
version: 1
instructions: ["What is the pain score? Answer as JSON."]
max_chars: 500
fields:
  scores:
    numbers:
      pain: {code: "72514-3", stated: ["pain score #", "NRS #"]}
"""


def test_a_task_of_ones_own_is_a_file_in_data(tmp_path: Path) -> None:
    write(tmp_path / "data", "pain.task.yaml", OWN)
    (answer,), _ = asked(tmp_path, "NRS 7 at rest", observation("72514-3", 7), tasks=("pain.task.yaml",))
    assert answer == {"scores": {"pain": 7}}
    tasks = load_tasks(["pain.task.yaml", "problems"], tmp_path / "data")
    write_tasks(tasks, tmp_path)
    stored = read_tasks(tmp_path)
    assert {name: task.schema for name, task in stored.items()} == {name: task.schema for name, task in tasks.items()}
    assert read_tasks(tmp_path / "data") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"params.yaml: preprocess.tasks names 'x.task.yaml', and data holds no such file"),
        ("version: 1", "x.task.yaml is no definition of a task: instructions: Field required"),
        (OWN.replace("NRS #", "NRS"), "fields.scores.NumbersField.numbers.pain.stated: Value error, 'NRS' is not a word with one #"),
        (OWN + "a: [", r"x.task.yaml, line \d+ is not YAML"),
    ],
)
def test_what_is_wrong_with_a_definition_is_said(tmp_path: Path, content: str | None, message: str) -> None:
    (tmp_path / "data").mkdir()
    if content is not None:
        write(tmp_path / "data", "x.task.yaml", content)
    with pytest.raises(ValueError, match=message):
        load_tasks(["x.task.yaml"], tmp_path / "data")


def test_an_unknown_task_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"names 'measurement', which is no task.*measurements.*there are discharge, measurements, problems"
    ):
        load_tasks(["measurement"], tmp_path)
    with pytest.raises(ValueError, match="names one task twice"):
        load_tasks(["problems", "problems"], tmp_path)


def test_shipped_definitions_find_the_same_number_in_the_same_way(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {}
    for task in load_tasks(["measurements", "discharge"], tmp_path).values():
        for field in task.definition.fields.values():
            for name, source in getattr(field, "numbers", {}).items():
                assert numbers.setdefault(name, source) == source, name
    assert len(numbers) > 30


def test_shipped_definitions_have_schemas_that_are_valid(tmp_path: Path) -> None:
    tasks: list[Task] = [*load_tasks(["measurements", "problems", "discharge"], tmp_path).values()]
    for task in tasks:
        jsonschema.Draft202012Validator.check_schema(task.schema)
