import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project

from tasks.stage import read_params


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    return tmp_path / "params.yaml"


def test_the_default_params_are_valid() -> None:
    assert set(read_params(ROOT / "params.yaml")) == {"base", "preprocess", "augment", "shard", "finetune", "validate", "register"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("register:", "registre:", "unknown section 'registre'"),
        ("register:", "registre:", "section 'register' is missing"),
        ("  sign_off:", "  sign_of:", "register.sign_of: extra inputs are not permitted"),
        ("  sign_off:", "  sign_of:", "register.sign_off: field required"),
        ("  steps: 24", "  steps: '40'", "finetune.steps: input should be a valid integer"),
        ("  steps: 24", "  steps: 4.5", "finetune.steps"),
        ("  mode: full", "  mode: partial", "finetune.mode"),
        ("  test_share: 0.05", "  test_share: 5", "preprocess.test_share"),
        ("shard:\n", "shard: 3\nx:\n", "shard"),
        ("base:\n", "base: [\n", "not YAML"),
    ],
)
def test_a_wrong_param_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match="params.yaml") as error:
        read_params(edited(tmp_path, old, new))
    assert told in str(error.value)


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert read_params(edited(tmp_path, "  lr: 2e-4", "  lr: 3e-5"))["finetune"].model_dump()["lr"] == 3e-5


def test_a_typo_in_the_last_section_stops_the_first_stage_without_a_traceback(project: Project) -> None:
    project.set_params("register", colour="blue")
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "base: params.yaml: register.colour: extra inputs are not permitted" in result.stdout
    assert "Traceback" not in result.stdout
    assert not (project.path / "artifacts" / "base").exists()


def test_a_stage_that_fails_leaves_nothing_under_a_final_name(project: Project) -> None:
    shutil.rmtree(project.path / "data" / "foreign")
    project.set_params("preprocess", other=[])
    (project.path / "data" / "conditions.csv").write_text("Question,Answer\nWhat is it?,nan\n")
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "preprocess: data: none of 1 records could be read; not taken: 1 in conditions.csv: has no answer" in result.stdout
    assert "Traceback" not in result.stdout
    left = {p.name for p in (project.path / "artifacts").iterdir()}
    assert left <= {"base", "runs", ".gitignore", "reports"}
    assert not list((project.path / "artifacts").rglob("*.partial"))


def test_what_holds_text_of_records_is_closed_to_others(finished: Project) -> None:
    for name in ("data", "artifacts", ".cache", ".dvc/cache", "mlartifacts"):
        assert (finished.path / name).stat().st_mode & 0o077 == 0, name
    assert (finished.path / "mlflow.db").stat().st_mode & 0o077 == 0


def test_a_umask_that_is_none_is_refused(project: Project) -> None:
    (project.path / "local.yaml").write_text("UMASK: group\n")
    result = project.run("dvc", "repro", "base", check=False)
    assert "base: UMASK is 'group'; it is three octal digits" in result.stdout and "Traceback" not in result.stdout


def test_a_stage_called_with_wrong_paths_says_which_it_takes() -> None:
    command = [sys.executable, "-m", "tasks.augment", "documents"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert "usage: python -m tasks.augment data documents variants report record" in result.stderr
