"""The training loop, in one process or in several that torchrun starts: ``python -m tasks.training`` is one of those.

    rows = training_rows(…)                    packing.py: shuffled documents, packed; every process takes its part of each step's
    for step: for micro-batch: loss.backward() loss.py: only where there is loss, weighted by token
              clip, schedule, AdamW            optim.py
              now and then: validate, save     trainstate.py; what was measured goes to points.py

The weights are trained in float32; the matrix products run in bfloat16 where the processor has them. Several processes share
weights, gradients and moments (FSDP2). It knows nothing of records or of what becomes of the weights afterwards.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from model import lora
from model.checkpoint.config import read_config
from model.checkpoint.load import load_model
from model.llama import Transformer
from model.loss import token_losses, total_loss, total_unlikelihood
from model.precision import Precision, autocast, use_bf16
from tasks.corpus.shards.format import Split, open_split
from tasks.runtime.processes import told_to_stop
from tasks.runtime.progress import progress
from tasks.training import checkpoints, optim
from tasks.training.cost import training_flops
from tasks.training.distributed import Team, scatter, sharded
from tasks.training.hardware import Energy, matmul_rate, memory_mb, memory_of
from tasks.training.packing import Batch, Row, looped, sample, stacked, supervised_in, training_rows
from tasks.training.params import ADAPTED, FinetuneParams
from tasks.training.preflight import check_memory
from tasks.training.step_metrics import Points


class StoppedError(ValueError):
    """Training was asked to leave, and left a state to go on from."""


def train(base: Path, shards: Path, key: str, params: FinetuneParams, us: Team) -> None:
    """Train until the last step's state stands under ``key``, from where an earlier run of it came to."""
    bfloat16, memory = use_bf16(us.device, params.precision), memory_of(us.device)
    check_memory(read_config(base), params, narrow=bfloat16, devices=us.size, device=us.device.type, memory=memory)
    train_split, held_out = open_split(shards, "train"), open_split(shards, "validation")
    alone = us.size == 1
    device = us.device if alone else torch.device("cpu")
    frozen = torch.bfloat16 if alone and bfloat16 else torch.float32
    model = readied(adapted(base, params, device=device, frozen=frozen), params, alone=alone)
    if not alone:
        model = sharded(model, us, params.precision)
    optimizer = optim.adamw(
        checkpoints.trained(model).values(), lr=params.lr, betas=(params.beta1, params.beta2), weight_decay=params.weight_decay
    )
    began = time.perf_counter()
    state = checkpoints.resume(key, model, optimizer)
    if state.step and us.rank == 0:
        seconds = time.perf_counter() - began
        print(f"finetune: going on after step {state.step} of {params.steps}, loaded in {seconds:.1f} s", flush=True)
    validation = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    points = Points(checkpoints.folder_of(key)) if us.rank == 0 else None
    with told_to_stop() as stop:
        train_steps(model, optimizer, train_split, held_out, validation, params, us, state=state, key=key, points=points, stop=stop)


def adapted(base: Path, params: FinetuneParams, *, device: torch.device, frozen: torch.dtype = torch.float32) -> Transformer:
    """The base model in float32, with the adapter of the mode where that has one; ``frozen``: the precision of matrices that do not
    change, from the start, as a device that they fit on so may not hold them in float32."""

    def precision(name: str) -> torch.dtype:
        trains = not name.endswith(("_proj.weight", "lm_head.weight")) or optim.MODES[params.mode](name)
        return torch.float32 if trains else frozen

    model = load_model(base, device=device, dtype=precision)
    if params.mode in ADAPTED:
        lora.add(model, lora_config(params), seed=params.seed)
    return model


def lora_config(params: FinetuneParams) -> lora.LoraConfig:
    adapter = params.adapter
    return lora.LoraConfig(adapter.rank, adapter.alpha, 0.0, adapter.targets, dora=params.mode == "dora")


