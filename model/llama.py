"""The Llama-family transformer in plain torch: its layers, and how those of other families differ (config.py has the sizes).

It reads no files and knows nothing of text or training; token ids go in, hidden states or logits come out.

Shape letters: B rows, T positions, S cached positions, H heads, K key/value heads, D head size, C model width, V vocabulary.
Parameter names are those of Hugging Face's ``LlamaForCausalLM`` without the ``model.`` prefix, and the rotary layout is theirs
too (two halves, not interleaved pairs). Where other families store a parameter otherwise, checkpoint/layout.py says how.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import BACKENDS, PackedSequences, choose_backend, document_mask, windowed, without_cudnn
from model.config import FULL, NO_ROPE, PROJECTIONS, SLIDING, LlamaConfig
from model.rope import frequencies


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float, *, adds_one: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim) if adds_one else torch.ones(dim))
        self.eps, self.adds_one = eps, adds_one

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same shape and precision."""
        if self.adds_one:  # Gemma multiplies before it rounds
            return (self._normalized(x) * (1 + self.weight.float())).to(x.dtype)
        return self.weight * self._normalized(x).to(x.dtype)

    def _normalized(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)

    def factors(self) -> Tensor:
        """What normalized values are multiplied by, float32."""
        return self.weight.detach().float() + self.adds_one


def _norm(config: LlamaConfig, dim: int) -> RMSNorm:
    return RMSNorm(dim, config.norm_eps, adds_one=config.family.norm_adds_one)


def rotary_frequencies(config: LlamaConfig, kind: str = FULL) -> Tensor:
    """Angle per position of each pair of channels in layers of this kind, [R/2], float32; R of a head's D channels turn."""
    if kind == SLIDING and config.family.sliding_theta is not None:
        return frequencies(config.rotary_dim, config.family.sliding_theta, None)
    return frequencies(config.rotary_dim, config.rope_theta, config.rope_scaling)


def rotary_scale(config: LlamaConfig, kind: str = FULL) -> float:
    """What the cosine and sine of layers of this kind are multiplied by."""
    local = kind == SLIDING and config.family.sliding_theta is not None
    return 1.0 if local or config.rope_scaling is None else config.rope_scaling.attention_factor


@cache
@torch.inference_mode(False)
def _frequencies_on(device: torch.device, config: LlamaConfig, kind: str) -> Tensor:
    return rotary_frequencies(config, kind).to(device)


LayerCache = tuple[Tensor, Tensor]  # keys and values of a layer, [slots, K, S, D] each


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + R/2) of ``x`` [B, H, T, D] by the angles behind ``cos`` and ``sin`` [B, 1, T, R/2]."""
    size = 2 * cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat((rotate(x[..., :size], cos, sin), x[..., size:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _linear(name: str, config: LlamaConfig) -> nn.Linear:
    """A projection with random weights."""
    out_features, in_features = PROJECTIONS[name].shape(config)
    return nn.Linear(in_features, out_features, bias=False)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        family = config.family
        self.head_dim, self.qk_norm = config.head_dim, family.qk_norm
        self.score_scale = config.attention_scale * config.head_dim**0.5  # beside 1/√D, which the kernels multiply by
        self.q_proj = _linear("q_proj", config)
        self.k_proj = _linear("k_proj", config)
        self.v_proj = _linear("v_proj", config)
        self.o_proj = _linear("o_proj", config)
        # Apart from the matrices, so that these are the same to adapters and quantization in every family.
        self.q_bias, self.k_bias, self.v_bias = (
            nn.Parameter(torch.zeros(size)) if family.qkv_bias else None for size in (config.q_size, config.kv_size, config.kv_size)
        )
        of_heads = family.qk_norm == "head"
        self.q_norm = _norm(config, config.head_dim if of_heads else config.q_size) if family.qk_norm else None
        self.k_norm = _norm(config, config.head_dim if of_heads else config.kv_size) if family.qk_norm else None

    def forward(self, x_BTC: Tensor, context: "AttentionContext", cached: "LayerCache | None" = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        q = self._heads(self.q_proj(x_BTC), self.q_bias, self.q_norm)
        k = self._heads(self.k_proj(x_BTC), self.k_bias, self.k_norm)
        v = self._heads(self.v_proj(x_BTC), self.v_bias, None)
        if context.turns:
            q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        if self.score_scale != 1:
            q = q * self.score_scale
        if cached is not None:
            k, v = context.update(cached, k, v)
        out = BACKENDS[context.backend](q, k, v, *context.layout)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, bias: Tensor | None, norm: RMSNorm | None) -> Tensor:
        """[B, T, H * D] to [B, H, T, D]."""
        x = x if bias is None else x + bias.to(x.dtype)
        x = norm(x) if norm is not None and self.qk_norm == "all" else x
        x = x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return norm(x) if norm is not None and self.qk_norm == "head" else x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


class FeedForward(nn.Module):
    """SwiGLU, or GEGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.family.activation]
        self.gate_proj = _linear("gate_proj", config)
        self.up_proj = _linear("up_proj", config)
        self.down_proj = _linear("down_proj", config)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """Between -cap and cap, smoothly (Gemma 2, arXiv:2408.00118, section 2)."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


class OutputLayer(nn.Linear):
    """The output matrix; its results are logits, which may be soft-capped."""

    def __init__(self, dim: int, vocab_size: int, cap: float | None = None):
        super().__init__(dim, vocab_size, bias=False)
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., V]."""
        return soft_capped(super().forward(x), self.cap)


