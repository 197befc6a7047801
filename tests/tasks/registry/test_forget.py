"""What is left of a record after it was withdrawn and forgotten."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.project import Project

pytestmark = pytest.mark.system


def holding(project: Project, text: str) -> set[str]:
    """The files of DVC's cache and the stages' caches that hold a text."""
    listing = subprocess.run(
        ["grep", "-rlF", text, ".dvc/cache", ".cache", "artifacts"], cwd=project.path, capture_output=True, text=True, check=False
    )
    return set(listing.stdout.split())


def test_forgetting_leaves_no_copy_of_a_withdrawn_record_and_says_what_remains(copied: Project) -> None:
    with open(copied.path / "artifacts" / "documents" / "train.jsonl") as file:
        record = json.loads(file.readline())
    copied.set_params("preprocess", withdrawn=[record["id"]])
    early = copied.run("python", "-m", "tasks.registry", "forget", check=False)
    assert early.returncode == 1 and "run 'dvc repro' first" in early.stdout and "Traceback" not in early.stdout
    assert holding(copied, f'"id": "{record["id"]}"')

    tokens, kept = copied.path / ".cache" / "tokens", copied.path.parent / "tokens"
    shutil.copytree(tokens, kept)
    copied.run("dvc", "repro")
    shutil.copytree(kept, tokens, dirs_exist_ok=True)  # as where DVC restored the shards, so that shard did not tidy up
    assert holding(copied, f'["{record["id"]}"')
    copied.run("dvc", "remote", "add", "backup", str(copied.path.parent / "backup"))
    output = copied.run("python", "-m", "tasks.registry", "forget").stdout
    assert not holding(copied, f'"id": "{record["id"]}"')
    assert not holding(copied, f'"parent": "{record["id"]}"') and not holding(copied, f'["{record["id"]}"')
    assert "remains  medical-llm version 1 in the model registry" in output and "medical-llm version 2" not in output
    assert f"remains  data/{record['source']}, {record['position']}: the raw record" in output
    assert "remains  DVC's remote backup" in output
    assert record["answer"] not in output

    assert copied.ran(copied.run("dvc", "repro").stdout) == ["register"]  # it always asks the registry
    assert "nothing: no copy was found" in copied.run("python", "-m", "tasks.registry", "forget").stdout
    assert not Path(copied.path / ".cache" / "train").exists()
    # What went on purpose, version 1's directories among it, is not missed when the cache is cleaned.
    assert "kept     medical-llm version 1" in copied.run("python", "-m", "tasks.registry", "gc").stdout


def test_forgetting_nothing_is_an_error(trained: Project) -> None:
    result = trained.run("python", "-m", "tasks.registry", "forget", check=False)
    assert result.returncode == 1 and "forget: params.yaml: preprocess.withdrawn lists no records" in result.stdout
