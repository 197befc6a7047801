"""The whole pipeline on a tiny corpus, through DVC and through Prefect, with a real MLflow store and a real Prefect server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.builders import sentences, write_table
from helpers.pipeline import FLOW, start, steps_told, store, wait_until_gone, wait_until_training
from helpers.project import PATIENCE, Project
from mlflow import MlflowClient
from ruamel.yaml import YAML

from tasks.params import STAGES
from tasks.runtime.digests import dvc_digest, sha256


def everything(client: MlflowClient) -> list[str]:
    """All runs and versions with their tags, as text."""
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    versions = client.search_model_versions("name = 'medical-llm'")
    aliases = client.get_registered_model("medical-llm").aliases
    return sorted(json.dumps([r.info.run_id, r.data.tags, r.data.metrics], sort_keys=True) for r in runs) + [
        json.dumps([v.version, v.tags, v.last_updated_timestamp, aliases], sort_keys=True) for v in versions
    ]


@pytest.mark.slow
def test_a_run_ends_with_a_table_two_answers_and_a_version(finished: Project) -> None:
    output = finished.run("dvc", "repro").stdout
    for words in (
        "held-out groups",
        "tuned / base",
        "qa-conditions",
        "text of another origin",
        "qa-foreign/letters",
        "\nBetter:",
        "perplexity per token of held-out answers ",
        "\nDecision: first, promoted",
        "What are the signs of condition 3?",
        "medical-llm version 1",
        "Try next",
    ):
        assert words in output
    one_line = " ".join(output.split())  # a sentence may go on in the next line
    assert "The model was trained on " in one_line and " documents in the train split" in one_line


@pytest.mark.slow
def test_a_second_run_changes_nothing(finished: Project) -> None:
    before = everything(store(finished))
    output = finished.run("dvc", "repro").stdout
    assert finished.ran(output) == ["register"]
    assert finished.run("git", "status", "--porcelain").stdout == ""
    assert everything(store(finished)) == before


@pytest.mark.slow
def test_after_dvc_the_flow_has_nothing_to_do(finished: Project, prefect_api: str) -> None:
    project = Project(finished.path)
    project.environment["PREFECT_API_URL"] = prefect_api
    before = everything(store(finished))
    states = task_states(project, prefect_api)
    assert states == {"params": "Cached", "data": "Cached", **dict.fromkeys(STAGES, "Cached"), "register": "Completed"}
    assert everything(store(finished)) == before
    assert finished.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_what_a_dead_process_holds_is_freed_and_told_once(finished: Project, prefect_api: str) -> None:
    project = Project(finished.path)
    project.environment["PREFECT_API_URL"] = prefect_api
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    held = {"write": {str(project.path / "artifacts" / "shards"): {"pid": dead.pid, "cmd": "dvc repro"}}}
    (project.path / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    assert ["left its lock behind" in project.run(*FLOW).stdout for _ in range(2)] == [True, False]


def task_states(project: Project, api: str) -> dict[str, str]:
    """Run the flow; the state of each of its tasks, as Prefect's server has it."""
    started = time.time()
    project.run(*FLOW)
    question = f"""
import json
from datetime import datetime, UTC
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterStartTime
with get_client(sync_client=True) as client:
    runs = client.read_task_runs(limit=50)
print(json.dumps({{r.name: r.state.name for r in runs if r.start_time.timestamp() >= {started}}}))
"""
    del api
    deadline = time.monotonic() + PATIENCE  # the server files task runs a moment after they end
    while True:
        answer: dict[str, str] = json.loads(project.run(sys.executable, "-c", question).stdout.splitlines()[-1])
        if len(answer) == len(STAGES) + 2 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


