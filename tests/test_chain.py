"""DVC restores what its cache holds without a look. What a stage reads, and what a version is made from, is what the stages wrote."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Project
from ruamel.yaml import YAML
from test_pipeline import store

from tasks.chain import broken_links
from tasks.digests import dvc_digest

CHAIN = (sys.executable, "-m", "tasks.chain")
STAGE_OF = {
    "artifacts/base": "base",
    "artifacts/documents": "preprocess",
    "artifacts/reports/preprocess": "preprocess",
    "artifacts/variants": "augment",
    "artifacts/reports/augment": "augment",
    "artifacts/shards": "shard",
    "artifacts/reports/shard": "shard",
    "artifacts/model": "finetune",
    "artifacts/reports/finetune": "finetune",
    "artifacts/evaluation": "validate",
    **{f"artifacts/runs/{stage}.json": stage for stage in ("base", "preprocess", "augment", "shard", "finetune", "validate")},
}


def locked(project: Project, out: str) -> str:
    entry = YAML(typ="safe").load(project.path / "dvc.lock")["stages"][STAGE_OF[out]]
    return next(str(o["md5"]) for o in entry["outs"] if o["path"] == out)


def object_of(project: Project, digest: str) -> Path:
    return project.path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def a_file_of(project: Project, out: str) -> tuple[str, Path]:
    """The largest file of an output, and the object of DVC's cache that holds its bytes."""
    digest = locked(project, out)
    if not digest.endswith(".dir"):
        return out, object_of(project, digest)
    entries = json.loads(object_of(project, digest).read_text())
    largest = max(entries, key=lambda entry: (project.path / out / entry["relpath"]).stat().st_size)
    return f"{out}/{largest['relpath']}", object_of(project, largest["md5"])


def flip(path: Path) -> None:
    """Another byte in the middle of a file, as a bad disk would have it: DVC looks only at objects that may be written."""
    content, mode = bytearray(path.read_bytes()), path.stat().st_mode
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def poison(project: Project, out: str) -> tuple[str, Path]:
    """Flip a byte in DVC's cache and have DVC restore it."""
    name, held = a_file_of(project, out)
    flip(held)
    remove(project.path / out)
    project.run("dvc", "checkout", out)
    assert dvc_digest(project.path / name) != f"{held.parent.name}{held.name}", "DVC restored it without a look"
    return name, held


@pytest.mark.parametrize("out", STAGE_OF)
def test_a_poisoned_object_of_any_output_is_found_before_a_version_is_made(trained: Project, out: str) -> None:
    name, held = poison(trained, out)
    result = trained.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert f"register: {out} is not what the stage {STAGE_OF[out]} wrote" in result.stdout
    if name != out:
        assert f"({name})" in result.stdout
    assert f"the object {held.relative_to(trained.path)} in DVC's cache has other bytes than its name says" in result.stdout
    assert "Traceback" not in result.stdout
    try:
        assert not store(trained).search_model_versions("name = 'medical-llm'")
    except Exception as error:  # the store may not have begun
        assert "no such table" in str(error)
    # What the message says helps.
    remove(held)
    remove(trained.path / out)
    trained.run("dvc", "repro", "--force", "--single-item", STAGE_OF[out])
    assert "medical-llm version 1" in trained.run("dvc", "repro").stdout
