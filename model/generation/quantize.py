"""Weights kept in fewer bits than they are multiplied in: bfloat16 as stored, or int8 with a scale per output channel.

For generating only. Activations stay in float32 on the CPU, so bfloat16 weights give what the same weights give in float32, but for
long prompts where the processor multiplies bfloat16 itself.
``python -m model quantize CHECKPOINT TEXT`` measures what int8 changes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.llama import Block, Transformer
from model.precision import multiplies_bfloat16

KINDS = ("bfloat16", "int8")


class StoredLinear(nn.Module):
    """x [..., in] times the stored weight [out, in]; the result has x's precision."""

    weight: Tensor
    scale: Tensor | None  # [out], float32, of int8 weights

    def __init__(self, weight: Tensor, scale: Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        # Where the processor multiplies bfloat16 itself that is several times faster; where it does not, many times slower.
        dtype = torch.bfloat16 if multiplies_bfloat16(x.device) else x.dtype
        out = F.linear(x.to(dtype), self.weight.to(dtype)).to(x.dtype)
        return out if self.scale is None else out * self.scale


class StoredEmbedding(nn.Module):
    """Rows of a stored matrix [vocabulary, width] in float32."""

    weight: Tensor
    scale: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = F.embedding(tokens, self.weight).float()
        return rows if self.scale is None else rows * self.scale[tokens, None]


def store(model: Transformer, kind: str) -> Transformer:
    """The model, changed in place: its matrices stored as ``kind``, "bfloat16" or "int8"; norms in float32."""
    if kind not in KINDS:
        raise ValueError(f"weights can be stored as {' or '.join(KINDS)}, not {kind!r}")
    with torch.no_grad():
        embedding = _stored(model.embed_tokens.weight, kind)
        tied = model.lm_head.weight is model.embed_tokens.weight
        model.lm_head = StoredLinear(*(embedding if tied else _stored(model.lm_head.weight, kind)))  # type: ignore[assignment]
        model.embed_tokens = StoredEmbedding(*embedding)  # type: ignore[assignment]
        for block in model.layers:
            assert isinstance(block, Block)
            for part in (block.self_attn, block.mlp):
                for name, linear in list(part.named_children()):
                    assert isinstance(linear, nn.Linear)
                    setattr(part, name, StoredLinear(*_stored(linear.weight, kind)))
    for parameter in model.parameters():  # what is left are the norms
        parameter.data = parameter.data.float()
    return model.requires_grad_(False)


def _stored(weight: Tensor, kind: str) -> tuple[Tensor, Tensor | None]:
    return (weight.detach().to(torch.bfloat16), None) if kind == "bfloat16" else quantized(weight.detach())


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights and their scale per output channel: symmetric, the largest magnitude of a row becomes 127."""
    scale = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


@torch.inference_mode()
def difference(reference: Transformer, other: Transformer, tokens_BT: Tensor) -> dict[str, Any]:
    """How far ``other`` is from ``reference`` on these tokens: the mean Kullback-Leibler divergence of its next-token
    distributions in nats, and the share of positions where both find the same token likeliest."""
    p, q = (torch.log_softmax(model(tokens_BT).float(), -1) for model in (reference, other))
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    agreement = (p.argmax(-1) == q.argmax(-1)).float().mean()
    return {"kl": float(divergence), "greedy_agreement": float(agreement), "positions": tokens_BT.numel()}
