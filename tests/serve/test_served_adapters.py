"""Adapters of real versions in the server: who may answer, by which name, from which version, and beside whom."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.adapters import CONFIGS, pefts_own
from helpers.builders import TINY, random_model
from helpers.project import Project, key_pair
from helpers.serving import COMPLETION, QUESTION, RunningServer, bearer, error_of, post, refused, run_server, text_of
from mlflow import MlflowClient

from model import lora
from model.generation.completion import Llama
from serve.models import EngineOptions, ModelRefused
from serve.rollout import ModelRollout
from tasks.registry import model_signer
from tasks.registry.lineage import model_signature
from tasks.registry.lineage.signature import open_signer
from tasks.registry.promotion import promote
from tasks.runtime.digests import sha256, tree_sha256

pytestmark = pytest.mark.slow

NAME = "medical-llm"
CARDIOLOGY = f"models:/{NAME}@cardiology"
STRICT = EngineOptions(slots=2, max_len=None, max_waiting=8, unverified=False)
LENIENT = replace(STRICT, unverified=True)


class Registry:
    """A project whose first version has no adapter. The adapters of versions 2 and 3 are of its base model, that of 4 of version 1."""

    def __init__(self, project: Project):
        self.project = project
        self.client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")

    def set(self, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(NAME, alias, version)

    def checkpoint(self, version: str) -> Path:
        run = self.client.get_model_version(NAME, version).run_id
        assert run
        return Path(self.client.download_artifacts(run, "")) / "checkpoint"

    def merged(self, version: str, prompt: str = QUESTION, count: int = 12) -> str:
        """What the version's merged weights answer."""
        return Llama.build(self.checkpoint(version)).text_completion([prompt], max_gen_len=count, temperature=0)[0].text


