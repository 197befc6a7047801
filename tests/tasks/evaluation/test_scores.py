"""Intervals and paired comparisons of scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.evaluation.metrics import label
from tasks.evaluation.scores import FILE, RESAMPLES, SEED, Score, change, count_groups, difference, estimate, read_scores, write_scores


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


def test_a_line_of_an_older_version_has_one_weight_for_both_models_and_items_that_stand_by_themselves(tmp_path: Path) -> None:
    row = {"metric": "answer_nll", "split": "test", "category": "k", "source": "s", "weight": 5.0, "base": 2.0, "tuned": 1.0}
    (tmp_path / FILE).write_text("".join(json.dumps(row | {"id": key}) + "\n" for key in "ab"))
    read = read_scores(tmp_path)
    assert [(s.base_weight, s.tuned_weight, s.group) for s in read] == [(5.0, 5.0, "")] * 2 and count_groups(read) == 2


def resampled(patients: list[list[Score]], value: Callable[[list[Score]], float]) -> tuple[float, float]:
    """The interval of a value over patients drawn with replacement, patient by patient in plain Python."""
    random, count = np.random.default_rng(SEED), len(patients)
    drawn = (random.integers(count, size=count) for _ in range(RESAMPLES))
    values = [value([score for index in indices for score in patients[index]]) for indices in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def ratio(members: list[Score], role: str) -> float:
    weight = sum(getattr(s, f"{role}_weight") for s in members)
    return sum(getattr(s, role) for s in members) / weight if weight else 0.0


def test_intervals_are_those_of_drawing_whole_patients_with_weights_of_each_model() -> None:
    random = np.random.default_rng(5)
    patients = []
    for number in range(12):
        notes = [(int(random.integers(0, 6)), int(random.integers(1, 6))) for _ in range(number % 4 + 1)]
        patients.append(
            [
                Score(
                    "field_f1", f"{number}-{n}", "test", "k", "s", b, t, float(random.integers(0, b + 1)), float(random.integers(0, t + 1))
                )
                for n, (b, t) in enumerate(notes)
            ]
        )
    grouped = [replace(score, group=f"p{number}") for number, notes in enumerate(patients) for score in notes]
    for role in ("base", "tuned"):
        interval = estimate(grouped, role)
        assert interval.value == pytest.approx(ratio(grouped, role))
        assert (interval.low, interval.high) == pytest.approx(resampled(patients, lambda m, role=role: ratio(m, role)))  # type: ignore[misc]
    interval = change(grouped)
    assert (interval.low, interval.high) == pytest.approx(resampled(patients, lambda m: ratio(m, "tuned") - ratio(m, "base")))
    # The same items as if each were a patient of its own: another interval.
    assert change([replace(score, group="") for score in grouped]) != interval
    assert count_groups(grouped) == 12


def test_patients_with_many_like_notes_say_no_more_than_patients() -> None:
    values = np.random.default_rng(2).normal(2.0, 0.5, 20).tolist()
    once = estimate(scores(values), "tuned")
    copied = [replace(score, id=f"{score.id}-{n}", group=score.id) for score in scores(values) for n in range(5)]
    assert estimate(copied, "tuned").low == pytest.approx(once.low) and estimate(copied, "tuned").high == pytest.approx(once.high)
    assert estimate([replace(score, group="") for score in copied], "tuned").low > once.low


def test_a_ratio_over_nothing_is_zero() -> None:
    nothing = [Score("hallucinated", str(n), "test", "k", "s", 0, 4, 0, 1, group=str(n)) for n in range(10)]
    assert estimate(nothing, "base").value == 0 and change(nothing).value == pytest.approx(0.25)


def test_change_is_tuned_less_base() -> None:
    assert change(scores([2.0, 2.0], base=3.0)).value == pytest.approx(-1.0)
