"""What is recognized as clinical in a text, and what only looks like it."""

import time
from itertools import pairwise

import pytest

from tasks.corpus.deidentify.clinical_spans import find_spans


def spans(text: str, type_: str, drugs: frozenset[str] = frozenset()) -> list[str]:
    return [text[span.start : span.end] for span in find_spans(text, drugs) if span.type == type_]


@pytest.mark.parametrize(
    ("type_", "text", "expected"),
    [
        ("ph", "ABG: pH 7.38, pCO2 41", ["pH 7.38"]),
        ("lab", "Sodium 140, K 4.1 mmol/L and a hemoglobin A1c was 8.2", ["Sodium 140", "K 4.1 mmol/L", "hemoglobin A1c was 8.2"]),
        ("lab", "Glucose,95\nhematocrit,36", ["Glucose,95", "hematocrit,36"]),
        ("lab", "WBC | 12.7 10^9", ["WBC | 12.7"]),
        ("vital", "BP 124/76, HR 88, T 37.20 C, SpO2 97%", ["BP 124/76", "HR 88", "T 37.20 C", "SpO2 97%"]),
        ("latency", "the median nerve: DL 4.2 ms", ["DL 4.2 ms"]),
        ("intake_output", "UOP 1530 mL; I/O: 1200/800", ["UOP 1530 mL", "I/O: 1200/800"]),
        ("gestational_age", "born at 38 2/7 weeks, 39w2d, G2P1", ["38 2/7 weeks", "39w2d", "G2P1"]),
        ("range", "ref 60-110 and (3.5-5.2)", ["ref 60-110", "(3.5-5.2)"]),
        ("score", "strength of 4/5, Apgars of 8/9, pain from 8/10 to 2/10", ["4/5", "8/9", "8/10", "2/10"]),
        ("dose", "metformin 500 mg po bid, 1/2 tablet", ["500 mg po", "1/2 tablet"]),
        ("quantity", "a mass of 2740 g, 2 x 3 cm, for 10 days", ["2740 g", "2 x 3 cm", "10 days"]),
        ("decimal", "the white cell number is 12.7 today", ["12.7"]),
        ("heading", "CHIEF COMPLAINT\nChest pain.\nPast Medical History: none\nA/P:", ["CHIEF COMPLAINT", "Past Medical History", "A/P"]),
        ("anatomy", "pain of the left knee and the abdomen, C5-C6", ["left knee", "abdomen", "C5-C6"]),
        ("eponym", "Parkinson disease, Crohn's, a Foley", ["Parkinson", "Crohn's", "Foley"]),
        ("row", "Na | 140 | mmol/L\nNa 140", ["Na | 140 | mmol/L"]),
        ("columns", "Creatinine      1.42      H\n  - nested  plan\nHe slept.  He ate.  He left.", ["Creatinine      1.42      H"]),
    ],
)
def test_what_is_clinical_is_recognized_by_its_type(type_: str, text: str, expected: list[str]) -> None:
    assert spans(text, type_) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Seen on 3/14/2019, again 4/5/20 and on 21.03.2019.",
        "Phone: 555-0143, MRN 4471182, room 12.5, id 7.3",
        "He is 93 years old, a 97-year-old man.",
        "Dr. Parkinson and Mr. Bell were here.\nSMITH, JOHN A\nSpringfield, IL 62704",
    ],
)
def test_identifiers_and_plain_text_are_not_clinical(text: str) -> None:
    assert not find_spans(text)


def test_drugs_are_those_of_the_list_that_is_given() -> None:
    assert spans("Takes Lisinopril and metformin.", "drug", frozenset({"lisinopril", "metformin"})) == ["Lisinopril", "metformin"]
    assert not spans("Takes Lisinopril.", "drug")


def test_values_do_not_overlap() -> None:
    found = [s for s in find_spans("BP 120/80 mmHg, glucose 95 mg/dL (70-99), 5 mg daily, pH 7.4") if s.type not in ("row", "columns")]
    assert all(a.end <= b.start for a, b in pairwise(found)) and len(found) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["T " * 40_000, "9" * 80_000, "a|" * 40_000, "1-" * 40_000, " " * 80_000, "Of at: " * 12_000, "\t x" * 30_000]
)
def test_the_time_grows_with_the_text_alone(text: str) -> None:
    started = time.monotonic()
    find_spans(text[: len(text) // 8])
    eighth = time.monotonic() - started
    started = time.monotonic()
    find_spans(text)
    assert time.monotonic() - started < max(2.0, 24 * eighth)
