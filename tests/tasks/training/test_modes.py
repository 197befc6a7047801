"""Every mode on ten sentences: trains its parameters and no others, learns them by heart, goes on after SIGTERM, opens elsewhere."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.adapters import quantized_reference
from helpers.builders import write_tiny_checkpoint
from helpers.training import PARAMS, run, write_shards_of
from peft import PeftModel
from transformers import AutoModelForCausalLM

from model.checkpoint.load import load_model
from model.lora import TARGETS
from tasks.training import step_metrics
from tasks.training.loop import StoppedError
from tasks.training.params import MODES, Mode

STEPS, STOP = 200, 40
TEN = PARAMS.model_copy(
    update={
        "adapter": PARAMS.adapter.model_copy(update={"rank": 8, "alpha": 16.0, "targets": TARGETS}),
        "steps": STEPS,
        "lr": 1e-2,
        "weight_decay": 0.0,
        "validate_every": STEPS,
        "checkpoint_every": STEPS,
    }
)
# What is left of the loss. A tiny model's norms are 160 numbers, too few to hold ten sentences, and adapters of one whose embeddings
# are random and frozen come half the way; of a trained model every mode's loss goes below a tenth.
LEFT = {"norm": 0.85, "norm_wq": 0.7, "lora": 0.6, "dora": 0.6, "qlora": 0.6, "qdora": 0.6}


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ten")
    return write_tiny_checkpoint(folder / "base"), write_shards_of(folder, folder / "base", 12)


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A SIGTERM to this process after a step."""
    append = step_metrics.StepMetricsLog.append

    def append_and_leave(self: step_metrics.StepMetricsLog, metrics: step_metrics.StepMetrics) -> None:
        append(self, metrics)
        if metrics["step"] == STOP:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(step_metrics.StepMetricsLog, "append", append_and_leave)
    yield
    monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_mode(ten: tuple[Path, Path], tmp_path: Path, mode: Mode, leaving: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    params = TEN.model_copy(update={"mode": mode})
    with pytest.raises(StoppedError, match=f"stopped after step {STOP} of {STEPS}"):
        run(ten, tmp_path / "run", params)
    monkeypatch.undo()
    weights, history = run(ten, tmp_path / "run", params)
    whole, of_whole = run(ten, tmp_path / "whole", params)
    assert weights == whole and [p["loss"] for p in history] == [p["loss"] for p in of_whole]
    assert history[-1]["loss"] < LEFT.get(mode, 0.2) * history[0]["loss"]

    model = tmp_path / "run" / "model"
    before, after = load_model(ten[0]), load_model(model)
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(a, b)}
    adapted = {n for n, _ in before.named_parameters() if "_proj." in n}
    assert changed == (adapted if MODES[mode].adapter else {n for n, _ in before.named_parameters() if MODES[mode].trains(n)})

    ids = torch.randint(after.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(0))
    logits = after(ids)
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(model)(ids).logits, logits, atol=1e-4, rtol=0)
    if MODES[mode].adapter:
        base = quantized_reference(ten[0]) if MODES[mode].quantized else AutoModelForCausalLM.from_pretrained(ten[0])
        reference = PeftModel.from_pretrained(base, model / "adapter").train(MODES[mode].quantized)
        torch.testing.assert_close(reference(ids).logits, logits, atol=1e-3, rtol=0)
