"""The server as a program: what it refuses to serve, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from helpers.adapters import CONFIGS, pefts_own
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT, free_port, wait_for
from helpers.serving import COMPLETION, refused

from model.generation.completion import Llama
from serve.__main__ import _parser
from serve.models import EngineOptions, ModelRefused, model_id, open_model, resolve
from serve.security import is_loopback, read_api_keys
from tasks.corpus.extraction.definitions import load_tasks, write_tasks

pytestmark = pytest.mark.slow


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


@pytest.mark.slow
def test_sigterm_lets_a_stream_end_and_the_program_with_success(tiny_checkpoint: Path) -> None:
    with program(str(tiny_checkpoint), "--unverified") as (process, client):
        name = tiny_checkpoint.name
        with client.stream("POST", "/v1/completions", json=COMPLETION | {"model": name, "max_tokens": 240, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert process.wait(120) == 0
        assert process.stdout
        log = process.stdout.read().decode()
        assert f"{name}: unverified, not verified" in log and "POST /v1/completions 200" in log and "condition" not in log


def test_an_unverified_model_needs_the_option(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert "does not verify: passport.json (missing)" in refused(str(tiny_checkpoint))
    assert "is no directory" in refused(str(tmp_path / "nothing"))
    (tmp_path / "model").mkdir()
    assert "cannot be opened" in refused(str(tmp_path / "model"), "--unverified")


@pytest.mark.slow
def test_others_reach_it_with_a_key_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert "set SERVE_API_KEYS" in refused(str(tiny_checkpoint), "--unverified", "--host", "0.0.0.0")
    assert "holds no key" in refused(str(tiny_checkpoint), "--unverified", SERVE_API_KEYS=" , ")
    (tmp_path / "keys").write_text("one\n\ntwo\n")
    with program(str(tiny_checkpoint), "--unverified", "--host", "0.0.0.0", SERVE_API_KEYS_FILE=str(tmp_path / "keys")) as (_, client):
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer two", "Host": "model.example"}).status_code == 200


def test_pages_of_named_origins_may_use_it(tiny_checkpoint: Path) -> None:
    assert "lets every page" in refused(str(tiny_checkpoint), "--unverified", "--allow-origin", "*")
    assert "without a path" in refused(str(tiny_checkpoint), "--unverified", "--allow-origin", "http://ward.example/page")
    with program(str(tiny_checkpoint), "--unverified", "--allow-origin", "http://ward.example:3000", SERVE_API_KEYS="one") as (_, client):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        for origin, allowed in (("http://ward.example:3000", "http://ward.example:3000"), ("http://other.example", None)):
            preflight = client.options("/v1/completions", headers={"Origin": origin} | asked)
            assert preflight.headers.get("access-control-allow-origin") == allowed
            answer = client.post("/v1/completions", json=COMPLETION, headers={"Origin": origin, "Authorization": "Bearer one"})
            assert answer.status_code == 200 and answer.headers.get("access-control-allow-origin") == allowed
        assert client.post("/v1/completions", json=COMPLETION, headers={"Origin": "http://ward.example:3000"}).status_code == 401


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_weights_answer_as_the_librarys_and_say_so(kind: str, tiny_checkpoint: Path) -> None:
    options = {"max_gen_len": 12, "temperature": 0.0}
    (expected,) = Llama.build(tiny_checkpoint, quantize=kind).text_completion([COMPLETION["prompt"]], **options)  # type: ignore[arg-type]
    with program(str(tiny_checkpoint), "--unverified", "--quantize", kind) as (_, client):
        answer = client.post("/v1/completions", json=COMPLETION).json()
    assert answer["choices"][0]["text"] == expected.text and answer["system_fingerprint"] == f"unverified-{kind}"


def test_the_extraction_tasks_of_training_are_offered(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_tasks(load_tasks(["measurements"], tmp_path), tmp_path)
    (task,) = load_tasks(["measurements"], tmp_path).values()
    carries = Path(shutil.copytree(tiny_checkpoint, tmp_path / "carries"))
    shutil.copy(tmp_path / "tasks.json", carries)
    for arguments in ([str(carries)], [str(tiny_checkpoint), "--tasks", str(tmp_path / "tasks.json")]):
        with program(*arguments, "--unverified") as (_, client):
            offered = client.get("/passport").json()["tasks"]["measurements"]
        assert offered["schema"] == task.schema and offered["instructions"] == list(task.definition.instructions)
        assert offered["stated"]["heart_rate"] == ["HR #", "heart rate #", "pulse #", "pulse rate #"]
    (carries / "tasks.json").write_text('{"measurements": {}}')
    assert "tasks.json is no list of extraction tasks" in refused(str(carries), "--unverified")
    assert "nowhere is no file" in refused(str(tiny_checkpoint), "--unverified", "--tasks", "nowhere")


def test_an_adapter_answers_beside_8_bit_weights_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pefts_own(CONFIGS["dora-all"], tmp_path / "notes", torch.float32)
    expected = Llama.build(tiny_checkpoint, quantize="int8", adapters={"notes": tmp_path / "notes"})
    with program(str(tiny_checkpoint), "--unverified", "--quantize", "int8", "--adapter", f"notes={tmp_path / 'notes'}") as (
        process,
        client,
    ):
        for name, adapter in ((tiny_checkpoint.name, None), ("notes", "notes")):
            answer = client.post("/v1/completions", json=COMPLETION | {"model": name}).json()
            text = expected.text_completion([COMPLETION["prompt"]], max_gen_len=12, temperature=0, adapter=adapter)[0].text
            assert answer["choices"][0]["text"] == text and answer["system_fingerprint"] == "unverified-int8"
        process.terminate()
        assert process.wait(120) == 0 and process.stdout
        assert "notes: unverified-int8, not verified" in process.stdout.read().decode()


def test_settings_and_names() -> None:
    assert read_api_keys({"SERVE_API_KEYS": "a, b,,"}) == ("a", "b") and read_api_keys({}) == ()
    with pytest.raises(ValueError, match="cannot be read"):
        read_api_keys({"SERVE_API_KEYS_FILE": "nowhere"})
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.example", "")] == [True] * 3 + [False] * 4
    names = [
        model_id("models:/medical-llm@champion", compared=False),
        model_id("models:/medical-llm@previous", compared=True),
        model_id("models:/medical-llm/3", compared=False),
    ]
    assert names == ["medical-llm", "medical-llm@previous", "medical-llm"] and model_id("artifacts/base", compared=True) == "base"


def test_the_older_name_of_an_option_is_still_accepted() -> None:
    for option in ("--compare-with", "--beside"):
        assert _parser().parse_args(["model", option, "base"]).compare_with == "base"
    assert "--beside" not in _parser().format_help()


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = write_tiny_checkpoint(tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(ModelRefused, match="not finite"):
        open_model(resolve(str(directory)), EngineOptions(slots=2, max_len=None, max_waiting=8, unverified=True))
