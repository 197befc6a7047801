"""The figures of a site's annotation on a registered version: passport, card, lineage and MLflow; and on one that was there before them."""

import json
import sys
from pathlib import Path

import pytest
from helpers.annotated import made_up_figures
from helpers.project import Project
from helpers.versions import NAME, artifacts_of
from mlflow import MlflowClient

from tasks.corpus.annotation import figures
from tasks.corpus.annotation.figures import Figures
from tasks.registry import site_annotation
from tasks.registry.base_terms import base_terms
from tasks.registry.lineage import passport
from tasks.registry.lineage.page import page
from tasks.registry.lineage.tree import annotation_of
from tasks.registry.model_card import card

DIGEST = "0" * 64


def document(annotation: Figures | None) -> dict[str, object]:
    """A passport with an annotation."""
    made = passport.passport(
        version={"name": "m", "number": 1, "made": "now"},
        records={},
        trees={},
        runs=[],
        code={"commit": "c", "dirty": "false"},
        gates={},
        decision={"verdict": "first", "reasons": [], "table": []},
        corpus=[],
        deidentification={},
        annotation=annotation,
    ) | {"artifacts": {"params.yaml": DIGEST}, "alternatives": {}}
    stage = {"record": "r", "started": "2026-11-28T00:00:00", "seconds": 1.0, "params": {}, "metrics": {}, "code": {}}
    made["stages"] = {"finetune": stage | {"inputs": {}, "outputs": {passport.CHECKPOINT: "d"}}}
    return made | {"trees": {tree: {"dvc": "", "files": {"": DIGEST}} for tree in (passport.CHECKPOINT, passport.EVALUATION)}}


def compared(*, same_rules: bool, same_data: bool = True) -> Figures:
    return made_up_figures().model_copy(update={"same_rules": same_rules, "same_data": same_data})


def test_a_passport_carries_the_figures_and_says_of_which_rules_they_are() -> None:
    read = passport.parse_passport(json.dumps(document(compared(same_rules=True))).encode(), "a passport")
    first, recall, *_, last = annotation_of(read)
    assert first.endswith("8 notes with 1,000 words, seed 2026, 2026-11-28, with the rules of this version")
    assert recall.startswith("recall 0.750 (0.500 to 1.000) of 8 identifiers; 0.250 (0.500 to 1.000) of the notes")
    assert last == "2 masks are newer than the annotation and not judged"
    assert "<td>NAME: names" in page("m", read, {}) and "wrong masks 0.200" in page("m", read, {}).lower()
    older = document(compared(same_rules=False, same_data=False))
    assert annotation_of(older)[0].endswith("with other rules than those of this version, on other raw files")


def test_without_an_annotation_that_is_said_and_older_passports_say_nothing() -> None:
    without = document(None)
    assert annotation_of(passport.parse_passport(json.dumps(without).encode(), "a passport")) == [figures.NONE]
    assert "own notes" not in page("m", without, {})
    del without["annotation"]
    assert annotation_of(passport.parse_passport(json.dumps(without).encode(), "an older one")) == []


@pytest.mark.parametrize("wrong", [{}, {"recall": []}, {"format": 2}, {"notes": "8"}])
def test_figures_of_another_form_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    content = made_up_figures().model_dump() | wrong if wrong else wrong
    with pytest.raises(ValueError, match=r"is not a passport that this version reads \(format 3\): annotation"):
        passport.parse_passport(json.dumps(document(None) | {"annotation": content}).encode(), "it")
    (tmp_path / "figures.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"figures\.json holds no figures .* annotate --report"):
        figures.read(tmp_path)


def test_the_card_says_what_was_annotated() -> None:
    written = card(
        name="m",
        terms=base_terms("x"),
        corpus=[],
        raw=[],
        records={},
        table=[],
        findings={},
        annotation=compared(same_rules=True),
        checkpoint="c",
        code={},
    )
    assert "\n* annotated on this site: 8 notes" in written and "\n* recall 0.750" in written


def test_figures_are_compared_with_the_run_behind_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = {"deidentify": {"dates": "year", "injections": 4}, "files": {}}
    records = {"preprocess": {"params": params, "inputs": {"data": "1" * 32}}}
    assert site_annotation.annotation_of(records) is None
    Path("annotation").mkdir()
    figures.write(made_up_figures(rules=figures.rules_digest(params)))
    same = site_annotation.annotation_of(records)
    assert same and same.same_rules and same.same_data
    params["deidentify"]["dates"] = "keep"
    other = site_annotation.annotation_of(records | {"preprocess": {"params": params, "inputs": {"data": "2"}}})
    assert other and other.same_rules is False and other.same_data is False


def test_a_version_carries_the_figures_and_newer_ones_stand_in_mlflow(trained: Project) -> None:
    def register() -> str:
        return trained.run("dvc", "repro", "register").stdout

    def client() -> MlflowClient:
        return MlflowClient(f"sqlite:///{trained.path / 'mlflow.db'}")

    def metric(name: str) -> list[float]:
        run = str(client().get_model_version("medical-llm", "1").run_id)
        return [point.value for point in client().get_metric_history(run, name)]

    params = json.loads((trained.path / "artifacts" / "runs" / "preprocess.json").read_bytes())["params"]
    measured = made_up_figures(rules=figures.rules_digest(params))
    (trained.path / "annotation").mkdir()
    figures.write(measured, trained.path / "annotation")
    printed = register()
    assert "with the rules of this version, on other raw files." in " ".join(printed.split())
    version = artifacts_of(trained)
    carried = passport.read_passport(version / "passport.json")["annotation"]
    assert carried == measured.model_dump() | {"same_rules": True, "same_data": False}
    assert "* recall 0.750" in (version / "checkpoint" / "README.md").read_text()
    assert "<td>NAME: names" in (version / "lineage.html").read_text()
    assert metric("site_recall_all") == [0.75]
    assert "older than this site" not in register() and metric("site_recall_all") == [0.75]
    better = measured.recall[0].model_copy(update={"count": 8, "share": 1.0})
    figures.write(measured.model_copy(update={"recall": [better]}), trained.path / "annotation")
    assert "register: version 1 is older than this site's annotation; MLflow has the figures, its passport has not" in register()
    assert metric("site_recall_all") == [0.75, 1.0]
    shown = trained.run(sys.executable, "-m", "tasks.registry", "show", f"{NAME}/1").stdout
    assert "recall 0.750" in shown and "0 differ" in trained.run(sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1").stdout
