"""AdamW in 8 bits against bitsandbytes' own and torch's, and what stochastic rounding does to a loss curve."""

from pathlib import Path
from statistics import mean, stdev

import bitsandbytes
import pytest
import torch
from helpers.builders import TINY, random_model
from helpers.training import PARAMS, SINGLE_PROCESS, in_memory, rows_of
from pydantic import ValidationError

from model.llama import Transformer
from tasks.corpus.shards.format import Split, open_split
from tasks.training import adamw_8bit, checkpoints, loop, optim, prepare
from tasks.training.adamw_8bit import AdamW8bit, round_stochastically
from tasks.training.params import FinetuneParams

EIGHT = PARAMS.model_copy(update={"optimizer": "adamw_8bit", "lr": 1e-2})
NARROW = EIGHT.model_copy(update={"weights": "bfloat16", "precision": "bfloat16"})


def narrowed(model: Transformer) -> Transformer:
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if prepare.is_norm(name) else parameter.data.bfloat16()
    return model


def losses(params: FinetuneParams, split: Split, *, steps: int, seed: int) -> list[float]:
    model = random_model(TINY, seed)
    if params.weights == "bfloat16":
        model = narrowed(model)
    optimizer = optim.make_optimizer(model.parameters(), params.model_copy(update={"seed": seed}))
    rows = rows_of(split, 4 * steps)
    return [
        loop.update(model, optimizer, step + 1, rows[4 * step : 4 * step + 4], split, params, SINGLE_PROCESS)["loss"]
        for step in range(steps)
    ]


@pytest.mark.parametrize(
    ("shape", "peer", "tolerance"),
    [((100, 131), bitsandbytes.optim.AdamW8bit, 0.0), ((64,), torch.optim.AdamW, 1e-6)],
    ids=["in 8 bits as bitsandbytes", "small ones as torch"],
)
def test_steps_are_those_of_others(
    shape: tuple[int, ...], peer: type[torch.optim.Optimizer], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw_8bit, "CHUNK", 4096)  # several to a parameter
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = AdamW8bit([{"params": [ours], "weight_decay": 0.1}], lr=1e-2, betas=(0.9, 0.95), seed=0)
    reference = peer([theirs], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)  # type: ignore[call-arg]
    for _ in range(5):
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_rounding_goes_to_either_neighbour_and_keeps_the_mean() -> None:
    values = torch.tensor([1.0, -1.001, 3.14159, 1e-30, -7e20]).repeat(20_000, 1)
    rounded = round_stochastically(values, torch.Generator().manual_seed(0)).float()
    ulp = 2.0 ** (values.abs().log2().floor() - 7)
    assert ((rounded - values).abs() < ulp).all()
    assert ((rounded.double().mean(0) - values[0]).abs() <= 4 * ulp[0] / 2 / 20_000**0.5).all()
    again = round_stochastically(values, torch.Generator().manual_seed(0)).float()
    assert torch.equal(rounded, again) and torch.equal(rounded[:, 0], values[:, 0])


@pytest.mark.slow
def test_loss_curves_are_those_of_float32_within_noise(parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over the last steps, of four seeds each. Small steps, which rounding to the nearest loses."""
    split, steps, seeds = open_split(parts[1], "train"), 60, range(4)
    plain = PARAMS.model_copy(update={"lr": 5e-4, "steps": steps, "precision": "bfloat16"})
    eight = plain.model_copy(update={"optimizer": "adamw_8bit"})
    narrow = eight.model_copy(update={"weights": "bfloat16"})

    def ends(params: FinetuneParams) -> list[float]:
        return [mean(losses(params, split, steps=steps, seed=seed)[-10:]) for seed in seeds]

    exact = ends(plain)
    noise = stdev(exact)
    for params in (eight, narrow):
        assert abs(mean(ends(params)) - mean(exact)) < noise
    monkeypatch.setattr(adamw_8bit, "round_stochastically", lambda values, _: values.bfloat16())
    assert mean(ends(narrow)) - mean(exact) > 2 * noise


@pytest.mark.parametrize("params", [EIGHT, NARROW], ids=["float32", "bfloat16"])
def test_a_run_goes_on_with_the_same_bits(params: FinetuneParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    split = in_memory([50] * 80)
    rows = rows_of(split, 24)

    def start() -> tuple[Transformer, torch.optim.Optimizer]:
        model = random_model(TINY)
        model = narrowed(model) if params.weights == "bfloat16" else model
        return model, optim.make_optimizer(model.parameters(), params)

    def go_on(model: Transformer, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            loop.update(model, optimizer, step, rows[4 * step - 4 : 4 * step], split, params, SINGLE_PROCESS)

    model, optimizer = start()
    go_on(model, optimizer, range(1, 4))
    checkpoints.save("key", checkpoints.State(step=3), model, optimizer)
    go_on(model, optimizer, range(4, 7))
    other, fresh = start()
    assert checkpoints.resume("key", other, fresh).step == 3
    go_on(other, fresh, range(4, 7))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"optimizer": "adamw"}, {"mode": "lora"}])
def test_weights_that_nothing_rounds_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="weights: bfloat16 needs optimizer: adamw_8bit"):
        FinetuneParams.model_validate(NARROW.model_dump() | wrong)
