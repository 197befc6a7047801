"""A version whose passports have format 2 still verifies, is served and loaded, and can be rolled back to."""

import json
import sys
import tarfile
from pathlib import Path

import pytest
from helpers.project import ROOT, Project, copy_of
from helpers.versions import NAME, artifacts_of, flip, load_from_mlflow
from jsonschema import Draft202012Validator

from tasks.registry.compliance.document import schema
from tasks.registry.compliance.names import DOCUMENT


@pytest.fixture(scope="module")
def older(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose champion was registered with passports of format 2, elsewhere on another machine."""
    project = copy_of(made / "trained", tmp_path_factory.mktemp("older") / "project")
    with tarfile.open(ROOT / "tests" / "registered" / "format-2.tar.xz") as packed:
        packed.extractall(project.path, filter="data")
    project.run(sys.executable, "-m", "tasks.registry", "list")  # says that the store came from elsewhere, once
    return project


@pytest.mark.slow
def test_a_version_of_format_2_still_verifies_and_says_what_it_does_not_state(older: Project) -> None:
    result = older.run(sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1")
    assert "0 differ" in result.stdout and "that its older passport does not state" in result.stdout
    assert "unstated passport.json  (format 2 does not say of which version it is)" in result.stdout
    assert f"unstated {NAME}/1/lineage.html  (format 2 lists no such files)" in result.stdout
    flip(artifacts_of(older) / "checkpoint" / "model.safetensors")
    try:
        result = older.run(sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1", check=False)
        assert result.returncode == 1 and f"differs  {NAME}/1/checkpoint/model.safetensors" in result.stdout
    finally:
        flip(artifacts_of(older) / "checkpoint" / "model.safetensors")


@pytest.mark.slow
def test_a_version_of_format_2_gets_the_regulators_folder_on_demand(older: Project, tmp_path: Path) -> None:
    older.run(sys.executable, "-m", "tasks.registry", "compliance", f"{NAME}/1", str(tmp_path / "folder"))
    document = json.loads((tmp_path / "folder" / DOCUMENT).read_bytes())
    Draft202012Validator(schema()).validate(document)
    hazards = {hazard["id"]: hazard for hazard in document["hazards"]}
    assert hazards["wrong_answers"]["figures"] and hazards["wrong_answers"]["controls"]
    assert not hazards["missed_identifiers"]["measured"]  # its passport does not say


@pytest.mark.system
def test_a_version_of_format_2_is_served_loaded_replaced_and_rolled_back_to(older: Project) -> None:
    answer = (
        "from serve.models import EngineOptions, open_model, resolve;"
        f"found = open_model(resolve('models:/{NAME}@champion'), EngineOptions(2, None, 8, False));"
        "print(found.location.version, found.verified); found.engine.close(0)"
    )
    served = (sys.executable, "-c", answer)
    assert older.run(*served).stdout.split() == ["1", "True"]
    assert load_from_mlflow(older).returncode == 0
    older.set_params("finetune", steps=40)  # better than the first
    older.run("dvc", "repro")
    registry = (sys.executable, "-m", "tasks.registry")
    older.run(*registry, "promote", "2", "--why", "a test", "--allow-dirty")
    assert older.run(*served).stdout.split() == ["2", "True"]
    older.run(*registry, "rollback", "--why", "a test")
    # MLflow loaded the first version as code meanwhile, and left there what a passport of its format does not state.
    assert older.run(*served).stdout.split() == ["1", "True"]
    assert "0 differ" in older.run(sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1").stdout
