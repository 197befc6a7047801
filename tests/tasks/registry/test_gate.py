"""What the gate decides, on made scores and on those of tiny models, and what it says."""

import json
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.project import ROOT, Project
from pydantic import ValidationError
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from model.checkpoint.hf import copy_checkpoint
from tasks.evaluation.findings import findings
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.scores import Score, read_scores
from tasks.evaluation.table import table
from tasks.registry.challenge import Challenge, write_decision
from tasks.registry.gate import Decision, Expected, decide
from tasks.registry.params import GateParams, Guardrail, Primary, RegisterParams, Threshold
from tasks.runtime.files import write_whole
from tasks.validate import validate

PARAMS = GateParams(
    primary=(Primary(metric="answer_nll", split="test", min_improvement=0.005, items=100),),
    thresholds=(
        Threshold(metric="answer_nll", split="test", figure="change", max=0.0),
        Threshold(metric="extraction", figure="tuned", max=0.1),
    ),
    guardrails=(Guardrail(metric="answer_nll", split="ood", margin=0.05, items=50), Guardrail(metric="choice", margin=0.1, items=50)),
)


def scores(nats: float, *, right: float = 0.7, other: float = 2.0, count: int = 200, seed: int = 0, jitter: float = 0.0) -> list[Score]:
    """Of a model with these values; the same items, more or less hard, for every call."""
    hard = np.random.default_rng(1).normal(0, 0.5, count)
    noise = np.random.default_rng(seed).normal(0, 1, count) * jitter
    all_scores = [Score("answer_nll", str(n), "test", "k", "s", 10, 10, 40, 10 * (nats + hard[n] + noise[n])) for n in range(count)]
    all_scores += [Score("answer_nll", str(n), "ood", "k", "s", 10, 10, 40, 10 * (other + hard[n] + noise[n])) for n in range(count)]
    return all_scores + [Score("choice", str(n), "test", "k", "s", 1, 1, 0, float(n % 100 < 100 * right)) for n in range(count)]


CHAMPION = scores(2.0)


def decided(
    challenger: list[Score], champion_scores: list[Score] | None, folder: Path, params: GateParams = PARAMS, *, unknown: str = ""
) -> Decision:
    return decide(challenger, champion_scores, params, folder / "gate", unknown=unknown)


@pytest.mark.parametrize(
    ("challenger", "verdict", "words"),
    [
        (scores(1.9), "better", "answer_nll, test: -0.1000 (95 % from -0.1000 to -0.1000) over 200 items: better than the champion"),
        (scores(2.0), "unclear", "not shown to be better than the champion by more than 0.005"),
        (scores(1.998), "unclear", "not shown to be better"),  # surely better, by too little
        (scores(2.0, jitter=0.02), "unclear", "not shown to be better"),
        (scores(2.1), "refused", "worse than the champion"),
        (scores(1.9, right=0.4), "refused", "choice: -0.3000"),
        (scores(1.9, right=0.6), "unclear", "choice: -0.1000"),
        (scores(1.9, right=0.9), "better", "better than the champion"),
        (scores(1.9, other=2.2), "refused", "answer_nll, ood: +0.2000"),
        (scores(1.9, other=2.02), "better", "better than the champion"),  # within the margin
        (scores(1.0, count=20), "refused", "measured on 20 items; fewer than 100 show nothing"),
        (scores(4.5), "refused", "less the base model's is 0.46"),
    ],
)
def test_only_better_is_better(challenger: list[Score], verdict: str, words: str, tmp_path: Path) -> None:
    outcome = decided(challenger, CHAMPION, tmp_path)
    assert outcome.verdict == verdict, outcome.reasons
    assert words in outcome.reasons[0]


def test_without_a_champion_thresholds_alone_decide(tmp_path: Path) -> None:
    outcome = decided(CHAMPION, None, tmp_path)
    assert outcome.verdict == "first" and "no champion" in outcome.reasons[0]
    assert "extraction was not measured, so its threshold says nothing." in outcome.reasons
    memorized = [*CHAMPION, *(Score("extraction", str(n), "train", "k", "s", 1, 1, 0, float(n < 30)) for n in range(100))]
    refused = decided(memorized, None, tmp_path)
    assert refused.verdict == "refused" and refused.reasons[0] == "extraction is 0.3, and must be at most 0.1."
    assert json.loads((tmp_path / "gate" / "evaluation.json").read_text())["success"] is False


