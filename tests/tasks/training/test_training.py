"""Packing, loss, training and its resumption on tiny real parts."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from helpers.builders import TINY, random_model, write_tiny_checkpoint
from helpers.project import ROOT
from helpers.training import PARAMS, SINGLE_PROCESS, in_memory, rows_of, run, segment_ids
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from model import lora, loss
from model.checkpoint.config import config_json
from model.checkpoint.load import load_model
from tasks import finetune as ft
from tasks.corpus.shards.format import open_split
from tasks.training import loop, optim, packing
from tasks.training.checkpoints import State
from tasks.training.packing import LoaderState, collate, training_rows
from tasks.training.params import MODES, FinetuneParams, Mode, Schedule, Target


def test_every_supervised_token_stands_in_an_epoch_once(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    lengths = split.lengths()
    assert lengths.max() > PARAMS.seq_len
    rows = [row for row, _ in takewhile(lambda r: r[1].epoch == 0, training_rows(split, PARAMS.seq_len, seed=1))]
    seen: Counter[tuple[int, int]] = Counter()
    for row in rows:
        assert sum(p.stop - p.start for p in row) <= PARAMS.seq_len
        assert collate([row], split, PARAMS.seq_len).tokens.shape == (1, PARAMS.seq_len)
        for segment in row:
            seen.update((segment.document, t) for t in range(segment.start + 1, segment.stop))
    assert set(seen.values()) == {1}
    assert set(seen) == {(d, t) for d in range(len(split)) for t in range(1, lengths[d])}
    supervised = sum(len(collate([row], split, PARAMS.seq_len).targets) for row in rows)
    assert supervised == sum(int(split.document(d)[1].sum()) for d in range(len(split)))


def test_epochs_are_shuffled_differently_and_training_goes_on_from_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW", 7)
    split = in_memory([10, 20, 30, 40, 50, 60] * 5)

    def rows(count: int, seed: int = 3, start: LoaderState | None = None) -> list[tuple[packing.PackedRow, LoaderState]]:
        return list(islice(training_rows(split, 64, seed=seed, start=start), count))

    whole = rows(60)
    assert whole[-1][1].epoch >= 2
    assert whole == rows(60) != rows(60, seed=4)
    for done in range(60):
        assert rows(3, start=whole[done][1]) == rows(done + 4)[done + 1 :]


def test_rows_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(20, 300, 3000)
    rows = [row for row, _ in takewhile(lambda r: r[1].epoch == 0, training_rows(in_memory(lengths.tolist()), 512, seed=1))]
    assert lengths.sum() / (len(rows) * 512) > 0.97


def test_documents_without_loss_are_left_out_and_counted() -> None:
    split = in_memory([10, 200, 10, 10], without_loss=[0, 3])
    assert split.supervised().tolist() == [0, 200, 10, 0]
    rows = takewhile(lambda r: r[1].epoch == 0, training_rows(split, 64, seed=1))
    assert {segment.document for row, _ in rows for segment in row} == {1, 2}


def test_loss_and_gradients_are_those_of_transformers() -> None:
    model = random_model(TINY)
    ids = torch.randint(TINY.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    supervised = torch.rand(2, 40, generator=torch.Generator().manual_seed(2)) < 0.5
    supervised[:, 0] = False
    reference = LlamaForCausalLM(LlamaConfig(**config_json(TINY, torch.float32)))
    reference.load_state_dict({(n if n.startswith("lm_head") else f"model.{n}"): p for n, p in model.state_dict().items()})
    expected = reference(ids, labels=ids.masked_fill(~supervised, -100)).loss
    expected.backward()
    actual = loss.total_loss(model.hidden(ids), model.lm_head, ids, loss.target_positions(supervised)) / supervised.sum()
    actual.backward()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    gradients = {n.removeprefix("model."): p.grad for n, p in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        ours_of, theirs_of = parameter.grad, gradients[name]
        assert ours_of is not None and theirs_of is not None
        assert (ours_of - theirs_of).norm() <= 1e-4 * theirs_of.norm() + 1e-9, name


def test_other_documents_in_a_row_change_nothing_of_a_document(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    model = random_model(TINY)
    batch = collate(rows_of(split, 4), split, 64)
    second = segment_ids(batch) == 1
    changed = batch.tokens.where(second, (batch.tokens + 7) % TINY.vocab_size)
    logits, others = (model(tokens, packed=batch.packed)[second] for tokens in (batch.tokens, changed))
    assert torch.equal(logits, others)


def test_a_packed_documents_losses_are_those_it_has_alone(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    model = random_model(TINY)
    rows = rows_of(split, 6)

    def losses(rows: list[packing.PackedRow], length: int) -> torch.Tensor:
        return loop.batch_loss(loss.token_losses, model, collate(rows, split, length), "float32")

    alone = [losses([[segment]], segment.stop - segment.start) for row in rows for segment in row]
    packed_losses = losses(rows, 64)
    torch.testing.assert_close(packed_losses, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_accumulated_micro_batches_give_the_gradients_of_the_whole(parts: tuple[Path, Path], micro_batch: int) -> None:
    split = open_split(parts[1], "train")
    rows = rows_of(split, 8)

    def gradients(size: int) -> tuple[float, list[torch.Tensor]]:
        model = random_model(TINY)
        value = loop.backward(model, rows, split, PARAMS.model_copy(update={"micro_batch": size}), SINGLE_PROCESS)
        return float(value), [p.grad for p in model.parameters() if p.grad is not None]

    whole, of_whole = gradients(8)
    parted, of_parts = gradients(micro_batch)
    assert abs(whole - parted) < 1e-5
    for a, b in zip(of_whole, of_parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_recomputed_activations_give_the_same_gradients(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = random_model(TINY)
        model.checkpointed_layers = model.config.n_layers if checkpointing else 0
        loop.backward(model, rows_of(split, 4), split, PARAMS, SINGLE_PROCESS)
        return [p.grad for p in model.parameters() if p.grad is not None]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_training_learns_what_it_reads(parts: tuple[Path, Path], tmp_path: Path) -> None:
    _, history = run(parts, tmp_path / "run", PARAMS.model_copy(update={"steps": 60, "lr": 1e-2}))
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert history[-1]["validation_loss"] < history[3]["validation_loss"]


@pytest.mark.slow
def test_the_losses_of_a_tiny_run_are_those_on_file(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """A change that moves them changes what training does; then the file is written anew, with a reason."""
    _, history = run(parts, tmp_path / "run", PARAMS)
    curves = {name: [round(p[name], 6) for p in history if name in p] for name in ("loss", "gradient_norm", "validation_loss")}
    golden = json.loads((ROOT / "tests" / "golden-losses.json").read_text())
    assert curves.keys() == golden.keys()
    for name, values in golden.items():
        assert curves[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.parametrize("schedule", optim.SCHEDULES)
def test_the_schedule_rises_to_the_peak_and_falls_to_the_floor(schedule: str) -> None:
    rates = [optim.lr_factor(schedule, s, steps=20, warmup=4, floor=0.1, decay=0.25) for s in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and math.isclose(rates[-1], 0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert (rates[14] == 1.0) == (schedule == "wsd")


@pytest.mark.slow
def test_the_weights_with_the_lowest_validation_loss_are_kept_and_training_ends_early(parts: tuple[Path, Path], tmp_path: Path) -> None:
    overfit = {"steps": 150, "lr": 1e-2, "lr_floor": 1.0, "warmup": 0, "validate_every": 10, "keep": "best", "patience": 3}
    params = PARAMS.model_copy(update=overfit)
    _, history = run(parts, tmp_path / "run", params)
    losses = {p["step"]: p["validation_loss"] for p in history if "validation_loss" in p}
    best = min(losses, key=lambda step: losses[step])
    assert best < history[-1]["step"] == best + 30 < 150
    split = open_split(parts[1], "validation")
    rows = packing.sample(split, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    kept = load_model(tmp_path / "run" / "model")
    assert math.isclose(loop.mean_loss(kept, split, rows, params, SINGLE_PROCESS), losses[best], abs_tol=1e-5)


def test_a_gradient_that_is_not_finite_stops_before_the_update_and_names_the_documents(parts: tuple[Path, Path]) -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    before = model.layers[0].mlp.up_proj.weight.clone()  # type: ignore[union-attr, operator]
    optimizer = optim.make_optimizer(model.parameters(), PARAMS.model_copy(update={"lr": 1.0, "weight_decay": 0.0}))
    split = open_split(parts[1], "train")
    with pytest.raises(ValueError, match=r"not finite at step 1; documents in the batch: \w+"):
        loop.train_steps(model, optimizer, split, open_split(parts[1], "validation"), [], PARAMS, SINGLE_PROCESS, state=State())
    assert torch.equal(before, model.layers[0].mlp.up_proj.weight)  # type: ignore[union-attr, arg-type]


def test_rows_longer_than_the_context_are_refused(parts: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="finetune.seq_len is 512, the model's context only 256"):
        ft.preflight(*parts, PARAMS.model_copy(update={"seq_len": 512}))


def test_shards_of_another_tokenizer_are_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_tiny_checkpoint(tmp_path / "other", replace(TINY, vocab_size=300))
    with pytest.raises(ValueError, match="another tokenizer or chat template"):
        ft.preflight(other, parts[1], PARAMS)


def test_a_run_cut_off_after_its_patience_ended_does_not_go_on(parts: tuple[Path, Path]) -> None:
    ended = State(step=6, best_step=2, best_loss=1.0, without_improvement=2)
    model = random_model(TINY)
    optimizer = optim.make_optimizer(model.parameters(), PARAMS.model_copy(update={"lr": 1.0, "weight_decay": 0.0}))
    train, held_out = (open_split(parts[1], split) for split in ("train", "validation"))
    params = PARAMS.model_copy(update={"patience": 2})
    assert loop.train_steps(model, optimizer, train, held_out, [], params, SINGLE_PROCESS, state=ended) == ended


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", pytest.param("lora", marks=pytest.mark.campaign)])
def test_a_compiled_run_has_the_losses_of_the_plain_one(parts: tuple[Path, Path], tmp_path: Path, mode: str) -> None:
    plain, compiled = (
        [p["loss"] for p in run(parts, tmp_path / str(c), PARAMS.model_copy(update={"compile": c, "mode": mode, "steps": 4}))[1]]
        for c in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_batch_of_more_rows_than_there_are_is_refused(parts: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"finetune.batch is 5000 rows of 64 tokens, all of the train split makes \d+"):
        ft.preflight(*parts, PARAMS.model_copy(update={"batch": 5000}))


def test_unknown_modes_and_schedules_are_named() -> None:
    for name in ("mode", "schedule"):
        with pytest.raises(ValidationError, match="Input should be '"):
            FinetuneParams(**PARAMS.model_dump() | {name: "lorra"})


def test_the_names_in_params_are_those_that_the_model_library_knows() -> None:
    assert get_args(Mode) == tuple(MODES) and get_args(Schedule) == tuple(optim.SCHEDULES) and get_args(Target) == lora.TARGETS
