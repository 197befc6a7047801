"""The Llama-family transformer: configuration, named sizes and layers, in plain torch.

It reads no files and knows nothing of text or training; token ids go in, hidden states or logits come out.

Shape letters: B rows, T positions, S cached positions, H heads, K key/value heads, D head size, C model width, V vocabulary.
Parameter names are those of Hugging Face's ``LlamaForCausalLM`` without the ``model.`` prefix, and the rotary layout is theirs
too (two halves, not interleaved pairs), so a checkpoint directory loads without a mapping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import BACKENDS, PackedSequences, choose_backend, document_mask, without_cudnn
from model.rope import RopeScaling, Scaling, frequencies

MAX_SIZE = 1 << 24  # of any size in a configuration; a larger one comes from a damaged file


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a model, by Meta's names. ``ValueError`` names a size that is out of range or does not fit the others."""

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
    rope_scaling: Scaling | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size", "head_dim", "max_seq_len"):
            if type(value := getattr(self, name)) is not int or not 1 <= value <= MAX_SIZE:
                raise ValueError(f"model configuration: {name} must be a whole number from 1 to {MAX_SIZE}, is {value!r}")
        for name in ("norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"model configuration: {name} must be above 0 and finite, is {getattr(self, name)!r}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"model configuration: {self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"model configuration: rotary embeddings need an even head size, is {self.head_dim}")

    @property
    def q_size(self) -> int:
        """Width of all query heads together, H × D."""
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, K × D; the value heads have the same."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True)
class Projection:
    """One of a layer's seven matrices: its module, its sizes and its names in the file formats."""

    name: str
    module: str  # of a Block
    out_size: str  # attributes of LlamaConfig
    in_size: str
    meta_name: str
    shard_dim: int  # the dimension that Meta's model-parallel ranks share
    gguf_name: str

    @property
    def path(self) -> str:
        """The name inside a layer, as in ``self_attn.q_proj``."""
        return f"{self.module}.{self.name}"

    def shape(self, config: LlamaConfig) -> tuple[int, int]:
        """(out, in) of the weight."""
        return getattr(config, self.out_size), getattr(config, self.in_size)

    def linear(self, config: LlamaConfig) -> nn.Linear:
        """A layer of this shape with random weights, without bias."""
        out_features, in_features = self.shape(config)
        return nn.Linear(in_features, out_features, bias=False)


# In the order of the parameters. Meta's names are those of its model.py, GGUF's those of llama.cpp's gguf-py.
PROJECTIONS = {
    projection.name: projection
    for projection in (
        Projection("q_proj", "self_attn", "q_size", "dim", "attention.wq", 0, "attn_q"),
        Projection("k_proj", "self_attn", "kv_size", "dim", "attention.wk", 0, "attn_k"),
        Projection("v_proj", "self_attn", "kv_size", "dim", "attention.wv", 0, "attn_v"),
        Projection("o_proj", "self_attn", "dim", "q_size", "attention.wo", 1, "attn_output"),
        Projection("gate_proj", "mlp", "ffn_dim", "dim", "feed_forward.w1", 0, "ffn_gate"),
        Projection("up_proj", "mlp", "ffn_dim", "dim", "feed_forward.w3", 0, "ffn_up"),
        Projection("down_proj", "mlp", "dim", "ffn_dim", "feed_forward.w2", 1, "ffn_down"),
    )
}

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
        """[..., C] to the same shape and precision."""
        x32 = x.float()
        return self.weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rotary_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per position of each pair of channels, [D/2], float32."""
    return frequencies(config.head_dim, config.rope_theta, config.rope_scaling)


@cache
@torch.inference_mode(False)
def _frequencies_on(device: torch.device, config: LlamaConfig) -> Tensor:
    return rotary_frequencies(config).to(device)


LayerCache = tuple[Tensor, Tensor]  # keys and values of a layer, [slots, K, S, D] each


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + D/2) of ``x`` [B, H, T, D] by the angles behind ``cos`` and ``sin`` [B, 1, T, D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = PROJECTIONS["q_proj"].linear(config)
        self.k_proj = PROJECTIONS["k_proj"].linear(config)
        self.v_proj = PROJECTIONS["v_proj"].linear(config)
        self.o_proj = PROJECTIONS["o_proj"].linear(config)

    def forward(self, x_BTC: Tensor, context: "AttentionContext", cached: "LayerCache | None" = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        q, k, v = (proj(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        if cached is not None:
            k, v = context.update(cached, k, v)
        out = BACKENDS[context.backend](q, k, v, *context.layout)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate_proj = PROJECTIONS["gate_proj"].linear(config)
        self.up_proj = PROJECTIONS["up_proj"].linear(config)
        self.down_proj = PROJECTIONS["down_proj"].linear(config)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """A layer: attention and feed-forward, each behind a norm and added to its input."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BTC: Tensor, context: "AttentionContext", cached: "LayerCache | None" = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        h = x_BTC + self.self_attn(self.input_layernorm(x_BTC), context, cached)
        return h + self.mlp(self.post_attention_layernorm(h))


@dataclass(frozen=True)
class AttentionContext:
    """Positions, rotary angles, kernel and cache slots that all layers share; made once per forward pass."""

    positions: Tensor  # [B, T]
    cos: Tensor  # [B, 1, T, D/2]
    sin: Tensor
    backend: str  # one of attention.BACKENDS
    layout: tuple[Tensor | PackedSequences, ...]  # what this kernel takes besides queries, keys and values
    slots: Tensor | None  # [B], of the cache; None: row b has slot b, and every slot has a row
    span: int  # S: the cached positions up to the last that any row attends to

    def update(self, cached: LayerCache, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values at each row's positions; returns the rows' keys and values [B, K, S, D]."""
        keys, values = cached
        slots = torch.arange(len(keys), device=keys.device) if self.slots is None else self.slots
        keys[slots[:, None], :, self.positions] = k_BKTD.transpose(1, 2)
        values[slots[:, None], :, self.positions] = v_BKTD.transpose(1, 2)
        if self.slots is None:
            return keys[:, :, : self.span], values[:, :, : self.span]
        return keys[self.slots, :, : self.span], values[self.slots, :, : self.span]


class Transformer(nn.Module):
    """Token ids to logits. Its parameters have Hugging Face's names and shapes."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.checkpointed_layers = 0  # in training, of so many layers only the input is kept, and the rest computed again
        weight = torch.empty(config.vocab_size, config.dim)
        if not weight.is_meta:  # where it would import torch's compiler, for a second
            nn.init.normal_(weight)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim, _weight=weight)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        packed: PackedSequences | None = None,
        cache: Sequence[LayerCache] | None = None,
        slots_B: Tensor | None = None,
        positions_BT: Tensor | None = None,
        span: int | None = None,
    ) -> Tensor:
        """Hidden states [B, T, C] before the output matrix.

        With ``packed`` documents attention stays within a document, and its positions start at 0. With a ``cache`` of each layer, row b
        continues the sequence in slot ``slots_B[b]`` (default: slot b) with tokens at ``positions_BT[b]``, the largest of which is
        ``span`` - 1 (without it, the device is asked). ``ValueError`` where the positions exceed the context.
        """
        x = self.embed_tokens(tokens_BT).to(self.norm.weight.dtype)  # a frozen embedding may be narrower than the residual stream
        context = self._attention_context(x, packed, positions_BT, span, cache, slots_B)
        of_layers: Sequence[LayerCache | None] = cache or [None] * len(self.layers)
        for index, (layer, cached) in enumerate(zip(self.layers, of_layers, strict=True)):
            if index < self.checkpointed_layers and torch.is_grad_enabled():
                x = checkpoint(layer, x, context, use_reentrant=False)
            else:
                x = layer(x, context, cached)
        return self.norm(x)

    def forward(self, tokens_BT: Tensor, *, packed: PackedSequences | None = None) -> Tensor:
        """Logits [B, T, V]."""
        return self.lm_head(self.hidden(tokens_BT, packed=packed))

    def _attention_context(
        self,
        x: Tensor,
        packed: PackedSequences | None,
        positions: Tensor | None,
        span: int | None,
        cache: Sequence[LayerCache] | None,
        slots: Tensor | None,
    ) -> AttentionContext:
        rows, length, device = x.shape[0], x.shape[1], x.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else x.dtype
        if device.type == "cuda":
            without_cudnn()
        backend, layout = "causal", tuple[Tensor | PackedSequences, ...]()
        if packed is not None:
            positions, span = packed.positions, max(packed.lengths)
            backend = choose_backend(device, dtype, length)
            layout = (document_mask(packed, dtype) if backend == "dense" else packed,)
        elif positions is None:
            positions, span = torch.arange(length, device=device).expand(rows, length), length
        span = int(positions.max()) + 1 if span is None else span
        if span > self.config.max_seq_len:
            raise ValueError(f"{span} positions exceed the model's context of {self.config.max_seq_len}")
        if cache is not None and span > length:  # otherwise the cache is empty: plain causal
            if device.type == "cuda":
                span = min(-(-span // 128) * 128, cache[0][0].shape[2])  # few shapes; the mask hides the rest
            backend, layout = "dense", ((torch.arange(span, device=device) <= positions[:, :, None]).unsqueeze(1),)
        slots = torch.arange(rows, device=device) if slots is None else slots
        return AttentionContext(positions, *self.rotary(positions, dtype), backend, layout, slots, span)

    def rotary(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine [B, 1, T, D/2] of the angles at these positions."""
        # In float32: bfloat16 has too few digits for large positions.
        angles = positions_BT[:, None, :, None].float() * _frequencies_on(positions_BT.device, self.config)
        return angles.cos().to(dtype), angles.sin().to(dtype)