def readied(model: Transformer, params: FinetuneParams, *, alone: bool = True) -> Transformer:
    """The model as its mode trains it; ``alone``: in one process, on the device that it is on."""
    optim.freeze(model, params.mode)
    if alone and use_bf16(model.norm.weight.device, params.precision):
        # What multiplies in bfloat16 and does not change need not be kept in float32; the embedding starts the float32 sums.
        for layer in (m for m in model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad):
            if layer.weight is not model.embed_tokens.weight:
                layer.to(torch.bfloat16)
    model.activation_checkpointing = params.activation_checkpointing
    if params.compile:
        for block in model.layers:
            block.compile(dynamic=False)
    return model


def train_steps(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    train_split: Split,
    held_out: Split,
    validation: list[Row],
    params: FinetuneParams,
    us: Team,
    *,
    state: checkpoints.State,
    key: str = "",
    points: Points | None = None,
    stop: Sequence[int] = (),
) -> checkpoints.State:
    """The loop, from ``state`` on; with a ``key`` states are saved. ``stop`` says that a signal came, once it is not empty."""
    rate = matmul_rate(model.config, params.micro_batch * params.seq_len, us.device, narrow=use_bf16(us.device, params.precision)) * us.size
    energy = Energy(us.device, before=points.all[-1]["energy_wh"] if points and points.all else 0.0)
    rows = training_rows(train_split, params.seq_len, seed=params.seed, start=state.place)
    bar = progress(total=params.steps, unit="step", what="fine-tuning", done=state.step) if us.rank == 0 else None
    for step in range(state.step + 1, params.steps + 1):
        if no_better(state, params):
            break
        began = time.perf_counter()
        batch, places = zip(*islice(rows, params.batch), strict=True)
        point = update(model, optimizer, step, batch, train_split, params, us)
        state = replace(state, step=step, place=places[-1], processes=us.size)
        point |= speed(model, batch, train_split, params, time.perf_counter() - began, rate)
        point |= {"memory_mb": memory_mb(us.device), "energy_wh": energy.watt_hours() * us.size}
        last = step == params.steps
        if step % params.validate_every == 0 or last:
            point["validation_loss"] = mean_loss(model, held_out, validation, params, us)
            state = judged(state, point["validation_loss"])
            last = last or no_better(state, params)
            if key and state.best == step and not last:
                checkpoints.save_best(key, step, model)
        if points and bar is not None:
            points.append(point)
            bar.set_postfix_str(f"loss {point['loss']:.3f}, {point['tokens_per_second']:.0f} tokens/s", refresh=False)
            bar.update()
        leaving = us.sum(float(len(stop)))[0] > 0  # together, whichever process the signal came to
        if key and (step % params.checkpoint_every == 0 or last or leaving):
            if points:
                points.sync()
            checkpoints.save(key, state, model, optimizer)
        if leaving and not last:
            raise StoppedError(f"stopped after step {step} of {params.steps} by a signal; the next run goes on from there")
    if bar is not None:
        bar.close()
        if state.step < params.steps:
            print(f"finetune: no lower validation loss in {params.patience} validations; ended after step {state.step}", flush=True)
    return state


