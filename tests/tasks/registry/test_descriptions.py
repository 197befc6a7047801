"""What MLflow's pages say of the model, its versions and the stages' runs."""

import json

import pytest
from helpers.project import Project
from helpers.versions import NAME, artifacts_of, version_of
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


def test_a_version_says_verdict_numbers_and_where_the_rest_stands(finished: Project) -> None:
    version, artifacts = version_of(finished), artifacts_of(finished)
    decision = json.loads((artifacts / "decision-1.json").read_text())
    assert version.description.startswith(f"**{decision['verdict']}, {version.tags['decision.1.outcome']}** (decision 1)")
    assert decision["reasons"][0] in version.description and version.tags["code.commit"][:12] in version.description
    row = next(row for row in decision["table"] if row["metric"] == "answer_nll" and row["split"] == "test")
    assert f"{row['tuned']['value']:.3f} ({row['tuned']['low']:.3f} to {row['tuned']['high']:.3f})" in version.description
    named = [part for part in version.description.split("`") if part.endswith((".html", ".md", ".json"))]
    assert len(named) == 5 and all((artifacts / name).is_file() for name in named)


def test_the_model_and_every_run_have_a_note(finished: Project) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{finished.path / 'mlflow.db'}")
    assert "It is not a medical device" in client.get_registered_model(NAME).description
    for stage in ("base", "preprocess", "augment", "shard", "finetune", "validate"):
        run_id = version_of(finished).tags[f"run.{stage}"]
        note = client.get_run(run_id).data.tags["mlflow.note.content"]
        record = json.loads((finished.path / "artifacts" / "runs" / f"{stage}.json").read_text())
        assert all(f"wrote `{path}` `{digest[:12]}`" in note for path, digest in record["outputs"].items())


def test_a_description_that_somebody_wrote_stays_and_a_lost_one_comes_back(copied: Project) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.path / 'mlflow.db'}")
    written = version_of(copied).description
    client.update_registered_model(NAME, "Ours.")
    client.update_model_version(NAME, "1", "")
    copied.set_params("register", sign_off="required")
    copied.run("dvc", "repro")
    assert client.get_registered_model(NAME).description == "Ours." and version_of(copied).description == written
