"""Cross-entropy over the tokens that carry loss, and the measures read from it.

Logits are made only where there is loss, in chunks, so that memory does not grow with the vocabulary times the batch.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Supervised positions per block of logits: 96 MiB in float32 for a vocabulary of 49,152. The last block is filled up, because
# oneDNN keeps up to 1,024 compiled products, one per shape, and with each of this size 100 MB.
CHUNK = 512
NARROW = 64  # of which float32 is made at a time in training


def token_losses(hidden_BTC: Tensor, output: nn.Linear, tokens_BT: Tensor, supervised_BT: Tensor) -> Tensor:
    """Negative log-likelihood in nats, float32 [N], of the N supervised tokens in reading order.

    ``supervised_BT[b, t]`` says that token t carries loss; it is predicted from position t - 1, so a row's first cannot.
    """
    before, targets = _predicted(hidden_BTC, tokens_BT, supervised_BT)
    chunks = [F.cross_entropy(output(h)[: len(t)].float(), t, reduction="none") for h, t in _chunked(before, targets)]
    return torch.cat(chunks) if chunks else before.flatten().float()


def total_loss(hidden_BTC: Tensor, output: nn.Linear, tokens_BT: Tensor, supervised_BT: Tensor) -> Tensor:
    """The sum of ``token_losses``, for training: its gradients are taken along with it, chunk by chunk, so that no logits are kept
    for the backward pass or made again in it. Without a supervised token it is 0 and still a part of the graph, as where several
    processes train each of them makes the same passes."""
    before, targets = _predicted(hidden_BTC, tokens_BT, supervised_BT)
    device = before.device.type
    if torch.is_autocast_enabled(device):
        before = before.to(torch.get_autocast_dtype(device))
    total: Tensor = _TotalLoss.apply(before, output.weight, targets)
    return total


def total_unlikelihood(hidden_BTC: Tensor, output: nn.Linear, tokens_BT: Tensor, unwanted_BT: Tensor) -> Tensor:
    """The sum of -log(1 - p) over the tokens that should not come (Welleck et al. 2019, arXiv:1908.04319); 0, and a part of the graph,
    where there are none. They are few, and so are the logits that are kept for the backward pass."""
    before, targets = _predicted(hidden_BTC, tokens_BT, unwanted_BT)
    chunks = [F.cross_entropy(output(h)[: len(t)].float(), t, reduction="none") for h, t in _chunked(before, targets, NARROW)]
    likely = torch.cat(chunks).neg().exp().clamp(max=1 - 1e-6) if chunks else before.flatten().float()
    return -torch.log1p(-likely).sum()


class _TotalLoss(torch.autograd.Function):
    """d loss / d logits is softmax(logits) less the one-hot target."""

    @staticmethod
    def forward(ctx: Any, before_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        needs_before, needs_weight, _ = ctx.needs_input_grad
        weight = weight_VC.to(before_NC.dtype)
        of_before = torch.empty_like(before_NC) if needs_before else None
        of_weight = torch.zeros_like(weight_VC) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=before_NC.device)
        for at, (before, targets) in enumerate(_chunked(before_NC, targets_N)):
            logits = before @ weight.T
            for some, wanted in zip(logits[: len(targets)].split(NARROW), targets[:, None].split(NARROW), strict=True):
                scores = F.log_softmax(some, dim=-1, dtype=torch.float32)
                total -= scores.gather(1, wanted).sum()
                some.copy_(scores.exp_().scatter_add_(1, wanted, -torch.ones_like(wanted, dtype=torch.float32)))
            logits[len(targets) :] = 0
            if of_before is not None:
                of_before[at * CHUNK : at * CHUNK + len(targets)] = (logits @ weight)[: len(targets)]
            if of_weight is not None:
                of_weight += logits.T @ before
        ctx.gradients = of_before, of_weight
        return total

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_before, of_weight = (None if g is None else g.mul_(of_total.to(g.dtype)) for g in ctx.gradients)
        return of_before, of_weight, None


def _predicted(hidden: Tensor, tokens: Tensor, supervised: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states [N, C] from which the supervised tokens are predicted, and those tokens [N]."""
    wanted = supervised[:, 1:]
    return hidden[:, :-1][wanted], tokens[:, 1:][wanted]


def _chunked(before: Tensor, targets: Tensor, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """``size`` hidden states at a time and their targets, of which the last block may have fewer."""
    for some, wanted in zip(before.split(size), targets.split(size), strict=True):
        if len(wanted):
            yield F.pad(some, (0, 0, 0, size - len(wanted))), wanted


def perplexity(mean_nats: float) -> float:
    """exp of the mean negative log-likelihood per token; infinite where that overflows."""
    return math.exp(mean_nats) if mean_nats < 700 else math.inf
