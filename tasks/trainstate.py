"""Training state on disk, so that a run that was killed goes on: weights and moments in float32, and the step.

A state is a directory below ``.cache/train/<key>`` that appears by a rename when it is whole; the key is the digest of all that
the result depends on. Nothing in it is a pickle.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

STATES = Path(".cache/train")
KEPT = 2
OTHERS_KEPT = 1  # runs of other data, params or code that were cut off: someone may go back to the last one
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's


History = list[dict[str, float]]


def save(key: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, history: History) -> None:
    """Write the state after ``step`` steps, with what was measured so far, and drop all but the newest ones."""
    folder = STATES / key
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # One file per part: safetensors copies what it writes, and a third of the state is copy enough.
    save_file({name: p.detach().contiguous() for name, p in trained.items()}, partial / "weights.safetensors")
    for moment in MOMENTS:
        save_file({name: optimizer.state[p][moment].contiguous() for name, p in trained.items()}, partial / f"{moment}.safetensors")
    (partial / "step.json").write_text(json.dumps({"step": step, "history": history}))
    for path in (*partial.iterdir(), partial):
        _sync(path)
    target = folder / f"{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in _whole(folder)[:-KEPT]:
        shutil.rmtree(old)


def resume(key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, History]:
    """Load the newest state of this key into model and optimizer; the number of steps done, 0 where there is none, and
    what was measured in them."""
    others = sorted((p for p in STATES.glob("*") if p.name != key), key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - OTHERS_KEPT)]:
        shutil.rmtree(old)
    states = _whole(STATES / key)
    if not states:
        return 0, []
    weights, *moments = (load_file(states[-1] / f"{part}.safetensors") for part in ("weights", *MOMENTS))
    said = json.loads((states[-1] / "step.json").read_text())
    step = int(said["step"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
                state = {moment: of[name].to(parameter.device) for moment, of in zip(MOMENTS, moments, strict=True)}
                optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device)} | state
    return step, said["history"]


def discard(key: str) -> None:
    shutil.rmtree(STATES / key, ignore_errors=True)


def _whole(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
