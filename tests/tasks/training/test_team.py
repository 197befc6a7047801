"""Training in several processes that torchrun starts: the same numbers as in one, and states that any number of them go on from."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT
from helpers.training import CROSSED

from model.checkpoint.load import load_model
from model.config import LlamaConfig
from tasks import finetune as ft
from tasks.training import checkpoints, step_metrics
from tasks.training.cost import parameters


def torchrun(processes: int) -> str:
    return f"{sys.executable} -m torch.distributed.run --nproc-per-node {processes}"


def run(parts: tuple[Path, Path], folder: Path, processes: int, **changes: object) -> tuple[list[step_metrics.StepMetrics], Path]:
    """The stage in a folder of its own; what it measured, and its checkpoint directory."""
    folder.mkdir(exist_ok=True)
    params = CROSSED.model_copy(update=changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))
        if processes > 1:
            patch.setenv(ft.LAUNCH, torchrun(processes))
        summary = ft.finetune(*parts, folder / "model", folder / "curves", params=params)
    assert summary.metrics["processes"] == processes
    return summary.history, folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "several"),
    [("full", (2, 4)), *(pytest.param(*case, marks=pytest.mark.campaign) for case in (("qlora", (2,)), ("lora", (2, 4))))],
    ids=str,
)
def test_several_processes_do_what_one_does(parts: tuple[Path, Path], tmp_path: Path, mode: str, several: tuple[int, ...]) -> None:
    alone, model = run(parts, tmp_path / "1", 1, mode=mode)
    for processes in several:
        together, other_model = run(parts, tmp_path / str(processes), processes, mode=mode)
        for name in ("loss", "gradient_norm", "validation_loss"):
            expected, actual = ([p[name] for p in history if name in p] for history in (alone, together))
            torch.testing.assert_close(torch.tensor(expected), torch.tensor(actual), atol=1e-5, rtol=1e-5)
        for a, b in zip(load_model(model).parameters(), load_model(other_model).parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(4, marks=pytest.mark.campaign)])
def test_a_state_of_two_processes_is_gone_on_from_by_others(
    parts: tuple[Path, Path],
    tmp_path: Path,
    processes: int,
) -> None:
    whole, _ = run(parts, tmp_path / "whole", 2)
    folder = tmp_path / "parted"
    folder.mkdir()
    key, stopper = "0" * 32, ROOT / "tests" / "helpers" / "stop_after.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [str(parts[0]), str(parts[1]), key, CROSSED.model_dump_json()]
    stopped = subprocess.run(
        [*torchrun(2).split(), str(stopper), "3", *arguments], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    assert stopped.returncode and "stopped after step 3 of 6" in stopped.stderr, stopped.stderr
    command = [*torchrun(processes).split()] if processes > 1 else [sys.executable]
    result = subprocess.run(
        [*command, "-m", "tasks.training", "worker", *arguments], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    assert re.search("going on after step 3 of 6", result.stdout), result.stdout + result.stderr
    history = step_metrics.read(folder / checkpoints.folder_of(key))
    assert [p["step"] for p in history] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(whole, history, strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5


@pytest.mark.slow
def test_processes_train_in_bfloat16_as_well(parts: tuple[Path, Path], tmp_path: Path) -> None:
    alone, together = (run(parts, tmp_path / str(n), n, mode="dora", precision="bfloat16", steps=2)[0] for n in (1, 2))
    for expected, actual in zip(alone, together, strict=True):
        assert abs(expected["loss"] - actual["loss"]) < 0.02  # what passes from layer to layer is bfloat16 too


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", pytest.param("lora", marks=pytest.mark.campaign)])
def test_each_process_loads_its_part_of_the_model(tmp_path: Path, mode: str) -> None:
    config = LlamaConfig(dim=512, n_layers=24, n_heads=8, n_kv_heads=8, ffn_dim=2048, vocab_size=4000, head_dim=64)
    write_tiny_checkpoint(tmp_path / "base", config)
    whole = 4 * parameters(config)
    params = CROSSED.model_copy(update={"mode": mode})
    command = [
        *torchrun(2).split(),
        str(ROOT / "tests" / "helpers" / "measure_loading.py"),
        str(tmp_path / "base"),
        params.model_dump_json(),
    ]
    # Memory of its own for each matrix, given back at once, as large models have it.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    peaks = [int(line.split()[-1]) for line in result.stdout.splitlines() if line.startswith("peak")]
    assert len(peaks) == 2
    assert all(0.4 * whole < peak <= 0.6 * whole for peak in peaks), [peak / whole for peak in peaks]


def test_a_launcher_that_fails_is_told(parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for launcher, message in (("no-such-launcher", "there is no command no-such-launcher"), ("false", "ended with status 1")):
        monkeypatch.setenv(ft.LAUNCH, launcher)
        with pytest.raises(ValueError, match=message):
            ft.finetune(*parts, tmp_path / "model", tmp_path / "curves", params=CROSSED)
