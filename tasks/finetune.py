"""Fine-tuning: ``python -m tasks.finetune``.

    rows = training_rows(…)                    packing.py: shuffled documents, packed
    for step: for micro-batch: loss.backward() loss.py: only where there is loss, weighted by token
              clip, schedule, AdamW            optim.py
              now and then: validate, save     trainstate.py

The weights are trained in float32; the matrix products run in bfloat16 where the processor has them. A run that was killed goes
on where its last saved state stands and ends with the same bits.
"""

import ctypes
import hashlib
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from pydantic import Field, field_validator

from model import checkpoint, lora, optim
from model.llama import Transformer
from model.loss import token_losses
from model.precision import Precision, autocast, narrow
from model.tokenizer import Tokenizer
from tasks import trainstate
from tasks.digests import dvc_digest
from tasks.packing import Batch, Row, batches, sample, stacked, training_rows
from tasks.progress import progress
from tasks.stage import Out, Params, Summary, run_stage
from tasks.tokenfile import Split, open_split, read_index

ADAPTED = ("lora", "dora")


class AdapterParams(Params):
    """Of the modes lora and dora; the adapter is merged into the weights in the end."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: tuple[str, ...]

    @field_validator("targets")
    @classmethod
    def known_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        lora.LoraConfig(1, 1.0, 0.0, targets, dora=False)
        return targets


class FinetuneParams(Params):
    mode: str
    adapter: AdapterParams
    seed: int
    seq_len: int = Field(ge=8)
    micro_batch: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    steps: int = Field(ge=1)
    warmup: int = Field(ge=0)
    lr: float = Field(gt=0)
    lr_floor: float = Field(ge=0, le=1)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    precision: Precision
    validate_every: int = Field(ge=1)
    validation_tokens: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)

    @field_validator("mode")
    @classmethod
    def known_mode(cls, mode: str) -> str:
        if mode not in optim.MODES:
            raise ValueError(f"must be one of {', '.join(optim.MODES)}")
        return mode


def finetune(base: Path, shards: Path, model_dir: Out, *, params: FinetuneParams) -> Summary:
    """Train the base model on the train shards and write it as a checkpoint directory."""
    _keep_memory()
    check_fit(base, shards, params)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, held_out = open_split(shards, "train"), open_split(shards, "validation")
    model = checkpoint.load(base, device=device)
    if params.mode in ADAPTED:
        adapter = params.adapter
        settings = lora.LoraConfig(adapter.rank, adapter.alpha, 0.0, adapter.targets, dora=params.mode == "dora")
        lora.add(model, settings, seed=params.seed)
    optim.freeze(model, params.mode)
    optimizer = optim.adamw(model.parameters(), lr=params.lr, betas=(params.beta1, params.beta2), weight_decay=params.weight_decay)
    key = _key(base, shards, params)
    done, history = trainstate.resume(key, model, optimizer)
    if done:
        print(f"finetune: going on after step {done} of {params.steps}", flush=True)
    validation = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    train_steps(model, optimizer, train, held_out, validation, params, history, done=done, key=key)
    lora.merge(model)
    checkpoint.save_like(base, model_dir, checkpoint.parameters_of(model))
    trainstate.discard(key)
    last = {name: value for point in history for name, value in point.items() if name != "step"}
    return Summary(metrics=last | {"bfloat16_products": float(narrow(device, params.precision))}, history=history)


def train_steps(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    train: Split,
    held_out: Split,
    validation: list[Row],
    params: FinetuneParams,
    history: trainstate.History,
    *,
    done: int = 0,
    key: str | None = None,
) -> None:
    """The loop; adds a point per step to ``history``. ``done`` steps are taken as made; with a ``key`` the state is saved now
    and then."""
    device = model.norm.weight.device
    rows = islice(training_rows(train.lengths(), params.seq_len, seed=params.seed), done * params.accumulate * params.micro_batch, None)
    micro_batches = batches(rows, train, params.seq_len, params.micro_batch)
    bar = progress(total=params.steps, unit="step", what="fine-tuning", done=done)
    for step in range(done, params.steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = params.lr * optim.warmup_cosine(step, steps=params.steps, warmup=params.warmup, floor=params.lr_floor)
        group_of = [batch.to(device) for batch in islice(micro_batches, params.accumulate)]
        loss = backward(model, group_of, params.precision)
        norm = float(torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], params.clip))
        if not (norm < float("inf")):
            documents = sorted({train.entries[n].id for batch in group_of for n in batch.numbers})
            raise ValueError(f"loss or gradient is not finite at step {step + 1}; documents in the batch: {', '.join(documents)}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens = sum(int((batch.documents >= 0).sum()) for batch in group_of)
        point = {"step": float(step + 1), "loss": loss, "lr": optimizer.param_groups[0]["lr"], "gradient_norm": norm}
        point["tokens_per_second"] = tokens / (time.perf_counter() - started)
        if (step + 1) % params.validate_every == 0 or step + 1 == params.steps:
            point["validation_loss"] = mean_loss(model, held_out, validation, params)
        history.append(point)
        bar.set_postfix_str(f"loss {loss:.3f}, {point['tokens_per_second']:.0f} tokens/s", refresh=False)
        bar.update()
        if key and (step + 1) % params.checkpoint_every == 0 and step + 1 < params.steps:
            trainstate.save(key, step + 1, model, optimizer, history)
    bar.close()


def backward(model: Transformer, micro_batches: list[Batch], precision: Precision) -> float:
    """Gradients of the mean loss per supervised token over all micro-batches together; that mean, in nats."""
    supervised = sum(int(batch.supervised.sum()) for batch in micro_batches)
    if not supervised:
        raise ValueError("no token of a whole batch carries loss; look at shard.loss_on and at the documents' answers")
    total = 0.0
    for batch in micro_batches:
        loss = _losses(model, batch, precision).sum() / supervised
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def mean_loss(model: Transformer, split: Split, rows: list[Row], params: FinetuneParams) -> float:
    """Mean loss in nats per supervised token of these rows."""
    device = model.norm.weight.device
    losses = [
        _losses(model, stacked(rows[i : i + params.micro_batch], split, params.seq_len).to(device), params.precision)
        for i in range(0, len(rows), params.micro_batch)
    ]
    return float(torch.cat(losses).mean())


def _losses(model: Transformer, batch: Batch, precision: Precision) -> torch.Tensor:
    with autocast(model.norm.weight.device, precision):
        hidden = model.hidden(batch.tokens, documents_BT=batch.documents)
        return token_losses(hidden, model.lm_head, batch.tokens, batch.supervised)


def check_fit(base: Path, shards: Path, params: FinetuneParams) -> None:
    """``ValueError`` where shards, base and params do not fit together."""
    config, index, tokenizer = checkpoint.read_config(base), read_index(shards), Tokenizer.from_path(base)
    if index["tokenizer"] != tokenizer.digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {base} has; run 'dvc repro shard'")
    if params.seq_len > config.max_seq_len:
        raise ValueError(f"finetune.seq_len is {params.seq_len}, the model's context only {config.max_seq_len}")
    for split in ("train", "validation"):
        if not index["splits"].get(split):
            raise ValueError(f"{shards} holds no {split} documents; look at the splits in data/ and at preprocess in params.yaml")


def _key(base: Path, shards: Path, params: FinetuneParams) -> str:
    """Digest of all that the result depends on: base, shards, params, and this code."""
    code = [m for name, m in sorted(sys.modules.items()) if name.startswith("model.") or name in ("tasks.packing", "tasks.trainstate")]
    parts = [dvc_digest(base), dvc_digest(shards), params.model_dump_json(), torch.__version__]
    parts += [Path(str(m.__file__)).read_text() for m in code] + [Path(__file__).read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back after every operation: a quarter more tokens/s on CPU."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)


if __name__ == "__main__":
    run_stage(finetune)
