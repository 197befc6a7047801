"""What training says of its devices, and what it does where memory runs out. tests/gpu has a GPU that runs out for real."""

from pathlib import Path

import pytest
import torch
from helpers.builders import TINY, random_model
from helpers.training import PARAMS, SINGLE_PROCESS, in_memory, rows_of
from torch import nn

from model.llama import SIZES, Transformer
from tasks.training import hardware, loop, optim, prepare
from tasks.training.distributed import ProcessGroup
from tasks.training.params import FinetuneParams
from tasks.training.preflight import RUNTIME, Machine, fit


class Full(nn.Module):
    """A first layer that a GPU has memory for up to some rows, as far as the trainer can see."""

    def __init__(self, layer: nn.Module, rows: int):
        super().__init__()
        self.layer, self.rows = layer, rows

    def forward(self, x: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        out: torch.Tensor = self.layer(x, *rest)
        return out


def step(params: FinetuneParams, *, fits: int) -> tuple[Transformer, dict[str, float]]:
    """One step on four rows, on a device with memory for so many at a time."""
    split, model = in_memory([50] * 40), random_model(TINY)
    model.layers[0] = Full(model.layers[0], fits)
    optimizer = optim.make_optimizer(model.parameters(), params)
    return model, loop.update(model, optimizer, 1, rows_of(split, 4), split, params, SINGLE_PROCESS)


FOUR = PARAMS.model_copy(update={"micro_batch": 4})


def test_a_step_that_memory_does_not_hold_is_made_again_in_halves(capsys: pytest.CaptureFixture[str]) -> None:
    exact, expected = step(FOUR, fits=4)
    model, metrics = step(FOUR, fits=2)
    assert metrics["micro_batch"] == 2
    assert "no memory for 4 rows a pass; going on with 2" in capsys.readouterr().out
    for name in ("loss", "gradient_norm"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-5)
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"micro_batch": 1}, {"micro_batch": 4, "deterministic": True}], ids=str)
def test_where_nothing_can_be_halved_it_says_what_to_change(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no memory for .* lower finetune.micro_batch or seq_len, or set activation_checkpointing"):
        step(PARAMS.model_copy(update=changes), fits=0)


def test_layers_are_computed_twice_as_memory_asks() -> None:
    config, params = SIZES["llama-3.1-8b"], PARAMS.model_copy(update={"mode": "lora", "seq_len": 4096, "batch": 1, "micro_batch": 1})
    auto = params.model_copy(update={"activation_checkpointing": "auto"})
    counts = [fit(config, auto, Machine("cuda", 1, memory, use_bf16=True)) for memory in (80e9, 30e9, 24e9)]
    assert counts == sorted(counts) and counts[0] == 0 < counts[1] < counts[2] < config.n_layers
    for count, memory in zip(counts[1:], (30e9, 24e9), strict=True):
        needed = [Machine("cuda", 1, memory, use_bf16=True).needed(config, auto, checkpointed_layers=n).peak for n in (count - 1, count)]
        assert needed[1] + RUNTIME["cuda"] <= memory < needed[0] + RUNTIME["cuda"]
    with pytest.raises(ValueError, match="it fits with finetune.activation_checkpointing: auto"):
        fit(config, params, Machine("cuda", 1, 24e9, use_bf16=True))


def test_some_layers_computed_twice_give_the_same_gradients() -> None:
    split = in_memory([50] * 40)

    def gradients(count: int) -> list[torch.Tensor]:
        model = random_model(TINY)
        model.checkpointed_layers = count
        loop.backward(model, rows_of(split, 4), split, PARAMS, SINGLE_PROCESS)
        return [p.grad for p in model.parameters() if p.grad is not None]

    for a, b in zip(gradients(0), gradients(1), strict=True):
        assert torch.equal(a, b)


def test_a_gpu_that_torch_does_not_use_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch uses it here")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "DRIVER", tmp_path / "version")
    assert hardware.unused_gpu() == ""
    (tmp_path / "version").write_text("NVRM version")
    prepare.check_gpus(SINGLE_PROCESS, PARAMS)
    assert "this machine has an NVIDIA GPU, but this torch was built without CUDA" in capsys.readouterr().out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.unused_gpu() == ""


def test_weights_in_bfloat16_need_such_products() -> None:
    narrow = PARAMS.model_copy(update={"optimizer": "adamw_8bit", "weights": "bfloat16", "precision": "float32"})
    with pytest.raises(ValueError, match="needs one process, and bfloat16 products"):
        prepare.check_gpus(ProcessGroup(0, 1, torch.device("cpu")), narrow)
