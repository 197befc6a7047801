"""States of a run on disk: complete or skipped, the same for any number of processes, and the metrics of each step."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.builders import TINY, random_model
from helpers.project import ROOT
from helpers.training import KEY, PARAMS, state_at, trained_a_step
from mlflow import MlflowClient
from mlflow.entities import Run

from model.llama import Transformer
from tasks.registry import tracking
from tasks.runtime.digests import sha256
from tasks.runtime.files import write_whole
from tasks.training import checkpoints, optim, step_metrics
from tasks.training.checkpoints import State


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(a: Transformer, b: Transformer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_state_comes_back_with_weights_moments_and_place() -> None:
    model, optimizer = trained_a_step()
    checkpoints.save(KEY, state_at(4), model, optimizer)
    other = random_model(TINY, 9)
    fresh = optim.make_optimizer(other.parameters(), PARAMS)
    assert checkpoints.resume(KEY, other, fresh) == state_at(4)
    assert same(model, other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert all(torch.equal(optimizer.state[a][moment], fresh.state[b][moment]) for moment in ("exp_avg", "exp_avg_sq"))
    assert fresh.state[next(other.parameters())]["step"] == 4


def test_a_state_of_an_older_format_is_skipped() -> None:
    checkpoints.save(KEY, state_at(4), *trained_a_step())
    folder = checkpoints.folder_of(KEY) / "00000004"
    former = {"step": 4, "place": {"epoch": 1, "window": 2, "rows": 4}, "best": 0, "best_loss": 9.0, "worse": 0, "processes": 1}
    write_whole(folder / checkpoints.STATE, {"state": former})
    manifest = json.loads((folder / checkpoints.MANIFEST).read_bytes())
    write_whole(folder / checkpoints.MANIFEST, manifest | {checkpoints.STATE: sha256(folder / checkpoints.STATE)})
    assert checkpoints.newest(KEY) is None


def test_a_damaged_newest_state_is_passed_over_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    model, optimizer = trained_a_step()
    for step in (2, 4):
        checkpoints.save(KEY, state_at(step), model, optimizer)
    damaged = next((checkpoints.folder_of(KEY) / "00000004" / "exp_avg").glob("*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert checkpoints.resume(KEY, model, optimizer) == state_at(2)
    checkpoints.save(KEY, state_at(3), model, optimizer)
    assert {path.name for path in checkpoints.folder_of(KEY).iterdir()} == {"00000002", "00000003"}
    output = capfd.readouterr().out
    assert "00000004 is damaged (exp_avg/" in output and "going back to the state before it" in output


def test_only_the_newest_states_and_the_best_weights_they_speak_of_are_kept() -> None:
    model, optimizer = trained_a_step()
    for step in (1, 2, 3, 4):
        checkpoints.save_best(KEY, step, model)
        checkpoints.save(KEY, State(step=step, best_step=min(step, 3)), model, optimizer)
    kept = {path.name for path in checkpoints.folder_of(KEY).iterdir()}
    assert kept == {"00000003", "00000004", "best-00000003"}


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    """On a file system of 2 MB of its own."""
    program = f"""
import os, sys; sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]!r}
from helpers.training import PARAMS, KEY, State, state_at, trained_a_step
from tasks.training import checkpoints
model, optimizer = trained_a_step()
checkpoints.save(KEY, state_at(2), model, optimizer)
open("full", "wb").write(bytes(os.statvfs(".").f_bavail * os.statvfs(".").f_frsize - 100_000))
try:
    checkpoints.save(KEY, state_at(4), model, optimizer)
except ValueError as error:
    print(error)
print(sorted(p.name for p in checkpoints.folder_of(KEY).iterdir()), checkpoints.newest(KEY)[1].step)
"""
    Path("program.py").write_text(program)
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=2m none {small} && cd {small} && exec {sys.executable} ../program.py"
    result = subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if "unshare" in result.stderr:
        pytest.skip("this account may not make a file system of its own")
    assert "00000004 could not be written" in result.stdout and "No space left" in result.stdout, result.stdout + result.stderr
    assert result.stdout.endswith("['00000002'] 2\n")


def test_points_are_written_once_and_a_torn_last_line_goes() -> None:
    folder = Path("run")
    first = step_metrics.StepMetricsLog(folder)
    for step in (1.0, 2.0):
        first.append({"step": step, "loss": step})
    with open(folder / step_metrics.FILE, "a", encoding="utf-8") as file:
        file.write('{"step": 3.0, "lo')
    again = step_metrics.StepMetricsLog(folder)
    for step in (2.0, 3.0):
        again.append({"step": step, "loss": -step})
    assert [(p["step"], p["loss"]) for p in step_metrics.read(folder)] == [(1.0, 1.0), (2.0, 2.0), (3.0, -3.0)]


def record_of_a_run(folder: Path) -> dict[str, object]:
    return {
        "record": step_metrics.record_of(folder),
        "stage": "finetune",
        "command": "python -m tasks.finetune",
        "started": "2026-01-02T03:04:05.000+00:00",
        "seconds": 3.0,
        "peak_memory_mb": 1,
        "params": {"lr": 0.1},
        "inputs": {},
        "outputs": {},
        "metrics": {"documents": 3.0},
        "history": step_metrics.read(folder),
        "reports": [],
        "code": {},
        "versions": {},
        "machine": {"processor": "one", "cores": 2},
    }


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield tracking.connect()


@pytest.mark.slow
def test_the_tracker_sees_points_while_a_run_goes_on_and_every_one_once_in_the_end(store: MlflowClient) -> None:
    folder = Path("run")
    for life in (1, 2):  # cut off in between
        follower = subprocess.Popen(
            [sys.executable, "-m", "tasks.registry", "follow", "finetune", step_metrics.record_of(folder), str(folder)],
            stdin=subprocess.PIPE,
        )
        log = step_metrics.StepMetricsLog(folder)
        for step in range(3 * life - 2, 3 * life + 2):
            log.append({"step": float(step), "loss": 1.0 / step})
        deadline = time.monotonic() + 600
        while len(_steps(store)) < 3 * life + 1:
            assert time.monotonic() < deadline and follower.poll() is None
            time.sleep(0.3)
        assert _run(store).info.status == "RUNNING"
        if life == 1:
            follower.send_signal(signal.SIGKILL)
        follower.communicate()
    for _ in range(2):
        run_id = tracking.replay(store, record_of_a_run(folder))
    assert run_id == _run(store).info.run_id and _run(store).info.status == "FINISHED"
    assert _steps(store) == [1, 2, 3, 4, 5, 6, 7]


def _run(store: MlflowClient) -> Run:
    (run,) = _runs(store)
    return run


def _steps(store: MlflowClient) -> list[int]:
    return [m.step for run in _runs(store) for m in store.get_metric_history(run.info.run_id, "loss")]


def _runs(store: MlflowClient) -> list[Run]:
    experiment = store.get_experiment_by_name(tracking.EXPERIMENT)
    return list(store.search_runs([experiment.experiment_id])) if experiment else []
