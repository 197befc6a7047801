"""Notes as training text: long ones in parts, pictures out, other values are other notes, copies counted."""

import random
from pathlib import Path

import pytest

from tasks.corpus.cleaning import comparison, copy_forward
from tasks.corpus.cleaning.attachments import remove_attachments
from tasks.corpus.cleaning.passes import repair
from tasks.corpus.documents import Document
from tasks.corpus.readers.sections import is_heading, note_parts, parts


def note(answer: str, *, question: str = "", group: str = "qa:1") -> Document:
    return Document("ab" * 12, question, answer, "s", "text", group, "line 2")


@pytest.mark.parametrize(
    "line",
    [
        "HISTORY OF PRESENT ILLNESS:",
        "PAST MEDICAL HISTORY: none",
        "Medications on admission:",
        "## Plan",
        "3. Physical exam",
        "Befund:",
        "ASSESSMENT AND PLAN",
    ],
)
def test_headings_are_known(line: str) -> None:
    assert is_heading(line + "\n")


@pytest.mark.parametrize(
    "line",
    [
        "The patient was seen today.",
        "Sodium | 140 | mmol/L",
        "GLUCOSE   95   70-110   mg/dL",
        "- aspirin 81 mg",
        "he said: yes, and went home",
    ],
)
def test_text_and_rows_are_no_headings(line: str) -> None:
    assert not is_heading(line + "\n")


def test_a_long_note_is_split_at_headings_and_never_in_a_table() -> None:
    rng = random.Random(1)
    text = ""
    for n in range(40):
        text += f"SECTION NUMBER {'ABCDEFGHIJ'[n % 10]}:\n" + "".join(
            f"Word {rng.random()} and more.\n" for _ in range(rng.randrange(3, 12))
        )
        text += (
            "\nTest         Value     Range\n" + "".join(f"Sodium {k}     1{k}0     135-145\n" for k in range(rng.randrange(2, 9))) + "\n"
        )
    documents = note_parts(note(text), 1_500)
    assert len(documents) > 10 and all(len(d.answer) <= 1_500 for d in documents)
    assert "".join(d.answer.replace("\n", "") for d in documents) == text.replace("\n", "")
    assert all(d.answer.startswith("SECTION NUMBER") for d in documents)
    assert {d.group for d in documents} == {"qa:1"} and len({d.id for d in documents}) == len(documents)
    assert [d.position for d in documents[:2]] == ["line 2 part 1", "line 2 part 2"]


def test_a_table_is_cut_only_where_it_is_longer_than_a_part() -> None:
    rows = "".join(f"Sodium {k}     1{k}0     135-145\n" for k in range(20))
    lead = "A paragraph of words.\n" * 20
    first, second = parts((lead + rows).splitlines(keepends=True), 700)
    assert first == lead and second == rows
    assert all(part.endswith("\n") for part in parts(rows.splitlines(keepends=True), 200))
    assert [len(part) for part in parts(["x" * 1_000], 300)] == [300, 300, 300, 100]


def test_what_is_short_or_has_a_question_stays_one_document() -> None:
    assert note_parts(note("short"), 100) == [note("short")]
    asked = note("x " * 100, question="What?")
    assert note_parts(asked, 100) == [asked]


BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHx"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Seen. <img src='data:image/png;base64,{BASE64}=='> Well.", "Seen. <img src=''> Well."),
        (f"Seen. ![wound](data:image/jpeg;base64,{BASE64}) Well.", "Seen.  Well."),
        ("Photo:\n" + f"{BASE64[:76]}\n" * 5 + "gg==\nWell.", "Photo:\n\nWell."),
        (f"Photo {BASE64 * 4}== Well.", "Photo  Well."),
    ],
)
def test_pictures_in_base64_go_as_a_counted_repair(text: str, left: str) -> None:
    assert remove_attachments(text) == left
    repaired, repairs = repair(note(text))
    assert "attachments" in repairs and BASE64[:40] not in repaired.answer


@pytest.mark.parametrize(
    "text",
    [
        "ATGCATGC" * 50,
        "MKTAYIAKQRQISFVKSHFSRQ" * 20,
        "aspirin/ibuprofen/paracetamol " * 20,
        "see https://example.org/" + "a1" * 20,
        "=" * 400,
    ],
)
def test_sequences_and_lines_are_no_pictures(text: str) -> None:
    assert remove_attachments(text) == text


@pytest.mark.parametrize("end", ["IMPRESSION", "120/80", "FINDINGS\nHeart size normal"])
def test_words_behind_a_picture_stay(end: str) -> None:
    url = f"See data:image/png;base64,{BASE64[:76]}"
    assert remove_attachments(f"{url}AA==\n\n{end}") == f"See \n\n{end}"
    assert remove_attachments(f"{url}\r\n{BASE64[:76]}\r\nAA==\r\n{end}") == f"See \r\n{end}"
    assert remove_attachments(f"{url}\n{BASE64[:76]}\n{end}") == f"See \n{end}"
    assert remove_attachments(f"Photo:\n{BASE64[:76]}\n{BASE64[:76]}\n{end}") == f"Photo:\n{end}"
    assert remove_attachments(f"Photo:\n{BASE64[:76]}\n{BASE64[:76]}\nAA==\n{end}") == f"Photo:\n\n{end}"


def test_other_values_are_another_note() -> None:
    words = "The report of the laboratory lists the values that were measured in this sample today and compares them with the last ones. "
    keys = [comparison.comparison_keys(note(words + f"Sodium {value}."), 6)["subject"] for value in (140, 141, 140)]
    assert keys[0] != keys[1] and keys[0] == keys[2]


def test_paragraphs_of_a_groups_notes_are_found_and_capped(tmp_path: Path) -> None:
    import numpy as np

    copied = "The same paragraph of more than twelve words that was copied from note to note of one patient."
    notes = [note(f"Day {n}.\n\n{copied}\n\nPlan {n} is another one.") for n in range(4)]
    others = [note(copied, group="qa:2"), note(copied, group="record:x"), note(copied, question="q?")]
    (tmp_path / "paragraphs").mkdir()
    for partition, members in ((3, notes[:2]), (7, [*notes[2:], *others])):
        rows = [(key, row) for row, document in enumerate(members) for key in copy_forward.paragraph_keys(document)]
        np.save(tmp_path / "paragraphs" / f"{partition:03d}.npy", np.array(rows, np.uint64).reshape(-1, 2))
    copy_forward.find_copies(tmp_path, 0)
    assert [copy_forward.copies_of(tmp_path, p) for p in (3, 7)] == [{0: set(), 1: set()}, {0: set(), 1: set()}]
    copy_forward.find_copies(tmp_path, 3)
    assert copy_forward.copies_of(tmp_path, 3) == {0: set(), 1: set()}
    (last,) = (keys for row, keys in copy_forward.copies_of(tmp_path, 7).items() if row == 1)
    assert copy_forward.without_paragraphs(notes[3], last) == "Day 3.\n\nPlan 3 is another one."