@pytest.fixture(scope="module")
def registry(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(finished.path, folder / "project", ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    project = Project(folder / "project")
    project.run("dvc", "repro")
    project.set_params("finetune", mode="lora", steps=20, lr=0.01)
    project.run("dvc", "repro")
    shutil.copytree(project.path / "artifacts" / "base", folder / "base")
    project.set_params("finetune", mode="dora", steps=30)
    project.run("dvc", "repro")
    registry = Registry(project)
    shutil.copytree(registry.checkpoint("1"), folder / "first")
    project.set_params("base", source=str(folder / "first"), sha256=tree_sha256(folder / "first"))
    project.run("dvc", "repro")
    return registry


@pytest.fixture
def base(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base model that versions 1 to 3 were trained from."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client.tracking_uri)
    return registry.project.path.parent / "base"


@pytest.fixture
def server(registry: Registry, base: Path) -> Iterator[RunningServer]:
    """The base model with two adapters, of which one is followed; all of them verified."""
    registry.set("cardiology", "3")
    adapters: dict[str, Path | str] = {"notes": f"models:/{NAME}/2", "cardiology": CARDIOLOGY}
    with run_server({"base": base}, adapters=adapters, unverified=False) as running:
        yield running


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def version(server: RunningServer, name: str = "cardiology") -> str | None:
    served = server.rollouts[name].served
    return served.location.version if served else None


def streamed(body: str) -> str:
    return "".join(json.loads(line[6:])["choices"][0]["text"] for line in body.split("\n\n") if line.startswith("data: {"))


def test_each_name_gets_the_answers_of_its_version(registry: Registry, base: Path, server: RunningServer) -> None:
    expected = {"notes": registry.merged("2"), "cardiology": registry.merged("3")}
    expected["base"] = Llama.build(base).text_completion([QUESTION], max_gen_len=12, temperature=0)[0].text
    assert len(set(expected.values())) == 3
    answers: list[tuple[str, int, str, str]] = []

    def ask(name: str) -> None:
        with httpx.Client(base_url=server.url, timeout=240) as client:
            for count in range(12):
                answer = client.post("/v1/completions", json=COMPLETION | {"model": name, "stream": count % 2 == 0})
                text = streamed(answer.text) if count % 2 == 0 else answer.json()["choices"][0]["text"]
                answers.append((name, answer.status_code, answer.headers["x-model-version"], text))

    threads = [threading.Thread(target=ask, args=(name,)) for name in (*expected, *expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digests = {number: sha256(registry.checkpoint(number) / "passport.json")[:12] for number in "23"}
    versions = {"notes": f"2-{digests['2']}", "cardiology": f"3-{digests['3']}", "base": digests["2"]}  # whose passport names the base
    assert len(answers) == 72
    assert set(answers) == {(name, 200, versions[name], text) for name, text in expected.items()}


def test_clients_see_what_is_served(registry: Registry, server: RunningServer) -> None:
    listed = {model["id"]: model for model in server.client.get("/v1/models").json()["data"]}
    assert {name: (m["root"], m["parent"], m["version"], m["verified"]) for name, m in listed.items()} == {
        "base": ("base", None, None, True),
        "notes": (f"{NAME}/2", "base", "2", True),
        "cardiology": (f"{NAME}/3", "base", "3", True),
    }
    info = server.client.get("/passport", params={"model": "cardiology"}).json()
    assert (info["version"], info["passport_sha256"]) == ("3", sha256(registry.checkpoint("3") / "passport.json"))
    info = server.client.get("/passport", params={"model": "base"}).json()
    assert (info["version"], info["verified"], info["problems"], info["decision"]) == (None, True, [], None)
    answer = post(server, model="oncology")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert server.client.post("/tokenize", json={"model": "notes", "prompt": QUESTION}).json()["count"] > 1
    assert post(server, "/v1/chat/completions", model="notes").json()["model"] == "notes"
    metrics = server.client.get("/metrics").text
    assert 'serve_tokens_total{kind="completion",model="notes"} 12.0' in metrics
    assert 'serve_running{model="base"}' in metrics and 'serve_running{model="notes"}' not in metrics


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context of these models is one chunk, and prefixes are kept in whole chunks."""
    monkeypatch.setattr("serve.engine.CHUNK", 64)


@pytest.mark.usefixtures("small_chunks")
def test_a_prompt_is_scored_and_cached_for_its_own_model(request: pytest.FixtureRequest) -> None:
    server: RunningServer = request.getfixturevalue("server")
    scores: dict[str, tuple[float, ...]] = {}
    for name in ("base", "base", "notes", "notes", "cardiology", "cardiology"):
        answer = post(server, model=name, prompt=QUESTION * 20, max_tokens=1, echo=True, logprobs=0).json()
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert (cached > 0) == (name in scores), "keys and values are of the same model"
        log_probs = tuple(answer["choices"][0]["logprobs"]["token_logprobs"])
        assert scores.setdefault(name, log_probs) == log_probs
    assert len(set(scores.values())) == 3


def test_an_alias_moves_is_deleted_and_set_again_while_requests_run(registry: Registry, server: RunningServer) -> None:
    answers: list[tuple[str, int, str]] = []
    ended = threading.Event()

    def ask(name: str) -> None:
        with httpx.Client(base_url=server.url, timeout=240) as client:
            while not ended.is_set():
                answer = client.post("/v1/completions", json=COMPLETION | {"model": name, "max_tokens": 60})
                by = answer.headers.get("x-model-version", "withdrawn")[:2]
                answers.append((f"{name} {by}", answer.status_code, answer.json().get("choices", [{"text": ""}])[0]["text"]))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("base", "cardiology", "cardiology", "notes")]
    for thread in threads:
        thread.start()
    try:
        for number in ("2", "3", None, "2"):
            if number:
                registry.set("cardiology", number)
            else:
                registry.client.delete_registered_model_alias(NAME, "cardiology")
            until(lambda n=number: version(server) == n)
            if number is None:
                state = server.client.get("/readyz").json()["models"]["cardiology"]
                assert state == {"version": None, "fingerprint": None, "verified": None, "refused": None, "trouble": None}
                assert [model["id"] for model in server.client.get("/v1/models").json()["data"]] == ["base", "notes"]
                assert server.client.get("/v1/models/cardiology").status_code == 404
                assert error_of(post(server, model="cardiology"))["code"] == "model_not_found"
            count = len(answers)
            until(lambda c=count: len(answers) > c + 20)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    texts = {name: {text for other, _, text in answers if other == name} for name, _, _ in answers}
    assert {name for name in texts if name.startswith("cardiology")} == {"cardiology 2-", "cardiology 3-", "cardiology wi"}
    assert all(len(same) == 1 for same in texts.values()), "every answer is whole, and of the version that it names"
    assert {status for name, status, _ in answers if not name.endswith(" wi")} == {200}
    assert {status for name, status, _ in answers if name.endswith(" wi")} == {404}


@pytest.mark.parametrize("name", [lora.WEIGHTS, lora.CONFIG])
def test_a_file_that_was_changed_is_not_loaded(name: str, registry: Registry, base: Path, server: RunningServer) -> None:
    registry.set("cardiology", "2")
    until(lambda: version(server) == "2")
    path = registry.checkpoint("3") / "adapter" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    reason = f"{NAME} version 3 cannot be opened: {name} is not the file that its passport lists"
    try:
        registry.set("cardiology", "3")
        until(lambda: server.rollouts["cardiology"].refused)
        state = server.client.get("/readyz").json()["models"]["cardiology"]
        assert state["version"] == "2" and state["refused"] == {"version": "3", "reason": reason}
        assert post(server, model="cardiology").headers["x-model-version"].startswith("2-")
        for options in (STRICT, LENIENT):
            with pytest.raises(ModelRefused, match=f"^{reason}$"):
                ModelRollout(str(base), options, poll_seconds=1, adapters={"notes": f"models:/{NAME}/2", "cardiology": CARDIOLOGY})
    finally:
        path.write_bytes(whole)


def test_an_adapter_of_another_model_or_of_none_is_refused(base: Path) -> None:
    for options in (STRICT, LENIENT):
        for number, reason in (
            ("4", "was trained on another base model than base: model.safetensors differ"),
            ("1", "cannot be opened: its passport lists no adapter/adapter_config.json; it was not trained with an adapter"),
        ):
            with pytest.raises(ModelRefused, match=f"^{NAME} version {number} {reason}$"):
                ModelRollout(str(base), options, poll_seconds=1, adapters={"notes": f"models:/{NAME}/2", "x": f"models:/{NAME}/{number}"})
    assert f"two models would be called {NAME}" in refused(f"models:/{NAME}/1", f"--adapter={NAME}=models:/{NAME}/4")
    assert "--adapter notes must be NAME=SOURCE" in refused(str(base), "--adapter=notes")


def test_a_base_model_that_is_not_the_adapters_is_not_verified_by_it(base: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(base, tmp_path / "changed"))
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelRefused, match="changed cannot be opened: model.safetensors does not have the bytes that it must have"):
        ModelRollout(str(changed), STRICT, poll_seconds=1, adapters={"notes": f"models:/{NAME}/2"})
    (changed / "config.json").write_text((changed / "config.json").read_text() + " ")
    with pytest.raises(ModelRefused, match=r"changed does not verify: passport.json \(missing\)"):
        ModelRollout(str(changed), STRICT, poll_seconds=1, adapters={"notes": f"models:/{NAME}/2"})


@pytest.mark.usefixtures("base")
def test_adapters_follow_their_base_model_to_another_version_where_they_fit(registry: Registry) -> None:
    promote(registry.client, NAME, "1", who="a tester", why="a test")
    with run_server({NAME: f"models:/{NAME}@champion"}, adapters={"first": f"models:/{NAME}/4"}, unverified=False) as server:
        text = text_of(post(server, model="first"))
        assert text == registry.merged("4")
        promote(registry.client, NAME, "2", who="a tester", why="a test")
        until(lambda: version(server, NAME) == "2")
        state = server.client.get("/readyz").json()["models"]["first"]
        assert state["version"] is None and "was trained on another base model than medical-llm version 2" in state["refused"]["reason"]
        assert (post(server, model="first").status_code, post(server).status_code) == (404, 200)
        promote(registry.client, NAME, "1", who="a tester", why="a test")
        until(lambda: version(server, NAME) == "1")
        assert text_of(post(server, model="first")) == text
        assert not server.client.get("/readyz").json()["models"]["first"]["refused"]


def test_a_registry_that_does_not_answer_withdraws_nothing(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as gone:
        gone.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        until(lambda: server.rollouts["cardiology"].trouble)
        assert post(server, model="cardiology").headers["x-model-version"].startswith("3-")
        assert "127.0.0.1" not in json.dumps(server.client.get("/readyz").json())
    until(lambda: not server.rollouts["cardiology"].trouble)


def test_a_tainted_version_is_not_taken_and_reported_where_it_answers(registry: Registry, server: RunningServer) -> None:
    word = "saw 1 withdrawn records, 1 of them in training"
    try:
        for number in ("2", "3"):
            registry.client.set_model_version_tag(NAME, number, "tainted", word)
        until(lambda: "version 3 is tainted" in str(server.client.get("/readyz").json()["models"]["cardiology"]["trouble"]))
        registry.set("cardiology", "2")
        until(lambda: server.rollouts["cardiology"].refused)
        assert version(server) == "3"
    finally:
        for number in ("2", "3"):
            registry.client.delete_model_version_tag(NAME, number, "tainted")


def test_an_alias_that_is_not_set_may_be_set_later(registry: Registry, base: Path) -> None:
    adapters: dict[str, Path | str] = {"notes": f"models:/{NAME}/2", "later": f"models:/{NAME}@later"}
    with run_server({"base": base}, adapters=adapters, unverified=False) as server:
        assert post(server, model="later").status_code == 404
        registry.set("later", "3")
        until(lambda: version(server, "later") == "3")
        assert text_of(post(server, model="later")) == registry.merged("3")


def test_directories_are_served_where_a_known_key_signed_them(
    registry: Registry, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(registry.checkpoint("2"), tmp_path / "whole"))
    files = Path(shutil.copytree(whole / "adapter", tmp_path / "files"))
    private, public = key_pair(tmp_path)
    sources = {"whole": str(whole), "files": str(files)}
    shutil.copy(whole / "passport.json", files)
    with pytest.raises(ModelRefused, match=r"base does not verify: passport.json \(missing\)"):
        ModelRollout(str(base), STRICT, poll_seconds=1, adapters=sources)
    model_signer.sign([whole], open_signer(str(private)), whole / model_signature.FILE, ignored=["registered_model_meta"])
    shutil.copy(whole / model_signature.FILE, files)
    monkeypatch.setenv("PASSPORT_PUBLIC_KEY", str(public))
    rollout = ModelRollout(str(base), STRICT, poll_seconds=1, adapters=sources)
    served = [rollout.current, *(adapter.current for adapter in rollout.adapters.values())]
    assert all(model.verified and model.fingerprint == sha256(whole / "passport.json")[:12] for model in served)
    rollout.close(0)
    (files / lora.CONFIG).write_text((files / lora.CONFIG).read_text() + " ")
    with pytest.raises(ModelRefused, match="files cannot be opened: adapter_config.json is not the file that its passport lists"):
        ModelRollout(str(base), STRICT, poll_seconds=1, adapters=sources)


class TestDirectoriesOfPeft:
    """Without a passport."""

    @pytest.fixture
    def adapters(self, tmp_path: Path) -> dict[str, Path | str]:
        for name in ("lora-all-rslora", "dora-all"):
            pefts_own(CONFIGS[name], tmp_path / name, random_model(TINY).norm.weight.dtype)
        return {name: tmp_path / name for name in ("lora-all-rslora", "dora-all")}

    def test_are_served_with_the_option_for_what_does_not_verify(self, adapters: dict[str, Path | str], tiny_checkpoint: Path) -> None:
        llama = Llama.build(tiny_checkpoint, adapters=adapters)
        with run_server({NAME: tiny_checkpoint}, adapters=adapters, keys=("k",)) as server:
            for name in adapters:
                answer = server.client.post("/v1/completions", json=COMPLETION | {"model": name}, headers=bearer("k"))
                expected = llama.text_completion([QUESTION], max_gen_len=12, temperature=0, adapter=name)[0]
                assert text_of(answer) == expected.text and answer.json()["system_fingerprint"] == "unverified"
            models = server.client.get("/v1/models", headers=bearer("k")).json()["data"]
            assert [(m["id"], m["root"], m["parent"], m["verified"]) for m in models[1:]] == [(n, n, NAME, False) for n in adapters]

    def test_are_refused_otherwise_and_where_they_do_not_fit(self, adapters: dict[str, Path | str], tiny_checkpoint: Path) -> None:
        path = Path(adapters["dora-all"])
        with pytest.raises(ModelRefused, match=r"does not verify: passport.json \(missing\)"):
            ModelRollout(str(tiny_checkpoint), STRICT, poll_seconds=1, adapters={"a": str(path)})
        weights = path / lora.WEIGHTS
        weights.write_bytes(weights.read_bytes().replace(b"layers.1.mlp.up_proj.lora_B", b"layers.7.mlp.up_proj.lora_B"))
        message = refused(str(tiny_checkpoint), "--unverified", f"--adapter=a={path}")
        assert "dora-all cannot be opened: the tensors in adapter_model.safetensors do not fit its adapter_config.json" in message
        assert "layers.1.mlp.up_proj.lora_B" in message and str(path) not in message
        weights.unlink()
        assert "adapter_model.safetensors is missing" in refused(str(tiny_checkpoint), "--unverified", f"--adapter=a={path}")
        assert "is no directory" in refused(str(tiny_checkpoint), "--unverified", f"--adapter=a={path / 'nothing'}")
