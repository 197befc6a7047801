"""A model's steps on the CPU in C (decode.c), called through ctypes. It knows nothing of sampling or text."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from model.config import NO_ROPE, PROJECTIONS, SLIDING, LlamaConfig
from model.generation.adapters import Adapter, LowRank
from model.generation.compiled import DTYPE_CODES, PANEL, Matrix, library, pointer, rounded_rows
from model.generation.kv_cache import KVCache
from model.generation.quantize import QuantizedLinear, product
from model.llama import Block, OutputLayer, RMSNorm, Transformer, rotary_frequencies, rotary_scale, soft_capped

BLOCK = PANEL  # as in decode.c
# Before and after attention, before and after the feed-forward, by a family's block_norms.
NORMS = {
    "before": ("input_layernorm", "", "post_attention_layernorm", ""),
    "after": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "both": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
}


class _Layer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("attention_in", "attention_out", "mlp_in", "mlp_out")),
        *((name, c_void_p) for name in ("q_bias", "k_bias", "v_bias", "q_norm", "k_norm")),
        *((name, c_void_p) for name in ("cos", "sin")),
        ("window", c_int64),
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    )


class _Model(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "turning", "norm_all_heads", "gelu")),
        *((name, c_float) for name in ("eps", "attention_scale", "residual_scale")),
        ("layer", POINTER(_Layer)),
        ("norm", c_void_p),
    )


class _LowRank(Structure):
    _fields_ = (("down", c_void_p), ("up", c_void_p), ("magnitude", c_void_p), ("rank", c_int64))


class _Cache(Structure):
    _fields_ = (("keys", c_void_p), ("values", c_void_p), ("slots", c_int64), ("len", c_int64))


class Native:
    """A model's weights as decode.c reads them, by pointers to the tensors. ``ValueError`` says which of them does not fit."""

    def __init__(self, model: Transformer):
        loaded = library()
        if isinstance(loaded, str):
            raise ValueError(loaded)
        self._library = loaded
        config = model.config
        self._keep_alive: list[object] = [model]
        family = config.family
        tables = {kind: self._angles(config, kind) for kind in dict.fromkeys(config.kinds)}
        pairs = zip(model.layers, config.kinds, strict=True)
        layers = (_Layer * config.n_layers)(*(self._layer(layer, kind, config, tables[kind]) for layer, kind in pairs))
        sizes = (config.n_layers, config.dim, config.n_heads, config.n_kv_heads, config.head_dim, config.ffn_dim, config.rotary_dim // 2)
        flags = (family.qk_norm == "all", family.activation == "gelu_tanh")
        scales = (config.norm_eps, config.attention_scale, family.residual_scale)
        self._model = _Model(*sizes, *flags, *scales, layers, self._floats(model.norm.factors() * family.output_scale))
        self._output, self._logit_cap = self._matrix(model.lm_head), family.logit_cap
        self._embed, self._embedding_scale = model.embed_tokens, family.embedding_scale
        # Per row: normed, q and k and v, mixed heads, inner; see step() in decode.c.
        heads = (2 * config.n_heads + 2 * config.n_kv_heads) * config.head_dim
        self._per_row = config.dim + heads + config.ffn_dim
        self._scratch = torch.empty(0)
        self.multiplies_integers = self._output.kind == DTYPE_CODES[torch.int8]  # with int4 projections too
        self._rounded = max(config.dim, config.q_size, config.ffn_dim) if self.multiplies_integers else 0
        self._adapters: WeakKeyDictionary[Adapter, _NativeAdapter] = WeakKeyDictionary()

    @classmethod
    def of(cls, model: Transformer) -> "Native | None":
        """None unless the model is on the CPU and decode.c supports all of its layers."""
        try:
            return cls(model)
        except ValueError:
            return None

    @torch.inference_mode()
    def step(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        kv: KVCache,
        adapters: Sequence[Adapter | None] = (),
    ) -> Tensor:
        """Hidden states [N, C], float32, of one token per row, each at its own position in its cache slot.

        ``adapters``: that of each row, or none at all.
        """
        rows, threads = len(tokens), torch.get_num_threads()
        # C does not check an index as torch does.
        if min(positions) < 0 or max(positions) >= kv.keys.shape[3] or min(slots) < 0 or max(slots) >= kv.keys.shape[1]:
            raise ValueError(f"positions up to {max(positions)} in slots up to {max(slots)} exceed the cache {list(kv.keys.shape)}")
        x = (self._embed(torch.tensor(tokens)).float() * self._embedding_scale).contiguous()
        rank = max((adapter.rank for adapter in adapters if adapter), default=0)
        scores = self._model.heads // self._model.kv_heads * -(-kv.keys.shape[3] // 16) * 16
        scratch_size = rows * self._per_row + threads * scores + 3 * rows * rank
        if self._scratch.numel() < scratch_size:
            self._scratch = torch.empty(scratch_size)
        integers = c_int32 * rows
        view = _Cache(kv.keys.data_ptr(), kv.values.data_ptr(), kv.keys.shape[1], kv.keys.shape[3])
        indices = (integers(*slots), integers(*positions))
        by_row = (c_void_p * rows)(*map(self._adapter, adapters)) if rank else None
        rounded = rounded_rows(rows, self._rounded)
        memory = (pointer(self._scratch), pointer(rounded))
        self._library.step(byref(self._model), byref(view), rows, *indices, by_row, rank, pointer(x), *memory, threads)
        return x

    def _adapter(self, adapter: Adapter | None) -> int | None:
        if adapter is None:
            return None
        if adapter not in self._adapters:
            self._adapters[adapter] = _NativeAdapter(adapter, self._model.layers)
        return ctypes.addressof(self._adapters[adapter].projections)

    @torch.inference_mode()
    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Hidden states [N, C] to logits [N, V], float32."""
        hidden_NC = hidden_NC.contiguous()
        out = torch.empty(hidden_NC.shape[0], self._output.outs)
        product(self._output, hidden_NC, out)
        return soft_capped(out, self._logit_cap)

    def _layer(self, block: nn.Module, kind: str, config: LlamaConfig, angles: tuple[int, int] | tuple[None, None]) -> _Layer:
        assert isinstance(block, Block)
        linears = (block.get_submodule(projection.path) for projection in PROJECTIONS.values())
        norms = (getattr(block, name, None) for name in NORMS[config.family.block_norms])
        attention = block.self_attn
        biases = (None if bias is None else self._floats(bias) for bias in (attention.q_bias, attention.k_bias, attention.v_bias))
        qk_norms = map(self._norm, (attention.q_norm, attention.k_norm))
        window = config.family.window if kind == SLIDING and config.family.window else config.max_seq_len
        return _Layer(*map(self._norm, norms), *biases, *qk_norms, *angles, window, *map(self._matrix, linears))

    def _norm(self, norm: RMSNorm | None) -> int | None:
        return None if norm is None else self._floats(norm.factors())

    def _angles(self, config: LlamaConfig, kind: str) -> tuple[int, int] | tuple[None, None]:
        """Cosine and sine at all positions."""
        if kind == NO_ROPE:
            return None, None
        angles, scale = torch.arange(config.max_seq_len)[:, None].float() * rotary_frequencies(config, kind), rotary_scale(config, kind)
        return self._floats(angles.cos() * scale), self._floats(angles.sin() * scale)

    def _matrix(self, linear: nn.Module) -> Matrix:
        if isinstance(linear, QuantizedLinear):
            return linear.matrix()
        if type(linear) is nn.Linear or isinstance(linear, OutputLayer):
            return Matrix.of(linear.weight, None, (linear.out_features, linear.in_features))
        raise ValueError(f"decode.c knows no {type(linear).__name__}")

    def _floats(self, values: Tensor) -> int:
        floats = values.detach().float().contiguous()
        self._keep_alive.append(floats)
        return floats.data_ptr()


class _NativeAdapter:
    """An adapter as decode.c reads it: of each layer its seven projections."""

    def __init__(self, adapter: Adapter, layers: int):
        self._keep_alive: list[Tensor] = []
        names = [f"layers.{layer}.{projection.path}" for layer in range(layers) for projection in PROJECTIONS.values()]
        self.projections = (_LowRank * len(names))(*(self._low_rank(adapter.projections.get(name)) for name in names))

    def _low_rank(self, low_rank: LowRank | None) -> _LowRank:
        if low_rank is None:
            return _LowRank(None, None, None, 0)
        up = nn.functional.pad(low_rank.up, (0, 0, 0, -len(low_rank.up) % BLOCK))
        up = up.unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()
        self._keep_alive += [low_rank.down, up, *([] if low_rank.magnitude is None else [low_rank.magnitude])]
        magnitude = None if low_rank.magnitude is None else low_rank.magnitude.data_ptr()
        return _LowRank(low_rank.down.data_ptr(), up.data_ptr(), magnitude, len(low_rank.down))
