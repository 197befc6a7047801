"""What a run is planned to take, beside what it takes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers.project import ROOT
from helpers.training import PARAMS

from model.config import SIZES, LlamaConfig
from model.lora import TARGETS
from tasks import finetune as ft
from tasks.training import __main__ as program
from tasks.training import loop, preflight, prepare
from tasks.training.cost import TrainingMemory, parameters, trained_parameters
from tasks.training.params import FinetuneParams
from tasks.training.preflight import Machine

DEEP = LlamaConfig(dim=256, n_layers=12, n_heads=4, n_kv_heads=2, ffn_dim=704, vocab_size=4096, head_dim=64)
WIDE = LlamaConfig(dim=768, n_layers=3, n_heads=12, n_kv_heads=12, ffn_dim=2048, vocab_size=8192, head_dim=64, tied=True)
WORDY = LlamaConfig(dim=384, n_layers=4, n_heads=6, n_kv_heads=2, ffn_dim=1024, vocab_size=32768, head_dim=64, tied=True)
CONFIGS = {"deep": DEEP, "wide": WIDE, "wordy": WORDY}
BIG = PARAMS.model_copy(
    update={"seq_len": 256, "batch": 4, "micro_batch": 4, "adapter": PARAMS.adapter.model_copy(update={"targets": TARGETS})}
)


def measured(config: LlamaConfig, params: FinetuneParams) -> int:
    """Bytes of tensors at the highest, as a GPU's allocator would count them."""
    command = [sys.executable, "-m", "helpers.measure_peak", json.dumps(asdict(config)), params.model_dump_json()]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return int(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_planned_memory_is_what_training_takes(name: str) -> None:
    compare(name, "full")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("wide", "wordy"))])
def test_planned_memory_is_what_an_adapter_takes(name: str) -> None:
    compare(name, "lora")


def needed(config: LlamaConfig, params: FinetuneParams) -> TrainingMemory:
    """On a CPU, planned."""
    layers = config.n_layers if params.activation_checkpointing else 0
    return Machine("cpu", 1, 0, use_bf16=params.precision == "bfloat16").needed(config, params, checkpointed_layers=layers)


def compare(name: str, mode: str) -> None:
    params = BIG.model_copy(update={"mode": mode})
    planned = needed(CONFIGS[name], params).peak
    assert planned == pytest.approx(measured(CONFIGS[name], params), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        pytest.param({"precision": "bfloat16", "mode": "lora"}, marks=pytest.mark.campaign),
        {"activation_checkpointing": True},
        pytest.param({"activation_checkpointing": True, "precision": "bfloat16"}, marks=pytest.mark.campaign),
        {"micro_batch": 1},
        {"mode": "dora"},
        {"mode": "qlora"},
        pytest.param({"mode": "qlora", "precision": "bfloat16"}, marks=pytest.mark.campaign),
        pytest.param({"compile": True}, marks=pytest.mark.campaign),
        {"optimizer": "adamw_8bit"},
        pytest.param({"optimizer": "adamw_8bit", "weights": "bfloat16", "precision": "bfloat16"}, marks=pytest.mark.campaign),
    ],
    ids=str,
)
def test_planned_memory_of_other_ways(changes: dict[str, object]) -> None:
    params = BIG.model_copy(update=changes)
    planned = needed(DEEP, params).peak
    assert planned == pytest.approx(measured(DEEP, params), rel=0.15)


@pytest.mark.parametrize("mode", ["lora", "norm_wq"])
def test_what_does_not_change_is_narrow_from_the_start(tiny_checkpoint: Path, mode: str) -> None:
    params = BIG.model_copy(update={"mode": mode, "precision": "bfloat16"})
    model = prepare.load_base_with_adapter(tiny_checkpoint, params, device=torch.device("cpu"), frozen=torch.bfloat16)
    loaded = {name: p.dtype for name, p in model.named_parameters()}
    assert {p.dtype for p in prepare.prepare_for_training(model, params, torch.device("cpu")).parameters()} == {
        torch.bfloat16,
        torch.float32,
    }
    assert {name: p.dtype for name, p in model.named_parameters()} == loaded


def test_parameters_are_counted_as_published() -> None:
    assert parameters(SIZES["llama-3.1-8b"]) == 8_030_261_248
    assert trained_parameters(SIZES["llama-3.1-8b"], "full", None) == parameters(SIZES["llama-3.1-8b"])


def test_devices_share_weights_gradients_and_moments() -> None:
    alone, of_eight = (Machine("cuda", n, 0, use_bf16=True).needed(SIZES["llama-3.1-8b"], BIG, checkpointed_layers=0) for n in (1, 8))
    assert of_eight.gradients == alone.gradients // 8
    assert of_eight.optimizer == alone.optimizer // 8
    assert of_eight.weights < alone.weights / 2


@pytest.mark.slow
def test_a_run_that_cannot_fit_is_refused_with_what_to_change(parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "memory_of", lambda _, **__: preflight.RUNTIME["cpu"] + 2e6)
    with pytest.raises(ValueError, match=r"training needs about .* GB on each device, which has .*finetune.micro_batch: 1"):
        ft.finetune(*parts, Path("never"), Path("nor this"), params=PARAMS.model_copy(update={"batch": 40, "micro_batch": 40}))


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "advice"), [(60e9, "it fits with"), (1e9, "it needs a larger machine")])
def test_the_smallest_change_that_fits_is_named(memory: float, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        preflight.fit(SIZES["llama-3.1-8b"], BIG, Machine("cuda", 1, memory, use_bf16=True))


@pytest.mark.slow
def test_the_command_prints_a_plan() -> None:
    command = [sys.executable, "-m", "tasks.training", "plan", "--size", "llama-3.1-8b", "--mode", "lora", "--gpus", "1", "--seq", "2048"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    needs, fits = process.stdout.split("what fits")
    needed, fitting = ({line[:12].strip(): line for line in part.splitlines()} for part in (needs, fits))
    assert "too small" in needed["RTX 4060 Ti"] and "0 of 32" in needed["H100 SXM"] and "kWh" in needed["H100 SXM"]
    assert fitting["RTX 4060 Ti"].split()[5:] == ["-"] * 6 + ["8,192", "4"]


@pytest.mark.parametrize("wrong", [["--gpus", "0"], ["--seq", "999999", "--size", "llama-3-8b"], ["--mfu", "2"]], ids=" ".join)
def test_the_command_says_what_is_wrong(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["training", "plan", "--size", "smollm2-135m", *wrong])
    with pytest.raises(SystemExit, match="plan: "):
        program.main()


def test_ctrl_c_ends_a_command_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tasks.training.plan.plan", interrupted)
    monkeypatch.setattr(sys, "argv", ["training", "plan"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "plan: stopped by Ctrl-C\n"
