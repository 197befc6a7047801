"""The server as a program: what it refuses to serve, how it ends, and how a new version takes over. With the real registry."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, Project, free_port, wait_for, write_tiny_checkpoint
from mlflow import MlflowClient
from serving import Running, running

from serve.models import Opening, RefusedError, id_of, open_model, resolve
from serve.panel import panel
from serve.rollout import Rollout
from serve.trust import is_loopback, keys_of
from tasks.digests import sha256

CHAMPION = "models:/medical-llm@champion"
ASK: Any = {"model": "medical-llm", "prompt": "What are the signs of condition 3?", "max_tokens": 8, "temperature": 0}


@contextmanager
def program(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    command = [sys.executable, "-m", "serve", *arguments, "--port", str(port), "--slots", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as client:
            yield process, client
    finally:
        process.kill()
        process.wait(120)


def refused(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "serve", *arguments, "--port", str(free_port())]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    return result.stderr


def test_sigterm_lets_a_stream_end_and_the_program_with_success(tiny_checkpoint: Path) -> None:
    with program(str(tiny_checkpoint), "--unverified") as (process, client):
        name = tiny_checkpoint.name
        with client.stream("POST", "/v1/completions", json=ASK | {"model": name, "max_tokens": 240, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert process.wait(120) == 0
        assert process.stdout
        log = process.stdout.read().decode()
        assert f"{name}: unverified, not verified" in log and "POST /v1/completions 200" in log and "condition" not in log


def test_what_is_not_verified_needs_to_be_asked_for(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert "does not verify: passport.json (missing)" in refused(str(tiny_checkpoint))
    assert "is no directory" in refused(str(tmp_path / "nothing"))
    (tmp_path / "model").mkdir()
    assert "cannot be opened" in refused(str(tmp_path / "model"), "--unverified")


def test_others_reach_it_with_a_key_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert "set SERVE_API_KEYS" in refused(str(tiny_checkpoint), "--unverified", "--host", "0.0.0.0")
    assert "holds no key" in refused(str(tiny_checkpoint), "--unverified", SERVE_API_KEYS=" , ")
    (tmp_path / "keys").write_text("one\n\ntwo\n")
    with program(str(tiny_checkpoint), "--unverified", "--host", "0.0.0.0", SERVE_API_KEYS_FILE=str(tmp_path / "keys")) as (_, client):
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer two", "Host": "model.example"}).status_code == 200


def test_settings_and_names() -> None:
    assert keys_of({"SERVE_API_KEYS": "a, b,,"}) == ("a", "b") and keys_of({}) == ()
    with pytest.raises(ValueError, match="cannot be read"):
        keys_of({"SERVE_API_KEYS_FILE": "nowhere"})
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.example", "")] == [True] * 3 + [False] * 4
    names = [
        id_of(CHAMPION, beside=False),
        id_of("models:/medical-llm@previous", beside=True),
        id_of("models:/medical-llm/3", beside=False),
    ]
    assert names == ["medical-llm", "medical-llm@previous", "medical-llm"] and id_of("artifacts/base", beside=True) == "base"


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = write_tiny_checkpoint(tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(RefusedError, match="not finite"):
        open_model(resolve(str(directory)), Opening(slots=2, max_len=None, waiting=8, unverified=True))


class Registry:
    """A project whose registry has two versions; the second is in every way like the first, but for its weights."""

    def __init__(self, project: Project):
        self.project = project
        self.client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")

    def champion(self, number: str) -> None:
        self.client.set_registered_model_alias("medical-llm", "champion", number)

    def checkpoint(self, number: str) -> Path:
        run = self.client.get_model_version("medical-llm", number).run_id
        assert run
        return Path(self.client.download_artifacts(run, "")) / "checkpoint"


@pytest.fixture(scope="module")
def registry(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(finished.path, folder / "project", ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    project = Project(folder / "project")
    project.run("dvc", "repro")
    project.set_params("finetune", steps=40)
    project.run("dvc", "repro")
    yield Registry(project)


@pytest.fixture
def followed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
    registry.champion("1")
    with running({"medical-llm": CHAMPION}, unverified=False) as server:
        yield server


def version(server: Running) -> str:
    return str(server.rollouts["medical-llm"].current.place.version)


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_version_of_the_registry_names_itself_and_shows_its_passport(registry: Registry, followed: Running) -> None:
    digest = sha256(registry.checkpoint("1") / "passport.json")
    answer = followed.client.post("/v1/completions", json=ASK)
    assert answer.headers["x-model-version"] == answer.json()["system_fingerprint"] == f"1-{digest[:12]}"
    panel = followed.client.get("/passport", params={"model": "medical-llm"}).json()
    assert (panel["version"], panel["verified"], panel["passport_sha256"]) == ("1", True, digest)
    assert {"path": "conditions.csv", "title": None, "licence": None, "credit": None} in [
        {k: v for k, v in f.items() if k != "sha256"} for f in panel["corpus"]
    ]
    assert "not a medical device" in panel["card"] and panel["made"] and panel["code"]["commit"]
    assert panel["decision"]["verdict"] == "first" and panel["decision"]["reasons"]
    ready = followed.client.get("/readyz").json()
    assert ready["ready"] and ready["models"]["medical-llm"]["version"] == "1" and str(registry.project.path) not in json.dumps(ready)


def test_the_alias_moves_under_load_and_back_and_no_request_is_dropped(registry: Registry, followed: Running) -> None:
    answers: list[tuple[int, str, str]] = []
    ended = threading.Event()

    def ask(stream: bool) -> None:
        with httpx.Client(base_url=followed.url, timeout=240) as client:
            while not ended.is_set():
                answer = client.post("/v1/completions", json=ASK | {"max_tokens": 60, "stream": stream})
                text = (
                    answer.text
                    if not stream
                    else "".join(
                        json.loads(line[6:])["choices"][0]["text"] for line in answer.text.split("\n\n") if line.startswith("data: {")
                    )
                )
                text = text if stream else answer.json()["choices"][0]["text"]
                answers.append((answer.status_code, answer.headers["x-model-version"][0], text))

    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for number in ("2", "1", "2"):
        registry.champion(number)
        until(lambda n=number: version(followed) == n)
        count = len(answers)
        until(lambda c=count: len(answers) > c + 20)
    ended.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200} and {number for _, number, _ in answers} == {"1", "2"}
    for number in ("1", "2"):  # each answer is whole, and that of the version that it names
        assert len({text for _, which, text in answers if which == number}) == 1
    assert followed.client.post("/v1/completions", json=ASK).headers["x-model-version"].startswith("2-")


def test_a_version_that_was_changed_is_not_taken_and_the_reason_is_told(registry: Registry, followed: Running) -> None:
    weights = registry.checkpoint("2") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        registry.champion("2")
        until(lambda: followed.rollouts["medical-llm"].refused)
        state = followed.client.get("/readyz").json()["models"]["medical-llm"]
        assert state["version"] == "1"
        assert state["refused"] == {"version": "2", "reason": "medical-llm version 2 does not verify: model.safetensors"}
        assert followed.client.post("/v1/completions", json=ASK).headers["x-model-version"].startswith("1-")
        registry.champion("1")
        until(lambda: not followed.rollouts["medical-llm"].refused)
    finally:
        weights.write_bytes(whole)


def test_a_champion_that_stays_is_not_fetched_again(followed: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    with monkeypatch.context() as watched:
        watched.setattr("tasks.versions.artifact", lambda *asked: fetched.append(asked))
        followed.rollouts["medical-llm"].look()
    assert not fetched and not followed.rollouts["medical-llm"].refused


def test_a_registry_that_does_not_answer_changes_nothing(registry: Registry, followed: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as gone:
        gone.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        until(lambda: followed.rollouts["medical-llm"].trouble)
        assert followed.client.post("/v1/completions", json=ASK).headers["x-model-version"].startswith("1-")
        assert "127.0.0.1" not in json.dumps(followed.client.get("/readyz").json())
    registry.champion("2")
    until(lambda: version(followed) == "2" and not followed.rollouts["medical-llm"].trouble)


def test_a_deployed_directory_is_compared_with_its_passport(registry: Registry, tmp_path: Path) -> None:
    served = Path(shutil.copytree(registry.checkpoint("1"), tmp_path / "deployed"))
    rollout = Rollout(str(served), Opening(slots=2, max_len=None, waiting=8, unverified=False), seconds=1)
    assert rollout.current.verified and rollout.current.fingerprint == sha256(served / "passport.json")[:12]
    rollout.close(0)
    document = json.loads((served / "passport.json").read_text())
    interval = {"value": 1.0, "low": 0.0, "high": 2.0}
    row = {"metric": "choice", "split": "test", "items": 9, "base": interval, "tuned": interval, "change": interval}
    document["decision"]["table"] = [row]
    (served / "passport.json").write_text(json.dumps(document))
    assert panel("a model", rollout.current)["metrics"] == [row | {"meaning": "right choices of four, by log-likelihood"}]
    (served / "tokenizer.json").write_text((served / "tokenizer.json").read_text() + " ")
    with pytest.raises(RefusedError, match="does not verify: tokenizer.json"):
        Rollout(str(served), Opening(slots=2, max_len=None, waiting=8, unverified=False), seconds=1)