@pytest.mark.slow
def test_the_version_leads_back_to_the_raw_corpus(finished: Project) -> None:
    shown = finished.run(sys.executable, "-m", "tasks.registry", "show", "medical-llm@champion").stdout
    for stage in STAGES[:-1]:
        assert f"  {stage}  run " in shown, stage
    corpus = YAML(typ="safe").load(finished.path / "data.dvc")["outs"][0]["md5"]
    assert f"raw files  data  {corpus}" in shown
    client = store(finished)
    version = client.get_model_version_by_alias("medical-llm", "champion")
    assert version.tags["dvc.data"] == corpus
    assert version.tags["checkpoint"] == dvc_digest(finished.path / "artifacts" / "model")
    for stage in STAGES[:-1]:
        run = client.get_run(version.tags[f"run.{stage}"])
        assert run.data.tags["stage"] == stage and run.data.params
        assert run.inputs is not None
        assert {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs} == {
            tag.removeprefix("dvc.in."): value for tag, value in run.data.tags.items() if tag.startswith("dvc.in.")
        }


def test_the_version_holds_the_model_and_its_passport(finished: Project, tmp_path: Path) -> None:
    client = store(finished)
    version = client.get_model_version_by_alias("medical-llm", "champion")
    assert version.run_id
    folder = Path(client.download_artifacts(version.run_id, "", str(tmp_path)))
    assert sha256(folder / "passport.json") == version.tags["passport.sha256"]
    passport = json.loads((folder / "passport.json").read_text())
    assert set(passport["stages"]) == set(STAGES[:-1])
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "data.dvc", "requirements.lock"):
        assert sha256(folder / name) == passport["artifacts"][name]
    assert passport["trees"]["artifacts/model"]["dvc"] == version.tags["checkpoint"]
    assert set(passport["trees"]["artifacts/model"]["files"]) <= {name.removeprefix("checkpoint/") for name in passport["artifacts"]}
    for name, digest in passport["artifacts"].items():
        assert sha256(folder / name) == digest


def test_the_finetune_run_has_its_curves(finished: Project) -> None:
    client = store(finished)
    run_id = client.get_model_version_by_alias("medical-llm", "champion").tags["run.finetune"]
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [1, 2, 3, 4, 5, 6]
    assert [m.step for m in client.get_metric_history(run_id, "validation_loss")] == [3, 6]


def test_data_docs_and_reports_are_artifacts_of_their_runs(finished: Project) -> None:
    client = store(finished)
    version = client.get_model_version_by_alias("medical-llm", "champion")
    names = {a.path for a in client.list_artifacts(version.tags["run.preprocess"], "preprocess")}
    assert "preprocess/clean-documents.html" in names
    names = {a.path for a in client.list_artifacts(version.tags["run.validate"], "evaluation")}
    assert {"evaluation/report.html", "evaluation/metrics.json"} <= names