def generated(base: float, tuned: float, count: int, *, metric: str = "repetition") -> list[Score]:
    """Of as many answers: shares that spread over the items as those of real answers do, from none to most."""
    random = np.random.default_rng(3)
    pairs = [(float(np.clip(random.normal(base, 0.2), 0, 1)), float(np.clip(random.normal(tuned, 0.2), 0, 1))) for _ in range(count)]
    return [Score(metric, f"g{n}", "test", "k", "s", 1, 1, b, t) for n, (b, t) in enumerate(pairs)]


DEFAULT = RegisterParams.model_validate_json(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")["register"]))
GENERATED = ("repetition", "stop")


@pytest.mark.parametrize(
    ("more", "verdict", "words"),
    [
        # 14.2 % of 4-grams repeated by the base model, 42.6 % by the tuned one.
        (generated(0.142, 0.426, 48), "refused", "and must be at most 0.1 by the whole interval."),
        (generated(0.142, 0.426, 400), "refused", "and must be at most 0.1 by the whole interval."),
        (generated(0.5, 0.52, 48), "first", "There is no champion"),
        (generated(0.5, 0.3, 48), "first", "There is no champion"),
        (generated(0.5, 0.6, 48), "unclear", "and must be at most 0.1 by the whole interval."),  # may be more
        (generated(0.5, 0.6, 4), "unclear", "repetition was measured on 4 items; fewer than 24 do not show that it is at most 0.1."),
        (generated(0.5, 0.1, 4), "unclear", "fewer than 24 do not show that it is at most 0.1."),
        (generated(0.6, 0.3, 48, metric="stop"), "refused", "and must be at least -0.1 by the whole interval."),
        (generated(0.3, 0.6, 48, metric="stop"), "first", "There is no champion"),
        (generated(0.6, 0.56, 48, metric="stop"), "unclear", "and must be at least -0.1 by the whole interval."),
    ],
)
def test_answers_that_repeat_themselves_or_do_not_end_are_no_champion(more: list[Score], verdict: str, words: str, tmp_path: Path) -> None:
    """By the limits of params.yaml, against the base model, where there is no champion yet."""
    params = PARAMS.model_copy(update={"thresholds": tuple(t for t in DEFAULT.thresholds if t.metric in GENERATED)})
    outcome = decided([*CHAMPION, *more], None, tmp_path, params)
    assert outcome.verdict == verdict, outcome.reasons
    assert words in outcome.reasons[0]


def test_nor_are_they_better_than_one(tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"thresholds": tuple(t for t in DEFAULT.thresholds if t.metric in GENERATED)})
    assert decided([*scores(1.9), *generated(0.5, 0.3, 48)], CHAMPION, tmp_path, params).verdict == "better"
    unsure = decided([*scores(1.9), *generated(0.5, 0.6, 48)], CHAMPION, tmp_path, params)
    assert unsure.verdict == "unclear" and "by the whole interval" in unsure.reasons[0]
    assert decided([*scores(1.9), *generated(0.1, 0.5, 48)], CHAMPION, tmp_path, params).verdict == "refused"
    assert decided([*scores(2.1), *generated(0.5, 0.6, 48)], CHAMPION, tmp_path, params).verdict == "refused"


def extracted(
    f1: float, *, base: float = 0.0, invented: float = 0.0, count: int = 40, patients: int = 20, split: str = "test"
) -> list[Score]:
    """Of as many notes of ten values each, more or less hard by the same for every call."""
    hard = np.random.default_rng(7).normal(0, 0.05, count)
    right = [float(np.clip(round(10 * (f1 + h)), 0, 10)) for h in hard]
    shared = [("k", "s", f"patient-{n % patients}") for n in range(count)]
    items = [Score("field_f1", str(n), split, k, s, 10, 20, 10 * base, 2 * right[n], g) for n, (k, s, g) in enumerate(shared)]
    items += [Score("field_f1_few_shot", str(n), split, k, s, 20, 20, 20 * base, 2 * right[n], g) for n, (k, s, g) in enumerate(shared)]
    return items + [Score("hallucinated", str(n), split, k, s, 0, 10, 0, 10 * invented, g) for n, (k, s, g) in enumerate(shared)]


OF_TASKS = PARAMS.model_copy(
    update={
        "primary": (Primary(metric="field_f1", split="test", min_improvement=0.005, items=12), *PARAMS.primary),
        "thresholds": tuple(t for t in DEFAULT.thresholds if t.of_tasks),
        "guardrails": tuple(g for g in DEFAULT.guardrails if g.of_tasks and g.split == "test"),
    }
)


