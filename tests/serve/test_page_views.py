"""What the web page shows besides answers as they stream: Markdown or tokens, how far a prompt is read, extractions, comparisons."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.browser import Page
from helpers.chat_page import ANSWERED, ERROR, LOW_CONTRAST, READY, TOKENS, open_chat_page, send
from helpers.page_server import NOTE, SHORT, TASK, Server

pytestmark = pytest.mark.system
FIELDS = """[...document.querySelectorAll('.fields tr')].map(row => [row.querySelector('th').innerText,
  row.querySelector('.value').innerText, row.querySelector('.state')?.innerText ?? ''])"""
LIT_MARKS = "[...document.querySelectorAll('mark.lit')].map(mark => mark.innerText)"
LIT_ROWS = "[...document.querySelectorAll('tr.lit th')].map(head => head.innerText)"
OTHER = SHORT.replace(" condition", " disease").replace("| unusually", "")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.fixture
def page(devtools: int, server: Server) -> Page:
    return open_chat_page(devtools, server.address)


def press_button(page: Page, label: str, where: str = ".turn") -> None:
    page.evaluate(f"[...document.querySelector('{where}').querySelectorAll('button')].find(b => b.innerText === '{label}').click()")


def extract(page: Page, note: str = NOTE) -> None:
    page.click("[name=mode][value=extract]")
    page.wait("document.querySelector('#task').options.length")
    send(page, note)
    page.wait(ANSWERED)


def compare(page: Page, question: str = "What is arachnodactyly?") -> None:
    page.click("#compare")
    send(page, question)
    page.wait(ANSWERED)


class TestMarkdownAndTokens:
    def test_markdown_is_shown_with_the_probability_of_each_word(self, page: Page) -> None:
        send(page, "markdown")
        page.wait(ANSWERED)
        shapes = {"h3": "Signs", "strong": "Fever", "ul": "one\ntwo", "ol": "rest", "pre": "BP  120/80", "th:nth-of-type(2)": "b"}
        assert {tag: page.text(f".formatted {tag}") for tag in shapes} == shapes
        assert page.evaluate("[...document.querySelectorAll('strong .token')].map(t => t.textContent)") == ["Fev", "er"]
        page.hover("strong .token:nth-of-type(2)")
        page.wait("!document.querySelector('#token').hidden")
        assert page.text("#token th") == "er**"
        page.focus(".token")
        page.press("ArrowRight")
        assert page.evaluate("document.activeElement.textContent") == "Fev"  # of the next block

    def test_a_toggle_shows_the_tokens_as_they_came(self, page: Page) -> None:
        send(page, "markdown")
        page.wait(ANSWERED)
        raw = page.evaluate("document.querySelectorAll('.token').length")
        press_button(page, "Tokens")
        assert page.text(".answer .text").startswith("# Signs\n\n**Fever** and cough:\n* one")
        assert page.evaluate("[...document.querySelectorAll('.views button')].map(b => [b.innerText, b.ariaPressed])") == [
            ["Text", "false"],
            ["Tokens", "true"],
        ]
        assert page.evaluate(TOKENS) >= raw and not page.evaluate("document.querySelector('.formatted')")
        send(page, "And more?")  # the next turn is shown in the same way
        page.wait(f"document.querySelectorAll('.views').length === 2 && {ANSWERED}")
        assert not page.evaluate("document.querySelector('.formatted')")
        press_button(page, "Text")
        assert page.evaluate("document.querySelectorAll('.formatted').length") == 1 and page.complaints == []

    def test_a_kept_answer_is_formatted_too(self, page: Page, server: Server) -> None:
        page.click("#open-settings")
        page.click("#keep")
        send(page, "markdown")
        page.wait(ANSWERED)
        page.open(server.address)
        page.wait(READY)
        assert page.text(".formatted strong") == "Fever" and page.evaluate(TOKENS) == 0


def test_it_says_where_a_request_is_while_its_prompt_is_read(page: Page, server: Server) -> None:
    send(page, "queued")
    for words in ("place 2 in the queue · ", "reading: 64 of 900 tokens · ", "reading: 448 of 900 tokens · "):
        page.wait(f"document.querySelector('.wait').innerText.includes('{words}')")
    assert page.evaluate("document.querySelector('progress').value") == 448 and page.text(".wait").endswith((" 1 s", " 2 s"))
    assert page.evaluate("document.querySelector('.wait').ariaLive") == "off"  # read out every second it would be a nuisance
    page.wait(ANSWERED)
    assert page.text(".wait") == "" and server.bodies[0]["stream_options"] == {"include_progress": True}


class TestExtraction:
    def test_a_note_is_asked_about_as_in_training(self, page: Page, server: Server) -> None:
        extract(page)
        (body,) = server.bodies
        assert body["messages"] == [{"role": "user", "content": f"{TASK['instructions'][0]}\n\n{NOTE}"}]  # type: ignore[index]
        form = {"name": "measurements", "schema": TASK["schema"]}
        assert body["response_format"] == {"type": "json_schema", "json_schema": form, "grounded": False}
        assert body["temperature"] == 0 and body["logprobs"]
        assert page.text("#trained").startswith("The model was trained on this task")

    def test_an_answer_may_be_held_to_the_note_which_editing_keeps(self, page: Page, server: Server) -> None:
        page.click("[name=mode][value=extract]")
        page.click("#grounded")
        extract(page)
        assert server.bodies[0]["response_format"]["grounded"] is True
        page.click("#grounded")
        press_button(page, "Edit")
        assert page.evaluate("document.querySelector('#grounded').checked") is True

    def test_each_value_says_whether_the_note_states_it(self, page: Page) -> None:
        extract(page)
        assert page.evaluate(FIELDS) == [
            ["systolic bp", "131 mmHg", "in the note, without its label"],  # the label is in markup here
            ["diastolic bp", "68 mmHg", "in the note, without its label"],
            ["heart rate", "86 /min", "in the note, without its label"],  # it is the age
            ["temperature", "37.6 °C", ""],
            ["wbc", "15780 /uL", ""],  # 15,780 in the note
            ["1", "Ceftriaxone", ""],
            ["2", "Amlodipine", ""],
            ["3", "Heparin", "not in the note"],
        ]
        assert page.evaluate("document.querySelector('.note').textContent") == NOTE
        assert page.evaluate("[...document.querySelectorAll('mark')].map(m => m.innerText)") == [
            "86",
            "131",
            "68",
            "37.6",
            "15,780",
            "Ceftriaxone",
            "amlodipine",
        ]
        left, right = page.evaluate("['.note', '.fields'].map(s => document.querySelector(s).getBoundingClientRect().left)")
        assert left < right and page.complaints == []

    def test_values_and_the_words_that_they_came_from_light_up_together(self, page: Page) -> None:
        extract(page)
        page.focus("tr:nth-of-type(4) .value")
        assert page.evaluate(LIT_MARKS) == ["37.6"] and page.evaluate(LIT_ROWS) == ["temperature"]
        page.hover("mark:nth-of-type(6)")
        assert page.evaluate(LIT_MARKS) == ["Ceftriaxone"] and page.evaluate(LIT_ROWS) == ["1"]
        page.click("mark:nth-of-type(5)")
        page.hover("#prompt")
        assert page.evaluate("document.activeElement.tagName") == "MARK" and page.evaluate(LIT_ROWS) == ["wbc"]
        page.focus("#prompt")
        assert page.evaluate(LIT_MARKS) == []

    def test_a_values_probability_is_the_product_of_its_tokens(self, page: Page) -> None:
        extract(page)
        shown = page.text(".fields tr:nth-of-type(4) .probability")
        press_button(page, "Tokens")
        spans = "[...document.querySelectorAll('.token')].filter(t => ['37', '.', '6'].includes(t.textContent))"
        product = page.evaluate(f"{spans}.reduce((p, t) => p * (1 - t.style.getPropertyValue('--uncertainty')), 1)")
        # 37 comes with its field's name in one token of the fake server.
        name = page.evaluate("[...document.querySelectorAll('.token')].find(t => t.textContent.includes('37')).style.cssText")
        product *= 1 - float(name.split(":")[1].strip(" ;"))
        assert float(shown.removesuffix(" %")) == pytest.approx(100 * product, abs=0.2)

    def test_an_instruction_and_a_schema_of_ones_own(self, page: Page, server: Server) -> None:
        page.click("[name=mode][value=extract]")
        page.wait("document.querySelector('#task').options.length")
        page.evaluate("document.querySelector('#extraction-details').open = true")
        for selector, text in (("#instruction", "How old?"), ("#schema", "no JSON")):
            page.evaluate(f"document.querySelector('{selector}').value = ''")
            page.focus(selector)
            page.type(text)
        assert "Nothing says that the model was trained" in page.text("#trained")
        send(page, NOTE)
        assert not server.bodies and page.evaluate("document.querySelector('#schema:invalid') === document.activeElement")
        schema: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "number"}}}
        page.evaluate("document.querySelector('#schema').value = ''")
        page.type(json.dumps(schema))
        send(page, NOTE)
        page.wait(ANSWERED)
        (body,) = server.bodies
        assert body["response_format"]["json_schema"]["schema"] == schema
        assert body["messages"][0]["content"] == f"How old?\n\n{NOTE}"

    def test_an_answer_that_was_cut_off_gives_the_values_that_are_whole(self, page: Page) -> None:
        page.click("[name=mode][value=extract]")
        page.wait("document.querySelector('#task').options.length")
        send(page, "cut")
        page.wait(ERROR)
        page.wait("document.querySelector('.fields')")
        assert page.evaluate(FIELDS) == [["systolic bp", "131 mmHg", "not in the note"]]

    def test_an_extraction_is_kept_and_edited(self, page: Page, server: Server) -> None:
        page.click("#open-settings")
        page.click("#keep")
        extract(page)
        page.open(server.address)
        page.wait(READY)
        assert len(page.evaluate(FIELDS)) == 8 and page.evaluate("document.querySelectorAll('.probability .bar').length") == 0
        press_button(page, "Edit")
        assert page.evaluate("document.querySelector('#prompt').value") == NOTE
        assert page.evaluate("document.querySelector('[name=mode]:checked').value") == "extract"


class TestComparison:
    def test_both_models_get_one_seed_which_is_shown(self, page: Page, server: Server) -> None:
        compare(page)
        first, second = (body["seed"] for body in server.bodies)
        assert first == second and f"both with seed {first}" in page.text(".turn-actions")
        press_button(page, "Again")
        page.wait(f"document.querySelector('.vote') && {ANSWERED}")
        assert server.bodies[2]["seed"] == server.bodies[3]["seed"] != first
        page.click("#open-settings")
        page.focus("#seed")
        page.type("7")
        press_button(page, "Again")
        page.wait("document.querySelector('.turn-actions').innerText.includes('both with seed 7')")
        assert [body["seed"] for body in server.bodies[4:]] == [7, 7]

    def test_the_words_that_differ_are_marked_where_the_user_asks(self, page: Page, server: Server) -> None:
        server.answers["medical-llm@previous"] = OTHER
        compare(page)
        assert not page.evaluate("document.querySelector('mark')")
        press_button(page, "Differences")
        marked = "[...document.querySelectorAll('.answer')].map(a => [...a.querySelectorAll('mark')].map(m => m.textContent.trim()))"
        assert page.evaluate(marked) == [["condition", "unusually"], ["disease"]]
        assert page.evaluate("document.querySelectorAll('.text')[1].textContent") == OTHER.replace("|", "")
        press_button(page, "Text")
        assert not page.evaluate("document.querySelector('mark')")

    def test_a_vote_is_part_of_the_exported_conversation(self, page: Page) -> None:
        compare(page)
        press_button(page, "Second")
        assert "in the exported file" in page.text(".vote")
        press_button(page, "Both bad")
        page.evaluate("URL.createObjectURL = blob => { blob.text().then(text => { window.exported = text }); return 'data:,' }")
        page.click("#export")
        page.wait("window.exported")
        (turn,) = json.loads(page.evaluate("window.exported"))
        assert turn["vote"] == "both_bad" and isinstance(turn["seed"], int) and len(turn["answers"]) == 2

    def test_a_server_that_stores_votes_gets_what_was_asked_and_answered(self, devtools: int, server: Server) -> None:
        server.preferences = []
        server.answers["medical-llm@previous"] = OTHER
        page = open_chat_page(devtools, server.address)
        compare(page)
        press_button(page, "First")
        page.wait("document.querySelector('.vote').innerText.includes('stored by the server')")
        assert page.evaluate("[...document.querySelectorAll('.vote button')].every(b => b.disabled)")
        (vote,) = server.preferences
        first, second = vote["answers"]
        assert vote["choice"] == "first" and (first["model"], second["model"]) == ("medical-llm", "medical-llm@previous")
        assert second["text"] == OTHER.replace("|", "") and second["fingerprint"] == "3-9f86d081884c"
        assert first["prompt"] == [{"role": "user", "content": "What is arachnodactyly?"}]
        seed = server.bodies[0]["seed"]
        assert vote["settings"] == {"temperature": 0.6, "top_p": 0.9, "max_tokens": 256, "seed": seed}

    def test_an_answer_that_failed_is_not_voted_on(self, page: Page) -> None:
        page.click("#compare")
        send(page, "cut")
        page.wait(ERROR)
        page.wait("document.querySelector('.turn-actions button')")
        assert not page.evaluate("document.querySelector('.vote')")
        assert "Differences" not in page.text(".turn-actions")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everything_is_reachable_and_nothing_is_wider(devtools: int, server: Server, scheme: str) -> None:
    page = open_chat_page(devtools, server.address, width=360, scheme=scheme)
    page.resize(360, 740)

    def fits() -> None:
        wide = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
          && !e.closest('.visually-hidden, #token, .scroll') && getComputedStyle(e).clipPath === 'none'
          && e.getBoundingClientRect().right > innerWidth).map(e => e.id || e.className)"""
        assert page.evaluate(f"[document.documentElement.scrollWidth, innerWidth, {wide}]") == [360, 360, []]
        assert page.nameless() == [] and page.evaluate(LOW_CONTRAST) == []

    page.click("[name=mode][value=extract]")
    page.wait("document.querySelector('#task').options.length")
    page.evaluate("document.querySelector('#extraction-details').open = true")
    fits()
    page.evaluate("document.querySelector('#extraction-details').open = false")
    extract(page)
    fits()
    assert page.evaluate("['.note', '.fields'].map(s => document.querySelector(s).getBoundingClientRect().left < 40)") == [True, True]
    page.click("[name=mode][value=chat]")
    page.click("#compare")
    send(page, "markdown")
    page.wait(f"document.querySelector('.vote') && {ANSWERED}")
    page.evaluate("document.querySelectorAll('.views')[1].lastChild.click()")
    fits()
    for selector in (".vote button", ".turn-actions button", "#send", "#open-settings", "#export"):
        page.evaluate(f"document.querySelector('{selector}').scrollIntoView({{block: 'nearest'}})")
        inside = (
            f"(b => b.top >= 0 && b.bottom <= innerHeight && b.width > 0)(document.querySelector('{selector}').getBoundingClientRect())"
        )
        assert page.evaluate(inside), selector
    page.click("#open-settings")
    fits()
