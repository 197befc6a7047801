"""Weights in fewer bits than their products: bfloat16, or int8 with a scale per output channel.

For generation only. Activations stay in float32 on the CPU, so bfloat16 weights give the results of the same weights in float32,
except for long prompts on a processor that multiplies bfloat16 itself.
``python -m model quantize CHECKPOINT TEXT`` measures what int8 changes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.llama import Block, Transformer
from model.precision import multiplies_bfloat16

WEIGHT_DTYPES = ("bfloat16", "int8")


class QuantizedLinear(nn.Module):
    """A linear layer without bias whose weight [out, in] is bfloat16 or int8."""

    weight: Tensor
    scale: Tensor | None  # [out], float32, of int8 weights

    def __init__(self, weight: Tensor, scale: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def dequantized(self) -> Tensor:
        """The weight in float32."""
        return self.weight.float() if self.scale is None else self.weight.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], in the precision of ``x``."""
        # Where the processor multiplies bfloat16 itself that is several times faster; where it does not, many times slower.
        dtype = torch.bfloat16 if multiplies_bfloat16(x.device) else x.dtype
        out = F.linear(x.to(dtype), self.weight.to(dtype)).to(x.dtype)
        return out if self.scale is None else out * self.scale


class QuantizedEmbedding(nn.Module):
    """An embedding whose weight [V, C] is bfloat16 or int8."""

    weight: Tensor
    scale: Tensor | None  # [V], float32, of int8 weights

    def __init__(self, weight: Tensor, scale: Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids [...] to float32 [..., C]."""
        rows = F.embedding(tokens, self.weight).float()
        return rows if self.scale is None else rows * self.scale[tokens, None]


def quantize_(model: Transformer, dtype: str) -> Transformer:
    """Change the model in place: its matrices to ``dtype``, "bfloat16" or "int8", its norms to float32. Returns the model."""
    if dtype not in WEIGHT_DTYPES:
        raise ValueError(f"weights can be stored as {' or '.join(WEIGHT_DTYPES)}, not {dtype!r}")
    with torch.no_grad():
        embedding = _weight_and_scale(model.embed_tokens.weight, dtype)
        tied = model.lm_head.weight is model.embed_tokens.weight
        model.lm_head = QuantizedLinear(*(embedding if tied else _weight_and_scale(model.lm_head.weight, dtype)))  # type: ignore[assignment]
        model.embed_tokens = QuantizedEmbedding(*embedding)  # type: ignore[assignment]
        for block in model.layers:
            assert isinstance(block, Block)
            for part in (block.self_attn, block.mlp):
                for name, linear in list(part.named_children()):
                    assert isinstance(linear, nn.Linear)
                    setattr(part, name, QuantizedLinear(*_weight_and_scale(linear.weight, dtype)))
    for parameter in model.parameters():  # only the norms are left
        parameter.data = parameter.data.float()
    return model.requires_grad_(False)


def _weight_and_scale(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    return (weight.detach().to(torch.bfloat16), None) if dtype == "bfloat16" else quantize_int8(weight.detach())


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights [out, in] and their float32 scale [out]: symmetric, the largest magnitude of a row becomes 127."""
    scale = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


@torch.inference_mode()
def difference(reference: Transformer, other: Transformer, tokens_BT: Tensor) -> dict[str, Any]:
    """Compare the next-token distributions of two models on these tokens.

    ``kl``: mean Kullback-Leibler divergence in nats; ``greedy_agreement``: share of positions with the same likeliest token.
    """
    p, q = (torch.log_softmax(model(tokens_BT).float(), -1) for model in (reference, other))
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    agreement = (p.argmax(-1) == q.argmax(-1)).float().mean()
    return {"kl": float(divergence), "greedy_agreement": float(agreement), "positions": tokens_BT.numel()}
