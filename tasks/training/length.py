"""How long training is: steps where params say epochs, and what the steps come to, in tokens, epochs and time."""

import sys
from math import ceil
from pathlib import Path

from model.config import LlamaConfig
from tasks.corpus.shards.format import open_split
from tasks.runtime.words import duration
from tasks.training.cost import work_per_token
from tasks.training.packing import epoch_rows, epoch_tokens
from tasks.training.params import FinetuneParams

# Of the rate of bare matrix products, what training reaches; 0.45 to 0.65 were measured on two cores, in bfloat16 and float32.
SHARE_OF_PEAK = 0.5
MAX_PACKED = 10_000  # rows: packing them takes seconds
FORWARD = 1 / 3  # of the work of a pass with its gradients


def with_steps(params: FinetuneParams, shards: Path) -> FinetuneParams:
    """The params with the steps that their epochs come to: the rows of the first epoch, as they are packed, times ``epochs``.

    Nothing but the shards, ``seed``, ``seq_len`` and ``batch`` decides them, so that a run that was cut off gets the same.
    """
    if not params.epochs:
        return params
    rows = epoch_rows(open_split(shards, "train"), params.seq_len, seed=params.seed, limit=sys.maxsize)
    return params.model_copy(update={"steps": ceil(rows * params.epochs / params.batch), "epochs": 0.0})


def describe(params: FinetuneParams, shards: Path) -> str:
    """The steps in words, with their share of an epoch. ``params``: with steps."""
    per_step = params.batch * params.seq_len
    share = 100 * params.steps * params.batch / _rows_of_an_epoch(params, shards)
    of_epoch = f"{share:.2g} % of an epoch" if share < 100 else f"{share / 100:.3g} epochs"
    return f"{params.steps:,} steps of {per_step:,} tokens, at most {params.steps * per_step:,} tokens, {of_epoch}"


def _rows_of_an_epoch(params: FinetuneParams, shards: Path) -> float:
    """As they are packed or, of many, as if every row were full, which nearly all of many are."""
    train_split = open_split(shards, "train")
    rows = epoch_rows(train_split, params.seq_len, seed=params.seed, limit=MAX_PACKED)
    return rows if rows < MAX_PACKED else epoch_tokens(train_split, params.seq_len) / params.seq_len


def expected_seconds(config: LlamaConfig, params: FinetuneParams, *, first: int, validation_rows: int, peak_rate: float) -> float:
    """Seconds that the steps after ``first`` take, with their validations, from the rate of bare matrix products (FLOPs per second)."""
    rows = params.batch + (0.5 if params.unlikelihood else 0.0)  # a step's loops are half a row
    steps = params.steps - first
    validations = params.steps // params.validate_every - first // params.validate_every + bool(params.steps % params.validate_every)
    work = work_per_token(config, params, twice=0) * params.seq_len
    return (steps * rows + FORWARD * validations * validation_rows) * work / (peak_rate * SHARE_OF_PEAK)


def announce(config: LlamaConfig, params: FinetuneParams, *, first: int, validation_rows: int, peak_rate: float) -> str:
    """The sentence with the time that the steps after ``first`` will take here."""
    seconds = expected_seconds(config, params, first=first, validation_rows=validation_rows, peak_rate=peak_rate)
    return f"training alone: about {duration(seconds)} here, by its rate of matrix products"
