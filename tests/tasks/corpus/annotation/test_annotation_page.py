"""The page in a real browser, by keyboard alone: before the real command over raw files, and before notes that are hard to show."""

import json
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.annotated import annotating, served, write_notes
from helpers.browser import Page
from helpers.chat_page import LOW_CONTRAST

from tasks.corpus.annotation.notes import Mask, Note
from tasks.corpus.deidentify.recall import wilson

pytestmark = pytest.mark.system
READY = "(document.querySelector('#total')?.textContent ?? '–') !== '–'"
FINISHED = "document.querySelector('#finished').textContent"
FIRST = "Seen by Dr. Quillfeather 😀 on 03/14/2019.\nHe called zqxwv and took 5 mg."
NOTES = [("a", FIRST), ("b", "Telephone: 555-123-4567. Stable."), ("c", "No complaints today.")]


def opened(devtools: int, address: str, *, scheme: str = "light") -> Page:
    page = Page(devtools, width=1280, height=800, scheme=scheme)
    page.open(address)
    page.wait(READY)
    return page


def go_to(page: Page, part: str) -> None:
    """The note with a part of text."""
    for _ in range(5):
        if part in page.text("#text"):
            return
        number = page.text("#number")
        page.press("n")
        page.wait(f"document.querySelector('#number').textContent !== '{number}'")
    raise AssertionError(part)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.press(key)


def marks_in(folder: Path) -> list[dict[str, Any]]:
    notes = json.loads((folder / "annotation" / "marks.json").read_text())["notes"].values()
    return [mark for note in notes for mark in note.get("marks", ())]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_notes_are_annotated_by_keyboard_and_nothing_is_lost(devtools: int, tmp_path: Path) -> None:
    write_notes(tmp_path, NOTES)
    with annotating(tmp_path, "--notes", "3") as (address, process):
        page = opened(devtools, address)
        assert page.text("#total") == "3" and page.evaluate(FINISHED) == "0 finished"
        mark_the_first(page, tmp_path)
        page.evaluate("window.before = 1")
        page.call("Page.reload")
        page.wait(f"!window.before && {READY} && {FINISHED} === '1 finished'")
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        number = page.text("#number")
        press(page, "d")
        page.wait("!document.querySelector('#problem').hidden")
        assert "does not answer" in page.text("#problem") and page.text("#number") == number
        assert page.complaints == [] and not [url for url in page.requests if not url.startswith((address, "data:"))]
    with annotating(tmp_path) as (address, process):  # the sample is that of the first start
        page = opened(devtools, address)
        assert page.evaluate(FINISHED) == "1 finished" and page.text("#total") == "3"
        press(page, "d")
        page.wait(f"{FINISHED} === '2 finished'")
        press(page, "d")
        page.wait("document.querySelector('#report').open")
        assert "3 finished notes, 20 words" in page.text("#figures")
        process.terminate()
        assert process.stdout
        printed = process.stdout.read()
        assert process.wait(60) == 0
    check_figures(tmp_path / "annotation" / "figures.json")
    assert "recall 0.667 (" in printed and "with the rules of SHA-256" in printed
    outputs = [printed, *((tmp_path / name).read_text() for name in ("server.log", "annotation/figures.json", "annotation/report.html"))]
    assert not [text for text in outputs if any(word in text for word in ("Quillfeather", "zqxwv", "555-123", "complaints"))]
    for path in (tmp_path / "annotation").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "annotation").stat().st_mode) == 0o700 and not (tmp_path / ".cache" / "annotate").exists()


