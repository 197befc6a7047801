"""Packing, loss, training and its resumption on tiny real parts."""

import math
import os
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, random_model, sentences, write_cleaning_report, write_tiny_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from model import checkpoint, loss, optim
from model.checkpoint import config_json
from tasks import finetune as ft
from tasks.documents import Document, content_id, write_documents
from tasks.finetune import FinetuneParams
from tasks.packing import Batch, batches, packed, pieces, stacked, training_rows
from tasks.shard import ShardParams, shard
from tasks.tokenfile import open_split

PARAMS = FinetuneParams(
    mode="full",
    adapter=ft.AdapterParams(rank=4, alpha=8.0, targets=("q_proj", "down_proj")),
    seed=1,
    seq_len=64,
    micro_batch=2,
    accumulate=2,
    steps=8,
    warmup=2,
    lr=3e-3,
    lr_floor=0.1,
    beta1=0.9,
    beta2=0.95,
    weight_decay=0.01,
    clip=1.0,
    precision="float32",
    validate_every=4,
    validation_tokens=200,
    checkpoint_every=3,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model and shards of made-up documents, one of them longer than a row."""
    folder = tmp_path_factory.mktemp("parts")
    base = write_tiny_checkpoint(folder / "base")
    documents = [
        Document(
            content_id(str(n)), q, a, "made-up", "made-up", str(n), str(n), split="test" if n == 1 else "train" if n % 5 else "validation"
        )
        for n, (q, a) in enumerate(sentences(60))
    ]
    documents.append(
        Document(
            content_id("long"), "What is long?", " ".join(a for _, a in sentences(20)), "made-up", "made-up", "long", "1", split="train"
        )
    )
    write_documents(documents, folder / "documents")
    (folder / "variants").mkdir()
    write_cleaning_report(folder / "cleaning")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where it keeps its cache
        shard(
            base,
            folder / "documents",
            folder / "cleaning",
            folder / "variants",
            folder / "shards",
            folder / "report",
            params=ShardParams(loss_on="answer", max_tokens=2048),
        )
    return base, folder / "shards"


def test_every_supervised_token_stands_in_an_epoch_once(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    lengths = split.lengths()
    assert lengths.max() > PARAMS.seq_len
    rows = list(packed(pieces(range(len(split)), lengths, PARAMS.seq_len), PARAMS.seq_len))
    seen: Counter[tuple[int, int]] = Counter()
    for batch in batches(iter(rows), split, PARAMS.seq_len, 3):
        assert batch.tokens.shape[1] == PARAMS.seq_len
    for row in rows:
        assert sum(p.stop - p.start for p in row) <= PARAMS.seq_len
        for piece in row:
            seen.update((piece.document, t) for t in range(piece.start + 1, piece.stop))
    assert set(seen.values()) == {1}
    assert set(seen) == {(d, t) for d in range(len(split)) for t in range(1, lengths[d])}
    supervised = sum(int(stacked([row], split, PARAMS.seq_len).supervised.sum()) for row in rows)
    assert supervised == sum(int(split.document(d)[1].sum()) for d in range(len(split)))


def test_epochs_are_shuffled_differently_and_rows_can_be_skipped_to() -> None:
    lengths = np.array([10, 20, 30, 40, 50, 60] * 5)
    rows = list(islice(training_rows(lengths, 64, seed=3), 60))
    assert rows == list(islice(training_rows(lengths, 64, seed=3), 60))
    assert rows[20:] == list(islice(training_rows(lengths, 64, seed=3), 20, 60))
    assert rows != list(islice(training_rows(lengths, 64, seed=4), 60))


def test_rows_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(20, 300, 3000)
    rows = list(packed(pieces(range(3000), lengths, 512), 512))
    assert lengths.sum() / (len(rows) * 512) > 0.97


def test_loss_and_gradients_are_those_of_transformers() -> None:
    model = random_model(TINY)
    ids = torch.randint(TINY.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    supervised = torch.rand(2, 40, generator=torch.Generator().manual_seed(2)) < 0.5
    supervised[:, 0] = False
    reference = LlamaForCausalLM(LlamaConfig(**config_json(TINY, torch.float32)))
    reference.load_state_dict({(n if n.startswith("lm_head") else f"model.{n}"): p for n, p in model.state_dict().items()})
    theirs = reference(ids, labels=ids.masked_fill(~supervised, -100)).loss
    theirs.backward()
    ours = loss.token_losses(model.hidden(ids), model.lm_head, ids, supervised).mean()
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    gradients = {n.removeprefix("model."): p.grad for n, p in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        ours_of, theirs_of = parameter.grad, gradients[name]
        assert ours_of is not None and theirs_of is not None
        assert (ours_of - theirs_of).norm() <= 1e-4 * theirs_of.norm() + 1e-9, name


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_micro_batches_give_the_gradients_of_the_whole(parts: tuple[Path, Path], accumulate: int) -> None:
    split = open_split(parts[1], "train")
    rows = list(islice(training_rows(split.lengths(), 64, seed=1), 8))

    def gradients(batch: list[Batch]) -> tuple[float, list[torch.Tensor]]:
        model = random_model(TINY)
        value = ft.backward(model, batch, "float32")
        return value, [p.grad for p in model.parameters() if p.grad is not None]

    size = len(rows) // accumulate
    whole, of_whole = gradients([stacked(rows, split, 64)])
    parted, of_parts = gradients([stacked(rows[i : i + size], split, 64) for i in range(0, len(rows), size)])
    assert abs(whole - parted) < 1e-5
    for a, b in zip(of_whole, of_parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def run(parts: tuple[Path, Path], folder: Path, params: FinetuneParams) -> tuple[bytes, list[dict[str, float]]]:
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)  # .cache stands where the run does
    try:
        summary = ft.finetune(*parts, folder / "model", params=params)
    finally:
        os.chdir(here)
    return (folder / "model" / "model.safetensors").read_bytes(), summary.history


@pytest.mark.parametrize("mode", optim.MODES)
def test_a_mode_trains_its_parameters_and_no_others(parts: tuple[Path, Path], tmp_path: Path, mode: str) -> None:
    run(parts, tmp_path / "run", PARAMS.model_copy(update={"mode": mode, "steps": 3, "weight_decay": 0.0}))
    before, after = checkpoint.load(parts[0]), checkpoint.load(tmp_path / "run" / "model")
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(a, b)}
    adapted = {n for n, _ in before.named_parameters() if ".q_proj." in n or ".down_proj." in n}
    assert changed == (adapted if mode in ft.ADAPTED else {n for n, _ in before.named_parameters() if optim.MODES[mode](n)})


def test_training_learns_what_it_reads(parts: tuple[Path, Path], tmp_path: Path) -> None:
    _, history = run(parts, tmp_path / "run", PARAMS.model_copy(update={"steps": 60, "lr": 1e-2}))
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert history[-1]["validation_loss"] < history[3]["validation_loss"]


def test_the_schedule_rises_to_the_peak_and_falls_to_the_floor() -> None:
    rates = [optim.warmup_cosine(s, steps=20, warmup=4, floor=0.1) for s in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and math.isclose(rates[-1], 0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))


def test_a_gradient_that_is_not_finite_stops_before_the_update_and_names_the_documents(parts: tuple[Path, Path]) -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    before = model.layers[0].mlp.up_proj.weight.clone()  # type: ignore[union-attr, operator]
    optimizer = optim.adamw(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    split = open_split(parts[1], "train")
    with pytest.raises(ValueError, match=r"not finite at step 1; documents in the batch: \w+"):
        ft.train_steps(model, optimizer, split, open_split(parts[1], "validation"), [], PARAMS, [])
    assert torch.equal(before, model.layers[0].mlp.up_proj.weight)  # type: ignore[union-attr, arg-type]


def test_rows_longer_than_the_context_are_refused(parts: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="finetune.seq_len is 512, the model's context only 256"):
        ft.check_fit(*parts, PARAMS.model_copy(update={"seq_len": 512}))


def test_shards_of_another_tokenizer_are_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_tiny_checkpoint(tmp_path / "other", replace(TINY, vocab_size=300))
    with pytest.raises(ValueError, match="another tokenizer or chat template"):
        ft.check_fit(other, parts[1], PARAMS)
