"""Training state on disk, so that a run that was killed goes on: weights, AdamW's moments, and how far it came.

    .cache/train/<key>/00000020/{weights,exp_avg,exp_avg_sq}/*.safetensors  state.json  manifest.json
    .cache/train/<key>/best-00000015/weights/…                              the weights with the lowest validation loss

The key is the digest of all that the result depends on. A state appears by a rename when it is whole, and its manifest holds the
SHA-256 of every file, so that a damaged one is passed over. Parts are written by torch.distributed.checkpoint: each process its
own shards, to be loaded by any number of processes. Nothing in it is a pickle.
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
from tasks.training.packing import Place
from tasks.training.step_metrics import sync

STATES = Path(".cache/train")
KEPT = 2
OTHERS_KEPT = 1  # runs of other data, params or code that were cut off: someone may go back to the last one
MANIFEST, STATE = "manifest.json", "state.json"
WEIGHTS, MOMENTS = "weights", ("exp_avg", "exp_avg_sq")  # AdamW's


@dataclass(frozen=True)
class State:
    """How far a run came."""

    step: int = 0
    place: Place = field(default_factory=Place)  # of the rows that come next
    best: int = 0  # the step with the lowest validation loss so far; 0: none yet
    best_loss: float = float("inf")
    worse: int = 0  # validations since
    processes: int = 1  # that trained together


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def folder_of(key: str) -> Path:
    return STATES / key


def save(key: str, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state and drop all but the newest ones; called by every process of the run."""
    parts = {WEIGHTS: trained(model)}
    for moment in MOMENTS:
        parts[moment] = {name: optimizer.state[parameter][moment] for name, parameter in parts[WEIGHTS].items()}
    _write(folder_of(key) / f"{state.step:08d}", parts, {"state": asdict(state)})
    if rank() == 0:
        _prune(folder_of(key))


def save_best(key: str, step: int, model: nn.Module) -> None:
    """Keep the weights of ``step`` as those with the lowest validation loss so far; called by every process of the run."""
    _write(best_folder(key, step), {WEIGHTS: trained(model)}, {"state": {"step": step}})


def best_folder(key: str, step: int) -> Path:
    return folder_of(key) / f"best-{step:08d}"


def resume(key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load the newest whole state of this key into model and optimizer; the state at step 0 where there is none."""
    found = newest(key)
    if rank() == 0:
        for path in _states(folder_of(key)):
            if found is None or path > found[0]:
                shutil.rmtree(path)  # a damaged one
    if found is None:
        return State()
    load_weights(found[0], model)
    parameters = trained(model)
    moments = {moment: {name: torch.zeros_like(p) for name, p in parameters.items()} for moment in MOMENTS}
    for moment, tensors in moments.items():
        _read(found[0] / moment, tensors)
    for name, parameter in parameters.items():
        step = torch.tensor(float(found[1].step), device=parameter.device)
        optimizer.state[parameter] = {"step": step} | {moment: moments[moment][name] for moment in MOMENTS}
    return found[1]


def newest(key: str) -> tuple[Path, State] | None:
    """The newest state whose files are as they were written; says which ones are not."""
    for path in reversed(_states(folder_of(key))):
        try:
            _verify(path)
            told = json.loads((path / STATE).read_bytes())["state"]
            state = State(**told | {"place": Place(**told["place"])})
            if state.best and state.best != state.step:
                _verify(best_folder(key, state.best))
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
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def unfinished(key: str) -> list[str]:
    """Keys of other runs that were cut off, after all but the last of them were removed."""
    others = sorted((p for p in STATES.glob("*") if p.name != key), key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - OTHERS_KEPT)]:
        shutil.rmtree(old)
    return [path.name for path in others[-OTHERS_KEPT:]]


def discard(key: str) -> None:
    shutil.rmtree(folder_of(key), ignore_errors=True)


def _write(target: Path, parts: Mapping[str, Mapping[str, Tensor]], told: dict[str, Any]) -> None:
    """A directory that is there when it is whole; ``ValueError`` where the disk does not take it."""
    partial = target.with_name(".partial")
    try:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        _wait()
        for part, tensors in parts.items():
            # One part at a time: a copy is made of what is written, and a third of the state is copy enough.
            writer = dcp.HuggingFaceStorageWriter(str(partial / part), save_distributed=True)
            with _alone_or_not() as alone:
                dcp.save({n: t.detach() for n, t in tensors.items()}, storage_writer=writer, no_dist=alone)
        if rank() == 0:
            write_whole(partial / STATE, told)
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
    _wait()


def _read(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with _alone_or_not() as alone:
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=alone)


@contextmanager
def _alone_or_not() -> Iterator[bool]:
    """Whether one process trains, about which torch need not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield not dist.is_initialized()


def _verify(path: Path) -> None:
    for name, digest in json.loads((path / MANIFEST).read_bytes()).items():
        if sha256(path / name) != digest:
            raise ValueError(f"{name} is not as it was written")


def _prune(folder: Path) -> None:
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old)
    needed = {json.loads((path / STATE).read_bytes())["state"]["best"] for path in _states(folder)}
    for path in folder.glob("best-*"):
        if int(path.name.removeprefix("best-")) not in needed:
            shutil.rmtree(path)


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
