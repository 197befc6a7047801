"""Masks and repairs of a note, in places of its text before any rule."""

import pytest
from helpers.project import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.annotation.notes import Note, _Alignment, note_of
from tasks.corpus.deidentify.document import BORDER
from tasks.corpus.deidentify.known import NOBODY, KnownPeople
from tasks.corpus.documents import Document, KnownPerson, content_id
from tasks.params import read_params

PARAMS = read_params(ROOT / "params.yaml")["preprocess"].deidentify.model_dump_json()  # type: ignore[attr-defined]


def note(answer: str, question: str = "", known: KnownPeople = NOBODY) -> Note:
    return note_of(Document(content_id(answer), question, answer, "s", "k", "patient:1", "line 1"), PARAMS, known)


def masked(of_note: Note) -> list[tuple[str, str, str]]:
    return [(of_note.text[mask.start : mask.end], mask.type, mask.replacement) for mask in of_note.masks]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "\ufeff",
        "A  b.  C &amp; d\t\te\n\n\n\n\nf ",
        "👩‍⚕️ 𝒜 café naÃ¯ve ",
        "x\r\ny\rz\x07\x0c",
        "كتب الطبيب ",
    ],
)
def test_a_mask_is_where_the_identifier_was_whatever_was_repaired_in_front_of_it(before: str) -> None:
    text = f"{before}Seen by Dr. Quillfeather on 03/14/2019. &lt; 5 mg"
    assert masked(note(text)) == [("Quillfeather", "NAME", "[NAME]"), ("03/14/2019", "DATE", "2019")]


def test_an_identifier_in_pieces_is_whole_before_the_repair() -> None:
    assert masked(note("Seen by Dr. Ame\u0301lie\u200b Quill\u00adfeather today")) == [
        ("Ame\u0301lie\u200b Quill\u00adfeather", "NAME", "[NAME]")
    ]


def test_what_changes_nothing_is_no_mask_and_blanks_and_composition_are_no_repair() -> None:
    of_note = note("In 2019  he took\t5 mg.   Cafe\u0301 &amp; more\x07")
    assert not of_note.masks
    assert [(of_note.text[repair.start : repair.end], repair.after) for repair in of_note.repairs] == [("amp;", ""), ("\x07", "")]


def test_texts_of_a_conversation_have_a_border_and_a_note_none() -> None:
    assert note("Plain.").text == "Plain."
    of_note = note("Dr. Quillfeather came.", "Who  came?")
    assert of_note.text == f"Who  came?{BORDER}Dr. Quillfeather came." and masked(of_note) == [("Quillfeather", "NAME", "[NAME]")]


def test_people_whom_the_data_names_are_masked_as_in_a_run() -> None:
    text = "zqxwv was told, and zqxwv left."
    assert not note(text).masks
    known = KnownPeople([KnownPerson("patient:1", (("NAME", "Zqxwv"),))])
    assert masked(note(text, known=known)) == [("zqxwv", "NAME", "[NAME]")] * 2


def test_another_text_has_another_digest() -> None:
    assert note("One.").digest == note("One.").digest != note("One. ").digest


@given(st.lists(st.tuples(st.text("ab c&;\n\t", max_size=6), st.text("ab c&;\n\t", max_size=6)), max_size=5))
@settings(deadline=None)
def test_every_place_of_the_repaired_text_has_one_before_it_in_the_same_order(parts: list[tuple[str, str]]) -> None:
    before, after = [" ".join(old for old, _ in parts), "end"], [" ".join(new for _, new in parts), "end"]
    alignment = _Alignment(before, after)
    whole = BORDER.join(after)
    starts, ends = [alignment.start(i) for i in range(len(whole))], [alignment.end(i + 1) for i in range(len(whole))]
    assert starts == sorted(starts) and ends == sorted(ends)
    assert all(0 <= start <= end <= len(alignment.before) for start, end in zip(starts, ends, strict=True))
    assert alignment.before[starts[-3] : ends[-1]] == "end"
