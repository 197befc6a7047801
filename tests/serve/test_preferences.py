"""Votes on answers: what is stored and where, what is refused, and what stays of the file when a server is killed."""

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT
from helpers.serving import RunningServer, bearer, error_of, refused, run_server

from serve.preferences import PreferenceFile

QUESTION = [{"role": "user", "content": "What ails Mrs. Holloway?"}]
VOTE: dict[str, Any] = {
    "choice": "first",
    "answers": [
        {"model": "medical-llm", "fingerprint": "unverified", "prompt": QUESTION, "text": "A fever of 39 °C."},
        {"model": "other", "fingerprint": "3-9f86d081884c", "prompt": QUESTION, "text": "Nothing."},
    ],
    "settings": {"temperature": 0.6, "seed": 7},
}
ONE = VOTE["answers"][0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes") / "votes.jsonl"


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, path: Path) -> Iterator[RunningServer]:
    file = PreferenceFile(path)
    with run_server({"medical-llm": tiny_checkpoint}, keys=("right",), preferences=file) as running:
        yield running
    file.close()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.slow
class TestRoute:
    def test_a_vote_is_a_line_that_only_this_account_reads(
        self, server: RunningServer, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        before = len(records(path))
        for choice in ("first", "tie"):
            answer = server.client.post("/preferences", json=VOTE | {"choice": choice}, headers=bearer("right"))
            assert (answer.status_code, answer.json()) == (201, {"stored": True})
        one, other = records(path)[before:]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and (one["choice"], other["choice"]) == ("first", "tie")
        assert one["answers"] == [answer | {"passport_sha256": None} for answer in VOTE["answers"]]
        assert one["settings"] == VOTE["settings"] and one["time"].endswith("+00:00")
        assert "POST /preferences 201" in caplog.text and not any(word in caplog.text for word in ("Holloway", "fever", "first"))

    def test_a_page_learns_that_votes_are_stored(self, server: RunningServer, tiny_checkpoint: Path) -> None:
        assert server.client.get("/v1/models", headers=bearer("right")).json()["stores_preferences"] is True
        with run_server({"medical-llm": tiny_checkpoint}) as other:
            assert other.client.get("/v1/models").json()["stores_preferences"] is False
            assert other.client.post("/preferences", json=VOTE).status_code == 404

    @pytest.mark.parametrize(
        "change",
        [
            {"choice": "left"},
            {"choice": None},
            {"answers": [ONE]},
            {"answers": [ONE] * 3},
            {"answers": [ONE, ONE | {"prompt": []}]},
            {"answers": [ONE, ONE | {"text": "\ud800"}]},
            {"answers": [ONE, ONE | {"model": "\ud800"}]},
            {"answers": [ONE, ONE | {"model": "m" * 300}]},
            {"answers": [ONE, ONE | {"extra": 1}]},
            {"settings": [1]},
            {"settings": {"text": "\ud800"}},
            {"comment": "she is better"},
        ],
        ids=str,
    )
    def test_a_body_that_is_no_vote_is_refused_and_not_quoted(self, server: RunningServer, path: Path, change: dict[str, Any]) -> None:
        before = path.read_bytes()
        body = json.dumps(VOTE | change)
        answer = server.client.post("/preferences", content=body, headers=bearer("right") | {"Content-Type": "application/json"})
        assert answer.status_code == 400 and "Holloway" not in answer.text and "better" not in answer.text
        assert path.read_bytes() == before

    def test_a_page_of_another_host_cannot_vote(self, server: RunningServer, path: Path) -> None:
        before = path.read_bytes()
        body = json.dumps(VOTE)
        # These a browser sends without asking first; JSON it asks about, and is not allowed to send.
        for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            headers = bearer("right") | {"Origin": "http://evil.example"} | kind
            assert server.client.post("/preferences", content=body, headers=headers).status_code == 400
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        preflight = server.client.options("/preferences", headers=bearer("right") | asked)
        assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers
        assert error_of(server.client.post("/preferences", json=VOTE))["code"] == "invalid_api_key"
        assert path.read_bytes() == before

    def test_a_file_that_cannot_be_kept_private_is_refused(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "open").touch(mode=0o644)
        (tmp_path / "link").symlink_to(tmp_path / "target")
        os.mkfifo(tmp_path / "pipe", 0o600)
        for name, words in (("open", "of mode 0600"), ("link", "link"), ("pipe", "no regular file"), (".", "directory")):
            assert words in refused(str(tiny_checkpoint), "--unverified", "--preferences", str(tmp_path / name))
        assert not (tmp_path / "target").exists()


def test_two_servers_do_not_write_one_file(tmp_path: Path) -> None:
    file = PreferenceFile(tmp_path / "votes")
    with pytest.raises(ValueError, match="another server"):
        PreferenceFile(tmp_path / "votes")
    file.close()
    PreferenceFile(tmp_path / "votes").close()


def test_half_a_line_of_a_killed_server_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    for whole in (b"", b'{"a":1}\n', b'{"a":"' + b"x" * 200_000 + b'"}\n'):
        path.write_bytes(whole + b'{"b":"' + b"y" * 150_000)
        path.chmod(0o600)
        PreferenceFile(path).close()
        assert path.read_bytes() == whole


WRITE = "from serve.preferences import PreferenceFile; from pathlib import Path; import sys; f = PreferenceFile(Path(sys.argv[1]))\n"
FOREVER = "n = int(sys.argv[2])\nwhile True: f.append({'n': n, 'text': 'x' * 3_000_000}); print(n, flush=True); n += 1"
UNTIL_FULL = """import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, 25_000))
for n in range(4):
    try: f.append({'n': n, 'text': 'x' * 10_000})
    except OSError: print('full')
f.append({'n': 'short'})"""


def test_kill_9_leaves_whole_lines_and_every_vote_that_was_acknowledged(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "votes", 0
    for turn in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITE + FOREVER, path, str(acknowledged)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline()
        time.sleep(0.05 + 0.013 * turn)
        process.send_signal(signal.SIGKILL)
        printed = process.stdout.read().split()
        process.wait(60)
        PreferenceFile(path).close()  # as the next server does
        stored = [record["n"] for record in records(path)]
        assert path.read_bytes().endswith(b"\n") and stored == list(range(len(stored)))
        assert len(stored) > (int(printed[-1]) if printed else acknowledged)
        acknowledged = len(stored)


def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    output = subprocess.run([sys.executable, "-c", WRITE + UNTIL_FULL, path], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["full", "full"] and [record["n"] for record in records(path)] == [0, 1, "short"]
