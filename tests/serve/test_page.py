"""The web page in a real browser, before a server that speaks the API's contract."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.browser import Page
from helpers.chat_page import ANSWERED, ERROR, LOW_CONTRAST, READY, TOKENS, TURNS, open_chat_page, send
from helpers.page_server import Server

pytestmark = pytest.mark.system


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.fixture
def page(devtools: int, server: Server) -> Page:
    return open_chat_page(devtools, server.address)


def set_value(page: Page, selector: str, value: str) -> None:
    page.evaluate(
        f"(c => {{ c.value = '{value}'; c.dispatchEvent(new Event('input', {{bubbles: true}})) }})(document.querySelector('{selector}'))"
    )


def test_a_question_is_answered_as_it_is_written(page: Page, server: Server) -> None:
    server.pause = 0.02
    for selector, value in (("#temperature", "0.25"), ("#top-p", "0.5"), ("#length", "64"), ("#seed", "7")):
        set_value(page, selector, value)
    send(page, "What is arachnodactyly?")
    page.wait(f"{TOKENS} > 3")
    assert not page.evaluate(ANSWERED) and page.evaluate("document.querySelector('.answer').ariaBusy === 'true'")
    page.wait(ANSWERED)
    assert "39 °C and naïve are no signs." in page.text(".answer .text")
    assert "version 3-9f86d081884c · 55 tokens" in page.text(".answer .foot")
    (body,) = server.bodies
    assert body.items() >= {"model": "medical-llm", "stream": True, "temperature": 0.25, "top_p": 0.5, "max_tokens": 64, "seed": 7}.items()
    assert body["messages"] == [{"role": "user", "content": "What is arachnodactyly?"}]
    send(page, "And why?")
    page.wait(f"{TURNS} === 2 && {ANSWERED}")
    assert [message["role"] for message in server.bodies[1]["messages"]] == ["user", "assistant", "user"]
    page.click("#clear")
    send(page, "Something else")
    page.wait(ANSWERED)
    assert len(server.bodies[2]["messages"]) == 1


def test_all_settings_and_a_system_prompt_are_sent(page: Page, server: Server) -> None:
    chosen = {"top-k": 40, "min-p": 0.05, "repetition": 1.1, "frequency": 0.5, "presence": -0.5}
    for name, value in chosen.items():
        set_value(page, f"#{name}", str(value))
    set_value(page, "#system", "Be brief.")
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    (body,) = server.bodies
    names = ("top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
    assert [body[name] for name in names] == list(chosen.values())
    assert body["messages"][0] == {"role": "system", "content": "Be brief."} and len(body["messages"]) == 2


def test_enter_sends_and_shift_enter_breaks_the_line(page: Page, server: Server) -> None:
    page.focus("#prompt")
    page.type("one")
    page.press("Enter", "Shift")
    assert not server.bodies
    page.type("two")
    page.press("Enter")
    page.wait(ANSWERED)
    assert server.bodies[0]["messages"][0]["content"] == "one\ntwo"


def test_a_turn_is_answered_again_edited_or_deleted(page: Page, server: Server) -> None:
    def act(turn: int, label: str) -> None:
        buttons = f"[...document.querySelectorAll('.turn')[{turn}].querySelectorAll('.turn-actions button')]"
        page.evaluate(f"{buttons}.find(button => button.innerText === '{label}').click()")

    for question in ("First?", "Second?"):
        send(page, question)
        page.wait(ANSWERED)
    act(1, "Again")
    page.wait(ANSWERED)
    assert server.bodies[2]["messages"] == server.bodies[1]["messages"] and page.evaluate(TURNS) == 2
    act(0, "Delete")
    assert page.evaluate(TURNS) == 1
    act(0, "Edit")
    assert page.evaluate(TURNS) == 0 and page.evaluate("document.querySelector('#prompt').value") == "Second?"
    page.focus("#prompt")
    page.press("Enter")
    page.wait(ANSWERED)
    assert [message["content"] for message in server.bodies[3]["messages"]] == ["Second?"]


def test_a_question_that_is_too_long_stays_in_the_text_field(page: Page) -> None:
    send(page, "long")
    page.wait(ERROR)
    page.wait("document.querySelector('#prompt').value === 'long'")


def test_conversation_and_settings_stay_where_the_user_allows_it(devtools: int, server: Server) -> None:
    page = open_chat_page(devtools, server.address)
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    page.open(server.address)
    page.wait(READY)
    assert page.evaluate(TURNS) == 0 and page.evaluate("localStorage.length") == 0
    page.click("#open-settings")
    page.click("#keep")
    set_value(page, "#temperature", "1.25")
    set_value(page, "#system", "Be brief.")
    set_value(page, "#theme", "dark")
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    page.open(server.address)
    page.wait(READY)
    assert page.evaluate(TURNS) == 1 and "39 °C and naïve are no signs." in page.text(".answer .text")
    assert page.evaluate("['temperature', 'system', 'theme'].map(id => document.getElementById(id).value)") == ["1.25", "Be brief.", "dark"]
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
    send(page, "And why?")
    page.wait(f"{TURNS} === 2 && {ANSWERED}")
    assert [message["role"] for message in server.bodies[-1]["messages"]] == ["system", "user", "assistant", "user"]
    page.click("#open-settings")
    page.click("#keep")
    assert page.evaluate("localStorage.length") == 0
    page.open(server.address)
    page.wait(READY)
    assert page.evaluate(TURNS) == 0


def test_the_conversation_is_a_file(page: Page) -> None:
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    page.evaluate("URL.createObjectURL = blob => { blob.text().then(text => { window.exported = text }); return 'data:,' }")
    page.click("#export")
    page.wait("window.exported")
    (turn,) = json.loads(page.evaluate("window.exported"))
    assert turn["prompt"] == "What is arachnodactyly?" and turn["answers"][0]["model"] == "medical-llm"
    assert "39 °C and naïve are no signs." in turn["answers"][0]["text"] and page.complaints == []


def test_a_text_is_completed_behind_its_beginning(page: Page, server: Server) -> None:
    page.click("[name=mode][value=text]")
    send(page, "The patient has ")
    page.wait(ANSWERED)
    assert page.text(".answer .text").startswith("The patient has Arachnodactyly is")
    (body,) = server.bodies
    assert body["prompt"] == "The patient has " and "messages" not in body and "seed" not in body
    assert page.evaluate(TOKENS) > 40


@pytest.mark.parametrize("stop", ["Escape", "#stop"])
def test_stop_ends_the_request_and_keeps_what_was_written(page: Page, server: Server, stop: str) -> None:
    send(page, "endless")
    page.wait(f"{TOKENS} > 3")
    if stop == "Escape":
        page.press(stop)
    else:
        page.click(stop)
    assert server.client_left.wait(5)
    page.wait("document.querySelector('#stop').hidden")
    assert page.text(".answer .text").strip().startswith("0 1 2")
    assert page.text(".answer .foot").endswith("stopped") and not page.evaluate(ERROR)
    send(page, "And now?")
    page.wait(f"{TURNS} === 2 && {ANSWERED}")


def test_two_models_answer_side_by_side(page: Page, server: Server) -> None:
    page.click("#compare")
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    assert sorted(body["model"] for body in server.bodies) == ["medical-llm", "medical-llm@previous"]
    boxes = page.evaluate(
        "[...document.querySelectorAll('.answer')].map(a => { const b = a.getBoundingClientRect(); return [b.left, b.top] })"
    )
    assert len(boxes) == 2 and boxes[0][1] == boxes[1][1] and boxes[0][0] < boxes[1][0]
    assert page.evaluate("[...document.querySelectorAll('.model')].map(m => m.innerText)") == ["medical-llm", "medical-llm@previous"]
    assert page.evaluate("document.querySelector('#length').max") == "512"


def test_with_one_model_there_is_nothing_to_compare(devtools: int, server: Server) -> None:
    server.models = ("medical-llm",)
    page = open_chat_page(devtools, server.address)
    assert page.evaluate("document.querySelector('#compare-option').hidden && document.querySelector('#second-model').hidden")


def test_a_words_probability_is_shown_on_hover_and_on_focus(page: Page) -> None:
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    assert page.evaluate("document.querySelector('#token').hidden")
    page.hover(".token:nth-of-type(3)")
    page.wait("!document.querySelector('#token').hidden")
    assert page.evaluate("[...document.querySelectorAll('#token th')].map(t => t.innerText)") == ["dact", "␣the", "␣<b>", "↵"]
    assert page.evaluate("document.querySelector('#token td').innerText").endswith(" %")
    page.hover("#prompt")
    page.wait("document.querySelector('#token').hidden")
    page.focus(".token")
    for key, word in (("ArrowRight", "no"), ("ArrowRight", "dact"), ("ArrowLeft", "no")):
        page.press(key)
        assert page.evaluate("document.activeElement.textContent") == word
        assert page.text("#token th") == word
    assert page.evaluate("document.querySelectorAll('.token[tabindex=\"0\"]').length") == 1
    page.press("Escape")
    assert page.evaluate("document.querySelector('#token').hidden")
    lit = "getComputedStyle(document.querySelector('.token')).backgroundImage !== 'none'"
    assert page.evaluate(lit)
    page.click("#open-settings")
    page.click("#shade")
    assert not page.evaluate(lit)


def test_the_passport_says_what_the_model_was_made_from(page: Page) -> None:
    page.click("#open-passport")
    page.wait("document.querySelector('#passport dl')")
    text = page.text("#passport")
    for part in (
        "Passport of medical-llm",
        "Verified",
        "67d74931c0ff",
        "Human Phenotype Ontology",
        "Licence: HPO licence",
        "Licence: not stated",
        "Cite Köhler et al.",
        "−0.740 to −0.684",
        "test, 412 items",
        "No clinician has rated its answers.",
        "better on answer_nll",
    ):
        assert part in text, part
    assert "uncommitted" not in text
    page.evaluate("document.querySelector('#passport details').open = true")
    assert (
        "It is not a medical device." in page.text("#passport")
        and page.evaluate("document.querySelectorAll('#passport .model-card td').length") == 3
    )
    page.press("Escape")
    page.wait("!document.querySelector('#passport').open")


def test_a_busy_server_is_asked_again_after_the_time_it_names(page: Page, server: Server) -> None:
    send(page, "busy")
    page.wait(ERROR)
    assert "The server is busy. Try again in" in page.text("#turns .error")
    again = "document.querySelector('#turns .error button')"
    assert page.evaluate(f"{again}.disabled")
    page.wait(f"!{again}.disabled", seconds=5)
    page.click("#turns .error button")
    page.wait(ANSWERED)
    assert not page.evaluate(ERROR) and "Arachnodactyly" in page.text(".answer .text")
    assert len(server.bodies) == 2


def test_errors_are_shown_in_words(page: Page, server: Server) -> None:
    for prompt, words in (("long", "too long for the model"), ("cut", "The answer is not complete")):
        send(page, prompt)
        page.wait(f"{ERROR}?.innerText.includes('{words}')")
        page.click("#clear")
    server.end()
    send(page, "Still there?")
    page.wait(f"{ERROR}?.innerText.includes('The server does not answer')")
    assert page.evaluate("document.querySelector('#turns .error').getAttribute('role')") == "alert"


def test_a_page_that_cannot_load_the_models_can_try_again(devtools: int, server: Server) -> None:
    page = Page(devtools)
    page.call("Network.setBlockedURLs", urls=["*/v1/models"])
    page.open(server.address)
    page.wait("!document.querySelector('#problem').hidden")
    page.call("Network.setBlockedURLs", urls=[])
    page.click("#problem button")
    page.wait(f"{READY} && document.querySelector('#problem').hidden")


def test_a_key_is_asked_for_where_it_is_needed_and_kept_in_the_tab(devtools: int, server: Server) -> None:
    server.key = "right"
    page = Page(devtools)
    page.open(server.address)
    for key, words in (("wrong", "The server asks for a key."), ("right", "The server does not take this key.")):
        page.wait("!document.querySelector('#key-form').hidden && document.activeElement.id === 'key'")
        assert page.text("#key-form label") == words
        page.type(key)
        page.press("Enter")
    page.wait(f"{READY} && document.querySelector('#key-form').hidden")
    server.key = "renewed"
    send(page, "What is arachnodactyly?")
    page.wait("!document.querySelector('#key-form').hidden")
    page.type("renewed")
    page.click("#key-form button")
    page.wait(ANSWERED)
    assert "Arachnodactyly" in page.text(".answer .text") and not page.evaluate(ERROR)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    other = Page(devtools)
    other.open(server.address)
    other.wait("!document.querySelector('#key-form').hidden")


def test_markup_in_answers_errors_and_cards_stays_text(page: Page) -> None:
    for mode in ("chat", "text"):
        page.click(f"[name=mode][value={mode}]")
        send(page, "markup")
        page.wait(ANSWERED)
        assert '<script>window.ran = 1</script><img src=x onerror="window.ran = 2"><b>bold</b>' in page.text(".answer .text")
        page.hover(".token:nth-of-type(4)")
        page.wait("document.querySelector('#token').innerText.includes('<b>')")
        page.click("#clear")
    send(page, "long")
    page.wait(ERROR)
    assert "<script>" in page.text("#turns .error")
    send(page, '<img src=x onerror="window.ran = 3">')
    page.wait(f"{TURNS} === 2 && {ANSWERED}")
    page.click("#open-passport")
    page.wait("document.querySelector('#passport details')")
    page.evaluate("document.querySelector('#passport details').open = true")
    assert "<img src=x" in page.text("#passport")
    assert page.evaluate("document.querySelectorAll('img, b, body script').length") == 0
    assert page.evaluate("typeof window.ran") == "undefined" and page.complaints == []


def test_the_page_requests_nothing_from_other_hosts(page: Page, server: Server) -> None:
    send(page, "markup")
    page.wait(ANSWERED)
    page.click("#open-passport")
    page.wait("document.querySelector('#passport dl')")
    page.evaluate("null")
    assert len(page.requests) >= 8
    assert not [url for url in page.requests if not url.startswith((server.address, "data:"))]
    assert page.complaints == []
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'blocked')") == "blocked"
    page.evaluate("null")
    assert any("Content Security Policy" in complaint for complaint in page.complaints)  # this test would notice


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen(devtools: int, server: Server, width: int) -> None:
    page = open_chat_page(devtools, server.address, width=width)

    def fits() -> bool:
        inner = "[...document.querySelectorAll('main, footer, body > header, #composer, #passport, #passport-body')]"
        wide = f"{inner}.filter(e => e.scrollWidth > e.clientWidth).map(e => e.id || e.tagName)"
        widths: list[Any] = page.evaluate(f"[document.documentElement.scrollWidth, innerWidth, {wide}]")
        return widths == [width, width, []]

    assert fits()
    page.click("#open-settings")
    page.click("#compare")
    send(page, "long" + "w" * 300)
    page.wait(ANSWERED)
    send(page, "long")
    page.wait(ERROR)
    assert fits()
    page.click("#open-passport")
    page.wait("document.querySelector('#passport details')")
    page.evaluate("document.querySelector('#passport details').open = true")
    assert fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_all_text_stands_out(devtools: int, server: Server, scheme: str) -> None:
    page = open_chat_page(devtools, server.address, scheme=scheme)
    assert page.nameless() == [] and page.evaluate(LOW_CONTRAST) == []
    page.click("#compare")
    page.click("#open-settings")
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED)
    send(page, "long")
    page.wait(ERROR)
    assert page.nameless() == [] and page.evaluate(LOW_CONTRAST) == []
    page.click("#open-passport")
    page.wait("document.querySelector('#passport dl')")
    assert page.nameless() == [] and page.evaluate(LOW_CONTRAST) == []
