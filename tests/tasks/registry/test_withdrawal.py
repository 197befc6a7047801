"""Which versions a withdrawn record taints: those that saw it, not those that had it in a split and did not come to it."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT
from mlflow import MlflowClient

from tasks.evaluation.scores import Score, write_scores
from tasks.registry import promotion, tracking
from tasks.registry.challenge import _held_out
from tasks.registry.lineage import show
from tasks.registry.upkeep import forget
from tasks.training.exposure import FILE, Seen, seen_digest, write_seen

NAME = "medical-llm"
ID = "0123456789abcdef01234567"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A tracking store of its own, with the registered model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = tracking.connect()
    store.create_registered_model(NAME)
    return store


def score(key: str, metric: str = "answer_nll") -> Score:
    return Score(metric, key, "test", "qa", "a.csv", 1, 1, 2, 1)


def register(client: MlflowClient, folder: Path, seen: bytes | Seen | None, *evaluations: list[Score]) -> Any:
    """A version that carries what it saw and what it was scored on, as register leaves it."""
    experiment = client.get_experiment_by_name("x")
    run = client.create_run(experiment.experiment_id if experiment else client.create_experiment("x", (folder / "art").as_uri())).info
    if isinstance(seen, Seen):
        write_seen([(seen_digest(ID), seen), (seen_digest("another"), Seen("train", "trained"))], folder / FILE)
    elif seen is not None:
        (folder / FILE).write_bytes(gzip.compress(seen))
    if seen is not None:
        client.log_artifact(run.run_id, str(folder / FILE))
    for number, scores in enumerate(evaluations, 1):
        write_scores(scores, folder)
        client.log_artifact(run.run_id, str(folder / "scores.jsonl"), f"evaluation-{number}" if number > 1 else "evaluation")
    tags = {f"decision.{number}.case": "c" for number in range(1, len(evaluations) + 1)}
    return client.create_model_version(NAME, f"{run.artifact_uri}/checkpoint", run.run_id, tags=tags)


def taint_tags(client: MlflowClient, number: int) -> dict[str, str]:
    tags = client.get_model_version(NAME, str(number)).tags
    return {name: tags[name] for name in ("tainted", "spared") if name in tags}


def test_a_version_is_tainted_by_what_it_saw(client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = f"{seen_digest(ID)} train\n{seen_digest('another')} train\n".encode()
    register(client, tmp_path, Seen("train", "trained"))
    register(client, tmp_path, Seen("validation", "selected"))
    register(client, tmp_path, Seen("train", "unused"))
    register(client, tmp_path, Seen("test", "unused"), [score("another")], [score(ID)])  # scored by a later decision only
    register(client, tmp_path, Seen("test", "unused"), [score("another")])
    register(client, tmp_path, old)
    register(client, tmp_path, None)
    register(client, tmp_path, f"{seen_digest('another')} train\n".encode())
    assert [str(n) for n in promotion.mark_tainted(client, NAME, [ID])] == ["1", "2", "4", "6"]
    older = "may have seen 1 withdrawn record: an older version, which lists its splits and not what it came to"
    spared = {"spared": "1 withdrawn record in its splits, which it did not come to"}
    assert [taint_tags(client, number) for number in range(1, 9)] == [
        {"tainted": "saw 1 withdrawn record, 1 of them in training"},
        {"tainted": "saw 1 withdrawn record, 1 of them in training"},
        spared,
        {"tainted": "saw 1 withdrawn record, 0 of them in training"},
        spared,
        {"tainted": older},
        {},
        {},
    ]
    assert [e["verb"] for e in promotion.events(client, NAME)] == ["taint", "taint", "spare", "taint", "spare", "taint"]
    assert promotion.mark_tainted(client, NAME, [ID]) == []
    assert len(promotion.events(client, NAME)) == 6  # once
    promotion.show(NAME)
    listed = capsys.readouterr().out
    assert "  not tainted: 1 withdrawn record in its splits, which it did not come to" in listed and f"  tainted: {older}" in listed


def test_a_spared_version_that_is_scored_on_the_record_later_is_tainted(client: MlflowClient, tmp_path: Path) -> None:
    version = register(client, tmp_path, Seen("test", "unused"), [score("another")])
    assert promotion.mark_tainted(client, NAME, [ID]) == [] and "spared" in taint_tags(client, 1)
    write_scores([score(ID)], tmp_path)
    client.log_artifact(version.run_id, str(tmp_path / "scores.jsonl"), "evaluation-2")
    client.set_model_version_tag(NAME, "1", "decision.2.case", "c")
    assert [str(n) for n in promotion.mark_tainted(client, NAME, [ID])] == ["1"]
    assert promotion.taint_of(client.get_model_version(NAME, "1")).startswith("tainted: saw 1")


def test_a_record_of_another_corpus_that_a_later_decision_scored_taints(client: MlflowClient, tmp_path: Path) -> None:
    version = register(client, tmp_path, f"{seen_digest('another')} train trained\n".encode(), [score("another")], [score(ID)])
    assert promotion.seen_by(client, version, [ID]) == {ID: Seen("none", "scored")}
    assert [str(n) for n in promotion.mark_tainted(client, NAME, [ID])] == ["1"]


def test_a_record_tells_which_versions_saw_it(client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    register(client, tmp_path, Seen("train", "trained"))
    register(client, tmp_path, Seen("train", "unused"))
    register(client, tmp_path, f"{seen_digest(ID)} train\n".encode())
    show.record(ID)
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME} version 1 was trained on it (split train)",
        f"{NAME} version 2 did not see it (split train)",
        f"{NAME} version 3 may have seen it: this version does not say what training came to (split train)",
    ]


def test_forgetting_tells_which_versions_came_to_the_records(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for seen in (Seen("train", "trained"), Seen("train", "unused"), f"{seen_digest(ID)} train\n".encode(), None):
        version = register(client, tmp_path, seen)
        client.set_model_version_tag(NAME, version.version, "dvc.artifacts/shards", "d.dir")
    reasons = [
        "whose weights were trained or scored on them",
        "which had them in its splits and did not come to them",
        *["whose weights were trained or scored on them"] * 2,
    ]
    assert [trace.why for trace in forget._models({"d.dir"}, {ID})] == reasons
    # The last one does not say what it saw, and is not made from this directory.
    assert [trace.why for trace in forget._models({"another.dir"}, {ID})] == reasons[:-1]


def test_items_of_the_champions_train_split_do_not_count(client: MlflowClient, tmp_path: Path) -> None:
    scores = [score(ID), score("new")]
    for seen in (Seen("train", "trained"), Seen("train", "unused"), Seen("validation", "selected"), f"{seen_digest(ID)} train\n".encode()):
        assert _held_out(client, register(client, tmp_path, seen), scores) == ([score("new")], 1)
    assert _held_out(client, register(client, tmp_path, Seen("test", "unused")), scores) == (scores, 0)
