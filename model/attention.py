"""Causal attention over packed documents, over one sequence per row, or over cached positions, by the kernel that suits the device.

``BACKENDS`` is the table of kernels; ``choose_backend`` says which one packed documents get. Each takes queries [B, H, T, D] and keys
and values [B, K, T, D] with H a multiple of K, and gives [B, H, T, D].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
MAX_DENSE = 2048  # tokens of a row up to which a mask of T x T is made on the CPU; above, memory grows with T alone
FEW_TOKENS = 64  # of a document; rows rarely hold so many that each has fewer
SHORT = 1024  # tokens of a document that is no long one
_VARLEN_OPTIONS: dict[str, Any] = {}
if torch.__version__ >= "2.12":  # 2.11 shares heads without being asked
    _VARLEN_OPTIONS["enable_gqa"] = True


@dataclass(frozen=True)
class PackedSequences:
    """The documents that B rows of T tokens are packed from. The rows count as one sequence of B x T tokens, padding as documents."""

    positions: Tensor  # int64 [B, T]: of each token in its document
    cu_seqlens: Tensor  # int32 [N + 1]: where each document begins in the one sequence, and its end; filled up with empty ones
    lengths: tuple[int, ...]  # of the documents, known without asking the device
    max_len: int  # of a document, rounded up
    window: int | None = None  # tokens that each sees, itself included; None: all before it

    def to(self, device: torch.device) -> "PackedSequences":
        """The same on a GPU, which need not have finished what it does."""
        positions, cu_seqlens = (x.pin_memory().to(device, non_blocking=True) for x in (self.positions, self.cu_seqlens))
        return replace(self, positions=positions, cu_seqlens=cu_seqlens)


def packed_sequences(documents_BT: Tensor) -> PackedSequences:
    """From the index of the document that each token belongs to, [B, T] on the CPU; a document's tokens are contiguous in a row.

    The number of documents and the longest length are rounded up, so that compiled layers see few of each: every other pair of them
    would be compiled anew.
    """
    rows, width = documents_BT.shape
    begins = torch.ones_like(documents_BT, dtype=torch.bool)
    begins[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    index = torch.arange(width).expand_as(documents_BT)
    positions = index - torch.where(begins, index, 0).cummax(dim=1).values
    starts = begins.flatten().nonzero().flatten()
    lengths = torch.diff(starts, append=torch.tensor([rows * width])).tolist()
    count = max(_power_of_two(len(lengths)), rows * width // FEW_TOKENS)
    cu_seqlens = torch.full((1 + count,), rows * width, dtype=torch.int32)
    cu_seqlens[: len(starts)] = starts
    return PackedSequences(positions, cu_seqlens, tuple(lengths), min(width, SHORT) if max(lengths) <= SHORT else width)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def choose_backend(device: torch.device, dtype: torch.dtype, width: int, lengths: Sequence[int] | None = None) -> str:
    """The kernel for packed documents in rows of ``width`` tokens; ``lengths``: of the documents, where it may depend on them."""
    if device.type == "cpu":
        # Where most of T x T is between different documents, a pass for each of them is a lot less (bench/train_speed.py).
        short = lengths is not None and 2 * sum(n * n for n in lengths) < width * sum(lengths)
        return "documents" if short or width > MAX_DENSE else "dense"
    has_kernel = dtype in HALF and torch.cuda.get_device_capability(device) >= (8, 0)
    return "varlen" if has_kernel else "documents"


def document_mask(packed: PackedSequences, dtype: torch.dtype) -> Tensor:
    """[B, 1, T, T]: 0 where a token sees another of its document, -inf elsewhere."""
    index = (packed.positions == 0).cumsum(1)
    width = index.shape[1]
    same_document = index[:, :, None] == index[:, None, :]
    visible = (same_document & torch.ones(width, width, dtype=torch.bool, device=index.device).tril()).unsqueeze(1)
    # Additive: from a boolean mask every layer would make, and keep, a copy of its own.
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -math.inf)


def attend_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sequence per row."""
    return _sdpa(q, k, v, is_causal=True)


