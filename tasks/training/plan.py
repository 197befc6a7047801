"""What a fine-tuning run will need: memory by part, the GPUs that have it, time and energy.

    python -m tasks.training plan --size llama-3.1-8b --mode lora --gpus 1 --seq 2048

The rest comes from params.yaml, the base model and the shards of this directory. Only arithmetic (cost.py): tests compare the memory
with measured peaks; the time is as good as the MFU that is given. The row of this machine has its measured rate of matrix products.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint.config import read_config
from model.config import SIZES, LlamaConfig
from model.precision import use_bf16
from tasks.corpus.shards.format import open_split
from tasks.runtime.artifacts import BASE, SHARDS
from tasks.runtime.errors import did_you_mean
from tasks.runtime.params import PARAMS, read_section
from tasks.runtime.record import processor
from tasks.runtime.words import duration
from tasks.training.cost import work_per_token
from tasks.training.hardware import matmul_rate, memory_of
from tasks.training.length import MAX_PACKED, SHARE_OF_PEAK, with_steps
from tasks.training.packing import consumed, epoch_tokens
from tasks.training.params import FinetuneParams, TrainingMode
from tasks.training.preflight import RUNTIME, Machine

ENOUGH_TOKENS = 256  # in a product on a CPU; with more it may be a third faster, in float32, but those of a large model take half a minute
# Shares of the data sheet's rate that training reached on an H100 SXM (bench/results); other GPUs are taken to reach as much.
MFU_IN_FULL, MFU_OF_ADAPTERS, MFU_IN_4_BITS = 0.36, 0.44, 0.19
SHOWN: dict[str, dict[str, Any]] = {
    "full": {"mode": "full", "optimizer": "adamw", "weights": "float32"},
    "full, 8 bits": {"mode": "full", "optimizer": "adamw_8bit", "weights": "bfloat16"},
    "lora": {"mode": "lora", "weights": "float32"},
    "qlora": {"mode": "qlora", "weights": "float32"},
}
ROW = 2048  # tokens of the rows that are counted where rows are


@dataclass(frozen=True)
class Gpu:
    """From its maker's data sheet."""

    memory: float  # bytes
    flops: float  # of dense bfloat16 products with float32 sums, per second
    watts: float


GPUS = {
    "RTX 4060 Ti": Gpu(16e9, 88e12, 165),
    "RTX 3090": Gpu(24e9, 71e12, 350),
    "RTX 4090": Gpu(24e9, 165e12, 450),
    "L4": Gpu(24e9, 121e12, 72),
    "A100 40GB": Gpu(40e9, 312e12, 400),
    "L40S": Gpu(48e9, 362e12, 350),
    "A100 80GB": Gpu(80e9, 312e12, 400),
    "H100 SXM": Gpu(80e9, 989e12, 700),
    "H200 SXM": Gpu(141e9, 989e12, 700),
    "B200": Gpu(180e9, 2250e12, 1000),
    "MI300X": Gpu(192e9, 1307e12, 750),
}


def report(config: LlamaConfig, params: FinetuneParams, *, gpus: int, mfu: float | None, shards: Path) -> str:
    """The plan as text: memory by part, then a line per GPU with time and energy, then what else would fit each."""
    mfu, layers = mfu or measured_mfu(params.training_mode), config.n_layers
    any_machine = Machine("cuda", gpus, math.inf, use_bf16=True)
    ends = [any_machine.needed(config, params, checkpointed_layers=count) for count in (0, layers)]
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "peak")
    lines = [f"memory on each of {gpus} GPU{'s' if gpus > 1 else ''}, GB", f"{'layers computed twice':24}{'none':>8}{'all':>8}"]
    lines += [f"  {part:22}" + "".join(f"{getattr(end, part) / 1e9:8.2f}" for end in ends) for part in parts]
    lines += [f"  {'runtime, besides':22}" + 2 * f"{RUNTIME['cuda'] / 1e9:8.2f}"]
    spans = {"these steps": params.steps * params.batch * params.seq_len}
    if epoch := _epoch(shards, params):
        spans["one epoch"] = epoch
    lines += ["", f"{'':12}{'memory':>10}{'layers twice':>15}{'tokens/s':>12}" + "".join(f"{span:>24}" for span in spans)]
    for name, gpu in GPUS.items():
        line = f"{name:12}{gpu.memory / 1e9:7.0f} GB"
        twice = Machine("cuda", gpus, gpu.memory, use_bf16=True).checkpointed_layers(config, params)
        if twice is None:
            lines.append(f"{line}{'too small':>15}")
            continue
        speed = gpus * gpu.flops * mfu / work_per_token(config, params, twice=twice)
        hours = [tokens / speed / 3600 for tokens in spans.values()]
        cells = "".join(f"{h:10.2f} h{h * gpu.watts * gpus / 1000:8.1f} kWh" for h in hours)
        lines.append(f"{line}{f'{twice} of {layers}':>15}{speed:12,.0f}{cells}")
    lines += ["", *_on_this_machine(config, params, spans), "", *_what_fits(config, params, gpus=gpus)]
    lines += ["", f"at an MFU of {mfu}, of the bfloat16 rate in the makers' data sheets and their highest power draw"]
    lines.append(f"these steps: {params.steps} of {params.batch} x {params.seq_len} tokens{_consumed(shards, params) if epoch else ''}")
    lines.append(f"one epoch: {epoch:,} tokens, as {shards} has them" if epoch else f"{shards} is not there: run 'dvc repro shard'")
    return "\n".join(lines)


