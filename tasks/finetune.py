"""Fine-tuning: ``python -m tasks.finetune``. The inputs are checked here; training/loop.py has the loop.

A killed run resumes from its last saved state and, on CPUs, ends with the same bits. It trains in this process, or in those that the
command under ``FINETUNE_LAUNCH`` (environment or local.yaml) starts: ``torchrun --nproc-per-node 2``.
"""

import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from model import lora
from model.checkpoint.config import read_config
from model.checkpoint.hf import save_like
from model.checkpoint.load import weights_dtype
from model.checkpoint.shapes import parameters_of
from model.precision import use_bf16
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.shards.format import Shards, Split
from tasks.runtime.digests import code_digest, dvc_digest
from tasks.runtime.processes import forced, tune_malloc
from tasks.runtime.settings import setting
from tasks.stage import Out, StageResult, run_stage
from tasks.training import checkpoints, optim, step_metrics
from tasks.training.curves import plot, write_table
from tasks.training.distributed import process_group
from tasks.training.exposure import FILE as SEEN
from tasks.training.exposure import Seen, Use, seen_digest, write_seen
from tasks.training.length import describe, with_steps
from tasks.training.loop import train, validation_loss
from tasks.training.packing import Consumed, consumed, epoch_rows, epoch_tokens, sample
from tasks.training.params import FinetuneParams
from tasks.training.prepare import attention_backend, load_base_with_adapter

LAUNCH = "FINETUNE_LAUNCH"
ROOT = Path(__file__).resolve().parent.parent
# The code that decides a training state's bits. Too much here only discards a state; too little would resume a wrong one.
CODE = (ROOT / "model", ROOT / "tasks" / "training", ROOT / "tasks" / "corpus" / "shards", Path(__file__).resolve())


def finetune(base: Path, shards: Path, model_dir: Out, report: Out, *, params: FinetuneParams) -> StageResult:
    """Train the base model on the train shards and write it as a checkpoint directory, with its curves and what it saw."""
    tune_malloc()
    dropped = preflight(base, shards, params)
    params = with_steps(params, shards)
    print(f"finetune: {describe(params, shards)}", flush=True)
    key = _key(base, shards, params)
    folder = checkpoints.folder_of(key)
    if forced():
        checkpoints.discard(key)
    if checkpoints.unfinished(key) and not checkpoints.newest(key):
        print("finetune: base, shards, params or code are not those of the run that was cut off; starting anew", flush=True)
    partly = bool(checkpoints.newest(key))
    with step_metrics.forwarding(folder, "finetune"):
        _train(base, shards, key, params)
    newest = checkpoints.newest(key)
    assert newest is not None  # the last step's
    path, state = newest
    kept = state.best_step if params.keep == "best" and state.best_step else state.step
    if kept != state.step:
        path = checkpoints.best_folder(key, kept)
    _write_model(base, path, model_dir, params)
    history = [step for step in step_metrics.read(folder) if step["step"] <= state.step]
    write_table(history, report)
    plot(history, report)
    metrics = {name: value for step in history for name, value in step.items() if name not in ("step", "time")}
    metrics |= {"documents_without_loss": float(dropped), "best_step": float(state.best_step), "best_validation_loss": state.best_loss}
    metrics |= {"bfloat16_products": float(use_bf16(_device(), params.precision)), "processes": float(state.world_size)}
    if params.training_mode.quantized:
        metrics["merged_validation_loss"] = validation_loss(model_dir, shards, params, _device())
    metrics |= {f"attention_{attention_backend(params, _device())}": 1.0}
    metrics |= write_exposure(shards, report / SEEN, state, kept, params)
    record = step_metrics.record_of(folder)
    checkpoints.discard(key)
    return StageResult(metrics=metrics, history=history, reports=("report",), record=record, partly=partly or state.step < params.steps)


def _train(base: Path, shards: Path, key: str, params: FinetuneParams) -> None:
    """Train in this process, or in those that ``FINETUNE_LAUNCH`` starts."""
    launcher = shlex.split(launch := setting(LAUNCH))
    if not launcher:
        with process_group() as group:
            train(base, shards, key, params, group)
        return
    if not shutil.which(launcher[0]):
        raise ValueError(f"{LAUNCH} is {launch!r}, and there is no command {launcher[0]}")
    end_with_parent = [sys.executable, "-m", "tasks.runtime"]
    command = [*end_with_parent, *launcher, "-m", "tasks.training", "worker", str(base), str(shards), key, params.model_dump_json()]
    if status := subprocess.run(command, check=False).returncode:
        raise ValueError(f"the processes that {LAUNCH} started ended with status {status}; their messages are above")