@pytest.mark.system
class TestChanges:
    """Each on a copy of its own, because each changes it."""

    def test_a_changed_finetune_param_runs_only_what_depends_on_it(self, copied: Project) -> None:
        copied.set_params("finetune", steps=7)
        assert copied.ran(copied.run("dvc", "repro").stdout) == ["finetune", "validate", "register"]
        client = store(copied)
        first, second = (client.get_model_version("medical-llm", n) for n in "12")
        for stage in ("base", "preprocess", "augment", "shard"):
            assert first.tags[f"run.{stage}"] == second.tags[f"run.{stage}"]
        assert first.tags["run.finetune"] != second.tags["run.finetune"]

        tracking = copied.path / "tasks" / "registry" / "tracking.py"
        tracking.write_text(tracking.read_text() + "# a comment\n")
        assert copied.ran(copied.run("dvc", "repro").stdout) == ["register"]

        # Back to the first params: DVC restores, and the version is the one that is there.
        copied.set_params("finetune", steps=6)
        assert copied.ran(copied.run("dvc", "repro").stdout) == ["register"]
        assert "version 1 has this checkpoint already" in copied.run("dvc", "repro").stdout

    @pytest.mark.parametrize("door", ["dvc", pytest.param("flow", marks=pytest.mark.campaign)])
    def test_a_file_added_to_data_is_versioned_first(self, copied: Project, door: str, prefect_api: str) -> None:
        copied.environment["PREFECT_API_URL"] = prefect_api
        command = ("dvc", "repro") if door == "dvc" else FLOW
        before = (copied.path / "data.dvc").read_text()
        write_table(copied.path / "data" / "more.csv", [(q.replace("condition", "syndrome"), a) for q, a in sentences(20)])
        output = copied.run(*command).stdout
        assert ("Verifying data sources" if door == "dvc" else "the raw corpus changed") in output
        corpus = dvc_digest(copied.path / "data")
        assert (copied.path / "data.dvc").read_text() != before
        assert YAML(typ="safe").load(copied.path / "data.dvc")["outs"][0]["md5"] == corpus
        lock = YAML(typ="safe").load(copied.path / "dvc.lock")
        assert {d["path"]: d["md5"] for d in lock["stages"]["preprocess"]["deps"]}["data"] == corpus
        client = store(copied)
        assert client.get_model_version("medical-llm", "2").tags["dvc.data"] == corpus

    def test_after_the_flow_dvc_has_nothing_to_do(self, project: Project, prefect_api: str) -> None:
        project.environment["PREFECT_API_URL"] = prefect_api
        states = task_states(project, prefect_api)
        assert states == {"params": "Checked", "data": "Cached", **dict.fromkeys(STAGES, "Completed")}
        assert project.ran(project.run("dvc", "repro").stdout) == ["register"]

    def test_without_data_the_flow_says_what_to_do(self, trained: Project, prefect_api: str) -> None:
        trained.environment["PREFECT_API_URL"] = prefect_api
        trained.run("rm", "-r", "data")
        result = trained.run(*FLOW, check=False)
        assert result.returncode != 0
        assert "data/ is missing: run 'dvc pull', or 'python -m tasks.corpus data'" in result.stdout

    def test_a_dvc_experiment_makes_no_version(self, copied: Project) -> None:
        for arguments in (["--name", "here"], ["--name", "apart", "--temp"]):
            output = copied.run("dvc", "exp", "run", "--set-param", f"finetune.steps={len(arguments) + 2}", *arguments).stdout
            assert "no version is made from a DVC experiment" in output
        client = store(copied)
        assert [v.version for v in client.search_model_versions("name = 'medical-llm'")] in ([1], ["1"])
        (experiment,) = (e for e in client.search_experiments() if e.name == "medical-llm")
        tuned = client.search_runs([experiment.experiment_id], "tags.stage = 'finetune'")
        assert sorted(r.data.params["steps"] for r in tuned) == ["4", "5", "6"]


@pytest.mark.system
@pytest.mark.parametrize(
    ("door", "number"),
    [
        pytest.param("flow", signal.SIGTERM, marks=pytest.mark.campaign),
        pytest.param("flow", signal.SIGKILL, marks=pytest.mark.campaign),
        ("dvc", signal.SIGKILL),
    ],
)
def test_a_killed_run_leaves_no_process_and_goes_on_to_the_same_bits(sharded: Project, prefect_api: str, door: str, number: int) -> None:
    sharded.environment["PREFECT_API_URL"] = prefect_api
    sharded.set_params("finetune", steps=400, validate_every=400)
    process = start(sharded, *(FLOW if door == "flow" else ("dvc", "repro")))
    wait_until_training(sharded)
    os.kill(process.pid, number)
    process.wait(120)
    wait_until_gone(sharded)
    assert not (sharded.path / "artifacts" / "model").exists()
    # DVC waits for a process whose end nobody collects; the flow sees through that.
    resumed = sharded.run(*FLOW).stdout if door == "flow" else sharded.run("dvc", "repro", "finetune").stdout
    assert "going on after step" in resumed
    assert steps_told(sharded) == [list(range(1, 401))]
    after_kill = dvc_digest(sharded.path / "artifacts" / "model")
    whole = sharded.run("dvc", "repro", "--force", "--single-item", "finetune").stdout
    assert "going on after step" not in whole
    assert dvc_digest(sharded.path / "artifacts" / "model") == after_kill