@pytest.mark.parametrize(
    ("challenger", "verdict", "words"),
    [
        (extracted(0.9), "first", "There is no champion, and every threshold is met."),
        (extracted(0.9, base=0.95), "refused", "field_f1, test less the base model's is -0.06"),
        (extracted(0.9, base=0.89), "unclear", "must be at least 0 by the whole interval"),
        (extracted(0.9, invented=0.2), "refused", "hallucinated, test is 0.2, and must be at most 0.1."),
        (extracted(0.9, count=6), "refused", "field_f1, test was measured on 6 items; fewer than 12 show nothing."),
        (extracted(0.9, patients=4), "unclear", "was measured on 40 items of 4 groups; fewer than 10 groups do not show"),
    ],
)
def test_extraction_must_beat_the_base_model_and_invent_little(challenger: list[Score], verdict: str, words: str, tmp_path: Path) -> None:
    outcome = decided(challenger, None, tmp_path, OF_TASKS)
    assert outcome.verdict == verdict, outcome.reasons
    assert words in outcome.reasons[0]


def test_a_champion_is_beaten_on_extraction_where_there_are_tasks(tmp_path: Path) -> None:
    champion = [*extracted(0.8), *scores(2.0)]
    assert decided([*extracted(0.9), *scores(2.2)], champion, tmp_path, OF_TASKS).verdict == "better"
    unclear = decided([*extracted(0.8), *scores(1.0)], champion, tmp_path, OF_TASKS)
    assert unclear.verdict == "unclear" and "field_f1, test: +0.0000" in unclear.reasons[0]
    assert decided([*extracted(0.7), *scores(1.0)], champion, tmp_path, OF_TASKS).verdict == "refused"
    inventing = decided([*extracted(0.9, invented=0.09), *scores(2.0)], champion, tmp_path, OF_TASKS)
    assert inventing.verdict == "refused" and "hallucinated, test: +0.0900" in inventing.reasons[0]


def test_without_tasks_the_next_primary_metric_decides_and_that_is_said(tmp_path: Path) -> None:
    said = "field_f1, test was not measured: no document has a task, so answer_nll, test is the primary metric."
    first = decided(CHAMPION, None, tmp_path, OF_TASKS)
    assert first.verdict == "first" and said in first.reasons
    better = decided(scores(1.9), CHAMPION, tmp_path, OF_TASKS)
    assert better.verdict == "better" and better.reasons[0].startswith("answer_nll, test: -0.1") and said in better.reasons
    few = decided(scores(1.0, count=20), CHAMPION, tmp_path, OF_TASKS)
    assert few.verdict == "refused" and "answer_nll, test was measured on 20 items; fewer than 100" in few.reasons[0]
    none = decided([s for s in CHAMPION if s.metric == "choice"], None, tmp_path, OF_TASKS)
    assert none.verdict == "refused" and none.reasons == ("No primary metric was measured: field_f1, test, answer_nll, test.",)


def test_a_guardrail_gives_way_to_the_metric_that_it_names(tmp_path: Path) -> None:
    (guardrail, *_) = PARAMS.guardrails
    params = OF_TASKS.model_copy(update={"guardrails": (guardrail.model_copy(update={"unless": "field_f1"}),)})
    worse = scores(1.9, other=2.2)
    assert decided(worse, CHAMPION, tmp_path, params).verdict == "refused"
    assert decided([*worse, *extracted(0.9)], [*CHAMPION, *extracted(0.8)], tmp_path, params).verdict == "better"
    with pytest.raises(ValidationError, match="there is no metric 'f1'"):
        Guardrail(metric="choice", margin=0.1, items=1, unless="f1")


def test_a_metric_that_went_missing_lets_nothing_pass(tmp_path: Path) -> None:
    """Tasks without a held-out note, or a champion that was decided on what is not measured any more."""
    without = decide(CHAMPION, None, OF_TASKS, tmp_path / "gate", expected=Expected(tasks=("measurements",)))
    assert without.verdict == "unclear"
    assert without.reasons[0] == "field_f1, test was not measured, though the corpus has the tasks measurements."
    measured = {(s.metric, s.split) for s in [*CHAMPION, *extracted(0.8)]}
    lost = decide(scores(1.0), CHAMPION, OF_TASKS, tmp_path / "gate", expected=Expected(measured=measured))
    assert lost.verdict == "unclear"
    assert lost.reasons[0] == "field_f1, test was not measured, though it was when the champion was decided on."
    # What no entry of the gate is about may come and go, and what is measured still is not missing.
    assert decide(scores(1.9), CHAMPION, PARAMS, tmp_path / "gate", expected=Expected(("a",), measured)).verdict == "better"
    # An entry about any split is missing where the metric is.
    no_choice = [s for s in scores(1.9) if s.metric != "choice"]
    assert decide(no_choice, CHAMPION, PARAMS, tmp_path / "gate", expected=Expected(measured={("choice", "test")})).verdict == "unclear"