class Block(nn.Module):
    """A layer: attention and feed-forward, each added to its input, with norms before them, after them or both."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.norms, self.scale = config.family.block_norms, config.family.residual_scale
        if self.norms != "after":
            self.input_layernorm = _norm(config, config.dim)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = _norm(config, config.dim)  # of the feed-forward's input, where norms are before
        if self.norms == "both":
            self.pre_feedforward_layernorm = _norm(config, config.dim)
        self.mlp = FeedForward(config)
        if self.norms != "before":
            self.post_feedforward_layernorm = _norm(config, config.dim)

    def forward(self, x_BTC: Tensor, context: "AttentionContext", cached: "LayerCache | None" = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        if self.norms == "before":
            h = x_BTC + self._scaled(self.self_attn(self.input_layernorm(x_BTC), context, cached))
            return h + self._scaled(self.mlp(self.post_attention_layernorm(h)))
        if self.norms == "after":
            h = x_BTC + self.post_attention_layernorm(self.self_attn(x_BTC, context, cached))
            return h + self.post_feedforward_layernorm(self.mlp(h))
        h = x_BTC + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x_BTC), context, cached))
        return h + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(h)))

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scale == 1 else x * self.scale


@dataclass(frozen=True)
class AttentionContext:
    """Positions, rotary angles, kernel and cache slots that layers of a kind share; made once per forward pass."""

    positions: Tensor  # [B, T]
    cos: Tensor  # [B, 1, T, R/2]
    sin: Tensor
    backend: str  # one of attention.BACKENDS
    layout: tuple[Tensor | PackedSequences, ...]  # what this kernel takes besides queries, keys and values
    slots: Tensor | None  # [B], of the cache; None: row b has slot b, and every slot has a row
    span: int  # S: the cached positions up to the last that any row attends to
    turns: bool = True  # whether the layers have rotary positions

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
        self.compiled = False  # whether the layers are
        weight = torch.empty(config.vocab_size, config.dim)
        if not weight.is_meta:  # where it would import torch's compiler, for a second
            nn.init.normal_(weight)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim, _weight=weight)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = _norm(config, config.dim)
        self.lm_head = OutputLayer(config.dim, config.vocab_size, config.family.logit_cap)
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
        x = self.embed(tokens_BT)
        contexts = self.contexts_by_kind(self._attention_context(x, packed, positions_BT, span, cache, slots_B))
        of_layers: Sequence[LayerCache | None] = cache or [None] * len(self.layers)
        for index, (layer, kind, cached) in enumerate(zip(self.layers, self.config.kinds, of_layers, strict=True)):
            context = contexts[kind]
            if index < self.checkpointed_layers and torch.is_grad_enabled():
                x = checkpoint(layer, x, context, use_reentrant=False)
            else:
                x = layer(x, context, cached)
        return self.normalize(x)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """What enters the first layer, [B, T, C]."""
        x: Tensor = self.embed_tokens(tokens_BT).to(self.norm.weight.dtype)  # a frozen embedding may be narrower than the residual stream
        scale = self.config.family.embedding_scale
        return x if scale == 1 else x * scale

    def normalize(self, x_BTC: Tensor) -> Tensor:
        """The hidden states [B, T, C] that the output matrix takes, from what leaves the last layer."""
        x, scale = self.norm(x_BTC), self.config.family.output_scale
        return x if scale == 1 else x * scale

    def contexts_by_kind(self, full: AttentionContext) -> dict[str, AttentionContext]:
        """What the layers of each kind take, from what those with full attention do."""
        window = self.config.family.window
        contexts = {FULL: full, NO_ROPE: replace(full, turns=False)}
        if window is not None:
            rope = self.rotary(full.positions, full.cos.dtype, SLIDING)
            backend, layout = (full.backend, full.layout)
            if full.span > window:
                backend, layout = windowed(full.backend, full.layout, full.positions, window)
            contexts[SLIDING] = replace(full, cos=rope[0], sin=rope[1], backend=backend, layout=layout)
        return contexts

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
            # Compiled layers would be compiled again for the lengths of each batch.
            backend = choose_backend(device, dtype, length, None if self.compiled else packed.lengths)
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

    def rotary(self, positions_BT: Tensor, dtype: torch.dtype, kind: str = FULL) -> tuple[Tensor, Tensor]:
        """Cosine and sine [B, 1, T, R/2] of the angles at these positions in layers of this kind."""
        # In float32: bfloat16 has too few digits for large positions.
        angles = positions_BT[:, None, :, None].float() * _frequencies_on(positions_BT.device, self.config, kind)
        scale = rotary_scale(self.config, kind)
        return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)
