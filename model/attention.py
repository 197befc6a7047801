"""Masked attention: torch's own, except for the backward pass of compiled training on a CPU.

There torch's takes twice as long as matrix products and one fused pass over the scores (bench/train_speed.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over [B, H, T, D]; ``mask`` [B, 1, T, S] is True or 0 where a query sees a key, False or
    -inf elsewhere; None: plain causal."""
    if (
        mask is not None
        and mask.is_floating_point()
        and q.device.type == "cpu"
        and torch.compiler.is_compiling()
        and torch.is_grad_enabled()
    ):
        out: Tensor = _Attention.apply(q, k, v, mask)
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)


class _Attention(torch.autograd.Function):
    """FlashAttention's formulas (arXiv:2205.14135, appendix B) with all scores of a layer at once."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
        ctx.save_for_backward(q, k, v, mask, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, mask, out, log_sums = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        weights = torch.exp((q @ k.mT).float() * scale + mask - log_sums[..., None])
        delta = (grad_out.float() * out.float()).sum(-1, keepdim=True)
        grad_weights = (grad_out @ v.mT).float()
        grad_scores = (weights * (grad_weights - delta) * scale).to(q.dtype)
        return grad_scores @ k, grad_scores.mT @ q, weights.to(q.dtype).mT @ grad_out, None
