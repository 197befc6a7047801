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

from model.config import PROJECTIONS
from model.llama import Transformer

BLOCK, SCALES = 64, 256  # weights that share a scale, and scales that share theirs
BITS = 4 + 8 / BLOCK + 32 / (SCALES * BLOCK)  # of a weight, with its shares of the scales
DESCRIPTION = {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "blocksize": BLOCK}


@cache
def _bitsandbytes() -> ModuleType:
    """Its functions, imported where they are used: that takes seconds."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a package that would fetch kernels from a hub
    import bitsandbytes.functional

    return bitsandbytes.functional


class Nf4Linear(nn.Module):
    """A frozen linear layer without bias, quantized on the device that the weight [out, in] is on, where it stays."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype  # that it was quantized from
        packed, state = _bitsandbytes().quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=True)
        parts = {"packed": packed, "absmax": state.absmax, "offset": state.offset, "absmax2": state.state2.absmax}
        codes = {"code": state.code, "code2": state.state2.code}  # the same in every layer
        for name, tensor in (parts | codes).items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], in the precision of ``x`` or, under autocast, its own."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        out: Tensor = _product(x, *self.buffers(), self.out_features, self.in_features, self.dtype, False)
        return out

    def dequantized(self) -> Tensor:
        """The weight [out, in] that it multiplies by, in the precision that it was quantized from."""
        weight: Tensor = _dequantized(*self.buffers(), self.out_features, self.in_features, self.dtype)
        return weight

    def tensors(self) -> list[Tensor]:
        """All that the weight is made from again, less what is the same in every layer."""
        return list(self.buffers())[:4]


# To a compiler these are single operations: it would keep every layer's weight, made from its 4 bits, for the backward pass.
@torch.library.custom_op("medical_llama::nf4_dequantized", mutates_args=())
def _dequantized(
    packed: Tensor,
    absmax: Tensor,
    offset: Tensor,
    absmax2: Tensor,
    code: Tensor,
    code2: Tensor,
    rows: int,
    columns: int,
    dtype: torch.dtype,
) -> Tensor:
    """The weight [rows, columns] from its 4 bits."""
    functional = _bitsandbytes()
    scales = functional.QuantState(absmax2, code=code2, blocksize=SCALES, dtype=torch.float32)
    shape = torch.Size((rows, columns))
    state = functional.QuantState(
        absmax, shape=shape, code=code, blocksize=BLOCK, quant_type="nf4", dtype=dtype, offset=offset, state2=scales
    )
    weight: Tensor = functional.dequantize_4bit(packed, state)
    return weight


@_dequantized.register_fake
def _(packed: Tensor, *rest: Any) -> Tensor:
    rows, columns, dtype = rest[-3:]
    return packed.new_empty(rows, columns, dtype=dtype)


@torch.library.custom_op("medical_llama::nf4_product", mutates_args=())
def _product(
    x: Tensor,
    packed: Tensor,
    absmax: Tensor,
    offset: Tensor,
    absmax2: Tensor,
    code: Tensor,
    code2: Tensor,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    transposed: bool,
) -> Tensor:
    """x Wᵀ, or x W where ``transposed``, with W [rows, columns]. The weight is made from its 4 bits, so that no copy is kept."""
    weight = _dequantized(packed, absmax, offset, absmax2, code, code2, rows, columns, dtype).to(x.dtype)
    return x @ weight if transposed else F.linear(x, weight)


@_product.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    rows, columns, _, transposed = rest[-4:]
    return x.new_empty(*x.shape[:-1], columns if transposed else rows)


def _keep_bits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch passes both by name
    _, *quantized, ctx.rows, ctx.columns, ctx.dtype, ctx.transposed = inputs
    ctx.save_for_backward(*quantized)


def _input_gradient(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    return _product(grad_out, *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.dtype, not ctx.transposed), *[None] * 10


_product.register_autograd(_input_gradient, setup_context=_keep_bits)


def quantize_(model: Transformer, device: torch.device) -> Transformer:
    """Quantize the projections of all layers, one after the other on ``device``, and move the rest there. Returns the model.

    The output matrix and the embedding keep their precision, as in the paper.
    """
    for layer in model.layers:
        quantize_layer_(layer, device)
    return model.to(device)


def quantize_layer_(layer: nn.Module, device: torch.device) -> None:
    """Quantize the projections of a layer on ``device``, in place."""
    for projection in PROJECTIONS.values():
        weight = layer.get_submodule(projection.path).weight
        assert isinstance(weight, Tensor)
        layer.set_submodule(projection.path, Nf4Linear(weight.detach().to(device)))


def digest(model: nn.Module) -> str:
    """SHA-256 of all quantized weights, in the order of the layers."""
    sha = hashlib.sha256()
    for module in model.modules():
        if isinstance(module, Nf4Linear):
            for tensor in module.tensors():
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
