"""Weights in fewer bits than float32: bfloat16, or int8 or int4 with a scale per output and 32 inputs.

For generation only. Activations stay in float32 on the CPU, so bfloat16 weights give the results of the same weights in float32,
except for long prompts on a processor that multiplies bfloat16 itself. int8 and int4 weights are multiplied by activations that are
rounded to int8 (int8.h), where there is a C compiler. ``python -m model quantize CHECKPOINT TEXT`` measures what they change.
"""

from ctypes import byref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import PROJECTIONS
from model.generation.compiled import GROUP, PANEL, Matrix, library, pointer, rounded_rows
from model.llama import Block, Transformer, soft_capped
from model.precision import multiplies_bfloat16

WEIGHT_DTYPES = ("bfloat16", "int8", "int4")


class QuantizedLinear(nn.Module):
    """A linear layer without bias whose weight [out, in] is bfloat16, or in panels as of ``quantize_int8`` or ``quantize_int4``."""

    weight: Tensor
    scale: Tensor | None  # of weights in panels

    def __init__(self, weight: Tensor, scale: Tensor | None = None, shape: tuple[int, ...] | None = None, cap: float | None = None):
        """``shape``: (out, in) of weights in panels. ``cap``: of logits, if they are soft-capped."""
        super().__init__()
        self.cap = cap
        self.out_features, self.in_features = shape or weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def dequantized(self) -> Tensor:
        """The weight [out, in] in float32."""
        if self.scale is None:
            return self.weight.float()
        weight = self.weight if self.weight.dtype == torch.int8 else _unpacked(self.weight)
        # [panels, groups, 8, outputs, 4] to [panels, outputs, groups, 8, 4]
        rows = (weight.float() * self.scale.float()[:, :, None, :, None]).permute(0, 3, 1, 2, 4)
        return rows.flatten(2).flatten(0, 1)[: self.out_features, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], in the precision of ``x``."""
        if self.scale is not None and x.device.type == "cpu" and not isinstance(library(), str):
            out = self._integer_product(x.reshape(-1, self.in_features).float().contiguous()).view(*x.shape[:-1], -1).to(x.dtype)
            return soft_capped(out, self.cap)
        # Where the processor multiplies bfloat16 itself that is several times faster; where it does not, many times slower.
        dtype = torch.bfloat16 if multiplies_bfloat16(x.device) else x.dtype
        weight = self.weight if self.scale is None else self.dequantized()
        return soft_capped(F.linear(x.to(dtype), weight.to(dtype)).to(x.dtype), self.cap)

    def matrix(self) -> Matrix:
        """The layer as decode.c reads it."""
        return Matrix.of(self.weight, self.scale, (self.out_features, self.in_features))

    def _integer_product(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out], float32."""
        out = torch.empty(len(x), self.out_features)
        product(self.matrix(), x, out)
        return out


