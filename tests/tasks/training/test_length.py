"""Epochs in place of steps, and how long training is said to be."""

import os
import re
import signal
from math import ceil
from pathlib import Path

import pytest
from helpers.project import ROOT
from helpers.training import PARAMS, run

from tasks.corpus.shards.format import open_split
from tasks.params import read_params
from tasks.training import step_metrics
from tasks.training.length import with_steps
from tasks.training.packing import consumed, epoch_tokens, training_rows
from tasks.training.params import FinetuneParams
from tasks.training.plan import plan


@pytest.mark.parametrize(
    ("steps", "epochs", "message"),
    [
        ("24", "1", "finetune: value error, both say how long training is"),
        ("0", "0", "finetune: value error, nothing says how long training is"),
    ],
)
def test_exactly_one_of_steps_and_epochs_is_set(tmp_path: Path, steps: str, epochs: str, message: str) -> None:
    text = (ROOT / "params.yaml").read_text()
    for key, value in (("steps", steps), ("epochs", epochs)):
        text, count = re.subn(rf"^  {key}: \S+", f"  {key}: {value}", text, flags=re.M)
        assert count == 1
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_params(tmp_path / "params.yaml")


def test_older_params_without_epochs_are_read() -> None:
    section = PARAMS.model_dump()
    del section["epochs"]
    assert FinetuneParams.model_validate(section).epochs == 0.0


EPOCHS = PARAMS.model_copy(update={"steps": 0, "epochs": 1.5})


def test_epochs_come_to_the_steps_that_feed_their_rows(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    rows = next(n for n, (_, state) in enumerate(training_rows(split, PARAMS.seq_len, seed=PARAMS.seed)) if state.epoch)
    params = with_steps(EPOCHS, parts[1])
    assert (params.steps, params.epochs) == (ceil(1.5 * rows / PARAMS.batch), 0.0)
    fed = consumed(split, PARAMS.seq_len, seed=PARAMS.seed, rows=[rows])[0]
    assert fed.tokens == epoch_tokens(split, PARAMS.seq_len)
    assert with_steps(PARAMS, parts[1]) is PARAMS


def test_training_for_epochs_is_training_for_their_steps_also_after_it_was_cut_off(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = with_steps(EPOCHS, parts[1])
    expected, _ = run(parts, tmp_path / "steps", steps)
    told = capfd.readouterr().out
    assert f"finetune: {steps.steps} steps of 256 tokens, at most {steps.steps * 256:,} tokens, 1.5" in told
    assert "finetune: training alone: about " in told
    append = step_metrics.StepMetricsLog.append

    def append_and_leave(self: step_metrics.StepMetricsLog, metrics: step_metrics.StepMetrics) -> None:
        append(self, metrics)
        if metrics["step"] == 4.0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="stopped after step 4 of"):
        patch.setattr(step_metrics.StepMetricsLog, "append", append_and_leave)
        run(parts, tmp_path / "epochs", EPOCHS)
    weights, history = run(parts, tmp_path / "epochs", EPOCHS)
    assert "going on after step 4 of" in capfd.readouterr().out
    assert weights == expected
    assert [point["step"] for point in history] == list(range(1, steps.steps + 1))


def test_the_plan_has_a_row_for_this_machine_and_takes_epochs(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    said = plan(size="llama-3.2-1b", shards=parts[1], changes={"epochs": 2.0})
    assert "this machine (" in said and " tokens/s; these steps about " in said and ", one epoch about " in said
    steps = with_steps(read_params()["finetune"].model_copy(update={"steps": 0, "epochs": 2.0}), parts[1]).steps  # type: ignore[arg-type]
    assert f"these steps: {steps} of" in said
    with pytest.raises(ValueError, match=r"run 'dvc repro shard', or give --steps"):
        plan(size="llama-3.2-1b", shards=tmp_path / "none", changes={"epochs": 2.0})
