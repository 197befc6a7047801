"""The whole pipeline from a tiny base model of another family to a registered version that is served."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from helpers.families import write_model
from helpers.project import Project, copy_of
from helpers.qwen import write_qwen_vocabulary
from helpers.sentencepiece import write_gemma_vocabulary
from helpers.serving import run_server
from mlflow import MlflowClient

from tasks.runtime.digests import tree_sha256

VOCABULARIES: dict[str, Callable[[Path], Path]] = {"qwen3": write_qwen_vocabulary, "gemma3": write_gemma_vocabulary}
VOCABULARY = 640  # more ids than either has


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "mode"), [("qwen3", "full"), ("gemma3", "dora")])
def test_a_base_of_another_family_ends_as_a_version_that_is_served(
    finished: Project, tmp_path: Path, variant: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, base = copy_of(finished.path, tmp_path / "project"), tmp_path / "base"
    write_model(base, variant, vocab_size=VOCABULARY)
    VOCABULARIES[variant](base)
    project.set_params("base", source=str(base), sha256=tree_sha256(base), chat_template="own")
    project.set_params("finetune", mode=mode, steps=40, lr=2e-3)  # the gate asks for a gain
    project.set_params("validate", max_tokens=400)  # and for ten items
    output = project.run("dvc", "repro").stdout
    assert "medical-llm version 1" in output
    store = f"sqlite:///{project.path / 'mlflow.db'}"
    run = MlflowClient(tracking_uri=store).get_model_version("medical-llm", "1").run_id
    assert run
    checkpoint = Path(MlflowClient(tracking_uri=store).download_artifacts(run, "")) / "checkpoint"
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (base, checkpoint))
    assert after == before
    card = (checkpoint / "README.md").read_text()
    assert ("Qwen 3" if variant == "qwen3" else "Gemma Terms of Use") in card
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with (
        run_server({"notes": "models:/medical-llm/1"}, unverified=False) as server,
        httpx.Client(base_url=server.url, timeout=240) as client,
    ):
        question = [{"role": "user", "content": "What are the signs of condition 3?"}]
        answer = client.post("/v1/chat/completions", json={"messages": question, "max_tokens": 8, "temperature": 0, "seed": 1})
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        refused = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [image]}]})
        assert refused.status_code == 400 and "this model reads text only" in refused.text
