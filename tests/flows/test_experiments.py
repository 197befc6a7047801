"""DVC's experiments: queued, run one after the other, compared in MLflow's main store, and no version made."""

import pytest
from helpers.pipeline import store
from helpers.project import Project

pytestmark = pytest.mark.system


@pytest.mark.campaign  # one that makes no version: test_pipeline.py
def test_two_queued_experiments_end_as_two_runs_that_compare(copied: Project) -> None:
    before = store(copied).search_model_versions("name = 'medical-llm'")
    copied.run("dvc", "exp", "run", "--queue", "--set-param", "finetune.lr=1e-4,9e-4")
    output = copied.run("dvc", "exp", "run", "--run-all", timeout=600).stdout
    assert output.count("no version is made from a DVC experiment") == 2, output
    client = store(copied)
    (experiment,) = (e for e in client.search_experiments() if e.name == "medical-llm")
    tried = client.search_runs([experiment.experiment_id], "tags.stage = 'experiment'")
    assert sorted(run.data.params["finetune.lr"] for run in tried) == ["0.0001", "0.0009"]
    losses = [(run.data.metrics["validation_loss"], run.data.metrics["test/answer_nll/tuned"]) for run in tried]
    assert losses[0] != losses[1]
    assert client.search_model_versions("name = 'medical-llm'") == before
    assert len({run.info.run_name for run in tried}) == 2
    assert not (copied.path / "artifacts" / "registration.json").read_text().count('"version": 2')

    shown = copied.run("dvc", "exp", "show", "--only-changed", "--no-pager", "--md").stdout
    assert "0.0009" in shown and "finetune.lr" in shown
    (name, _) = sorted(run.info.run_name for run in tried)
    copied.run("dvc", "exp", "apply", str(name))
    assert "perplexity" in copied.run("dvc", "metrics", "diff").stdout
    assert "plots" in copied.run("dvc", "plots", "diff").stdout
