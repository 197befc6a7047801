"""Intervals and paired comparisons of scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.evaluation.metrics import label
from tasks.evaluation.scores import FILE, Score, change, difference, estimate, read_scores, write_scores


def scores(tuned: list[float], *, base: float = 3.0, weight: float = 10.0) -> list[Score]:
    return [Score("answer_nll", str(n), "test", "k", "s", weight, weight, base * weight, value * weight) for n, value in enumerate(tuned)]


def test_scores_are_read_as_written(tmp_path: Path) -> None:
    written = scores([1.0, 2.5])
    write_scores(written, tmp_path)
    assert read_scores(tmp_path) == written
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write('{"metric": "choice"}\n')
    with pytest.raises(ValueError, match=r"scores\.jsonl, line 3: not a score"):
        read_scores(tmp_path)


def test_scores_of_an_older_version_are_read_under_todays_names(tmp_path: Path) -> None:
    former = ("answer_nats", "answer_content_nats", "general_nats", "invariance", "choice")
    row = {"id": "a", "split": "other", "kind": "k", "source": "s", "weight": 1.0, "base": 2.0, "tuned": 1.0}
    (tmp_path / FILE).write_text("".join(json.dumps({"metric": name} | row) + "\n" for name in former))
    assert [score.metric for score in read_scores(tmp_path)] == ["answer_nll", "answer_content_nll", "general_nll", "consistency", "choice"]
    assert {(score.split, score.category) for score in read_scores(tmp_path)} == {("ood", "k")}
    assert label("answer_nats") == label("answer_nll") and label("a metric of tomorrow") == "a metric of tomorrow"


def test_values_are_weighted_by_token() -> None:
    two = [*scores([1.0], weight=30), Score("answer_nll", "x", "test", "k", "s", 10, 10, 0, 20.0)]
    assert estimate(two, "tuned").value == pytest.approx(50 / 40)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        interval = estimate(scores(random.normal(2.0, 0.5, 60).tolist()), "tuned")
        inside += interval.low <= 2.0 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99


def test_pairs_show_a_difference_that_separate_intervals_hide() -> None:
    random = np.random.default_rng(1)
    hard = random.normal(2.0, 1.0, 100)
    champion, challenger = scores(hard.tolist()), scores((hard - 0.05).tolist())
    assert estimate(challenger, "tuned").high > estimate(champion, "tuned").low
    assert difference(champion, challenger).high < 0


def test_only_shared_items_are_compared() -> None:
    champion, challenger = scores([1.0, 1.0, 9.0]), scores([2.0, 2.0])
    assert difference(champion, challenger).value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no items"):
        difference(champion, [])


def test_change_is_tuned_less_base() -> None:
    assert change(scores([2.0, 2.0], base=3.0)).value == pytest.approx(-1.0)
