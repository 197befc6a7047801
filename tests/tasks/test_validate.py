"""The stage as a whole on a tiny model: what it writes, that it is a pure function, and what it never tells."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.evaluation import SECRET, write_evaluation_inputs
from helpers.project import ROOT

from tasks.evaluation import __main__ as full
from tasks.evaluation import model_values
from tasks.evaluation.harness import Tasks
from tasks.evaluation.items import EvaluationItems
from tasks.evaluation.metrics import METRICS, SCORED
from tasks.evaluation.model_values import ModelValues
from tasks.evaluation.params import BoilerplateParams, ExtractionParams, StructuredParams, ValidateParams
from tasks.evaluation.run import SCORING
from tasks.evaluation.scores import read_scores
from tasks.validate import validate

PARAMS = ValidateParams(
    seed=1,
    max_tokens=500,
    choices=3,
    generations=2,
    batch_tokens=512,
    precision="float32",
    boilerplate=BoilerplateParams(share=0.05, certainty=0.9),
    extraction=ExtractionParams(documents=5, prefix=4, target=4),
    structured=StructuredParams(notes=6, examples=2, max_new_tokens=24, rest=1.0),
    max_new_tokens=8,
    temperature=0.6,
    top_p=0.9,
    prompts=("What are the signs of condition 3?",),
    tasks={},
)


def run(folder: Path, out: str, params: ValidateParams = PARAMS, *, tuned: str = "tuned") -> Path:
    paths = (folder / name for name in ("base", tuned, "documents", "cleaning", "shards", out))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where the base model's values are kept
        validate(*paths, params=params)
    return folder / out


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_inputs(tmp_path_factory.mktemp("validate"))


@pytest.fixture(scope="module")
def evaluation(parts: Path) -> Path:
    return run(parts, "evaluation")


@pytest.fixture(scope="module")
def with_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_inputs(tmp_path_factory.mktemp("notes"), with_notes=True)


@pytest.fixture(scope="module")
def extraction(with_notes: Path) -> Path:
    return run(with_notes, "evaluation")


def test_the_same_inputs_give_the_same_bytes(parts: Path, evaluation: Path) -> None:
    again = run(parts, "again")
    files = {path.name: path.read_bytes() for path in evaluation.iterdir()}
    assert set(files) == {
        "scores.jsonl",
        "metrics.json",
        "headline.json",
        "fields.json",
        "scorer.json",
        "calibration.json",
        "answers.json",
        "report.html",
    }
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}


def test_every_metric_is_scored_and_the_table_is_what_the_scores_say(evaluation: Path) -> None:
    scores, metrics = read_scores(evaluation), json.loads((evaluation / "metrics.json").read_text())
    of_tasks = {name for name in SCORED if METRICS[name].of_tasks}
    assert {s.metric for s in scores} == set(SCORED) - of_tasks - {"consistency"}  # no other wording of these questions is known
    assert {s.split for s in scores} == {"test", "ood", "general", "behaviour", "train"}
    assert len({(s.metric, s.split, s.id) for s in scores}) == len(scores)
    assert {s.source for s in scores if s.metric == "general_nll"} == {"general.csv", "g.txt"}
    of_answers = [s for s in scores if (s.metric, s.split) == ("answer_nll", "test")]
    row = metrics["test"]["all"]["answer_nll"]
    assert row["tuned"]["value"] == pytest.approx(sum(s.tuned for s in of_answers) / sum(s.tuned_weight for s in of_answers))
    assert row["tuned"]["low"] < row["tuned"]["value"] < row["tuned"]["high"]


def test_a_model_beside_itself_is_neither_better_nor_worse(parts: Path) -> None:
    equal = run(parts, "equal", tuned="base")
    assert all(score.base == score.tuned for score in read_scores(equal))
    metrics = json.loads((equal / "metrics.json").read_text())
    assert all(row["change"]["value"] == 0 for of_split in metrics.values() for row in of_split["all"].values())
    for word in ("better", "worse"):
        assert f'class="{word}"><b>{word}</b>: nothing' in (equal / "report.html").read_text()


def test_no_text_of_a_record_and_no_answer_of_the_tuned_model_is_told_of_a_private_corpus(evaluation: Path) -> None:
    for path in evaluation.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "Zebrafink" not in text and "Quastenflosser" not in text, path
        assert "condition 1 " not in text.lower(), path
    (pair,) = json.loads((evaluation / "answers.json").read_text())
    assert pair["tuned"] is None and pair["base"]
    assert "withheld" in (evaluation / "report.html").read_text()


def test_answers_are_told_where_every_source_is_public(tmp_path: Path) -> None:
    folder = write_evaluation_inputs(tmp_path, public=True)
    (pair,) = json.loads((run(folder, "evaluation") / "answers.json").read_text())
    assert isinstance(pair["tuned"], str)


def test_the_report_is_complete_in_itself(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text(encoding="utf-8")
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            for name, value in attrs:
                assert name not in ("src", "action") and (name not in ("href", "xlink:href") or str(value).startswith("#")), (tag, name)

    Reader().feed(page)
    assert tags.count("svg") == 2 and "script" not in tags and "link" not in tags
    assert "What are the signs of condition 3?" in page


@pytest.mark.slow
def test_the_scorer_changes_with_what_changes_scores_and_the_items_with_what_is_scored(parts: Path, evaluation: Path) -> None:
    def digests(**changes: object) -> dict[str, str]:
        name = "-".join(map(str, changes))
        return dict(json.loads((run(parts, f"with-{name}", PARAMS.model_copy(update=changes)) / "scorer.json").read_text()))

    unchanged = json.loads((evaluation / "scorer.json").read_text())
    assert digests(prompts=()) == unchanged
    fewer, longer = digests(choices=2), digests(max_new_tokens=9)
    assert fewer["scorer"] == unchanged["scorer"] and fewer["items"] != unchanged["items"]
    assert longer["scorer"] != unchanged["scorer"] and longer["items"] == unchanged["items"]
    assert all(name.is_dir() for name in SCORING)


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_to_do(parts: Path, tmp_path: Path) -> None:
    folder = write_evaluation_inputs(tmp_path / "none")
    index = json.loads((folder / "shards" / "index.json").read_text())
    del index["splits"]["test"]
    (folder / "shards" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"holds no test documents; look at the splits in data/ and at preprocess\.test_share"):
        run(folder, "evaluation")
    other = write_evaluation_inputs(tmp_path / "ood", test=20)
    (other / "shards").rename(other / "own")
    (other / "shards").symlink_to(parts / "shards")
    with pytest.raises(ValueError, match="hold different test documents; run 'dvc repro shard'"):
        run(other, "evaluation")


@pytest.mark.slow
def test_few_documents_give_values_without_intervals(tmp_path: Path) -> None:
    few = run(write_evaluation_inputs(tmp_path, test=4), "evaluation")
    row = json.loads((few / "metrics.json").read_text())["test"]["all"]["answer_nll"]
    assert row["items"] == 4 and set(row["tuned"]) == {"value"}


def test_the_full_evaluation_scores_every_document_into_a_directory_of_its_own(
    parts: Path, evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    paths = [str(parts / name) for name in ("base", "tuned", "documents", "cleaning", "shards")]
    monkeypatch.setattr("sys.argv", ["full_eval", *paths, "full"])
    full.main()
    stage, full_evaluation = (
        json.loads((folder / "metrics.json").read_text())["test"]["all"] for folder in (evaluation, tmp_path / "full")
    )
    assert full_evaluation["answer_nll"]["items"] == full_evaluation["choice"]["items"] == 24 > stage["answer_nll"]["items"]
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "full", ".cache"}


def test_extraction_is_scored_on_both_splits_by_patient_with_examples_for_the_base_model_alone(extraction: Path) -> None:
    scores = [s for s in read_scores(extraction) if METRICS[s.metric].of_tasks]
    assert {(s.metric, s.split) for s in scores} == {(m, split) for m in SCORED if METRICS[m].of_tasks for split in ("test", "ood")}
    items = [s for s in scores if (s.metric, s.split) == ("field_f1", "test")]
    assert len(items) == len({s.group for s in items}) == 6 and {s.category for s in items} == {"extract-vitals"}
    # Two stated values in every note; a random model extracts nothing, and the rest follows from that.
    assert all(s.base_weight >= 2 and s.base == s.tuned == 0 for s in items)
    by_id = {s.id: s.tuned_weight for s in items}
    assert all(s.tuned_weight == by_id[s.id] for s in scores if (s.metric, s.split) == ("field_f1_few_shot", "test"))
    metrics = json.loads((extraction / "metrics.json").read_text())
    assert metrics["test"]["category"]["extract-vitals"]["parsed"]["items"] == 6
    assert next(iter(metrics["test"]["all"])) == "field_f1"


def test_the_file_for_dvc_has_few_rows_that_fit_a_terminal(extraction: Path, evaluation: Path) -> None:
    rows, without = (json.loads((folder / "headline.json").read_text()) for folder in (extraction, evaluation))
    assert 8 <= len(rows) <= 12 and list(rows)[:3] == ["f1", "f1_base", "f1_base_shots"] and "f1" not in without
    # DVC's columns: path, metric, two values, change, with two blanks between.
    assert all(len("artifacts/evaluation/headline.json") + len(name) + 6 + len("workspace") + 7 + 8 <= 80 for name in rows)
    assert all(value == round(value, 4) for value in rows.values()) and without["perplexity"] > 1


def test_fields_are_told_apart_and_no_page_quotes_a_note(extraction: Path) -> None:
    rows = json.loads((extraction / "fields.json").read_text())["test"]["vitals"]
    assert {"vital_signs.heart_rate", "medications", "all"} <= set(rows)
    assert rows["all"]["values"] == 12 and set(rows["all"]) == {"values", "base", "base_few_shot", "tuned"}
    page = (extraction / "report.html").read_text()
    assert "Extraction from notes" in page and page.index("Extraction from notes") < page.index("In short") < page.index("perplexity")
    for path in extraction.iterdir():
        assert (
            not any(secret in path.read_text() for secret in ("Sertraline", "Metformin", "HR 8", "patient-1"))
            or path.name == "scores.jsonl"
        )
    assert not any(secret in (extraction / "scores.jsonl").read_text() for secret in ("Sertraline", "Metformin", "HR 8"))


def test_the_base_model_is_scored_once_and_kept_values_are_those_computed_again(
    with_notes: Path, extraction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = model_values.score_model

    def counted(checkpoint: Path, items: EvaluationItems, tasks: Tasks, params: ValidateParams, role: str) -> ModelValues:
        scored.append(role)
        return score(checkpoint, items, tasks, params, role)

    monkeypatch.setattr(model_values, "score_model", counted)
    kept = with_notes / ".cache" / "evaluation"
    assert [path.stat().st_mode & 0o777 for path in (kept, *kept.iterdir())] == [0o700, 0o600]
    assert not any(secret in next(kept.iterdir()).read_text() for secret in ("Sertraline", "Metformin", "HR 8", SECRET))
    again = run(with_notes, "again", tuned="base")
    assert scored == [] and {s.base for s in read_scores(again)} == {s.base for s in read_scores(extraction)}
    shutil.rmtree(kept)
    fresh = run(with_notes, "fresh")
    assert scored == ["base"]
    assert {path.name: path.read_bytes() for path in fresh.iterdir()} == {path.name: path.read_bytes() for path in extraction.iterdir()}
    # Other items, other params, other weights and a damaged file: none of them is mistaken for what was kept.
    run(with_notes, "other-items", PARAMS.model_copy(update={"seed": 2}))
    run(with_notes, "other-params", PARAMS.model_copy(update={"max_new_tokens": 7}))
    weights = with_notes / "other-base"
    shutil.copytree(with_notes / "tuned", weights)
    paths = (with_notes / name for name in ("other-base", "tuned", "documents", "cleaning", "shards", "other-weights"))
    monkeypatch.chdir(with_notes)
    validate(*paths, params=PARAMS)
    assert scored == ["base"] * 4
    for path in kept.iterdir():
        path.write_text(path.read_text()[:-9])
    run(with_notes, "damaged")
    assert scored == ["base"] * 5


def test_what_a_grounded_answer_of_random_weights_gives_stands_in_the_note(with_notes: Path) -> None:
    structured = StructuredParams(notes=6, examples=2, constrained=True, grounded=True, max_new_tokens=120, rest=1.0)
    out = run(with_notes, "grounded", PARAMS.model_copy(update={"structured": structured}))
    row = json.loads((out / "metrics.json").read_text())["test"]["all"]["hallucinated"]
    assert row["weight"] > 0 and row["tuned"]["value"] == 0


def test_what_is_not_constrained_cannot_be_grounded() -> None:
    with pytest.raises(ValueError, match="grounded needs constrained: true"):
        StructuredParams(notes=6, examples=2, grounded=True, max_new_tokens=24, rest=1.0)
