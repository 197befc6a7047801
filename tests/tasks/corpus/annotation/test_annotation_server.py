"""Who gets in and who does not, and what the server takes for marks; over real connections."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers.annotated import served, write_notes

from tasks.corpus.annotation.notes import Mask, Note
from tasks.corpus.annotation.server import MAX_BODY, listen
from tasks.corpus.annotation.session import Session

TEXT = "Dr. Quillfeather 😀 took <b>5 mg</b>."
NOTE = Note("id", "notes.jsonl", "line 1", TEXT, (Mask(4, 16, "NAME", "[NAME]"),), ())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Session]]:
    folder = tmp_path_factory.mktemp("site")
    write_notes(folder, [("p", TEXT)])
    (folder / "annotation").mkdir()
    with served(folder, [NOTE]) as started:
        yield started


def ask(
    address: str, path: str = "", method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body; ``path`` is below the address unless it begins with a slash."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path if path.startswith("/") else parts.path + path, body, names)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def put(address: str, index: object = 0, **changed: Any) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"revision": 0, "done": False, "accept": False, "marks": []} | changed).encode()
    status, _, content = ask(address, f"notes/{index}", "PUT", body, Content_Type="application/json")
    return status, json.loads(content)


def test_the_page_and_its_files_come_with_a_strict_policy(server: tuple[str, Session]) -> None:
    address, _ = server
    for name in ("", "page.js", "page.css", "sample", "notes/0"):
        status, headers, _ = ask(address, name)
        assert status == 200 and headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
        assert "Access-Control-Allow-Origin" not in headers
    assert json.loads(ask(address, "notes/0")[2])["text"] == TEXT


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/wrong-token/", {}, 404),
        ("/the-toke/", {}, 404),
        ("/the-token", {}, 404),
        ("/wrong/notes/0", {}, 404),
        ("/wrong/%2e%2e/the-token/notes/0", {}, 404),
        ("notes/1", {}, 404),
        ("notes/-1", {}, 404),
        ("../annotation/marks.json", {}, 404),
        ("marks.json", {}, 404),
        ("notes/0", {"Host": "evil.example"}, 403),
        ("notes/0", {"Host": "127.0.0.1:1"}, 403),
        ("notes/0", {"Origin": "https://evil.example"}, 403),
        ("notes/0", {"Origin": "null"}, 403),
    ],
)
def test_who_is_not_the_page_gets_nothing(server: tuple[str, Session], path: str, headers: dict[str, str], status: int) -> None:
    answer = ask(server[0], path, "GET", None, **headers)
    assert answer[0] == status and b"Quillfeather" not in answer[2]
    assert b"the-token" not in answer[2]


def test_names_of_loopback_are_the_same_page(server: tuple[str, Session]) -> None:
    host = f"localhost:{urlsplit(server[0]).port}"
    assert ask(server[0], "notes/0", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_of_another_page_could_send_changes_nothing(server: tuple[str, Session], kind: str) -> None:
    body = json.dumps({"revision": 0, "done": True, "accept": True, "marks": []}).encode()
    assert ask(server[0], "notes/0", "PUT", body, Content_Type=kind)[0] == 415
    assert ask(server[0], "report", "POST", b"{}", Content_Type=kind)[0] == 415
    assert server[1].state(0)["revision"] == 0


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"revision": 7}, 409),
        ({"marks": [{"start": 0, "end": 999, "verdict": "wrong", "type": ""}]}, 422),
        ({"marks": [{"start": 0, "end": 3, "verdict": "missed", "type": "PET"}]}, 422),
        ({"marks": [{"start": 0, "end": 3, "verdict": "missed", "type": "NAME", "text": "Quillfeather"}]}, 422),
        ({"marks": "all"}, 422),
        ({"done": "yes"}, 422),
        ({"marks": [{"start": 0, "end": 1, "verdict": "wrong", "type": ""}] * 20_001}, 422),
        ({"more": 1}, 422),
    ],
)
def test_what_are_no_marks_is_refused_in_words_and_nothing_is_saved(
    server: tuple[str, Session], changed: dict[str, object], status: int
) -> None:
    refused, content = put(server[0], **changed)
    assert refused == status and content["error"] and "Quillfeather" not in content["error"]
    assert server[1].state(0)["revision"] == 0


def test_a_body_without_end_is_cut_off(server: tuple[str, Session]) -> None:
    assert ask(server[0], "notes/0", "PUT", b" " * (MAX_BODY + 1), Content_Type="application/json")[0] == 413
    assert ask(server[0], "notes/0", "PUT", b"{", Content_Type="application/json")[0] == 422
    assert ask(server[0], "notes/0", "DELETE", b"", Content_Type="application/json")[0] == 405


def test_a_disk_that_is_full_is_said_and_the_marks_before_stay(server: tuple[str, Session], monkeypatch: pytest.MonkeyPatch) -> None:
    marks = server[1]._marks
    monkeypatch.setattr(marks, "_path", Path("/dev/full/marks.json"))
    status, content = put(server[0], done=True)
    assert status == 507 and "cannot be written" in content["error"]
    assert not server[1].state(0)["done"]


def test_figures_are_asked_for_before_a_note_is_finished(server: tuple[str, Session]) -> None:
    status, _, content = ask(server[0], "report", "POST", b"{}", Content_Type="application/json")
    assert status == 409 and json.loads(content) == {"error": "no note is finished"}


def test_a_port_that_is_in_use_is_named() -> None:
    with listen(0) as first:
        first.listen()
        with pytest.raises(ValueError, match=r"cannot be used \(.*in use.*--port 0"):
            listen(first.getsockname()[1])
