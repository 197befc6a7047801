"""What MLflow's pages say of the model, its versions and the stages' runs."""

import csv
import json
import re
import sys

import pytest
from helpers.browser import Page
from helpers.project import Project
from helpers.versions import NAME, artifacts_of, version_of
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from tasks.evaluation.metrics import label
from tasks.registry.notes import SCORES, STAGES

pytestmark = pytest.mark.slow
RUNS = re.compile(r"\]\(#/experiments/\d+/runs/(?P<run>\w+)/artifacts/(?P<path>[^)?]+)\?workflowType=machine_learning\)")


def client_of(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")


def models_of(project: Project) -> list[LoggedModel]:
    client = client_of(project)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment
    return list(client.search_logged_models([experiment.experiment_id]))


def test_a_version_says_verdict_numbers_and_where_the_rest_is(finished: Project) -> None:
    version, artifacts = version_of(finished), artifacts_of(finished)
    decision = json.loads((artifacts / "decision-1.json").read_text())
    assert version.description.startswith(f"**{decision['verdict']}, {version.tags['decision.1.outcome']}** (decision 1)")
    assert decision["reasons"][0] in version.description and version.tags["code.commit"][:12] in version.description
    assert f"Data: `{version.tags['dvc.data'][:12]}`" in version.description
    row = next(row for row in decision["table"] if row["metric"] == "answer_nll" and row["split"] == "test")
    assert f"{row['tuned']['value']:.3f} ({row['tuned']['low']:.3f} to {row['tuned']['high']:.3f})" in version.description
    links = [link.groupdict() for link in RUNS.finditer(version.description)]
    assert len(links) == 6 and {link["run"] for link in links} == {version.run_id}
    assert all((artifacts / link["path"]).is_file() for link in links)
    assert f"/models/{version.tags['logged_model']}?" in version.description


def test_a_version_has_a_logged_model_with_its_data_params_and_headline_scores(finished: Project) -> None:
    version, (model,) = version_of(finished), models_of(finished)
    assert model.model_id == version.tags["logged_model"] and model.source_run_id == version.run_id and str(model.status) == "READY"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": 1}]
    assert model.tags["mlflow.note.content"] == version.description
    record = json.loads((finished.path / "artifacts" / "runs" / "finetune.json").read_text())
    assert model.params["steps"] == str(record["params"]["steps"]) and model.params.keys() == record["params"].keys()
    table = json.loads((artifacts_of(finished) / "decision-1.json").read_text())["table"]
    values = {f"{row['split']}/{row['metric']}/tuned": row["tuned"]["value"] for row in table}
    measured = {metric.key: metric for metric in model.metrics or []}
    assert measured.keys() - {"validation_loss"} == values.keys() & set(SCORES) and len(measured) >= 4
    assert all(measured[name].value == values[name] for name in measured.keys() & values.keys())
    digests = {"artifacts/documents": "dvc.artifacts/documents", "artifacts/shards": "dvc.artifacts/shards"}
    datasets = {metric.dataset_name: metric.dataset_digest for metric in measured.values() if metric.dataset_name}
    assert datasets == {path: version.tags[tag] for path, tag in digests.items()}
    run = client_of(finished).get_run(version.run_id)
    assert run.outputs and [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert run.inputs and {given.dataset.name for given in run.inputs.dataset_inputs} >= {"data", *digests}


def test_a_run_shows_at_most_nine_metrics_beside_its_curves_and_has_all_in_a_file(finished: Project) -> None:
    client = client_of(finished)
    for stage in ("base", "preprocess", "augment", "shard", "finetune", "validate"):
        record = json.loads((finished.path / "artifacts" / "runs" / f"{stage}.json").read_text())
        run_id = version_of(finished).tags[f"run.{stage}"]
        curves = {name for point in record["history"] for name in point}
        shown = client.get_run(run_id).data.metrics.keys() - curves
        assert shown == {"seconds", *(name for name in STAGES[stage][1] if name in record["metrics"])} - curves and len(shown) <= 9
        with open(client.download_artifacts(run_id, "metrics.csv")) as file:
            written = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
        assert written == record["metrics"] | {name: record[name] for name in ("seconds", "peak_memory_mb")}
        note = client.get_run(run_id).data.tags["mlflow.note.content"]
        assert all(f"wrote `{path}` `{digest[:12]}`" in note for path, digest in record["outputs"].items())
    assert "It is not a medical device" in client.get_registered_model(NAME).description


def test_a_page_says_who_promoted_and_why_as_written(copied: Project) -> None:
    why = "a | trial [of](x) *this*"
    copied.run(sys.executable, "-m", "tasks.registry", "promote", "1", "--by", "A. Person", "--why", why)
    (model,) = models_of(copied)
    description = version_of(copied).description
    assert r"| sign-off | A. Person | signed off on" in description and r"a \| trial \[of\](x) \*this\* |" in description
    assert model.tags["mlflow.note.content"] == description


def test_a_version_of_before_gets_its_logged_model_and_a_half_made_one_is_used(copied: Project) -> None:
    client, (model,) = client_of(copied), models_of(copied)
    client.delete_logged_model(model.model_id)
    client.delete_model_version_tag(NAME, "1", "logged_model")
    half = client.create_logged_model(model.experiment_id, "half", model.source_run_id)  # a process was killed here
    copied.set_params("register", sign_off="required")
    copied.run("dvc", "repro")
    (again,) = models_of(copied)
    assert again.model_id == half.model_id == version_of(copied).tags["logged_model"] and str(again.status) == "READY"
    before, after = ({metric.key: metric.value for metric in one.metrics or []} for one in (model, again))
    assert before == after and before
    assert "removed  from MLflow: deleted runs" in copied.run(sys.executable, "-m", "tasks.registry", "gc").stdout
    assert " 0 differ" in copied.run(sys.executable, "-m", "tasks.registry", "verify", "1").stdout


def test_a_description_that_somebody_wrote_stays_and_a_lost_one_comes_back(copied: Project) -> None:
    client = client_of(copied)
    written = version_of(copied).description
    client.update_registered_model(NAME, "Ours.")
    client.update_model_version(NAME, "1", "")
    copied.set_params("register", sign_off="required")
    copied.run("dvc", "repro")
    described = version_of(copied).description
    assert client.get_registered_model(NAME).description == "Ours." and label("answer_nll") in described
    assert described.partition("| when |")[0] == written.partition("| when |")[0]


@pytest.mark.system
@pytest.mark.parametrize("name", ["lineage.html", "decision-1.html", "evaluation/report.html"])
def test_pages_are_readable_on_a_phone_and_in_a_narrow_pane(finished: Project, devtools: int, name: str) -> None:
    page = Page(devtools, width=360, height=740)
    page.open((artifacts_of(finished) / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 360  # wide things scroll by themselves
    sizes = page.evaluate("[...document.querySelectorAll('p, td, li')].map(e => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) >= 12
    scale = page.evaluate("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)")
    assert all(one > 0.7 for one in scale)
    assert not page.complaints