def test_a_champion_that_cannot_be_scored_stays(tmp_path: Path) -> None:
    outcome = decided(scores(1.0), None, tmp_path, unknown="version 3 cannot be loaded or scored any more (no weights)")
    assert outcome.verdict == "unclear"
    assert outcome.reasons[0].endswith("(no weights). It stays champion.")


def test_few_shared_items_show_nothing(tmp_path: Path) -> None:
    outcome = decided(scores(1.0), CHAMPION[:20], tmp_path)
    assert outcome.verdict == "unclear" and "over 20 items; fewer than 100 show nothing." in outcome.reasons[0]


def test_a_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="there is no metric 'accuracy'; the metrics: field_f1"):
        Primary(metric="accuracy", min_improvement=0, items=1)


def test_the_decision_is_a_file_and_a_page(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    outcome = decided(scores(1.9), CHAMPION, tmp_path)
    said = [{"prompt": "What is it?", "base": "It <is>.", "tuned": "Known."}, {"prompt": "And this?", "base": "", "tuned": None}]
    (tmp_path / "evaluation" / "answers.json").write_text(json.dumps(said))
    against = {"version": 2, "scores": "stored"}
    write_whole(tmp_path / "evaluation" / "metrics.json", table(scores(1.9)))
    path = write_decision(tmp_path, 3, Challenge(outcome, against, {"What is it?": "Old."}), tmp_path / "evaluation")
    content = json.loads(path.read_text())
    assert content["number"] == 3 and content["verdict"] == "better" and content["champion"]["version"] == 2
    assert {row["metric"] for row in content["table"]} == {"answer_nll", "choice"}
    page = path.with_suffix(".html").read_text()
    assert content["findings"] == findings(table(scores(1.9)))
    assert all(escape(sentence) in page for listed in content["findings"].values() for sentence in listed)
    assert "Better than the champion" in page and "http" not in page and "<td>choice" in page
    for words in ("<dd>It &lt;is&gt;.", "<dd>Known.", "<dt>champion<dd>Old.", "<dt>champion<dd>(withheld or not asked)"):
        assert words in page


class TestModels:
    """Real tiny models, scored on the same documents."""

    def scored(self, project: Project, tuned: Path, folder: Path) -> list[Score]:
        settings = YAML(typ="safe").load(project.path / "params.yaml")["validate"] | {"max_tokens": 0}
        artifacts = project.path / "artifacts"
        params = ValidateParams.model_validate_json(json.dumps(settings))
        inputs = [artifacts / name for name in ("documents", "reports/preprocess", "shards")]
        validate(artifacts / "base", tuned, *inputs, folder, params=params)  # type: ignore[misc, arg-type]
        return read_scores(folder)

    @pytest.mark.slow
    def test_the_champion_with_noise_is_not_better(self, finished: Project, tmp_path: Path) -> None:
        champion = finished.path / "artifacts" / "model"
        champion_scores = self.scored(finished, champion, tmp_path / "champion")
        params = GateParams(
            primary=(Primary(metric="answer_nll", split="test", min_improvement=0.005, items=10),), thresholds=(), guardrails=()
        )
        assert decided(champion_scores, champion_scores, tmp_path, params).verdict == "unclear"
        for seed in range(5):
            noisy = tmp_path / f"noisy{seed}"
            copy_checkpoint(champion, noisy)
            torch.manual_seed(seed)
            weights = load_file(noisy / "model.safetensors")
            save_file(
                {name: w + 1e-4 * torch.randn_like(w) for name, w in weights.items()},
                noisy / "model.safetensors",
                metadata={"format": "pt"},
            )
            outcome = decided(self.scored(finished, noisy, tmp_path / f"scores{seed}"), champion_scores, tmp_path, params)
            assert outcome.verdict == "unclear", outcome.reasons
