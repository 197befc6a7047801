"""Cross-entropy over the tokens that carry loss, and the measures read from it.

Logits are made only where there is loss, in chunks, so that memory does not grow with the vocabulary times the batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # supervised positions per block of logits: 192 MiB in float32 for a vocabulary of 49,152


def token_losses(hidden_BTC: Tensor, output: nn.Linear, tokens_BT: Tensor, supervised_BT: Tensor) -> Tensor:
    """Negative log-likelihood in nats, float32 [N], of the N supervised tokens in reading order.

    ``supervised_BT[b, t]`` says that token t carries loss; it is predicted from position t - 1, so a row's first cannot.
    """
    wanted = supervised_BT[:, 1:]
    before, targets = hidden_BTC[:, :-1][wanted], tokens_BT[:, 1:][wanted]
    # Recomputing a chunk's logits in the backward pass costs one matrix product and saves the logits' memory.
    if torch.is_grad_enabled() and hidden_BTC.requires_grad:
        chunks = [checkpoint(_chunk, h, t, output, use_reentrant=False) for h, t in _chunked(before, targets)]
    else:
        chunks = [_chunk(h, t, output) for h, t in _chunked(before, targets)]
    # Without any, still a part of the graph: where several processes train, each of them makes the same passes.
    return torch.cat(chunks) if chunks else hidden_BTC.flatten()[:0].float()


def _chunked(before: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(before.split(CHUNK), targets.split(CHUNK), strict=True)) if targets.numel() else []


def _chunk(before: Tensor, targets: Tensor, output: nn.Linear) -> Tensor:
    return F.cross_entropy(output(before).float(), targets, reduction="none")


def perplexity(mean_nats: float) -> float:
    """exp of the mean negative log-likelihood per token; infinite where that overflows."""
    return math.exp(mean_nats) if mean_nats < 700 else math.inf
