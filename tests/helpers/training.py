"""Params, shards and runs of training on tiny parts."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.builders import TINY, random_model, sentences, write_cleaning_report
from model.llama import Transformer
from tasks import finetune as ft
from tasks.corpus.documents import Document, content_id, write_documents
from tasks.corpus.params import ShardParams
from tasks.corpus.shards.format import Entry, Split
from tasks.shard import shard
from tasks.training import optim, packing
from tasks.training.checkpoints import State
from tasks.training.distributed import ProcessGroup
from tasks.training.packing import Batch, LoaderState, training_rows
from tasks.training.params import AdapterParams, FinetuneParams

SINGLE_PROCESS = ProcessGroup(0, 1, torch.device("cpu"))


PARAMS = FinetuneParams(
    mode="full",
    adapter=AdapterParams(rank=4, alpha=8.0, targets=("q_proj", "down_proj")),
    seed=1,
    seq_len=64,
    batch=4,
    micro_batch=2,
    steps=8,
    schedule="cosine",
    warmup=2,
    decay=0.2,
    lr=3e-3,
    lr_floor=0.1,
    beta1=0.9,
    beta2=0.95,
    weight_decay=0.01,
    clip=1.0,
    precision="float32",
    compile=False,
    activation_checkpointing=False,
    validate_every=4,
    validation_tokens=200,
    keep="last",
    patience=0,
    checkpoint_every=3,
)


def write_shards_of(folder: Path, base: Path, count: int, *, lengthy: bool = False) -> Path:
    """Shards of made-up documents, a fifth of them for validation; ``lengthy``: and one that is longer than a row."""

    def document(id_: str, question: str, answer: str, split: str) -> Document:
        return Document(content_id(id_), question, answer, "made-up", "made-up", id_, id_, split=split)

    documents = [
        document(str(n), q, a, "test" if n == 1 else "train" if n % 5 else "validation") for n, (q, a) in enumerate(sentences(count))
    ]
    if lengthy:
        documents.append(document("long", "What is long?", " ".join(a for _, a in sentences(20)), "train"))
    write_documents(documents, folder / "documents")
    (folder / "variants").mkdir()
    write_cleaning_report(folder / "cleaning")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where it keeps its cache
        paths = [folder / name for name in ("documents", "cleaning", "variants", "shards", "report")]
        shard(base, *paths, params=ShardParams(loss_on="answer", max_tokens=2048))
    return folder / "shards"


def in_memory(lengths: Sequence[int], without_loss: Sequence[int] = ()) -> Split:
    """A split of random tokens that all carry loss but those of some documents."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    loss = np.ones(starts[-1], np.uint8)
    for number in without_loss:
        loss[starts[number] : starts[number + 1]] = 0
    entries = [Entry(f"document{n}", "kind", "source", 1) for n in range(len(lengths))]
    return Split([np.arange(starts[-1], dtype=np.uint32) % 99], [loss], [starts], entries, np.array([0, len(lengths)]))


def rows_of(split: Split, count: int) -> list[packing.PackedRow]:
    return [row for row, _ in islice(training_rows(split, 64, seed=1), count)]


def run(parts: tuple[Path, Path], folder: Path, params: FinetuneParams) -> tuple[bytes, list[dict[str, float]]]:
    folder.mkdir(exist_ok=True)
    here = Path.cwd()
    os.chdir(folder)  # .cache stands where the run does
    try:
        summary = ft.finetune(*parts, folder / "model", folder / "curves", params=params)
    finally:
        os.chdir(here)
    return (folder / "model" / "model.safetensors").read_bytes(), summary.history


KEY = "0" * 32


def trained_a_step(seed: int = 0) -> tuple[Transformer, torch.optim.Optimizer]:
    model = random_model(TINY, seed)
    optimizer = optim.make_optimizer(model.parameters(), PARAMS.model_copy(update={"lr": 1e-3, "weight_decay": 0.0}))
    model(torch.arange(20)[None]).square().mean().backward()
    optimizer.step()
    return model, optimizer


def state_at(step: int) -> State:
    return State(step=step, loader=LoaderState(1, 2, step))


CROSSED = PARAMS.model_copy(update={"batch": 8, "micro_batch": 1, "steps": 6, "validate_every": 3, "keep": "best"})


def segment_ids(batch: Batch) -> torch.Tensor:
    """[B, T]: the index of each token's segment in its row; padding counts as the last."""
    return (batch.packed.positions == 0).cumsum(1) - 1
