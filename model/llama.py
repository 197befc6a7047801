"""The Llama-family transformer: configuration, named sizes and layers, in plain torch.

It knows nothing of files, text or training; token ids go in, hidden states or logits come out.

Shape letters: B rows, T positions, S cached positions, H heads, K key/value heads, D head size, C model width, V vocabulary.
Parameter names are those of Hugging Face's ``LlamaForCausalLM`` without the ``model.`` prefix, and the rotary layout is theirs
too (two halves, not interleaved pairs), so a checkpoint directory loads without a mapping.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import attend

MOST = 1 << 24  # of any size in a configuration: what exceeds it comes from a damaged file


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the rotary frequencies (``rope_type: llama3`` in a Hugging Face config)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True)
class LlamaConfig:
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    vocab_size: int
    head_dim: int
    max_seq_len: int = 2048
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size", "head_dim", "max_seq_len"):
            if type(value := getattr(self, name)) is not int or not 1 <= value <= MOST:
                raise ValueError(f"model configuration: {name} must be a whole number from 1 to {MOST}, is {value!r}")
        for name in ("norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"model configuration: {name} must be above 0 and finite, is {getattr(self, name)!r}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"model configuration: {self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"model configuration: rotary embeddings need an even head size, is {self.head_dim}")


_LLAMA3_1 = RopeScaling()
_LLAMA3_2 = RopeScaling(factor=32.0)

# From the config.json that each model's maker publishes.
SIZES: dict[str, LlamaConfig] = {
    "smollm2-135m": LlamaConfig(576, 30, 9, 3, 1536, 49152, 64, 8192, 1e-5, 1e5, None, True),
    "smollm2-360m": LlamaConfig(960, 32, 15, 5, 2560, 49152, 64, 8192, 1e-5, 1e5, None, True),
    "smollm2-1.7b": LlamaConfig(2048, 24, 32, 32, 8192, 49152, 64, 8192, 1e-5, 1.3e5, None, True),
    "llama-2-7b": LlamaConfig(4096, 32, 32, 32, 11008, 32000, 128, 4096, 1e-5, 1e4, None, False),
    "llama-3-8b": LlamaConfig(4096, 32, 32, 8, 14336, 128256, 128, 8192, 1e-5, 5e5, None, False),
    "llama-3.1-8b": LlamaConfig(4096, 32, 32, 8, 14336, 128256, 128, 131072, 1e-5, 5e5, _LLAMA3_1, False),
    "llama-3.1-70b": LlamaConfig(8192, 80, 64, 8, 28672, 128256, 128, 131072, 1e-5, 5e5, _LLAMA3_1, False),
    "llama-3.2-1b": LlamaConfig(2048, 16, 32, 8, 8192, 128256, 64, 131072, 1e-5, 5e5, _LLAMA3_2, True),
    "llama-3.2-3b": LlamaConfig(3072, 28, 24, 8, 8192, 128256, 128, 131072, 1e-5, 5e5, _LLAMA3_2, True),
}


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return self.weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rotary_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per position of each pair of channels, [D/2], float32 (RoFormer, arXiv:2104.09864; Llama 3.1's scaling: the
    function ``apply_scaling`` of Meta's reference model)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    freqs = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return freqs
    turns = scaling.original_max_position_embeddings * freqs / (2 * math.pi)  # full turns within the original context
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * freqs / scaling.factor + smooth * freqs


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + D/2) of ``x`` [B, H, T, D] by the angles behind ``cos`` and ``sin`` [B, 1, T, D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class KVCache:
    """Keys and values [layers, slots, K, S, D] of the sequences that are being generated.

    A sequence takes a slot and frees it when it leaves; ``lengths`` says how many positions each slot holds.
    """

    def __init__(self, config: LlamaConfig, slots: int, max_len: int, *, dtype: torch.dtype, device: torch.device):
        shape = (config.n_layers, slots, config.n_kv_heads, max_len, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * slots
        self._free = list(reversed(range(slots)))

    def take(self) -> int:
        """An empty slot; ``IndexError`` where none is free."""
        slot = self._free.pop()
        self.lengths[slot] = 0
        return slot

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def copy(self, source: int, target: int, count: int) -> None:
        """The first positions of one slot's sequence, which the other's sequence begins with too."""
        self.keys[:, target, :, :count] = self.keys[:, source, :, :count]
        self.values[:, target, :, :count] = self.values[:, source, :, :count]
        self.lengths[target] = count

    def put(self, layer: int, where: "Where", k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values at each row's own positions; all of the rows up to the last position."""
        self.keys[layer][where.slots[:, None], :, where.positions] = k_BKTD.transpose(1, 2)
        self.values[layer][where.slots[:, None], :, where.positions] = v_BKTD.transpose(1, 2)
        return self.keys[layer][where.slots, :, : where.span], self.values[layer][where.slots, :, : where.span]


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.n_heads // config.n_kv_heads
        self.q_proj = nn.Linear(config.dim, config.n_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.n_heads * config.head_dim, config.dim, bias=False)

    def forward(self, x_BTC: Tensor, where: "Where", layer: int) -> Tensor:
        q, k, v = (proj(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, where.cos, where.sin), rotate(k, where.cos, where.sin)
        if where.cache is not None:
            k, v = where.cache.put(layer, where, k, v)
        if self.groups > 1:
            k, v = k.repeat_interleave(self.groups, dim=1), v.repeat_interleave(self.groups, dim=1)
        out = attend(q, k, v, where.mask)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.down_proj = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BTC: Tensor, where: "Where", layer: int) -> Tensor:
        h = x_BTC + self.self_attn(self.input_layernorm(x_BTC), where, layer)
        return h + self.mlp(self.post_attention_layernorm(h))