def mark_the_first(page: Page, folder: Path) -> None:
    """Call the date wrong, mark a missed name, mark more and undo that; the note is finished."""
    go_to(page, "Quillfeather")
    press(page, "j", "j", "w")
    page.wait("document.querySelector('.mask.wrong')?.textContent === '03/14/2019'")
    assert "becomes 2019; wrong: clinical or nobody's" in page.text("#current")
    press(page, "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    page.wait("getSelection().toString() === 'zqxwv'")
    press(page, "m")
    page.wait("document.querySelector('.missed')?.textContent === 'zqxwv'")
    press(page, "ArrowRight")
    page.press("ArrowRight", "Shift")
    page.press(",")
    page.wait("getSelection().toString() === 'zqxwv an'")
    press(page, "3")
    page.wait("document.querySelector('.missed').textContent === 'zqxwv an'")
    press(page, "u")
    page.wait("document.querySelector('.missed').textContent === 'zqxwv'")
    start = FIRST.index("zqxwv")
    assert {"start": start, "end": start + 5, "verdict": "missed", "type": "NAME"} in marks_in(folder)
    press(page, "d")
    page.wait(f"{FINISHED} === '1 finished'")


def check_figures(path: Path) -> None:
    """Counted by hand: names Quillfeather (masked) and zqxwv (missed), a number (masked); the mask of the date is wrong."""
    figures = json.loads(path.read_text())
    assert figures["recall"][0] == {"name": "all", "notes": 2, "total": 3, "count": 2} | interval(2 / 3, 2)
    assert figures["damage"][0] == {"name": "all", "notes": 2, "total": 3, "count": 1} | interval(1 / 3, 2)
    assert figures["missed"] == {"name": "missed", "notes": 3, "total": 3, "count": 1} | interval(1 / 3, 3)
    assert (figures["notes"], figures["words"], figures["unjudged"], figures["seed"]) == (3, 20, 0, 2026)
    assert figures["wrong_per_1000_words"]["value"] == round(1000 / 20, 3)


def interval(share: float, n: int) -> dict[str, float]:
    low, high = wilson(share, n)
    return {"share": round(share, 4), "low": low, "high": high}


HARD = "👩‍⚕️ <script>window.ran = 1</script>\r\nالمريض أحمد علي هنا\rZoë𝒜 &lt;b&gt; \x07 end"


def hard_note(text: str, *masks: str) -> Note:
    spans = sorted((text.index(part), text.index(part) + len(part)) for part in masks)
    return Note(f"id{len(text)}", "notes.jsonl", "line 1", text, tuple(Mask(*span, "NAME", "<b>[NAME]</b>") for span in spans), ())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_every_kind_is_shown_as_text_and_its_places_are_right(devtools: int, tmp_path: Path, scheme: str) -> None:
    write_notes(tmp_path, NOTES)
    (tmp_path / "annotation").mkdir()
    many = "Dr. Lee 😀 " * 5000
    masks = tuple(Mask(10 * i + 4, 10 * i + 7, "NAME", "[NAME]") for i in range(5000))
    with served(tmp_path, [hard_note(HARD, "Zoë𝒜", "أحمد"), Note("many", "n", "1", many, masks, ())]) as (address, session):
        page = opened(devtools, address, scheme=scheme)
        assert "<script>window.ran = 1</script>" in page.text("#text") and not page.evaluate("window.ran")
        assert page.evaluate("[...document.querySelectorAll('.mask')].map(m => m.textContent)") == ["أحمد", "Zoë𝒜"]
        press(page, "j", "w")
        page.wait("document.querySelector('.wrong')")
        press(page, "ArrowLeft", "ArrowLeft", "2")  # within the line, as it is read: to what comes next
        page.wait("document.querySelector('.missed')")
        until(lambda: session.state(0)["revision"] == 2)
        marks = {(HARD[mark["start"] : mark["end"]], mark["verdict"]) for mark in session.state(0)["marks"]}
        assert ("أحمد", "wrong") in marks and ("علي", "missed") in marks
        assert page.evaluate(LOW_CONTRAST) == [] and page.nameless() == []
        press(page, "?")
        page.wait("document.querySelector('#help').open")
        assert page.evaluate(LOW_CONTRAST) == []
        press(page, "Escape", "n")
        page.wait("document.querySelectorAll('.mask').length === 5000")
        press(page, "k", "w")
        page.wait("document.querySelectorAll('.wrong').length === 1")
        (mark,) = session.state(1)["marks"]
        assert (mark["start"], mark["end"]) == (49_994, 49_997) and page.complaints == []
        press(page, "d")
        page.wait(f"{FINISHED} === '1 finished'")
        assert len(session.state(1)["marks"]) == 5000


def test_a_second_window_shows_what_the_first_one_changed(devtools: int, tmp_path: Path) -> None:
    write_notes(tmp_path, NOTES)
    (tmp_path / "annotation").mkdir()
    with served(tmp_path, [hard_note(HARD, "Zoë𝒜")]) as (address, session):
        first, second = (opened(devtools, address) for _ in range(2))
        press(first, "j", "w")
        first.wait("document.querySelector('.wrong')")
        press(second, "j", "2")
        second.wait("!document.querySelector('#problem').hidden")
        assert "another window changed this note" in second.text("#problem") and second.evaluate(
            "Boolean(document.querySelector('.wrong'))"
        )
        press(second, "j", "2")
        second.wait("!document.querySelector('.wrong')")
        assert [(mark["verdict"], mark["type"]) for mark in session.state(0)["marks"]] == [("right", "DATE")]
        assert second.evaluate("document.querySelector('.mask').dataset.label") == "DATE"


def test_masks_of_later_rules_are_shown_as_new_until_they_are_judged(devtools: int, tmp_path: Path) -> None:
    write_notes(tmp_path, NOTES)
    (tmp_path / "annotation").mkdir()
    before, other = hard_note(HARD, "Zoë𝒜"), hard_note("Nothing to see.")
    with served(tmp_path, [other, before]) as (_, session):
        session.change(0, 0, [], done=True)
        session.change(1, 0, [], done=True, accept=True)
    with served(tmp_path, [other, hard_note(HARD, "Zoë𝒜", "أحمد")]) as (address, session):
        page = opened(devtools, address)
        assert page.text("#number") == "2" and page.evaluate(FINISHED) == "2 finished, 1 with new masks"
        assert page.text("#badge") == "1 new mask to judge" and page.text(".mask.new") == "أحمد"
        press(page, "d")
        page.wait("document.querySelector('#report').open")
        assert not any(session.fresh()) and page.evaluate(FINISHED) == "2 finished"