def update(
    model: Transformer, optimizer: torch.optim.Optimizer, step: int, rows: Sequence[Row], split: Split, params: FinetuneParams, us: Team
) -> dict[str, float]:
    """One step on these rows; its loss, learning rate and gradient norm. ``ValueError`` before the weights change where a number
    is not finite."""
    lr = params.lr * optim.rate(
        params.schedule, step - 1, steps=params.steps, warmup=params.warmup, floor=params.lr_floor, decay=params.decay
    )
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = backward(model, rows, split, params, us)
    looping = backward_loops(model, step, rows, split, params, us) if params.unlikelihood else None
    norm = gradient_norm(model, params.clip)
    if not (norm < float("inf")):
        documents = sorted({split.entries[piece.document].id for row in rows for piece in row})
        raise ValueError(f"loss or gradient is not finite at step {step}; documents in the batch: {', '.join(documents)}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    found = {"step": float(step), "loss": loss, "lr": lr, "gradient_norm": norm}
    return found if looping is None else found | {"loop_loss": looping}


def backward(model: Transformer, rows: Sequence[Row], split: Split, params: FinetuneParams, us: Team) -> float:
    """Gradients of the mean loss per supervised token over all rows of a step, those of other processes too; that mean, in nats.

    Every process makes the same number of passes, some with empty rows where the rows do not divide evenly.
    """
    supervised = supervised_in(rows, split)
    total = 0.0
    for batch in micro_batches(rows, split, params, us):
        # FSDP takes the mean over the processes of what is a sum here.
        loss = of_batch(total_loss, model, batch.to(us.device), params.precision) / supervised
        (loss * us.size).backward()
        total += float(loss.detach())
    return us.sum(total)[0]


def backward_loops(model: Transformer, step: int, rows: Sequence[Row], split: Split, params: FinetuneParams, us: Team) -> float:
    """Gradients of ``unlikelihood`` times the mean of -log(1 - p) over tokens of loops, made of the step's own rows; that mean, in nats.

    Greedy answers of a model that was trained briefly on lists fall into loops (Xu et al. 2022, arXiv:2206.02369); this is against them.
    One row of half a length, the same in every process, so that each makes the same pass.
    """
    batch = looped(rows, split, params.seq_len // 2, seed=params.seed, step=step).to(us.device)
    loss = of_batch(total_unlikelihood, model, batch, params.precision) / max(1, int(batch.supervised.sum()))
    (loss * params.unlikelihood).backward()
    return float(loss.detach())


def micro_batches(rows: Sequence[Row], split: Split, params: FinetuneParams, us: Team) -> Iterator[Batch]:
    """This process's part of a step's rows."""
    ours = list(rows[us.rank :: us.size])
    most = -(-len(rows) // us.size)
    ours += [[]] * (most - len(ours))
    for at in range(0, most, params.micro_batch):
        yield stacked(ours[at : at + params.micro_batch], split, params.seq_len)


def gradient_norm(model: Transformer, clip: float) -> float:
    """The length of all gradients together, before they are scaled down to ``clip`` where it is larger."""
    norm = torch.nn.utils.clip_grad_norm_(list(checkpoints.trained(model).values()), clip)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


@torch.no_grad()
def mean_loss(model: Transformer, split: Split, rows: list[Row], params: FinetuneParams, us: Team) -> float:
    """Mean loss in nats per supervised token of these rows."""
    found = [of_batch(token_losses, model, batch.to(us.device), params.precision) for batch in micro_batches(rows, split, params, us)]
    scatter(model)
    total, count = us.sum(float(torch.cat(found).double().sum()), float(sum(map(len, found))))
    return total / count


def of_batch(measure: Callable[..., torch.Tensor], model: Transformer, batch: Batch, precision: Precision) -> torch.Tensor:
    """A measure of loss.py over the supervised tokens of a batch."""
    with autocast(batch.tokens.device, precision):
        hidden = model.hidden(batch.tokens, documents_BT=batch.documents)
        return measure(hidden, model.lm_head, batch.tokens, batch.supervised)


def judged(state: checkpoints.State, validation_loss: float) -> checkpoints.State:
    """The state after a validation."""
    if validation_loss < state.best_loss:
        return replace(state, best=state.step, best_loss=validation_loss, worse=0)
    return replace(state, worse=state.worse + 1)


def no_better(state: checkpoints.State, params: FinetuneParams) -> bool:
    """Whether patience is at its end."""
    return bool(params.patience) and state.worse >= params.patience


def speed(model: Transformer, rows: Sequence[Row], split: Split, params: FinetuneParams, seconds: float, rate: float) -> dict[str, float]:
    """Tokens per second, and model FLOPs per second as a share of what matrix products alone reach on this machine (MFU)."""
    tokens = sum(piece.stop - piece.start for row in rows for piece in row)
    return {"tokens_per_second": tokens / seconds, "mfu": training_work(model, rows, split, params) / seconds / rate}


def training_work(model: Transformer, rows: Sequence[Row], split: Split, params: FinetuneParams) -> float:
    """Model FLOPs of a step on these rows."""
    sizes = [piece.stop - piece.start for row in rows for piece in row]
    return training_flops(
        model.config,
        tokens=sum(sizes),
        supervised=supervised_in(rows, split),
        attended=sum(n * (n + 1) / 2 for n in sizes),
        frozen=params.mode not in ("full", "all_but_embeddings"),
    )
