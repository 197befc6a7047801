"""The stage as a whole on a tiny model: what it writes, that it is a pure function, and what it never tells."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.evaluation import write_evaluation_inputs
from helpers.project import ROOT

from tasks.evaluation import __main__ as full
from tasks.evaluation.metrics import SCORED
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
    structured=StructuredParams(notes=6, examples=2, max_new_tokens=24),
    max_new_tokens=8,
    temperature=0.6,
    top_p=0.9,
    prompts=("What are the signs of condition 3?",),
    tasks={},
)


def run(folder: Path, out: str, params: ValidateParams = PARAMS, *, tuned: str = "tuned") -> Path:
    paths = (folder / name for name in ("base", tuned, "documents", "cleaning", "shards", out))
    validate(*paths, params=params)
    return folder / out


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_inputs(tmp_path_factory.mktemp("validate"))


@pytest.fixture(scope="module")
def evaluation(parts: Path) -> Path:
    return run(parts, "evaluation")


def test_the_same_inputs_give_the_same_bytes(parts: Path, evaluation: Path) -> None:
    again = run(parts, "again")
    files = {path.name: path.read_bytes() for path in evaluation.iterdir()}
    assert set(files) == {"scores.jsonl", "metrics.json", "scorer.json", "calibration.json", "answers.json", "report.html"}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}


def test_every_metric_is_scored_and_the_table_is_what_the_scores_say(evaluation: Path) -> None:
    scores, metrics = read_scores(evaluation), json.loads((evaluation / "metrics.json").read_text())
    assert {s.metric for s in scores} == set(SCORED) - {"consistency"}  # no other wording of these questions is known
    assert {s.split for s in scores} == {"test", "ood", "general", "behaviour", "train"}
    assert len({(s.metric, s.split, s.id) for s in scores}) == len(scores)
    assert {s.source for s in scores if s.metric == "general_nll"} == {"general.csv", "g.txt"}
    of_answers = [s for s in scores if (s.metric, s.split) == ("answer_nll", "test")]
    row = metrics["test"]["all"]["answer_nll"]
    assert row["tuned"]["value"] == pytest.approx(sum(s.tuned for s in of_answers) / sum(s.weight for s in of_answers))
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
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "full"}
