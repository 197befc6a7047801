"""Versions of a real registry in the server: how a new one takes over, which are not followed, and that what was verified is loaded."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers import authority
from helpers.project import Project, key_pair
from helpers.serving import RunningServer, refused, run_server
from mlflow import MlflowClient

from model.checkpoint.checked_weights import CheckedFile
from model.generation.completion import Llama
from serve import verified
from serve.model_info import model_info
from serve.models import EngineOptions, ModelRefused, resolve
from serve.rollout import ModelRollout
from serve.verified import ModelLocation
from tasks.registry import hash_chain, model_signer, serving_log
from tasks.registry.lineage.signature import open_signer, private_key, sign
from tasks.registry.promotion import objection, promote
from tasks.registry.serving_log import ServingLog
from tasks.runtime.digests import sha256

pytestmark = pytest.mark.slow

CHAMPION = "models:/medical-llm@champion"
COMPLETION: Any = {"model": "medical-llm", "prompt": "What are the signs of condition 3?", "max_tokens": 8, "temperature": 0}


class Registry:
    """A project whose registry has two versions; the second is in every way like the first, but for its weights."""

    def __init__(self, project: Project):
        self.project = project
        self.client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")

    def champion(self, version: str) -> None:
        """By a promotion that is recorded."""
        promote(self.client, "medical-llm", version, who="a tester", why="a test")

    def click(self, version: str) -> None:
        """As in MLflow's page, which records nothing."""
        self.client.set_registered_model_alias("medical-llm", "champion", version)

    def checkpoint(self, version: str) -> Path:
        run = self.client.get_model_version("medical-llm", version).run_id
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
def followed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
    registry.champion("1")
    with run_server({"medical-llm": CHAMPION}, unverified=False) as server:
        yield server


def version(server: RunningServer) -> str:
    return str(server.rollouts["medical-llm"].current.location.version)


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_version_of_the_registry_names_itself_and_shows_its_passport(registry: Registry, followed: RunningServer) -> None:
    digest = sha256(registry.checkpoint("1") / "passport.json")
    answer = followed.client.post("/v1/completions", json=COMPLETION)
    assert answer.headers["x-model-version"] == answer.json()["system_fingerprint"] == f"1-{digest[:12]}"
    info = followed.client.get("/passport", params={"model": "medical-llm"}).json()
    assert (info["version"], info["verified"], info["passport_sha256"]) == ("1", True, digest)
    assert {"path": "conditions.csv", "title": None, "licence": None, "credit": None} in [
        {k: v for k, v in f.items() if k != "sha256"} for f in info["corpus"]
    ]
    assert "not a medical device" in info["card"] and info["made"] and info["code"]["commit"]
    assert info["decision"]["verdict"] == "first" and info["decision"]["reasons"]
    ready = followed.client.get("/readyz").json()
    assert ready["ready"] and ready["models"]["medical-llm"]["version"] == "1" and str(registry.project.path) not in json.dumps(ready)