def _on_this_machine(config: LlamaConfig, params: FinetuneParams, spans: Mapping[str, int]) -> list[str]:
    """The row of the machine that runs this, whose rate of matrix products is measured in a second or two."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bfloat16, memory = use_bf16(device, params.precision), memory_of(device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    name = f"this machine ({kind}, {'bfloat16' if bfloat16 else 'float32'}, {memory / 1e9:.0f} GB)"
    layers = Machine(device.type, 1, memory, use_bf16=bfloat16).checkpointed_layers(config, params)
    if layers is None:
        return [f"{name}: too small"]
    tokens = params.micro_batch * params.seq_len
    rate = matmul_rate(config, tokens if device.type == "cuda" else min(tokens, ENOUGH_TOKENS), device, use_bf16=bfloat16) * SHARE_OF_PEAK
    speed = rate / work_per_token(config, params, twice=layers)
    times = ", ".join(f"{span} about {duration(tokens / speed)}" for span, tokens in spans.items())
    return [f"{name}:", f"  {layers} of {config.n_layers} layers twice, {speed:,.0f} tokens/s; {times}"]


def measured_mfu(mode: TrainingMode) -> float:
    """The share that training in such a mode reached."""
    if mode.quantized:
        return MFU_IN_4_BITS
    return MFU_OF_ADAPTERS if mode.base_frozen else MFU_IN_FULL


def _what_fits(config: LlamaConfig, params: FinetuneParams, *, gpus: int) -> list[str]:
    """Per GPU and way to train, layers computed twice as needed: the longest row, and the most rows of ROW tokens in a pass."""
    ways = {name: way for name, way in SHOWN.items() if gpus == 1 or way.get("weights") == "float32"}
    lines = [f"{'what fits':22}" + "".join(f"{name:>22}" for name in ways)]
    lines += [f"{'':22}" + "".join(f"{'longest row':>13}{f'x {ROW}':>9}" for _ in ways)]
    for name, gpu in GPUS.items():
        machine = Machine("cuda", gpus, gpu.memory, use_bf16=True)

        def largest(values: list[int], change: Callable[[int], dict[str, Any]], way: dict[str, Any], machine: Machine = machine) -> str:
            changes = way | {"activation_checkpointing": "auto"}
            allowed = (v for v in values if machine.checkpointed_layers(config, params.model_copy(update=changes | change(v))) is not None)
            best = max(allowed, default=0)
            return f"{best:,}" if best else "-"

        lengths = [1 << n for n in range(8, 18) if 1 << n <= config.max_seq_len]
        rows = [1 << n for n in range(8)] if config.max_seq_len >= ROW else []
        cells = [
            f"{largest(lengths, lambda n: {'seq_len': n, 'batch': gpus, 'micro_batch': 1}, way):>13}"
            f"{largest(rows, lambda n: {'seq_len': ROW, 'batch': n * gpus, 'micro_batch': n}, way):>9}"
            for way in ways.values()
        ]
        lines.append(f"{name:12}{gpu.memory / 1e9:7.0f} GB" + "".join(cells))
    return lines


def _consumed(shards: Path, params: FinetuneParams) -> str:
    """What these steps consume: packed as training packs them or, of many, as if every row were full."""
    train_split, rows = open_split(shards, "train"), params.steps * params.batch
    if rows > MAX_PACKED:
        return f", at most {rows * params.seq_len / epoch_tokens(train_split, params.seq_len):.2f} epochs"
    (part,) = consumed(train_split, params.seq_len, seed=params.seed, rows=[rows])
    share = part.tokens / epoch_tokens(train_split, params.seq_len)
    documents = f"{len(part.documents):,} of {len(train_split):,} documents"
    return f"; they come to {documents}, {part.tokens:,} tokens ({part.supervised:,} with loss), {100 * share:.2g} % of an epoch"


def _epoch(shards: Path, params: FinetuneParams) -> int:
    """Tokens of an epoch of the train split; 0 where there is none."""
    if not shards.exists():
        return 0
    return epoch_tokens(open_split(shards, "train"), params.seq_len)


def plan(
    *, size: str = "", gpus: int = 1, mfu: float | None = None, shards: Path = SHARDS, params_file: Path = PARAMS, changes: dict[str, Any]
) -> str:
    """The report for ``finetune`` of a file of params with ``changes``, for a model size by name or else the base model of this directory.

    ``ValueError`` where a size, ``gpus`` or ``mfu`` makes no sense or the rows are longer than the context.
    """
    if size and size not in SIZES:
        raise ValueError(f"there is no size {size!r}{did_you_mean(size, SIZES) or '; there are ' + ', '.join(sorted(SIZES))}")
    changes |= {"epochs": 0.0} if changes.get("steps") else {"steps": 0} if changes.get("epochs") else {}
    params = FinetuneParams.model_validate(read_section("finetune", FinetuneParams, params_file).model_dump() | changes)
    if params.epochs and not shards.exists():
        raise ValueError(f"how many steps {params.epochs:g} epochs are stands in {shards}: run 'dvc repro shard', or give --steps")
    params = with_steps(params, shards)
    if gpus < 1 or (mfu is not None and not 0 < mfu <= 1):
        raise ValueError("--gpus must be at least 1, --mfu above 0 and at most 1")
    config = SIZES[size] if size else read_config(BASE)
    if params.seq_len > config.max_seq_len:
        raise ValueError(f"--seq is {params.seq_len}, the model's context only {config.max_seq_len}")
    return report(config, params, gpus=gpus, mfu=mfu, shards=shards)
