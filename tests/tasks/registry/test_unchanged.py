"""A run of register without news does not ask the registry; whatever changed, it does."""

import json
import sqlite3

import pytest
from helpers.project import Project

REGISTER = ("dvc", "repro", "register")
# What Python writes for every module that it imports; the processes of a stage inherit it.
VERBOSE = {"PYTHONPROFILEIMPORTTIME": "1"}


def imports_mlflow(project: Project) -> tuple[bool, str]:
    project.environment |= VERBOSE
    try:
        output = project.run(*REGISTER).stdout
    finally:
        project.environment = {name: value for name, value in project.environment.items() if name not in VERBOSE}
    lines = output.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "tasks.registry.unchanged" in imported
    return "mlflow" in imported, "\n".join(line for line in lines if not line.startswith("import time:"))


@pytest.mark.slow
def test_register_asks_the_registry_only_where_something_changed(copied: Project) -> None:
    copied.run(*REGISTER)
    before = (copied.path / "artifacts" / "registration.json").read_bytes()
    asked, said = imports_mlflow(copied)
    assert not asked and "has this checkpoint already" in said and "register: decision 1 on version 1: " in said
    assert (copied.path / "artifacts" / "registration.json").read_bytes() == before
    # Somebody else changed the store.
    with sqlite3.connect(copied.path / "mlflow.db") as store:
        store.execute("UPDATE model_version_tags SET value = 'other words' WHERE key = 'decision.1.outcome'")
    store.close()
    assert imports_mlflow(copied)[0] and not imports_mlflow(copied)[0]
    # A record waits for the store.
    record = json.loads((copied.path / "artifacts" / "runs" / "shard.json").read_text())
    waiting = copied.path / ".cache" / "records" / f"{record['record']}.json"
    waiting.parent.mkdir(parents=True, exist_ok=True)
    waiting.write_text(json.dumps(record))
    assert imports_mlflow(copied)[0] and not waiting.exists()
    # A file of a version is gone.
    copied.run(*REGISTER)
    next((copied.path / "mlartifacts").rglob("decision-1.json")).unlink()
    assert copied.run(*REGISTER, check=False).returncode


@pytest.mark.slow
def test_a_checkpoint_that_was_changed_by_hand_is_refused_all_the_same(copied: Project) -> None:
    copied.run(*REGISTER)
    (copied.path / "artifacts" / "model" / "config.json").write_text("{}")
    refused = copied.run("dvc", "repro", "--single-item", "register", check=False)
    assert refused.returncode and "is not what the stage finetune wrote" in refused.stdout