@dataclass(frozen=True)
class Where:
    """What every layer needs to know about positions; computed once per forward pass."""

    positions: Tensor  # [B, T]
    cos: Tensor  # [B, 1, T, D/2]
    sin: Tensor
    mask: Tensor | None  # [B, 1, T, S], True or 0 where a query sees a key, False or -inf elsewhere; None: plain causal
    cache: KVCache | None
    slots: Tensor  # [B], of the cache
    span: int  # positions of the cache that any row sees


class Transformer(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.recompute = False  # in training, keep only what enters a layer and compute the rest again in the backward pass
        # Without the default initialization, which on the meta device imports torch's compiler (a second): weights are always loaded.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim, _weight=torch.empty(config.vocab_size, config.dim))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        slots_B: Tensor | None = None,
        positions_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, T, C] before the output matrix.

        ``documents_BT`` numbers the document that each packed token belongs to (-1: padding): attention stays within a
        document and its positions start at 0. With a ``cache``, row b continues the sequence in slot ``slots_B[b]`` (by default
        row b's is slot b) with tokens that stand at ``positions_BT[b]``.
        """
        x = self.embed_tokens(tokens_BT)
        where = self._where(x, documents_BT, positions_BT, cache, slots_B)
        for number, layer in enumerate(self.layers):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, where, number, use_reentrant=False)
            else:
                x = layer(x, where, number)
        return self.norm(x)

    def forward(self, tokens_BT: Tensor, *, documents_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V]."""
        return self.lm_head(self.hidden(tokens_BT, documents_BT=documents_BT))

    def _where(self, x: Tensor, documents: Tensor | None, positions: Tensor | None, cache: KVCache | None, slots: Tensor | None) -> Where:
        rows, length, device = x.shape[0], x.shape[1], x.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else x.dtype
        mask = None
        if documents is not None:
            positions = positions_within(documents)
            same = documents[:, :, None] == documents[:, None, :]
            seen = (same & torch.ones(length, length, dtype=torch.bool, device=device).tril()).unsqueeze(1)
            # In the form that attention adds to its scores: of a boolean one every layer would make, and keep, its own.
            mask = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -math.inf)
        elif positions is None:
            positions = torch.arange(length, device=device).expand(rows, length)
        span = int(positions.max()) + 1
        if span > self.config.max_seq_len:
            raise ValueError(f"{span} positions exceed the model's context of {self.config.max_seq_len}")
        if cache is not None and span > length:  # else nothing comes before: plain causal
            mask = (torch.arange(span, device=device) <= positions[:, :, None]).unsqueeze(1)
        slots = torch.arange(rows, device=device) if slots is None else slots
        # Angles in float32: bfloat16 has too few digits for large positions.
        angles = positions[:, None, :, None].float() * rotary_frequencies(self.config).to(device)
        return Where(positions, angles.cos().to(dtype), angles.sin().to(dtype), mask, cache, slots, span)


def positions_within(documents_BT: Tensor) -> Tensor:
    """Position of each token inside its own document, [B, T], for document numbers that are contiguous in a row."""
    index = torch.arange(documents_BT.shape[1], device=documents_BT.device).expand_as(documents_BT)
    starts = torch.ones_like(documents_BT, dtype=torch.bool)
    starts[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def parameter_shapes(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter, without allocating one; a tied output matrix is not listed."""
    with torch.device("meta"):
        skeleton = Transformer(replace(config))
    for name, parameter in skeleton.named_parameters():
        yield name, tuple(parameter.shape)
