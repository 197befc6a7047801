"""Frozen matrices in 4 bits a weight: NF4 with double quantization (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes.

A block of 64 weights shares a scale, and 256 scales share theirs: 4.13 bits a weight in all.
"""

import hashlib
import logging
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.llama import PROJECTIONS, Transformer

BLOCK = 64
BITS = 4 + 8 / BLOCK + 32 / (256 * BLOCK)  # of a weight, with its shares of the scales
DESCRIPTION = {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "blocksize": BLOCK}


@cache
def _bitsandbytes() -> ModuleType:
    """Its functions, imported where they are used: that takes seconds."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a package that would fetch kernels from a hub
    import bitsandbytes.functional

    return bitsandbytes.functional


class Nf4Linear(nn.Module):
    """A frozen linear layer without bias, quantized on the device that the weight [out, in] is on, where it stays."""

    packed: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        packed, self.state = _bitsandbytes().quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=True)
        self.register_buffer("packed", packed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], in the precision of ``x`` or, under autocast, its own."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        out: Tensor = _Product.apply(x, self)
        return out

    def dequantized(self) -> Tensor:
        """The weight [out, in] that it multiplies by, in the precision that it was quantized from."""
        weight: Tensor = _bitsandbytes().dequantize_4bit(self.packed, self.state)
        return weight

    def tensors(self) -> list[Tensor]:
        """All that the weight is made from again."""
        return [self.packed, self.state.absmax, self.state.offset, self.state.state2.absmax]


class _Product(torch.autograd.Function):
    """x Wᵀ. The weight is made from its 4 bits in either pass, so that no copy is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantized().to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        return grad_out @ ctx.layer.dequantized().to(grad_out.dtype), None


def quantize_(model: Transformer, device: torch.device) -> Transformer:
    """Quantize the projections of all layers, one after the other on ``device``, and move the rest there. Returns the model.

    The output matrix and the embedding keep their precision, as in the paper.
    """
    for index, layer in enumerate(model.layers):
        for projection in PROJECTIONS.values():
            weight = layer.get_submodule(projection.path).weight
            assert isinstance(weight, Tensor)
            model.set_submodule(f"layers.{index}.{projection.path}", Nf4Linear(weight.detach().to(device)))
    return model.to(device)


def digest(model: nn.Module) -> str:
    """SHA-256 of all quantized weights, in the order of the layers."""
    sha = hashlib.sha256()
    for module in model.modules():
        if isinstance(module, Nf4Linear):
            for tensor in module.tensors():
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