def _write_model(base: Path, state: Path, model_dir: Path, params: FinetuneParams) -> None:
    """Write a state's weights as a checkpoint directory; an adapter is merged, and saved in PEFT's format too."""
    # Frozen weights are loaded in the precision in which they are written: in float32 a large model may not fit. In 4 bits they are made
    # where training made them, as another device may round otherwise.
    device = _device() if params.training_mode.quantized else torch.device("cpu")
    model = load_base_with_adapter(base, params, device=device, frozen=weights_dtype(base))
    optim.freeze(model, params.mode)
    checkpoints.load_weights(state, model)
    if params.training_mode.adapter:
        model_dir.mkdir(parents=True)
        lora.save(model, model_dir / "adapter", base=base.name)
        lora.merge(model)
    save_like(base, model_dir, parameters_of(model))


def write_exposure(shards: Path, path: Path, state: checkpoints.State, kept: int, params: FinetuneParams) -> dict[str, float]:
    """Write which documents the kept weights saw; returns counts of them. ``kept``: the step whose weights are kept."""
    opened = Shards(shards)
    train_split, held_out = opened.open("train"), opened.open("validation")
    by_kept, total = consumed(train_split, params.seq_len, seed=params.seed, rows=[kept * params.batch, state.step * params.batch])
    if total.loader != state.loader:
        raise ValueError(f"{shards} gives other rows than the run was trained on; run 'dvc repro --force finetune'")
    chosen = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    measured = sorted({segment.document for row in chosen for segment in row})
    use: Use = "selected" if params.keep == "best" or params.patience else "scored"
    seen = {**_named(train_split, by_kept.documents, "train", "trained"), **_named(held_out, measured, "validation", use)}
    write_seen(seen.items(), path)
    counts = exposure(train_split, by_kept, params) | {"documents_validated": float(len(measured))}
    counts |= {"step_kept": float(kept), "steps_taken": float(state.step)}
    return counts | {"documents_fed": float(len(total.documents)), "tokens_fed": float(total.tokens)}


def _named(split: Split, indices: Iterable[int], name: str, use: Use) -> dict[str, Seen]:
    return {seen_digest(split.entries[index].id): Seen(name, use) for index in indices}


def exposure(train_split: Split, part: Consumed, params: FinetuneParams) -> dict[str, float]:
    """How much of the train split was consumed: documents, tokens, tokens with loss, epochs."""
    counts = {"documents_seen": len(part.documents), "tokens_seen": part.tokens, "tokens_with_loss_seen": part.supervised}
    return {name: float(n) for name, n in counts.items()} | {"epochs_seen": part.tokens / epoch_tokens(train_split, params.seq_len)}


def preflight(base: Path, shards: Path, params: FinetuneParams) -> int:
    """Check shards, base and params against each other; returns the number of train documents without loss.

    ``ValueError`` names what does not fit and what to do.
    """
    config, opened, tokenizer = read_config(base), Shards(shards), Tokenizer.from_path(base)
    if opened.tokenizer != tokenizer.digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {base} has; run 'dvc repro shard'")
    if params.seq_len > config.max_seq_len:
        raise ValueError(f"finetune.seq_len is {params.seq_len}, the model's context only {config.max_seq_len}")
    for split in ("train", "validation"):
        if not opened.splits.get(split):
            raise ValueError(f"{shards} holds no {split} documents; look at the splits in data/ and at preprocess in params.yaml")
    train_split = opened.open("train")
    dropped = int((train_split.supervised() == 0).sum())
    if dropped:
        print(f"finetune: {dropped:,} of {len(train_split):,} train documents have no token with loss and are left out", flush=True)
    if dropped == len(train_split):
        raise ValueError(f"no token of {shards} carries loss; look at shard.loss_on and at the documents' answers")
    rows = epoch_rows(train_split, params.seq_len, seed=params.seed, limit=params.batch)
    if rows < params.batch:
        raise ValueError(f"finetune.batch is {params.batch} rows of {params.seq_len} tokens, all of the train split makes {rows}")
    return dropped


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _key(base: Path, shards: Path, params: FinetuneParams) -> str:
    """Digest of all that the result depends on: base, shards, params, and the code of this stage's folders."""
    parts = [dvc_digest(base), dvc_digest(shards), params.model_dump_json(), torch.__version__, code_digest(CODE)]
    if params.training_mode.quantized:
        parts.append(f"bitsandbytes {version('bitsandbytes')}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


if __name__ == "__main__":
    run_stage(finetune)
