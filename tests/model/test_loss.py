"""Losses with their gradients, and attention in compiled training, against torch's own operations."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch

from model.llama import OutputLayer
from model.loss import CHUNK, FP32_CHUNK, target_positions, token_losses, total_loss, total_unlikelihood
from model.precision import autocast


def parts(
    vocabulary: int, *, rows: int, length: int, supervised: float, cap: float | None = None
) -> tuple[torch.Tensor, OutputLayer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(rows, length, 16, requires_grad=True)
    marks = torch.rand(rows, length) < supervised
    return hidden, OutputLayer(16, vocabulary, cap), torch.randint(vocabulary, (rows, length)), marks


@pytest.mark.parametrize("cap", [None, 0.7], ids=["", "soft-capped"])
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_the_total_and_its_gradients_are_those_of_the_single_losses(frozen: bool, cap: float | None) -> None:
    hidden, output, tokens, supervised = parts(97, rows=3, length=CHUNK // 2, supervised=0.8, cap=cap)
    output.weight.requires_grad_(not frozen)
    expected = token_losses(hidden, output, tokens, target_positions(supervised)).sum()
    leaves = [hidden] if frozen else [hidden, output.weight]
    gradients = torch.autograd.grad(0.25 * expected, leaves)
    actual = total_loss(hidden, output, tokens, target_positions(supervised))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(0.25 * actual, leaves), gradients)


def test_without_supervised_tokens_there_is_a_loss_of_zero_with_gradients() -> None:
    hidden, output, tokens, supervised = parts(97, rows=2, length=8, supervised=0.0)
    loss = total_loss(hidden, output, tokens, target_positions(supervised))
    loss.backward()
    assert loss == 0 and hidden.grad is not None and not hidden.grad.any()
    assert token_losses(hidden, output, tokens, target_positions(supervised)).shape == (0,)


@pytest.mark.parametrize("supervised", [0.0, 0.8])
def test_unlikelihood_is_that_of_the_probabilities(supervised: float) -> None:
    hidden, output, tokens, unwanted = parts(97, rows=3, length=FP32_CHUNK, supervised=supervised)
    actual = total_unlikelihood(hidden, output, tokens, target_positions(unwanted))
    likely = torch.softmax(output(hidden[:, :-1]), -1).gather(2, tokens[:, 1:, None])[..., 0][unwanted[:, 1:]]
    torch.testing.assert_close(actual, -torch.log(1 - likely).sum())
    (grad_hidden,) = torch.autograd.grad(actual, [hidden])
    if supervised:
        (expected,) = torch.autograd.grad(-torch.log(1 - likely).sum(), [hidden])
        torch.testing.assert_close(grad_hidden, expected)
    else:
        assert actual == 0 and not grad_hidden.any()


def test_what_is_certain_has_an_unlikelihood_that_is_a_number() -> None:
    output = OutputLayer(2, 2)
    output.weight.data = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    hidden = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    actual = total_unlikelihood(hidden, output, torch.zeros(1, 2, dtype=torch.long), torch.tensor([1]))
    actual.backward()
    assert 13 < actual < 14 and hidden.grad is not None and hidden.grad.isfinite().all()


def memory_of_counts() -> tuple[int, int]:
    """Bytes that this process holds after four steps, and the most after twelve more, each with another number of supervised tokens."""
    torch.manual_seed(0)
    output = OutputLayer(576, 49152)
    tokens = torch.randint(49152, (1, 512))

    def step(count: int) -> int:
        hidden = torch.randn(1, 512, 576, requires_grad=True)
        with autocast(torch.device("cpu"), "auto"):
            total_loss(hidden, output, tokens, torch.arange(1, count)).backward()
        output.weight.grad = None
        return int(psutil.Process().memory_info().rss)

    return max(map(step, (300, 512, 300, 512))), max(map(step, range(310, 450, 12)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_supervised_tokens_seen() -> None:
    """oneDNN keeps what it compiled for every new shape, with room of the size of the matrices."""
    # A process of its own: what other tests left in the allocator decides how much of it a step takes anew.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        before, after = pool.submit(memory_of_counts).result()
    # Twelve more shapes took 1.2 GB and more; what the allocator does by itself is a few logits matrices of 100 MB.
    assert after < before + 400e6