def attend_dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Under a mask [B, 1, T, S]: True or 0 where a query sees a key, False or -inf elsewhere.

    In compiled training on a CPU torch's backward pass takes twice as long as matrix products and one fused pass over the scores
    (bench/train_speed.py).
    """
    training = torch.compiler.is_compiling() and torch.is_grad_enabled()
    if training and mask.is_floating_point() and q.device.type == "cpu":
        out: Tensor = _Attention.apply(q, *_repeated(q, k, v), mask)
        return out
    return _sdpa(q, k, v, attn_mask=mask)


def attend_step(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """One query per row over cached positions on a GPU, under a boolean mask [B, 1, 1, S].

    The heads of a group are the rows of one product, so keys and values are read once and never repeated.
    """
    grouped = q.unflatten(1, (k.shape[1], -1)).squeeze(3)  # [B, K, H/K, D]
    scores = (grouped @ k.mT).float() * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return (weights.to(v.dtype) @ v).flatten(1, 2).unsqueeze(2)


def attend_documents(q: Tensor, k: Tensor, v: Tensor, packed: PackedSequences) -> Tensor:
    """Document by document."""
    rows = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # [B * T, H, D]
    parts = zip(*(x.split(packed.lengths) for x in rows), strict=True)
    window = packed.window
    out = [_attend_document(*(x.transpose(0, 1)[None] for x in part), window=window)[0].transpose(0, 1) for part in parts]
    return torch.cat(out).unflatten(0, (q.shape[0], q.shape[2])).transpose(1, 2)


def _attend_document(q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
    length = q.shape[2]
    if window is None or length <= window:
        return _sdpa(q, k, v, is_causal=True)
    index = torch.arange(length, device=q.device)
    return _sdpa(q, k, v, attn_mask=_sees(index[:, None], index, window))


def _sees(query: Tensor, key: Tensor, window: int) -> Tensor:
    """Whether a query at a position sees the key at another."""
    return (key <= query) & (key > query - window)


def windowed(
    backend: str, layout: tuple[Tensor | PackedSequences, ...], positions_BT: Tensor, window: int
) -> tuple[str, tuple[Tensor | PackedSequences, ...]]:
    """Kernel and layout of layers that see ``window`` tokens, from those of layers that see all (arXiv:2004.05150)."""
    if layout and isinstance(layout[0], PackedSequences):
        return backend, (replace(layout[0], window=window),)
    if not layout:  # one sequence per row
        return "dense", (_sees(positions_BT[:, None, :, None], positions_BT[:, None, None, :], window),)
    (mask,) = layout
    assert isinstance(mask, Tensor)
    key = torch.arange(mask.shape[-1], device=mask.device)
    if mask.is_floating_point():  # of packed documents: within one the distance is that in the row
        return backend, (mask.masked_fill(~_sees(key[:, None], key, window), -math.inf),)
    return backend, (mask & _sees(positions_BT[:, None, :, None], key, window),)


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, packed: PackedSequences) -> Tensor:
    """FlashAttention over all documents at once, on CUDA in half precision (arXiv:2307.08691)."""
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler, for two seconds

    q_NHD, k_NKD, v_NKD = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    borders, longest = packed.cu_seqlens, packed.max_len
    before = -1 if packed.window is None else packed.window - 1
    out = varlen_attn(q_NHD, k_NKD, v_NKD, borders, borders, longest, longest, window_size=(before, 0), **_VARLEN_OPTIONS)
    assert isinstance(out, Tensor)
    return out.unflatten(0, (q.shape[0], q.shape[2])).transpose(1, 2)


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "causal": attend_causal,
    "dense": attend_dense,
    "step": attend_step,
    "documents": attend_documents,
    "varlen": attend_varlen,
}


@cache
def without_cudnn() -> None:
    """Leave cuDNN's attention out: it plans anew for every shape, and lengths differ from batch to batch and from step to step."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    # Only FlashAttention takes fewer key heads than query heads; it needs half precision and no mask.
    if q.device.type == "cuda" and q.dtype in HALF and "attn_mask" not in options:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1], **options)
    return F.scaled_dot_product_attention(q, *_repeated(q, k, v), **options)


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for each query head."""
    groups = q.shape[1] // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1))


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
