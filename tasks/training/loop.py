"""The training loop, in one process or in several that torchrun starts, each of them ``python -m tasks.training worker``.

    rows = training_rows(…)                    packing.py: shuffled documents, packed; every process takes its part of each step's
    for step: for micro-batch: loss.backward() loss.py: only where there is loss, weighted by token
              clip, schedule, AdamW            optim.py
              now and then: validate, save     checkpoints.py; the metrics of each step go to step_metrics.py

The weights are trained in float32 unless params say otherwise; the matrix products run in bfloat16 where the processor has them. Several
processes share weights, gradients and moments (FSDP2). It knows nothing of records or of the stage.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from model.checkpoint.config import read_config
from model.checkpoint.load import load_model, weights_dtype
from model.llama import Transformer
from model.loss import token_losses, total_loss, total_unlikelihood
from model.precision import Precision, autocast, use_bf16
from tasks.corpus.shards.format import Shards, Split
from tasks.runtime.processes import told_to_stop
from tasks.runtime.progress import progress
from tasks.training import checkpoints, optim
from tasks.training.cost import training_flops
from tasks.training.distributed import ProcessGroup, reshard, shard
from tasks.training.hardware import Energy, matmul_rate, memory_mb, memory_of
from tasks.training.length import announce
from tasks.training.packing import Batch, PackedRow, collate, count_supervised, loop_batch, sample, training_rows
from tasks.training.params import FinetuneParams
from tasks.training.preflight import Machine, fit
from tasks.training.prepare import check_gpus, is_matrix, load_base_with_adapter, prepare_for_training, set_determinism
from tasks.training.step_metrics import StepMetricsLog


class OutOfMemory(ValueError):
    """No smaller pass is left to try."""


class StoppedError(ValueError):
    """A signal stopped training; a state to resume from was saved."""


def train(base: Path, shards: Path, key: str, params: FinetuneParams, group: ProcessGroup) -> None:
    """Train to the last step and save its state under ``key``; resume where an earlier run of this key saved one."""
    set_determinism(params)
    bfloat16, device = use_bf16(group.device, params.precision), group.device
    check_gpus(group, params)
    # Which layers are computed twice moves bits, and what others leave of a card changes.
    memory = min(group.gather(memory_of(device, whole=params.deterministic)))
    checkpointed_layers = fit(read_config(base), params, Machine(device.type, group.world_size, memory, use_bf16=bfloat16))
    opened = Shards(shards)
    train_split, held_out = opened.open("train"), opened.open("validation")
    single_process = group.single_process
    if single_process:
        model = load_base_with_adapter(base, params, device=device, frozen=torch.bfloat16 if bfloat16 else torch.float32)
    else:
        each_layer = partial(shard, group, params.precision)
        model = load_base_with_adapter(base, params, device=torch.device("cpu"), quantize_on=device, each_layer=each_layer)
        model = shard(group, params.precision, model)
    model = prepare_for_training(model, params, group.device, checkpointed_layers=checkpointed_layers, single_process=single_process)
    optimizer = optim.make_optimizer(checkpoints.trained(model).values(), params)
    began = time.perf_counter()
    state = checkpoints.resume(key, model, optimizer)
    if state.step and group.rank == 0:
        seconds = time.perf_counter() - began
        print(f"finetune: going on after step {state.step} of {params.steps}, loaded in {seconds:.1f} s", flush=True)
    validation = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    log = StepMetricsLog(checkpoints.folder_of(key)) if group.rank == 0 else None
    with told_to_stop() as stop:
        train_steps(model, optimizer, train_split, held_out, validation, params, group, state=state, key=key, log=log, stop=stop)


def train_steps(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    train_split: Split,
    held_out: Split,
    validation: list[PackedRow],
    params: FinetuneParams,
    group: ProcessGroup,
    *,
    state: checkpoints.State,
    key: str = "",
    log: StepMetricsLog | None = None,
    stop: Sequence[int] = (),
) -> checkpoints.State:
    """Train from ``state`` on; returns the last state. With a ``key`` states are saved.

    ``stop`` is not empty once a signal came: ``StoppedError`` then, after the state was saved.
    """
    peak_rate = _peak_rate(model, params, group)
    energy = Energy(group.device, before=log.all[-1]["energy_wh"] if log and log.all else 0.0)
    rows = training_rows(train_split, params.seq_len, seed=params.seed, start=state.loader)
    if key and group.rank == 0 and state.step < params.steps:
        expected = announce(model.config, params, first=state.step, validation_rows=len(validation), peak_rate=peak_rate)
        print(f"finetune: {expected}", flush=True)
    bar = progress(total=params.steps, unit="steps", desc="fine-tuning", done=state.step) if group.rank == 0 else None
    for step in range(state.step + 1, params.steps + 1):
        if out_of_patience(state, params):
            break
        began = time.perf_counter()
        batch, loader_states = zip(*islice(rows, params.batch), strict=True)
        metrics = update(model, optimizer, step, batch, train_split, params, group)
        params = params.model_copy(update={"micro_batch": int(metrics.get("micro_batch", params.micro_batch))})
        state = replace(state, step=step, loader=loader_states[-1], world_size=group.world_size)
        metrics |= speed(model, batch, train_split, params, time.perf_counter() - began, peak_rate)
        metrics |= {"memory_mb": memory_mb(group.device), "energy_wh": energy.watt_hours() * group.world_size}
        last = step == params.steps
        if step % params.validate_every == 0 or last:
            metrics["validation_loss"] = mean_loss(model, held_out, validation, params, group)
            state = update_best(state, metrics["validation_loss"])
            last = last or out_of_patience(state, params)
            if key and state.best_step == step and not last:
                checkpoints.save_best(key, step, model)
        if log and bar is not None:
            log.append(metrics)
            bar.note(f"loss {metrics['loss']:.3f}, {metrics['tokens_per_second']:,.0f} tokens/s")
            bar.update()
        stopping = group.sum(float(len(stop)))[0] > 0  # all processes together, whichever got the signal
        if key and (step % params.checkpoint_every == 0 or last or stopping):
            if log:
                log.sync()
            checkpoints.save(key, state, model, optimizer)
        if stopping and not last:
            raise StoppedError(f"stopped after step {step} of {params.steps} by a signal; the next run goes on from there")
    if bar is not None:
        bar.close()
        if state.step < params.steps:
            print(f"finetune: no lower validation loss in {params.patience} validations; ended after step {state.step}", flush=True)
    return state


def _peak_rate(model: Transformer, params: FinetuneParams, group: ProcessGroup) -> float:
    """Operations per second of bare matrix products over all processes, as measured on this one."""
    in_bf16 = use_bf16(group.device, params.precision)
    return matmul_rate(model.config, params.micro_batch * params.seq_len, group.device, use_bf16=in_bf16) * group.world_size


def update(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    step: int,
    rows: Sequence[PackedRow],
    split: Split,
    params: FinetuneParams,
    group: ProcessGroup,
) -> dict[str, float]:
    """One step on these rows; returns its loss, learning rate and gradient norm, and the micro-batch where memory asked for a smaller one.

    ``ValueError`` where one is not finite, before the weights change.
    """
    lr = params.lr * optim.lr_factor(
        params.schedule, step - 1, steps=params.steps, warmup=params.warmup, floor=params.lr_floor, decay=params.decay
    )
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr
    smaller = dict[str, float]()
    while True:
        try:
            losses = gradients(model, step, rows, split, params, group)
            break
        except torch.OutOfMemoryError:
            pass
        # Here, where the exception no longer holds the tensors of its frames.
        params = with_less_memory(model, params, group)
        smaller = {"micro_batch": float(params.micro_batch)}
    # The one time in a step that the host waits for the device.
    norm, loss, *loop_loss = torch.stack([gradient_norm(model, params.clip).double(), *losses]).tolist()
    loss = group.sum(loss)[0]
    if not (norm < float("inf")):
        documents = sorted({split.entries[segment.document].id for row in rows for segment in row})
        raise ValueError(f"loss or gradient is not finite at step {step}; documents in the batch: {', '.join(documents)}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    metrics = {"step": float(step), "loss": loss, "lr": lr, "gradient_norm": norm}
    return metrics | ({"loop_loss": loop_loss[0]} if loop_loss else {}) | smaller


def gradients(
    model: Transformer, step: int, rows: Sequence[PackedRow], split: Split, params: FinetuneParams, group: ProcessGroup
) -> list[torch.Tensor]:
    """Gradients of everything that a step minimizes; returns its parts."""
    losses = [backward(model, rows, split, params, group)]
    if params.unlikelihood:
        losses.append(backward_loops(model, step, rows, split, params, group))
    return losses


def with_less_memory(model: Transformer, params: FinetuneParams, group: ProcessGroup) -> FinetuneParams:
    """Params with half the micro-batch, or a model that computes all layers twice, after a pass that the GPU had no memory for. Its
    gradients are dropped.

    ``OutOfMemory`` with what to change where neither is left, where other processes would wait, or where the bits must stay.
    """
    layers, rows = len(model.layers), params.micro_batch
    if params.deterministic or not group.single_process or (rows == 1 and not _can_checkpoint(model, params)):
        advice = "lower finetune.micro_batch or seq_len" if rows > 1 else "lower finetune.seq_len"
        raise OutOfMemory(
            f"the GPU has no memory for {rows} x {params.seq_len} tokens a pass; {advice}"
            + ("" if model.checkpointed_layers == layers else ", or set activation_checkpointing: true")
        )
    if _can_checkpoint(model, params):
        model.checkpointed_layers = layers
        print("finetune: the GPU has no memory for a pass; going on with all layers computed twice", flush=True)
    else:
        params = params.model_copy(update={"micro_batch": rows // 2})
        print(f"finetune: the GPU has no memory for {rows} rows a pass; going on with {params.micro_batch}", flush=True)
    model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    return params


def _can_checkpoint(model: Transformer, params: FinetuneParams) -> bool:
    return params.activation_checkpointing == "auto" and model.checkpointed_layers < len(model.layers)


def backward(model: Transformer, rows: Sequence[PackedRow], split: Split, params: FinetuneParams, group: ProcessGroup) -> torch.Tensor:
    """Gradients of the mean loss per supervised token over all rows of a step; returns this process's part of that mean, in nats.

    Every process runs the same number of passes, some on empty rows where the rows do not divide evenly.
    """
    supervised = count_supervised(rows, split)
    total = torch.zeros((), dtype=torch.float64, device=group.device)
    for batch in micro_batches(rows, split, params, group):
        # FSDP averages gradients over the processes; here they are summed.
        loss = batch_loss(total_loss, model, batch.to(group.device), params.precision) / supervised
        (loss * group.world_size).backward()
        total += loss.detach()
    return total


def backward_loops(
    model: Transformer, step: int, rows: Sequence[PackedRow], split: Split, params: FinetuneParams, group: ProcessGroup
) -> torch.Tensor:
    """Gradients of ``unlikelihood`` times the mean of -log(1 - p) over tokens of loops, made of the step's own rows.

    Returns that mean, in nats. Greedy answers of a model that was trained briefly on lists fall into loops (Xu et al. 2022,
    arXiv:2206.02369); this is against them. One row of half a length, the same in every process, so that each runs the same pass.
    """
    batch = loop_batch(rows, split, params.seq_len // 2, seed=params.seed, step=step).to(group.device)
    loss = batch_loss(total_unlikelihood, model, batch, params.precision) / max(1, len(batch.targets))
    (loss * params.unlikelihood).backward()
    return loss.detach().double()


def micro_batches(rows: Sequence[PackedRow], split: Split, params: FinetuneParams, group: ProcessGroup) -> Iterator[Batch]:
    """This process's part of a step's rows."""
    own = list(rows[group.rank :: group.world_size])
    per_process = -(-len(rows) // group.world_size)
    own += [[]] * (per_process - len(own))
    for start in range(0, per_process, params.micro_batch):
        yield collate(own[start : start + params.micro_batch], split, params.seq_len)


def gradient_norm(model: Transformer, clip: float) -> torch.Tensor:
    """The norm of all gradients together, before they are scaled down to ``clip`` where it is larger."""
    norm = torch.nn.utils.clip_grad_norm_(list(checkpoints.trained(model).values()), clip)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def mean_loss(model: Transformer, split: Split, rows: list[PackedRow], params: FinetuneParams, group: ProcessGroup) -> float:
    """Mean loss in nats per supervised token of these rows."""
    losses = [
        batch_loss(token_losses, model, batch.to(group.device), params.precision) for batch in micro_batches(rows, split, params, group)
    ]
    reshard(model)
    total, count = group.sum(float(torch.cat(losses).double().sum()), float(sum(map(len, losses))))
    return total / count


def validation_loss(checkpoint: Path, shards: Path, params: FinetuneParams, device: torch.device) -> float:
    """The loss that training validates with, of a checkpoint directory."""
    held_out, group = Shards(shards).open("validation"), ProcessGroup(0, 1, device)
    rows = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    matrices = weights_dtype(checkpoint) if device.type == "cuda" else torch.float32
    model = load_model(checkpoint, device=device, dtype=lambda name: matrices if is_matrix(name) else torch.float32)
    return mean_loss(model, held_out, rows, params, group)


def batch_loss(loss: Callable[..., torch.Tensor], model: Transformer, batch: Batch, precision: Precision) -> torch.Tensor:
    """A function of loss.py over the supervised tokens of a batch."""
    with autocast(batch.tokens.device, precision):
        hidden = model.hidden(batch.tokens, packed=batch.packed)
        return loss(hidden, model.lm_head, batch.tokens, batch.targets)


def update_best(state: checkpoints.State, validation_loss: float) -> checkpoints.State:
    """The state after a validation: a new best step, or one more validation without improvement."""
    if validation_loss < state.best_loss:
        return replace(state, best_step=state.step, best_loss=validation_loss, without_improvement=0)
    return replace(state, without_improvement=state.without_improvement + 1)


def out_of_patience(state: checkpoints.State, params: FinetuneParams) -> bool:
    """Whether ``patience`` validations in a row were without improvement."""
    return bool(params.patience) and state.without_improvement >= params.patience


def speed(
    model: Transformer, rows: Sequence[PackedRow], split: Split, params: FinetuneParams, seconds: float, peak_rate: float
) -> dict[str, float]:
    """Tokens per second, and model FLOPs per second as a share of what bare matrix products reach on this machine (MFU)."""
    tokens = sum(segment.stop - segment.start for row in rows for segment in row)
    return {"tokens_per_second": tokens / seconds, "mfu": training_work(model, rows, split, params) / seconds / peak_rate}


def training_work(model: Transformer, rows: Sequence[PackedRow], split: Split, params: FinetuneParams) -> float:
    """Model FLOPs of a step on these rows."""
    sizes = [segment.stop - segment.start for row in rows for segment in row]
    return training_flops(
        model.config,
        tokens=sum(sizes),
        supervised=count_supervised(rows, split),
        attended=sum(n * (n + 1) / 2 for n in sizes),
        frozen=params.training_mode.base_frozen,
    )
