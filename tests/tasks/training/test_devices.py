"""What training says of its devices, and what it does where memory runs out. tests/gpu has a GPU that runs out for real."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import TINY, random_model, write_tiny_checkpoint
from helpers.training import PARAMS, SINGLE_PROCESS, in_memory, rows_of
from torch import nn

from model.checkpoint.hf import save_weights
from model.checkpoint.load import load_model
from model.config import SIZES
from model.llama import Transformer
from tasks.training import hardware, loop, optim, prepare
from tasks.training.distributed import ProcessGroup
from tasks.training.params import FinetuneParams
from tasks.training.preflight import MARGIN, RUNTIME, Machine, fit


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


def test_halves_are_halved_again() -> None:
    assert step(FOUR, fits=1)[1]["micro_batch"] == 1


def test_layers_are_computed_twice_before_rows_are_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    exact, _ = step(FOUR, fits=4)
    auto = FOUR.model_copy(update={"activation_checkpointing": "auto"})
    model, metrics = step(auto, fits=2)
    assert (model.checkpointed_layers, metrics["micro_batch"]) == (len(model.layers), 2)
    assert "going on with all layers computed twice" in capsys.readouterr().out
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"micro_batch": 1}, {"micro_batch": 4, "deterministic": True}], ids=str)
def test_where_nothing_can_be_halved_it_says_what_to_change(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no memory for .* lower finetune\..*seq_len, or set activation_checkpointing"):
        step(PARAMS.model_copy(update=changes), fits=0)


def test_layers_are_computed_twice_as_memory_asks() -> None:
    config, params = SIZES["llama-3.1-8b"], PARAMS.model_copy(update={"mode": "lora", "seq_len": 4096, "batch": 1, "micro_batch": 1})
    auto = params.model_copy(update={"activation_checkpointing": "auto"})
    counts = [fit(config, auto, Machine("cuda", 1, memory, use_bf16=True)) for memory in (80e9, 30e9, 24e9)]
    assert counts == sorted(counts) and counts[0] == 0 < counts[1] < counts[2] < config.n_layers
    for count, memory in zip(counts[1:], (30e9, 24e9), strict=True):
        needed = [Machine("cuda", 1, memory, use_bf16=True).needed(config, auto, checkpointed_layers=n).peak for n in (count - 1, count)]
        assert needed[1] + RUNTIME["cuda"] <= MARGIN * memory < needed[0] + RUNTIME["cuda"]
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
    why = "this torch was built without CUDA" if torch.version.cuda is None else ""
    assert f"this machine has an NVIDIA GPU, but {why}" in capsys.readouterr().out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.unused_gpu() == ""


def test_weights_in_bfloat16_need_such_products() -> None:
    narrow = PARAMS.model_copy(update={"optimizer": "adamw_8bit", "weights": "bfloat16", "precision": "float32"})
    with pytest.raises(ValueError, match="needs matrix products in bfloat16"):
        prepare.check_gpus(SINGLE_PROCESS, narrow)


def test_moments_in_8_bits_are_not_shared() -> None:
    with pytest.raises(ValueError, match="adamw_8bit trains in one process"):
        prepare.check_gpus(ProcessGroup(0, 2, torch.device("cpu")), PARAMS.model_copy(update={"optimizer": "adamw_8bit"}))


@pytest.mark.parametrize(
    ("memory", "changes"), [(80e9, {}), (40e9, {"optimizer": "adamw_8bit", "weights": "bfloat16"}), (11e9, {"mode": "lora"})]
)
def test_what_is_advised_can_be_set_and_fits(memory: float, changes: dict[str, str]) -> None:
    config, machine = SIZES["llama-3.1-8b"], Machine("cuda", 1, memory, use_bf16=True)
    params = PARAMS.model_copy(update={"seq_len": 2048, "batch": 1, "micro_batch": 1, "precision": "bfloat16"} | changes)
    with pytest.raises(ValueError, match="it fits with") as refused:
        fit(config, params, machine)
    advice = re.search(r"it fits with (.*?)\. ", str(refused.value))
    assert advice
    advised = {key: int(value) if value.isdigit() else value for key, value in re.findall(r"(\w+): (\w+)", advice[1])}
    fit(config, FinetuneParams.model_validate(params.model_dump() | advised), machine)


def test_an_output_matrix_is_not_left_narrow_beside_float32_products(tmp_path: Path) -> None:
    base = write_tiny_checkpoint(tmp_path / "base", replace(TINY, tied=False))
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    save_weights(dict(load_model(base).named_parameters()), base, dtype=torch.bfloat16)
    params = PARAMS.model_copy(update={"mode": "qlora", "precision": "float32"})
    model = prepare.load_base_with_adapter(base, params, device=torch.device("cpu"))
    model = prepare.prepare_for_training(model, params, torch.device("cpu"))
    split = in_memory([50] * 40)
    assert 0 < loop.mean_loss(model, split, rows_of(split, 2), params, SINGLE_PROCESS) < 20