@pytest.mark.slow
def test_the_alias_moves_under_load_and_back_and_no_request_is_dropped(registry: Registry, followed: RunningServer) -> None:
    answers: list[tuple[int, str, str]] = []
    ended = threading.Event()

    def ask(stream: bool) -> None:
        with httpx.Client(base_url=followed.url, timeout=240) as client:
            while not ended.is_set():
                answer = client.post("/v1/completions", json=COMPLETION | {"max_tokens": 60, "stream": stream})
                text = (
                    answer.text
                    if not stream
                    else "".join(
                        json.loads(line[6:])["choices"][0]["text"] for line in answer.text.split("\n\n") if line.startswith("data: {")
                    )
                )
                text = text if stream else answer.json()["choices"][0]["text"]
                answers.append((answer.status_code, answer.headers["x-model-version"][0], text))

    threads = [threading.Thread(target=ask, args=(index % 2 == 0,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for next_version in ("2", "1", "2"):
        registry.champion(next_version)
        until(lambda n=next_version: version(followed) == n)
        count = len(answers)
        until(lambda c=count: len(answers) > c + 20)
    ended.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200} and {answered_by for _, answered_by, _ in answers} == {"1", "2"}
    for expected_version in ("1", "2"):  # each answer is complete, and from the version that it names
        assert len({text for _, answered_by, text in answers if answered_by == expected_version}) == 1
    assert followed.client.post("/v1/completions", json=COMPLETION).headers["x-model-version"].startswith("2-")


def test_a_version_that_was_changed_is_not_taken_and_the_reason_is_reported(registry: Registry, followed: RunningServer) -> None:
    weights = registry.checkpoint("2") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        registry.champion("2")
        until(lambda: followed.rollouts["medical-llm"].refused)
        state = followed.client.get("/readyz").json()["models"]["medical-llm"]
        assert state["version"] == "1"
        reason = "medical-llm version 2 cannot be opened: model.safetensors does not have the bytes that it must have"
        assert state["refused"] == {"version": "2", "reason": reason}
        assert followed.client.post("/v1/completions", json=COMPLETION).headers["x-model-version"].startswith("1-")
        registry.champion("1")
        until(lambda: not followed.rollouts["medical-llm"].refused)
    finally:
        weights.write_bytes(whole)


def test_the_serving_log_says_which_version_answered_from_when_until_when(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
    registry.champion("1")
    log, word = ServingLog(tmp_path / "log.jsonl"), "saw 1 withdrawn records, 1 of them in training"
    weights = registry.checkpoint("2") / "model.safetensors"
    content = weights.read_bytes()
    with run_server({"medical-llm": CHAMPION}, unverified=False, log=log) as server:
        try:
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            registry.champion("2")
            until(lambda: server.rollouts["medical-llm"].refused)
        finally:
            weights.write_bytes(content)
        registry.champion("1")
        until(lambda: not server.rollouts["medical-llm"].refused)
        registry.champion("2")
        until(lambda: version(server) == "2")
        try:
            registry.client.set_model_version_tag("medical-llm", "2", "tainted", word)
            until(lambda: server.rollouts["medical-llm"].trouble)
        finally:
            registry.client.delete_model_version_tag("medical-llm", "2", "tainted")
        until(lambda: not server.rollouts["medical-llm"].trouble)
    texts = serving_log.texts(log.path)
    entries = [json.loads(text) for text in texts.values()]
    assert [(entry["verb"], entry["version"]) for entry in entries] == [
        ("serve", 1),
        ("refuse", 2),
        ("stop", 1),
        ("serve", 2),
        ("object", 2),
        ("stop", 2),
    ]
    digests = {number: sha256(registry.checkpoint(number) / "passport.json") for number in ("1", "2")}
    assert all(entry["evidence"] == digests[str(entry["version"])] for entry in entries if entry["verb"] != "refuse")
    assert entries[4]["why"] == f"version 2 is tainted: {word}" and "model.safetensors" in entries[1]["why"]
    assert list(hash_chain.problems(texts)) == [] and str(registry.project.path) not in log.path.read_text()
    project = registry.project
    page = project.run(sys.executable, "-m", "tasks.registry", "audit", "page", "--serving", str(log.path)).stdout
    assert "began to answer" in page and word in page and "made champion" in page
    head = hash_chain.sha256(texts[6])
    verify = (sys.executable, "-m", "tasks.registry", "audit", "verify", "--serving", str(log.path), "--head")
    assert "6 entries, each follows the one before" in project.run(*verify, head).stdout
    assert "no entry has the digest" in project.run(*verify, "0" * 64, check=False).stdout


def test_a_champion_that_stays_is_not_fetched_again(followed: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    with monkeypatch.context() as watched:
        watched.setattr("tasks.registry.versions.artifact", lambda *arguments: fetched.append(arguments))
        followed.rollouts["medical-llm"].poll()
    assert not fetched and not followed.rollouts["medical-llm"].refused


@pytest.mark.slow
def test_a_registry_that_does_not_answer_changes_nothing(
    registry: Registry, followed: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gone:
        gone.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        until(lambda: followed.rollouts["medical-llm"].trouble)
        assert followed.client.post("/v1/completions", json=COMPLETION).headers["x-model-version"].startswith("1-")
        assert "127.0.0.1" not in json.dumps(followed.client.get("/readyz").json())
    registry.champion("2")
    until(lambda: version(followed) == "2" and not followed.rollouts["medical-llm"].trouble)


STRICT = EngineOptions(slots=2, max_len=None, max_waiting=8, unverified=False)


@pytest.mark.parametrize("kind", ["EC", "ed25519", "certificate"])
def test_a_deployed_directory_is_served_where_a_known_key_signed_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    served = Path(shutil.copytree(registry.checkpoint("1"), tmp_path / "deployed"))
    with pytest.raises(ModelRefused, match="consistent, origin unknown"):
        ModelRollout(str(served), STRICT, poll_seconds=1)
    private, public = key_pair(tmp_path, kind="EC" if kind == "certificate" else kind)
    if kind == "certificate":
        root, key = authority.root(), open_signer(str(private)).key
        assert not isinstance(key, Ed25519PrivateKey)
        chain = authority.write_pem(tmp_path / "chain.pem", authority.certify("Release", key.public_key(), root))
        public = authority.write_pem(tmp_path / "roots.pem", root.certificate)
        model_signer.sign([served], open_signer(str(private), chain), served / "model.sig", ignored=["registered_model_meta"])
    elif kind == "EC":
        model_signer.sign([served], open_signer(str(private)), served / "model.sig", ignored=["registered_model_meta"])
    else:
        key = private_key(private)
        assert isinstance(key, Ed25519PrivateKey)
        sign(served / "passport.json", key)
    monkeypatch.setenv("PASSPORT_PUBLIC_KEY", str(public))
    rollout = ModelRollout(str(served), STRICT, poll_seconds=1)
    assert rollout.current.verified and rollout.current.fingerprint == sha256(served / "passport.json")[:12]
    rollout.close(0)
    interval = {"value": 1.0, "low": 0.0, "high": 2.0}
    row = {"metric": "choice", "split": "test", "items": 9, "base": interval, "tuned": interval, "change": interval}
    rollout.current.verification.document["decision"]["table"] = [row]
    assert model_info("a model", rollout.current)["metrics"] == [row | {"meaning": "right choices of four"}]
    (served / "tokenizer.json").write_text((served / "tokenizer.json").read_text() + " ")
    with pytest.raises(ModelRefused, match="does not verify: tokenizer.json"):
        ModelRollout(str(served), STRICT, poll_seconds=1)


class TestVerifiedIsWhatIsLoaded:
    """Files are exchanged between the look at them and their use, and back again."""

    @pytest.fixture
    def location(self, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelLocation]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
        location = resolve("models:/medical-llm/1")
        before = {path: path.read_bytes() for path in location.directory.rglob("*") if path.is_file()}
        yield location
        for path, content in before.items():
            path.write_bytes(content)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"])
    @pytest.mark.parametrize("way", ["written over", "renamed over", "linked"])
    def test_after_the_comparison(self, location: ModelLocation, tmp_path: Path, name: str, way: str) -> None:
        verification = verified.check(location)
        assert not verification.problems
        path, other = location.directory / name, tmp_path / name
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        other.write_bytes(content)
        if way == "written over":
            path.write_bytes(content)
        elif way == "renamed over":
            other.replace(path)
        else:
            path.unlink()
            path.symlink_to(other)
        try:
            with pytest.raises(ValueError, match=name), verified.private_copy(location, verification) as copy:
                Llama.build(copy, weights_sha256=verification.weights)
        finally:
            path.unlink()

    def test_while_the_weights_are_read_and_put_back_before_the_end(self, location: ModelLocation) -> None:
        path = location.directory / "model.safetensors"
        whole = path.read_bytes()
        digest = sha256(path)
        for instant in range(4):
            file = CheckedFile(path, digest)
            tensors = file.tensors()
            for _ in range(instant):
                next(tensors)
            path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
            # All tensors are read by now, and the file is what it was when its end is looked at.
            rest = [next(tensors) for _ in range(len(file.shapes) - instant)]
            path.write_bytes(whole)
            assert rest
            with pytest.raises(ValueError, match="does not have the bytes"):
                next(tensors)

    def test_the_bytes_that_were_compared_are_the_weights_that_answer(self, location: ModelLocation) -> None:
        verification = verified.check(location)
        with verified.private_copy(location, verification) as copy:
            loaded = Llama.build(copy, weights_sha256=verification.weights).model.state_dict()
        plain = Llama.build(location.directory).model.state_dict()
        assert all(torch.equal(loaded[name], plain[name]) for name in plain) and loaded.keys() == plain.keys()


class TestTheDecisionIsVerifiedToo:
    @pytest.mark.slow
    def test_an_alias_that_was_moved_by_a_click_is_not_followed(self, registry: Registry, followed: RunningServer) -> None:
        registry.click("2")
        until(lambda: followed.rollouts["medical-llm"].refused)
        state = followed.client.get("/readyz").json()["models"]["medical-llm"]
        assert state["version"] == "1" and "no promotion of it is recorded; the champion is version 1" in state["refused"]["reason"]
        assert "no promotion of it is recorded" in refused(CHAMPION, MLFLOW_TRACKING_URI=registry.client.tracking_uri)
        registry.champion("2")
        followed.rollouts["medical-llm"].refused = None  # what was refused is tried again after a while
        until(lambda: version(followed) == "2")

    def test_a_tainted_version_is_not_followed_and_reported_where_it_answers_already(
        self, registry: Registry, followed: RunningServer
    ) -> None:
        word = "saw 1 withdrawn records, 1 of them in training"
        try:
            registry.client.set_model_version_tag("medical-llm", "2", "tainted", word)
            registry.champion("2")
            until(lambda: followed.rollouts["medical-llm"].refused)
            state = followed.client.get("/readyz").json()["models"]["medical-llm"]
            assert state["version"] == "1" and state["refused"]["reason"].endswith(f"version 2 is tainted: {word}")
            registry.champion("1")
            registry.client.set_model_version_tag("medical-llm", "1", "tainted", word)
            until(lambda: "version 1 is tainted" in str(followed.client.get("/readyz").json()["models"]["medical-llm"]["trouble"]))
        finally:
            for tagged in ("1", "2"):
                registry.client.delete_model_version_tag("medical-llm", tagged, "tainted")

    def test_a_version_that_its_decision_refused_does_not_answer(self, registry: Registry) -> None:
        version = registry.client.get_model_version("medical-llm", "2")
        assert not objection(registry.client, version, alias="", verdict="unclear")
        assert "was refused when it was registered" in objection(registry.client, version, alias="", verdict="refused")
        version.tags["decision.1.verdict"] = "refused"
        version._version = "9"  # one that was never promoted
        assert "was refused by its newest decision" in objection(registry.client, version, alias="", verdict="unclear")
