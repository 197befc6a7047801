"""People whom the data names, found in notes in every spelling, and what only looks like them."""

import pytest

from tasks.corpus.deidentify.known import KnownPeople
from tasks.corpus.documents import KnownPerson

PATIENT = KnownPerson(
    "patient:1",
    (
        ("NAME", "Robert James Quillfeather"), ("NAME", "Quillfeather"), ("MRN", "00-4471-823"), ("PHONE", "+1 (617) 555-0142"),
        ("DATE", "1948-02-01"), ("ADDRESS", "12 Willow Bend"), ("EMAIL", "rq@example.org"), ("SSN", "219-09-9999"),
    ),
)  # fmt: skip
OTHER_PATIENT = KnownPerson("patient:2", (("NAME", "May Long"),))
STAFF = KnownPerson("", (("NAME", "Adaeze Okoro, MD"),))
HOSPITAL = KnownPerson("", (("FACILITY", "Harbor View Clinic"),))
PEOPLE = KnownPeople([PATIENT, OTHER_PATIENT, STAFF, HOSPITAL])


def masked(text: str, group: str = "patient:1") -> str:
    for span in reversed(PEOPLE.find(text, group)):
        text = f"{text[: span.start]}[{span.type}]{text[span.end :]}"
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("QUILLFEATHER,ROBERT J is here", "[NAME] is here"),
        ("quillfeather, robert", "[NAME]"),
        ("Bob Quillfeather's wife", "[NAME]'s wife"),
        ("seen: R. Quillfeather", "seen: [NAME]"),
        ("Dict: R Quillfeather MD", "Dict: [NAME] MD"),
        ("hepatitis C Quillfeather", "hepatitis C [NAME]"),
        ("Mr. Quilfeather and Quillfaether", "Mr. [NAME] and [NAME]"),
        ("MRN 004471823", "MRN [MRN]"),
        ("4471823", "[MRN]"),
        ("call 617.555.0142 or 555-0142", "call [PHONE] or [PHONE]"),
        ("Phone: (617) 555-0142", "Phone: [PHONE]"),
        ("born 2/1/48, 01FEB1948 or February 1, 1948", "born [DATE], [DATE] or [DATE]"),
        ("at 12 WILLOW BEND", "at [ADDRESS]"),
        ("RQ@example.org", "[EMAIL]"),
        ("SSN 219099999", "SSN [SSN]"),
        ("seen by Okoro at HARBOR VIEW CLINIC", "seen by [NAME] at [FACILITY]"),
    ],
)
def test_a_known_person_is_found_in_every_spelling(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_a_patient_is_looked_for_in_the_own_notes_and_staff_in_all() -> None:
    assert masked("Quillfeather met Okoro", "patient:2") == "Quillfeather met [NAME]"


@pytest.mark.parametrize("text", ["It may take long.", "a long QT; Sodium 140", "LONG TERM GOALS"])
def test_everyday_words_that_are_the_name_of_a_patient_stay(text: str) -> None:
    assert masked(text, "patient:2") == text


def test_such_a_name_is_found_where_it_can_only_be_the_person() -> None:
    text = 'May Long is well. We saw Long today. Goes by "May".'
    assert masked(text, "patient:2") == '[NAME] is well. We saw [NAME] today. Goes by "[NAME]".'


@pytest.mark.parametrize("value", ["1948-02-01", "19480201", "1948-02-01 00:00:00", "1948-02-01T08:00:00Z", "1 Feb 1948", "02/01/1948"])
def test_a_birth_date_of_any_form_is_found_in_all_others(value: str) -> None:
    people = KnownPeople([KnownPerson("", (("DATE", value),))])
    for text in ("born 2/1/48", "born 01FEB1948", "born February 1, 1948", "born 1.2.1948" if "/" not in value else "born 02/01/1948"):
        assert [span.type for span in people.find(text, "")] == ["DATE"], text


def test_a_date_that_can_be_two_days_is_found_as_both() -> None:
    people = KnownPeople([KnownPerson("", (("DATE", "03/04/1950"),))])
    assert people.find("March 4, 1950", "") and people.find("3 April 1950", "") and not people.find("March 5, 1950", "")


def test_a_number_with_few_digits_is_looked_for_where_letters_make_it_long() -> None:
    people = KnownPeople([KnownPerson("", (("MRN", "HXK-204"), ("OTHER", "B12"), ("VEHICLE", "M-AB 123")))])
    assert [span.type for span in people.find("MRN hxk204, B12 low, 204 mL, plate M-AB 123", "")] == ["MRN", "VEHICLE"]


@pytest.mark.parametrize("text", ["4471", "Sodium 140, 555-0199", "Willow bark", "quill feather"])
def test_what_only_looks_like_them_stays(text: str) -> None:
    assert masked(text) == text