class QuantizedEmbedding(nn.Module):
    """An embedding whose weight [V, C] is bfloat16, or int8 in panels as of ``quantize_int8``."""

    weight: Tensor
    scale: Tensor | None  # of int8 weights

    def __init__(self, weight: Tensor, scale: Tensor | None, width: int):
        """``width``: C."""
        super().__init__()
        self.width = width
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids [...] to float32 [..., C]."""
        if self.scale is None:
            return F.embedding(tokens, self.weight).float()
        index, output = tokens // PANEL, tokens % PANEL  # of the panel, and within it
        rows = self.weight[index, :, :, output].float() * self.scale[index, :, output].float()[..., None, None]
        return rows.flatten(-3)[..., : self.width]


def quantize_(model: Transformer, dtype: str) -> Transformer:
    """Change the model in place: its matrices to ``dtype``, one of ``WEIGHT_DTYPES``, its norms to float32. Returns the model.

    With int4 the embedding and the output matrix are int8, which they lose most by (llama.cpp keeps them in 6 bits).
    """
    if dtype not in WEIGHT_DTYPES:
        raise ValueError(f"weights can be stored as {' or '.join(WEIGHT_DTYPES)}, not {dtype!r}")
    with torch.no_grad():
        outer = "int8" if dtype == "int4" else dtype
        embedding = _weight_and_scale(model.embed_tokens.weight, outer)
        tied = model.lm_head.weight is model.embed_tokens.weight
        output, shape = embedding if tied else _weight_and_scale(model.lm_head.weight, outer), model.lm_head.weight.shape
        model.lm_head = QuantizedLinear(*output, shape, model.lm_head.cap)  # type: ignore[assignment]
        model.embed_tokens = QuantizedEmbedding(*embedding, model.config.dim)  # type: ignore[assignment]
        for block in model.layers:
            assert isinstance(block, Block)
            for projection in PROJECTIONS.values():
                linear = block.get_submodule(projection.path)
                assert isinstance(linear, nn.Linear)
                block.set_submodule(projection.path, QuantizedLinear(*_weight_and_scale(linear.weight, dtype), linear.weight.shape))
    for parameter in model.parameters():  # only norms and biases are left
        parameter.data = parameter.data.float()
    return model.requires_grad_(False)


def _weight_and_scale(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    weight = weight.detach()
    if dtype == "bfloat16":
        return weight.to(torch.bfloat16), None
    return quantize_int8(weight) if dtype == "int8" else quantize_int4(weight)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights in panels [out / 16, in / 32, 8, 16, 4], padded with zeros, and their bfloat16 scale [out / 16, in / 32, 16].

    Symmetric: the scale is the largest magnitude of 32 inputs of an output / 127, rounded up. The layout is that of int8.h.
    """
    grouped = _padded(weight).unflatten(1, (-1, GROUP // 4, 4)).unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1, 4)
    largest = grouped.abs().amax((2, 4)).clamp(min=1e-30) / 127
    scale = ((largest.view(torch.int32) + 0xFFFF) >> 16).to(torch.int16).view(torch.bfloat16)
    values = (grouped / scale.float()[:, :, None, :, None]).round().to(torch.int8)
    return values.contiguous(), scale.contiguous()


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int4 weights in panels [out / 16, in / 32, 4, 16, 4], two in a byte, and their bfloat16 scale [out / 16, in / 32, 16].

    The values are those of llama.cpp's Q4_0 (``quantize_row_q4_0_ref``): the scale is the number of the largest magnitude of 32 inputs
    of an output / -8, and the others are rounded to -8 to 7 of it. The layout is that of int8.h.
    """
    grouped = _padded(weight).unflatten(1, (-1, GROUP)).unflatten(0, (-1, PANEL)).transpose(1, 2)  # [panels, groups, outputs, 32]
    scale = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)) / -8
    factor = torch.where(scale == 0, 0, 1 / scale)
    values = (grouped * factor + 8.5).to(torch.uint8).clamp(max=15)
    low, high = values.unflatten(-1, (2, -1, 4)).permute(3, 0, 1, 4, 2, 5)
    return (low | high << 4).contiguous(), scale.squeeze(-1).to(torch.bfloat16).contiguous()


def _unpacked(weight: Tensor) -> Tensor:
    """int4 weights in the panels of ``quantize_int8``."""
    return torch.cat((weight & 15, weight >> 4), 2).to(torch.int8) - 8


def _padded(weight: Tensor) -> Tensor:
    """The weight in float32, with zeros up to whole panels and groups."""
    outs, ins = weight.shape
    return F.pad(weight.float(), (0, -ins % GROUP, 0, -outs % PANEL))


def product(matrix: Matrix, x: Tensor, out: Tensor) -> None:
    """out [N, outs] = x [N, ins] times the matrix, in C; float32, contiguous, on the CPU."""
    loaded = library()
    assert not isinstance(loaded, str)
    rounded = rounded_rows(len(x), matrix.ins if matrix.scale else 0)
    loaded.product(byref(matrix), pointer(x), len(x), pointer(out), pointer(rounded), torch.get_num_threads())


@torch.inference_mode()
def difference(reference: Transformer, other: Transformer, tokens_BT: Tensor) -> dict[str, Any]:
    """Compare the next-token distributions of two models on these tokens.

    ``kl``: mean Kullback-Leibler divergence in nats; ``greedy_agreement``: share of positions with the same likeliest token.
    """
    p, q = (torch.log_softmax(model(tokens_BT).float(), -1) for model in (reference, other))
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    agreement = (p.argmax(-1) == q.argmax(-1)).float().mean()
    return {"kl": float(divergence), "greedy_agreement": float(agreement), "positions": tokens_BT.numel()}
