"""Worse, better, unclear: the same lists wherever a person or a program reads what a run came to."""

import math
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flows import review
from tasks.evaluation import calibration
from tasks.evaluation.findings import MAX_CHARACTERS, findings, tags
from tasks.evaluation.likelihood import TokenScores
from tasks.evaluation.report import page
from tasks.evaluation.scores import Score
from tasks.evaluation.table import table
from tasks.registry import gate
from tasks.registry.base_terms import base_terms
from tasks.registry.model_card import card, trained_on
from tasks.registry.summary import show
from tasks.runtime.files import write_whole

FACTS = {"boilerplate_share": 0.2, "max_new_tokens": 96, "target": 32, "examples": 2, "fields": {}}
COUNTS = calibration.count_by_confidence([TokenScores(np.zeros(9), np.ones(9, bool), np.linspace(0.1, 0.9, 9))], ["a"])
SEEN = {
    "documents_seen": 331.0,
    "tokens_seen": 30329.0,
    "tokens_with_loss_seen": 21754.0,
    "epochs_seen": 0.00504,
    "step_kept": 30.0,
    "steps_taken": 30.0,
    "documents_fed": 331.0,
    "tokens_fed": 30329.0,
}
WHOLE = {"documents_train": 68178.0, "tokens_train": 6010351.0}


def of(metric: str, base: float, tuned: float, count: int = 40, split: str = "test") -> list[Score]:
    """Items that are more or less hard, by the same for both models."""
    return [Score(metric, str(n), split, "qa", "a.csv", 1, 1, base + (n % 2) * 0.01, tuned + (n % 2) * 0.02) for n in range(count)]


@pytest.fixture
def scored() -> list[Score]:
    return [
        *of("answer_nll", math.log(20), math.log(10)),
        *of("repetition", 0.142, 0.426),
        *of("choice", 0.3, 0.295),
        *of("stop", 0.5, 0.9, count=4),  # too few for an interval
        *of("general_nll", 3.0, 3.2, split="general"),
        *of("extraction", 0.0, 0.5, split="train"),
    ]


def test_a_list_says_what_changed_in_figures_that_people_read(scored: list[Score]) -> None:
    lists = findings(table(scored))
    assert list(lists) == ["worse", "better", "unclear"]
    assert [sentence.partition(" (+")[0] for sentence in lists["worse"]] == [
        "perplexity per token of general text 20.19 → 24.78",
        "repeated 4-grams in answers 14.7 % → 43.6 %",
        "texts continued word for word (train) 0.5 % → 51.0 %",
    ]
    (better,) = lists["better"]
    assert better.startswith("perplexity per token of held-out answers 20.10 → 10.10 (-49.7 %, 95 % from -") and better.endswith(
        "; 40 items)"
    )
    assert [sentence.partition(" (")[0] for sentence in lists["unclear"]] == [
        "right choices of four 30.5 % → 30.5 %",
        "answers that end by themselves 50.5 % → 91.0 %",
    ]
    assert "+28.9 points, 95 % from +28." in lists["worse"][1]


def test_every_place_says_the_same_three_lists(scored: list[Score], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = table(scored)
    lists = findings(metrics)
    everything = [sentence for listed in lists.values() for sentence in listed]
    assert len(everything) == 6
    # The decision that is taken on these scores is about the same changes.
    assert {(row.metric, row.split) for row in gate.table(scored)} == {(m, split) for split, parts in metrics.items() for m in parts["all"]}
    write_whole(tmp_path / "metrics.json", metrics)
    write_whole(tmp_path / "answers.json", [])
    monkeypatch.setattr(review, "METRICS", tmp_path / "metrics.json")
    monkeypatch.setattr(review, "REGISTRATION", tmp_path / "registration.json")
    decision = {"verdict": "first", "outcome": "promoted", "reasons": ["There is no champion."], "comparisons": []}
    registration = {"name": "m", "version": 1, "digests": {}, "decision": decision}
    write_whole(tmp_path / "registration.json", registration)
    said = StringIO()
    show(tmp_path, registration, "trained on a little", ["not annotated on this site"], Console(file=said, width=200))
    terminal = said.getvalue()
    text_card = written_card(metrics, gate.table(scored))
    report = unescape(page(metrics, dict.fromkeys(("base", "tuned"), COUNTS), [], FACTS))
    for sentence in everything:
        assert sentence in terminal and sentence in text_card and sentence in report and sentence in review.decision()
        assert any(sentence in listed for listed in tags(metrics).values())
    # In the terminal what is worse comes first, and before the decision.
    positions = [terminal.index(word) for word in ("\nWorse:", "\nBetter:", "\nUnclear:", "\nDecision: first, promoted")]
    assert positions == sorted(positions)
    assert "The model was trained on a little.\nNot annotated on this site.\n" in terminal
    assert "* not annotated on this site" in text_card


def written_card(metrics: dict[str, Any], rows: Any) -> str:
    return card(
        name="m",
        terms=base_terms("x"),
        corpus=[],
        raw=[],
        records={"shard": {"metrics": WHOLE}},
        table=rows,
        findings=findings(metrics),
        annotation=None,
        checkpoint="c",
        code={},
    )


def test_the_card_tells_what_training_saw_and_not_what_there_was() -> None:
    records: dict[str, dict[str, Any]] = {"finetune": {"metrics": SEEN}, "shard": {"metrics": WHOLE}}
    assert trained_on(records) == (
        "trained on 331 documents, 30,329 tokens (21,754 of them with loss): 0.5 % of one epoch of the 68,178 documents in the train split"
    )
    records["finetune"]["metrics"] = SEEN | {"step_kept": 15.0, "documents_fed": 700.0, "tokens_fed": 60000.0}
    assert trained_on(records).endswith(
        "these are the weights of step 15 of 30, in all of which training came to 700 documents, 60,000 tokens"
    )
    records["finetune"]["metrics"] = SEEN | {"epochs_seen": 2.5}
    assert ": 2.50 epochs of the 68,178 documents" in trained_on(records)
    records["finetune"]["metrics"] = {"loss": 1.0}  # of a model that was trained before this was counted
    assert trained_on(records) == "fine-tuned; how much of the train split training came to is not stated"


@pytest.mark.slow
def test_a_list_that_the_tracking_store_would_refuse_is_cut_and_says_so() -> None:
    many = [score for n in range(90) for score in of("repetition", 0.1, 0.5, split=f"task{n}")]
    texts = tags(table(many))
    assert len(texts["worse"]) < 5000 and texts["worse"].endswith("(metrics.json has them all)") and len(texts["worse"]) > MAX_CHARACTERS
    assert texts["better"] == texts["unclear"] == "nothing"
