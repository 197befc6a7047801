"""Cross-entropy over the tokens that carry loss, and the measures read from it.

Logits are made only where there is loss, in chunks, so that memory does not grow with the vocabulary times the batch.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.llama import OutputLayer, soft_capped

# Supervised positions per block of logits: 24 MiB in float32 for a vocabulary of 49,152. The last block is filled up, because oneDNN
# keeps up to 1,024 compiled products, one per shape, and with each some 25 MB.
CHUNK = 128
FP32_CHUNK = 64  # rows of logits that are converted to float32 at a time in training


def target_positions(supervised_BT: Tensor) -> Tensor:
    """Where in the flattened rows the N supervised tokens are, int64 [N], in reading order.

    ``supervised_BT`` is True where a token carries loss. It is predicted from the position before, so a row's first token cannot.
    Made on the host: a GPU that is asked how many there are must first finish what it does.
    """
    predicted = supervised_BT.clone()
    predicted[:, 0] = False
    return predicted.flatten().nonzero().flatten()


def token_losses(hidden_BTC: Tensor, output: OutputLayer, tokens_BT: Tensor, positions_N: Tensor) -> Tensor:
    """Negative log-likelihood in nats, float32 [N], of the tokens at ``target_positions``."""
    hidden, targets = _predicted(hidden_BTC, tokens_BT, positions_N)
    chunks = [F.cross_entropy(output(h)[: len(t)].float(), t, reduction="none") for h, t in _chunked(hidden, targets)]
    return torch.cat(chunks) if chunks else hidden.flatten().float()


def total_loss(hidden_BTC: Tensor, output: OutputLayer, tokens_BT: Tensor, positions_N: Tensor) -> Tensor:
    """The sum of ``token_losses``, for training.

    The forward pass computes the gradients too, chunk by chunk, so that no logits are kept or computed twice. Without a supervised
    token the sum is 0 and still part of the graph: in distributed training each process must make the same passes.
    """
    hidden, targets = _predicted(hidden_BTC, tokens_BT, positions_N)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    total: Tensor = _TotalLoss.apply(hidden, output.weight, targets, output.cap)
    return total


def total_unlikelihood(hidden_BTC: Tensor, output: OutputLayer, tokens_BT: Tensor, positions_N: Tensor) -> Tensor:
    """The sum of -log(1 - p) over unwanted tokens at ``positions_N`` (Welleck et al. 2019, arXiv:1908.04319).

    Without any it is 0 and still part of the graph. They are few, so their logits are kept for the backward pass.
    """
    hidden, targets = _predicted(hidden_BTC, tokens_BT, positions_N)
    chunks = [F.cross_entropy(output(h)[: len(t)].float(), t, reduction="none") for h, t in _chunked(hidden, targets, FP32_CHUNK)]
    likely = torch.cat(chunks).neg().exp().clamp(max=1 - 1e-6) if chunks else hidden.flatten().float()
    return -torch.log1p(-likely).sum()


class _TotalLoss(torch.autograd.Function):
    """d loss / d logits is softmax(logits) less the one-hot target; where logits are soft-capped, times 1 - (logit / cap)²."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, cap: float | None) -> Tensor:
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        weight = weight_VC.to(hidden_NC.dtype)
        grad_hidden = torch.empty_like(hidden_NC) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VC) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
        for index, (hidden, targets) in enumerate(_chunked(hidden_NC, targets_N)):
            logits = soft_capped(hidden @ weight.T, cap)
            for block, block_targets in zip(logits[: len(targets)].split(FP32_CHUNK), targets[:, None].split(FP32_CHUNK), strict=True):
                log_probs = F.log_softmax(block, dim=-1, dtype=torch.float32)
                total -= log_probs.gather(1, block_targets).sum()
                probs = log_probs.exp_()
                gradient = probs.scatter_(1, block_targets, probs.gather(1, block_targets) - 1)
                block.copy_(gradient if cap is None else gradient * (1 - (block.float() / cap).square()))
            logits[len(targets) :] = 0
            if grad_hidden is not None:
                grad_hidden[index * CHUNK : index * CHUNK + len(targets)] = (logits @ weight)[: len(targets)]
            if grad_weight is not None:
                _add_product(grad_weight, logits.T, hidden)
        ctx.gradients = grad_hidden, grad_weight
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = (None if g is None else g.mul_(grad_total.to(g.dtype)) for g in ctx.gradients)
        return grad_hidden, grad_weight, None, None


def _predicted(hidden: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states [N, C] from which the tokens at these positions are predicted, and those tokens [N]."""
    return hidden.flatten(0, 1).index_select(0, positions - 1), tokens.flatten().index_select(0, positions)


def _chunked(hidden: Tensor, targets: Tensor, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """``size`` hidden states at a time and their targets, of which the last block may have fewer."""
    for states, ids in zip(hidden.split(size), targets.split(size), strict=True):
        if len(ids):
            yield F.pad(states, (0, 0, 0, size - len(ids))), ids


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to ``total``: in the same pass, where all have its type."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def perplexity(mean_nll: float) -> float:
    """exp of the mean negative log-likelihood per token; infinite where that overflows."""
    return math.exp(mean_nll) if mean_nll < 700 else math.inf
