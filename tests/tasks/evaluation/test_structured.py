"""Answers in JSON beside the truth, case by case as a person counts them."""

import json
from typing import Any

import pytest

from tasks.evaluation.structured import Counts, Marks, equal, mark

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "vital_signs": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"heart_rate": {"type": "number"}, "temperature": {"type": "number", "x-tolerance": 0.05}},
        },
        "medications": {"type": "array", "items": {"type": "string"}},
        "readings": {"type": "array", "items": {"type": "number", "x-tolerance": 0.5}},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"code": {"type": "string", "x-stated": False}, "name": {"type": "string"}},
            },
        },
        "drugs": {"type": "array", "items": {"type": "string"}, "x-unique": True},
        "smoker": {"type": "boolean"},
    },
}
NOTE = "HR 86/min, T 37,6 °C; weight 1,250 g on 5.3.2024. Takes Sertraline and atorvastatin  calcium.\nOverweight. Readings 1, 2 and 2.4."
TRUTH = {"vital_signs": {"heart_rate": 86, "temperature": 37.6}, "medications": ["Sertraline", "Atorvastatin calcium"]}
NOTHING = Counts(2, 0, 0, 0, 0)


def marks(answer: object, truth: object = TRUTH, *, complete: bool = True) -> Marks:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return mark(text, json.dumps(truth), NOTE, SCHEMA, complete=complete)


def with_vitals(**values: float) -> dict[str, Any]:
    return TRUTH | {"vital_signs": {"heart_rate": 86, "temperature": 37.6} | values}


def test_the_truth_itself_is_exact() -> None:
    right = marks(TRUTH)
    assert right.parsed and right.exact and right.total() == Counts(4, 4, 4, 4, 0)
    assert set(right.fields) == {"vital_signs.heart_rate", "vital_signs.temperature", "medications"}


@pytest.mark.parametrize(
    ("answer", "field", "counts"),
    [
        (with_vitals(heart_rate=87), "vital_signs.heart_rate", Counts(1, 1, 0, 1, 1)),  # a wrong number that the note does not state
        (with_vitals(heart_rate=5), "vital_signs.heart_rate", Counts(1, 1, 0, 1, 0)),  # one that it does, elsewhere
        (with_vitals(heart_rate=1250), "vital_signs.heart_rate", Counts(1, 1, 0, 1, 0)),  # 1,250 is read both ways
        (with_vitals(heart_rate=1.25), "vital_signs.heart_rate", Counts(1, 1, 0, 1, 0)),
        (with_vitals(heart_rate=37), "vital_signs.heart_rate", Counts(1, 1, 0, 1, 1)),  # a part of a number is none
        (with_vitals(temperature=37.65), "vital_signs.temperature", Counts(1, 1, 1, 1, 0)),  # at the tolerance
        (with_vitals(temperature=37.651), "vital_signs.temperature", Counts(1, 1, 0, 1, 1)),  # beyond it
        (TRUTH | {"medications": ["sertraline "]}, "medications", Counts(2, 1, 1, 1, 0)),
        (TRUTH | {"medications": ["ATORVASTATIN\tCalcium", "Sertraline"]}, "medications", Counts(2, 2, 2, 2, 0)),
        (TRUTH | {"medications": ["Sertraline", "Sertraline"]}, "medications", Counts(2, 2, 1, 2, 0)),  # a multiset
        (TRUTH | {"drugs": ["Sertraline", "sertraline ", "Sertraline"]}, "drugs", Counts(0, 1, 0, 1, 0)),  # a set
        (TRUTH | {"medications": ["Sertraline", "Aspirin"]}, "medications", Counts(2, 2, 1, 2, 1)),  # an invented drug
        (TRUTH | {"medications": ["Sertra"]}, "medications", Counts(2, 1, 0, 1, 1)),  # a part of a word is not stated
        (TRUTH | {"medications": [""]}, "medications", Counts(2, 1, 0, 1, 1)),
        (TRUTH | {"smoker": True}, "smoker", Counts(0, 1, 0, 0, 0)),  # no note states a truth value
        ({"vital_signs": {}}, "medications", NOTHING),  # left out
    ],
)
def test_values_are_counted_by_field(answer: dict[str, Any], field: str, counts: Counts) -> None:
    outcome = marks(answer)
    assert outcome.parsed and outcome.fields[field] == counts
    assert outcome.exact == (outcome.total()[:3] == (4, 4, 4))


@pytest.mark.parametrize(
    "text",
    [
        '{"medications": ["Sertraline"',  # cut
        '{"medications": ["Sertraline"], "medications": ["Aspirin"]}',  # a key twice
        '{"vital_signs": {"heart_rate": 86, "heart_rate": 86}}',
        '{"medications": ["Sertraline"], "allergies": []}',  # a key that the schema does not have
        '{"vital_signs": {"heart_rate": "86"}}',  # of another type
        '{"vital_signs": {"heart_rate": true}}',
        '{"vital_signs": {"heart_rate": NaN}}',
        '{"vital_signs": {"heart_rate": 1e999}}',
        '{"vital_signs": {"heart_rate": 1' + "0" * 400 + "}}",
        '["Sertraline"]',
        'Here it is: {"medications": ["Sertraline"]}',
        '{"medications": ["Sertraline"]} and more',
        "[" * 100_000,
        "",
    ],
)
def test_what_does_not_parse_predicts_nothing(text: str) -> None:
    outcome = marks(text)
    assert not outcome.parsed and not outcome.exact
    assert outcome.total() == Counts(4, 0, 0, 0, 0) and outcome.fields["medications"] == NOTHING


def test_an_answer_that_was_cut_predicts_nothing_though_it_may_parse() -> None:
    assert marks(TRUTH, complete=False).total() == Counts(4, 0, 0, 0, 0)
    assert not marks(TRUTH, complete=False).parsed


def test_an_object_in_a_list_is_one_value_and_a_code_need_not_be_stated() -> None:
    truth = {"problems": [{"code": "E66.3", "name": "Overweight"}]}
    assert marks(truth, truth).total() == Counts(1, 1, 1, 1, 0)
    assert marks({"problems": [{"code": "E66.9", "name": "overweight"}]}, truth).total() == Counts(1, 1, 0, 1, 0)
    assert marks({"problems": [{"code": "I10", "name": "Hypertension"}]}, truth).total() == Counts(1, 1, 0, 1, 1)
    assert marks({"problems": [{"code": "E66.3"}]}, truth).total() == Counts(1, 1, 0, 0, 0)  # nothing that a note states


def test_values_equal_within_a_tolerance_are_matched_as_well_as_can_be() -> None:
    """Taken in order, 1.5 would take 1 and leave nothing for 0.6; 2.4 takes what is left."""
    outcome = marks({"readings": [1.5, 0.6, 2.4]}, {"readings": [1, 2, 2.4]})
    assert outcome.exact and outcome.total() == Counts(3, 3, 3, 3, 0)


def test_no_value_asked_for_and_none_given_is_exact() -> None:
    assert marks({}, {}).exact and marks({}, {}).total() == Counts()
    assert marks({"medications": []}, {}).exact
    assert not marks("nothing", {}).exact


def test_only_values_of_a_kind_are_equal() -> None:
    assert not equal(1, True, {}) and not equal("1", 1, {}) and not equal({"a": 1}, [1], {}) and not equal(None, 0, {})
    assert equal({"a": [1, "B "]}, {"a": [1.0, "b"]}, {}) and not equal({"a": 1}, {"a": 1, "b": 2}, {}) and equal(None, None, {})
