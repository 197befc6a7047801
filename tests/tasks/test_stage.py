import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, Project
from ruamel.yaml import YAML

from tasks.params import read_params
from tasks.runtime.digests import dvc_digest


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    return tmp_path / "params.yaml"


def test_the_default_params_are_valid() -> None:
    assert set(read_params(ROOT / "params.yaml")) == {"base", "preprocess", "augment", "shard", "finetune", "validate", "register"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("register:", "registre:", "unknown section 'registre'; did you mean 'register'?"),
        ("register:", "registre:", "section 'register' is missing"),
        ("  sign_off:", "  sign_of:", "register.sign_of: unknown key; did you mean 'sign_off'?"),
        ("    rank: 8", "    rnak: 8", "finetune.adapter.rnak: unknown key; did you mean 'rank'?"),
        ("    certainty:", "    certianty:", "validate.boilerplate.certianty: unknown key; did you mean 'certainty'?"),
        ("    entity_model:", "    entity_modell:", "preprocess.deidentify.entity_modell: unknown key; did you mean 'entity_model'?"),
        (
            '    entity_model: ""',
            "    entity_model: {path: a, sha: b, labels: {PER: NAME}}",
            "preprocess.deidentify.entity_model.sha: unknown key; did you mean 'sha256'?",
        ),
        (
            '    entity_model: ""',
            "    entity_model: {path: a, labels: {Per: Nose}}",
            "preprocess.deidentify.entity_model.labels: value error, 'Per' is mapped to 'Nose', which is no type of identifier",
        ),
        ('    entity_model: ""', "    entity_model: 3", "preprocess.deidentify.entity_model: input should be a valid string"),
        ("files: {}", 'files: {"*.csv": {column: {}}}', "preprocess.files.*.csv.column: unknown key; did you mean 'columns'?"),
        (
            "field_f1, split: test, min_improvement:",
            "field_f1, split: test, min_improvment:",
            "register.primary.0.min_improvment: unknown key; did you mean 'min_improvement'?",
        ),
        ("{metric: empty, margin:", "{metric: empty, marging: 1, margin:", "marging: unknown key; did you mean 'margin'?"),
        (
            "  sign_off:",
            "  zzz: 1\n  sign_off:",
            "register.zzz: unknown key; there are primary, thresholds, guardrails, name, sign_off, compliance",
        ),
        ("  ood: [", "  other: [", "preprocess.other was renamed: preprocess.ood"),
        ("    injections:", "    plantings:", "preprocess.deidentify.plantings was renamed: preprocess.deidentify.injections"),
        ("  guardrails:", "  guarded:", "register.guarded was renamed: register.guardrails"),
        ("figure: change, max: 0.0", "figure: change, most: 0.0", "register.thresholds.3.most was renamed: register.thresholds.max"),
        (
            "  primary: #",
            "  primary: {metric: answer_nll, min_improvement: 0.1, items: 9}\n  x: #",
            "register.primary: input should be a valid array",
        ),
        ("  mode: full", "  mode: lroa", "did you mean 'lora'?"),
        ("  sign_off:", "  sign_of:", "register.sign_off: field required"),
        ("  steps: 54", "  steps: '40'", "finetune.steps: input should be a valid integer"),
        ("  steps: 54", "  steps: 4.5", "finetune.steps"),
        ("  mode: full", "  mode: partial", "finetune.mode"),
        ("  test_share: 0.15", "  test_share: 5", "preprocess.test_share"),
        ("shard:\n", "shard: 3\nx:\n", "shard"),
        ("base:\n", "base: [\n", "not YAML"),
    ],
)
def test_a_wrong_param_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match="params.yaml") as error:
        read_params(edited(tmp_path, old, new))
    assert message in str(error.value)


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert read_params(edited(tmp_path, "  lr: 4e-4", "  lr: 3e-5"))["finetune"].model_dump()["lr"] == 3e-5


DOORS = {
    "dvc": ("dvc", "repro"),
    "a stage alone": ("dvc", "repro", "--single-item", "finetune"),
    "a stage by force": ("dvc", "repro", "--force", "--single-item", "finetune"),
    "an experiment": ("dvc", "exp", "run"),
    "the flow": (sys.executable, "-m", "flows.pipeline"),
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_a_typo_is_told_before_any_output_goes(trained: Project, door: str, prefect_api: str) -> None:
    trained.environment["PREFECT_API_URL"] = prefect_api
    before = outputs(trained)
    trained.set_params("register", sign_of="none")
    trained.set_params("finetune", steps=7)
    result = trained.run(*DOORS[door], check=False)
    assert result.returncode != 0
    assert "params.yaml: register.sign_of: unknown key; did you mean 'sign_off'?" in result.stdout, result.stdout
    assert "Traceback" not in result.stdout
    after = outputs(trained)
    assert {path: before[path] for path in set(before) - GUARDED} == {path: after.get(path) for path in set(before) - GUARDED}


GUARDED = {"artifacts/params-checked"}  # the output of the check itself


def outputs(project: Project) -> dict[str, str]:
    """What DVC's lock file names and is there, with its digest."""
    stages = YAML(typ="safe").load(project.path / "dvc.lock")["stages"].values()
    paths = [str(out["path"]) for stage in stages for out in stage.get("outs", ())]
    return {path: dvc_digest(project.path / path) for path in paths if (project.path / path).exists()}


@pytest.mark.slow
def test_an_edit_that_changes_no_stages_params_runs_none_of_them(trained: Project) -> None:
    path = trained.path / "params.yaml"
    path.write_text(path.read_text() + "# a comment\n")
    output = trained.run("dvc", "repro", "validate").stdout
    assert "Running stage 'check_params'" in output and trained.ran(output) == []


@pytest.mark.slow
def test_a_stage_that_fails_leaves_nothing_under_a_final_name(project: Project) -> None:
    shutil.rmtree(project.path / "data" / "foreign")
    project.set_params("preprocess", ood=[])
    (project.path / "data" / "conditions.csv").write_text("Question,Answer\nWhat is it?,nan\n")
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "preprocess: data: none of 1 records could be read; not taken: 1 in conditions.csv: has no answer" in result.stdout
    assert "Traceback" not in result.stdout
    left = {p.name for p in (project.path / "artifacts").iterdir()}
    assert left <= {"base", "runs", ".gitignore", "reports", "params-checked"}
    assert not list((project.path / "artifacts").rglob("*.partial"))


def test_what_holds_text_of_records_is_closed_to_others(finished: Project) -> None:
    for name in ("data", "artifacts", ".cache", ".dvc/cache", "mlartifacts"):
        assert (finished.path / name).stat().st_mode & 0o077 == 0, name
    assert (finished.path / "mlflow.db").stat().st_mode & 0o077 == 0


def test_a_umask_that_is_none_is_refused(project: Project) -> None:
    (project.path / "local.yaml").write_text("UMASK: group\n")
    result = project.run("dvc", "repro", "base", check=False)
    assert "UMASK is 'group'; it is three octal digits" in result.stdout and "Traceback" not in result.stdout


def test_a_stage_called_with_wrong_paths_says_which_it_takes() -> None:
    command = [sys.executable, "-m", "tasks.augment", "documents"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert "usage: python -m tasks.augment data documents variants report record" in result.stderr
