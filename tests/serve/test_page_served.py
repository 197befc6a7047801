"""The web page in a real browser, before the real server with tiny models: what the page and the server must agree on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.browser import Page
from helpers.builders import write_tiny_checkpoint
from helpers.chat_page import ANSWERED, ERROR, READY, TOKENS, TURNS, open_chat_page, send
from helpers.project import ROOT, free_port, wait_for

pytestmark = pytest.mark.system


@contextmanager
def served(*models: Path, key: str = "", options: Sequence[str] = ()) -> Iterator[str]:
    """The server in a process of its own; where it answers. Tiny models have no passport."""
    port = free_port()
    command = [sys.executable, "-m", "serve", str(models[0]), "--port", str(port), "--unverified", "--slots", "4", *options]
    command += [word for model in models[1:] for word in ("--compare-with", str(model))]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | ({"SERVE_API_KEYS": key} if key else {}), stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(120)


SCHEMA = {
    "type": "object",
    "properties": {"day": {"enum": [1, 2, 3]}, "fever": {"enum": ["yes", "no"]}},
    "required": ["day", "fever"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes") / "votes.jsonl"


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path, votes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("other")
    other = write_tiny_checkpoint(folder / "previous", seed=1)
    (folder / "tasks.json").write_text(json.dumps({"days": {"instructions": ["Which day?"], "schema": SCHEMA}}))
    with served(tiny_checkpoint, other, options=["--preferences", str(votes), "--tasks", str(folder / "tasks.json")]) as url:
        yield url


@pytest.fixture
def page(devtools: int, address: str) -> Page:
    return open_chat_page(devtools, address)


@pytest.mark.parametrize("mode", ["chat", "text"])
def test_an_answer_comes_with_probabilities_and_the_version(page: Page, address: str, mode: str) -> None:
    page.click(f"[name=mode][value={mode}]")
    send(page, "What are the signs of condition 3?")
    page.wait(ANSWERED)
    assert page.evaluate(TOKENS) > 5 and "version unverified · " in page.text(".answer .foot")
    page.focus(".token")
    shares = page.evaluate("[...document.querySelectorAll('#token td:nth-of-type(1)')].map(t => t.innerText)")
    assert len(shares) >= 4 and all(share.endswith(" %") for share in shares)
    assert page.complaints == [] and not [url for url in page.requests if not url.startswith((address, "data:"))]


def test_the_same_seed_gives_two_models_each_its_own_answer_twice(page: Page) -> None:
    page.click("#compare")
    page.click("#open-settings")
    page.focus("#seed")
    page.type("7")

    def answers() -> list[str]:
        send(page, "What are the signs of condition 3?")
        page.wait(f"document.querySelectorAll('.answer:not([aria-busy])').length === 2 && {ANSWERED}")
        texts: list[str] = page.evaluate("[...document.querySelectorAll('.text')].map(t => t.textContent)")
        page.click("#clear")
        return texts

    first = answers()
    assert first[0] != first[1] and answers() == first


def test_a_note_becomes_fields_that_fit_the_tasks_schema(page: Page) -> None:
    page.click("[name=mode][value=extract]")
    page.wait("document.querySelector('#task').value === 'days'")
    send(page, "It shows fever on day 3.")
    page.wait(ANSWERED)
    assert page.evaluate("[...document.querySelectorAll('.fields th')].map(head => head.innerText)") == ["day", "fever"]
    assert page.text(".fields tr:nth-of-type(2) .value") in ("yes", "no")
    shares = page.evaluate("[...document.querySelectorAll('.probability')].map(cell => cell.innerText)")
    assert len(shares) == 2 and all(share.endswith("%") for share in shares) and page.complaints == []


def test_a_long_question_shows_how_far_it_is_read(page: Page) -> None:
    page.evaluate("""new MutationObserver(() => (window.waits ??= []).push(document.querySelector('.wait')?.textContent ?? ''))
        .observe(document.querySelector('#turns'), {childList: true, subtree: true})""")
    page.evaluate("document.querySelector('#length').value = 16")
    send(page, "signs and symptoms " * 14)
    page.wait(ANSWERED)
    assert page.evaluate("performance.getEntriesByType('resource').filter(e => e.name.endsWith('completions')).length") == 1  # no polling
    assert page.evaluate("window.waits.some(text => /^reading: \\d+ of \\d+ tokens · \\d+ s$/.test(text))")


def test_a_vote_is_in_the_servers_file(page: Page, votes: Path) -> None:
    page.click("#compare")
    send(page, "What are the signs of condition 3?")
    page.wait(f"document.querySelector('.vote') && {ANSWERED}")
    page.evaluate("[...document.querySelectorAll('.vote button')].find(b => b.innerText === 'Tie').click()")
    page.wait("document.querySelector('.vote').innerText.includes('stored by the server')")
    (record,) = map(json.loads, votes.read_text().splitlines())
    assert record["choice"] == "tie" and [answer["fingerprint"] for answer in record["answers"]] == ["unverified"] * 2
    texts = page.evaluate("[...document.querySelectorAll('.answer .text')].map(text => text.textContent)")
    assert len(texts) == 2 and isinstance(record["settings"]["seed"], int) and page.complaints == []


def test_an_answer_can_be_stopped(page: Page) -> None:
    page.evaluate("document.querySelector('#length').value = 240")
    send(page, "What are the signs?")
    page.wait(f"{TOKENS} > 0 || {ANSWERED}")
    page.press("Escape")
    page.wait("document.querySelector('#stop').hidden")
    assert not page.evaluate(ERROR)
    page.click("#clear")  # the context of a tiny model may not hold that answer and a further question
    send(page, "And now?")
    page.wait(f"{TURNS} === 1 && {ANSWERED}")


def test_a_question_that_does_not_fit_is_refused_in_words(page: Page) -> None:
    send(page, "signs and symptoms " * 400)
    page.wait(ERROR)
    assert "This is too long for the model." in page.text("#turns .error") and "tokens" in page.text("#turns .error")


def test_a_model_without_a_passport_is_called_not_verified(page: Page) -> None:
    page.click("#open-passport")
    page.wait("document.querySelector('#passport .badge')")
    assert "Not verified" in page.text("#passport") and not page.evaluate("document.querySelector('#passport .error')")


def test_the_servers_key_is_asked_for(devtools: int, tiny_checkpoint: Path) -> None:
    with served(tiny_checkpoint, key="right") as address:
        page = Page(devtools)
        page.open(address)
        page.wait("document.activeElement.id === 'key'")
        page.type("right")
        page.press("Enter")
        page.wait(READY)
        send(page, "What are the signs?")
        page.wait(ANSWERED)
