"""Training against loops: what the rows of repeated tokens are, and what training on them does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import TINY, random_model
from helpers.training import PARAMS, SINGLE_PROCESS, rows_of, run, segment_ids

from tasks.corpus.shards.format import Split, open_split
from tasks.training import loop
from tasks.training.packing import MAX_LOOP, MIN_LOOP, MIN_REPEATED, Batch, loop_batch, training_rows

AGAINST = PARAMS.model_copy(update={"unlikelihood": 1.0, "seq_len": 256})


def batch_of(split: Split, step: int, width: int = 256) -> Batch:
    rows = [row for row, _ in zip((r for r, _ in training_rows(split, 64, seed=1)), range(8), strict=False)]
    return loop_batch(rows, split, width, seed=1, step=step)


def test_a_loop_is_the_beginning_of_an_answer_whose_last_tokens_come_again(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    sizes = set()
    for step in range(1, 30):
        batch = batch_of(split, step)
        tokens, numbers, again = batch.tokens[0].numpy(), segment_ids(batch)[0].numpy(), np.zeros(batch.tokens.shape[1], bool)
        again[batch.targets] = True
        assert len(batch.document_indices) > 2 and not again[numbers == len(batch.document_indices)].any()
        for index, document in enumerate(batch.document_indices):
            (here,) = np.nonzero(numbers == index)
            ids, loss = split.document(document)
            (repeated,) = np.nonzero(again[here])
            start = int(repeated[0])
            assert len(repeated) >= MIN_REPEATED and (repeated == np.arange(start, len(here))).all()
            # It begins as a segment of the document does, within the answer, and not after its last token.
            at = next(n for n in range(len(ids) - start + 1) if (tokens[here[:start]] == ids[n : n + start]).all())
            assert loss[at + start - 1] and at + start < len(ids)
            period = next(n for n in range(MIN_LOOP, MAX_LOOP + 1) if (tokens[here[start:]] == tokens[here[start - n : -n]]).all())
            sizes.add(period)
    assert len(sizes) > 4


def test_what_is_drawn_depends_on_seed_and_step_alone(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    assert torch.equal(batch_of(split, 3).tokens, batch_of(split, 3).tokens)
    assert not torch.equal(batch_of(split, 3).tokens, batch_of(split, 4).tokens)


def test_without_an_answer_that_is_long_enough_nothing_is_asked(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")
    assert not loop_batch([[]], split, 32, seed=1, step=1).targets.numel()
    model = random_model(TINY)
    assert loop.backward_loops(model, 1, [[]], split, AGAINST, SINGLE_PROCESS) == 0


def test_a_step_against_loops_makes_what_came_again_less_likely(parts: tuple[Path, Path]) -> None:
    """By as much as its gradient promises, and by more than chance would."""
    split, model = open_split(parts[1], "train"), random_model(TINY)
    rows = rows_of(split, 4)
    before = loop.backward_loops(model, 1, rows, split, AGAINST, SINGLE_PROCESS)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    promised = 1e-3 * float(sum((g**2).sum() for g in gradients))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad)
    after = loop.backward_loops(model, 1, rows, split, AGAINST, SINGLE_PROCESS)
    assert before - after == pytest.approx(promised, rel=0.05) and promised > 0


def test_the_weight_of_the_loss_is_that_of_its_gradients(parts: tuple[Path, Path]) -> None:
    split = open_split(parts[1], "train")

    def gradient(weight: float) -> torch.Tensor:
        model = random_model(TINY)
        loop.backward_loops(model, 1, rows_of(split, 4), split, AGAINST.model_copy(update={"unlikelihood": weight}), SINGLE_PROCESS)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(2.5), 2.5 * gradient(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("cut", [2, 5])
def test_a_run_against_loops_that_was_cut_off_ends_with_the_same_bits(
    parts: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
) -> None:
    whole, history = run(parts, tmp_path / "whole", AGAINST)
    update = loop.update

    def killed(model: object, optimizer: object, step: int, *rest: object) -> dict[str, float]:
        if step == cut:
            raise KeyboardInterrupt
        return update(model, optimizer, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path / "cut", AGAINST)
    monkeypatch.setattr(loop, "update", update)
    again, continued = run(parts, tmp_path / "cut", AGAINST)
    assert again == whole
    assert [p["loop_loss"] for p in continued] == [p["loop_loss"] for p in history]
