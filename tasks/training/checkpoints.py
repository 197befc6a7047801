"""Training state on disk, so that a killed run resumes: weights, AdamW's moments, and the position.

    .cache/train/<key>/00000020/{weights,exp_avg,exp_avg_sq,…}/*.safetensors  state.json  manifest.json
    .cache/train/<key>/best-00000015/weights/…                              the weights with the lowest validation loss

The key is the digest of all that the result depends on, the code included: another release never reads a state of this one. A state
appears by a rename when it is complete, and its manifest holds the SHA-256 of every file, so that a damaged one is skipped. Parts are
written by torch.distributed.checkpoint: each process its own shards, to be loaded by any number of processes. Nothing is a pickle.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from tasks.runtime.digests import sha256
from tasks.runtime.files import write_whole
from tasks.training import optim
from tasks.training.packing import LoaderState
from tasks.training.step_metrics import sync

STATES = Path(".cache/train")
KEEP = 2
KEEP_OTHERS = 1  # unfinished runs of other data, params or code: someone may go back to the last one
MANIFEST, STATE = "manifest.json", "state.json"
WEIGHTS = "weights"


@dataclass(frozen=True)
class State:
    """The position of a run; at step 0 before it begins."""

    step: int = 0
    loader: LoaderState = field(default_factory=LoaderState)  # of the rows that come next
    best_step: int = 0  # the step with the lowest validation loss so far; 0: none yet
    best_loss: float = float("inf")
    without_improvement: int = 0  # validations since
    world_size: int = 1  # processes that trained together


def rank() -> int:
    """This process's rank; 0 in a single process."""
    return dist.get_rank() if dist.is_initialized() else 0


def folder_of(key: str) -> Path:
    """The folder of a run's states."""
    return STATES / key


def save(key: str, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state and drop all but the newest ones; called by every process of the run."""
    parts: dict[str, dict[str, Tensor]] = {WEIGHTS: dict(trained(model))}
    for name, parameter in trained(model).items():
        for part, tensor in optimizer.state[parameter].items():
            if part != "step":
                parts.setdefault(part, {})[name] = tensor
    _write(folder_of(key) / f"{state.step:08d}", parts, {"state": asdict(state)})
    if rank() == 0:
        _prune(folder_of(key))


def save_best(key: str, step: int, model: nn.Module) -> None:
    """Keep the weights of ``step`` as those with the lowest validation loss so far; called by every process of the run."""
    _write(best_folder(key, step), {WEIGHTS: trained(model)}, {"state": {"step": step}})


def best_folder(key: str, step: int) -> Path:
    """The folder of the weights that ``save_best`` keeps."""
    return folder_of(key) / f"best-{step:08d}"


def resume(key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load the newest complete state of this key into model and optimizer; the state at step 0 where there is none."""
    checkpoint = newest(key)
    if rank() == 0:
        for path in _states(folder_of(key)):
            if checkpoint is None or path > checkpoint[0]:
                shutil.rmtree(path)  # a damaged one
    if checkpoint is None:
        return State()
    folder, state = checkpoint
    load_weights(folder, model)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, parameter in trained(model).items():
        step = torch.tensor(float(state.step), device=parameter.device)
        of_parameter = optim.new_state(optimizer, parameter)
        optimizer.state[parameter] = {"step": step} | of_parameter
        for part, tensor in of_parameter.items():
            parts.setdefault(part, {})[name] = tensor
    for part, tensors in parts.items():
        _read(folder / part, tensors)
    return state


def newest(key: str) -> tuple[Path, State] | None:
    """The newest state whose files are as they were written; prints which ones are not."""
    for path in reversed(_states(folder_of(key))):
        try:
            _verify(path)
            fields = json.loads((path / STATE).read_bytes())["state"]
            state = State(**fields | {"loader": LoaderState(**fields["loader"])})
            if state.best_step and state.best_step != state.step:
                _verify(best_folder(key, state.best_step))
        except (OSError, ValueError, LookupError, TypeError) as error:
            if rank() == 0:
                print(f"finetune: {path} is damaged ({error}); going back to the state before it", flush=True)
            continue
        return path, state
    return None


@torch.no_grad()
def load_weights(path: Path, model: nn.Module) -> None:
    """The weights of a state into the parameters that train, whatever number of processes wrote them."""
    _read(path / WEIGHTS, {name: parameter.detach() for name, parameter in trained(model).items()})


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def unfinished(key: str) -> list[str]:
    """Keys of other unfinished runs, after all but the last of them were removed."""
    others = sorted((p for p in STATES.glob("*") if p.name != key), key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - KEEP_OTHERS)]:
        shutil.rmtree(old)
    return [path.name for path in others[-KEEP_OTHERS:]]


def discard(key: str) -> None:
    """Remove all states of a run."""
    shutil.rmtree(folder_of(key), ignore_errors=True)


def _write(target: Path, parts: Mapping[str, Mapping[str, Tensor]], content: dict[str, Any]) -> None:
    """Write a directory that appears when it is complete; ``ValueError`` where the disk does not take it."""
    partial = target.with_name(".partial")
    try:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        _barrier()
        for part, tensors in parts.items():
            # One part at a time: the writer copies what it writes, and this keeps the copy at a third of the state.
            writer = dcp.HuggingFaceStorageWriter(str(partial / part), save_distributed=True)
            with _single_process() as single_process:
                dcp.save({n: t.detach() for n, t in tensors.items()}, storage_writer=writer, no_dist=single_process)
        if rank() == 0:
            write_whole(partial / STATE, content)
            files = sorted(p for p in partial.rglob("*") if p.is_file())
            write_whole(partial / MANIFEST, {p.relative_to(partial).as_posix(): sha256(p) for p in files})
            for path in (*partial.rglob("*"), partial):
                sync(path)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            sync(target.parent)
    except (OSError, CheckpointException) as error:
        shutil.rmtree(partial, ignore_errors=True)
        causes = error.failures.values() if isinstance(error, CheckpointException) else [error]
        why = "; ".join(sorted({str(cause[0] if isinstance(cause, tuple) else cause) for cause in causes}))
        raise ValueError(
            f"{target} could not be written ({why}). Make room and run again: training goes on from the last state there"
        ) from None
    _barrier()


def _read(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with _single_process() as single_process:
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=single_process)


@contextmanager
def _single_process() -> Iterator[bool]:
    """Whether one process trains; torch's warning about it is silenced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield not dist.is_initialized()


def _verify(path: Path) -> None:
    for name, digest in json.loads((path / MANIFEST).read_bytes()).items():
        if sha256(path / name) != digest:
            raise ValueError(f"{name} is not as it was written")


def _prune(folder: Path) -> None:
    for old in _states(folder)[:-KEEP]:
        shutil.rmtree(old)
    needed = {json.loads((path / STATE).read_bytes())["state"]["best_step"] for path in _states(folder)}
    for path in folder.glob("best-*"):
        if int(path.name.removeprefix("best-")) not in needed:
            shutil.rmtree(path)


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
