"""What a model is: its sizes, and how its family differs from Llama. No layer is built here, no file is read."""

import math
from dataclasses import dataclass, field

from model.rope import RopeScaling, Scaling

MAX_SIZE = 1 << 24  # of any size in a configuration; a larger one comes from a damaged file
FULL, SLIDING, NO_ROPE = "full", "sliding", "no_rope"  # kinds of layers


@dataclass(frozen=True)
class Family:
    """How a model differs from Llama; without arguments, not at all."""

    name: str = "llama"  # model_type of Hugging Face's config.json
    qkv_bias: bool = False  # added to queries, keys and values: Qwen2
    qk_norm: str = ""  # of queries and keys before they turn: of each "head" (Qwen3, Gemma 3), of "all" heads together (OLMo 2)
    block_norms: str = "before"  # attention and feed-forward: "before" (Llama), "after" (OLMo 2) or "both" (Gemma 3)
    norm_adds_one: bool = False  # norms multiply by 1 + w (Gemma)
    activation: str = "silu"  # of the gate; or "gelu_tanh" (Gemma)
    embedding_scale: float = 1.0  # of embedded tokens (Gemma, Granite)
    residual_scale: float = 1.0  # of what a layer adds to its input (Granite)
    attention_scale: float | None = None  # of the scores; None: 1/√D
    output_scale: float = 1.0  # of the last hidden states (Granite)
    logit_cap: float | None = None  # logits are soft-capped (Gemma 3, where set)
    rotary_dim: int | None = None  # channels of a head that turn; None: all (Phi)
    layers: tuple[str, ...] = ()  # the kind of each: FULL, SLIDING or NO_ROPE; empty: all FULL
    window: int | None = None  # tokens that a query of a SLIDING layer sees, itself included
    sliding_theta: float | None = None  # of SLIDING layers, whose rope is not scaled then; None: the rope of the others (Gemma 3)


LLAMA = Family()


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
    family: Family = field(default=LLAMA)

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size", "head_dim", "max_seq_len"):
            if type(value := getattr(self, name)) is not int or not 1 <= value <= MAX_SIZE:
                raise ValueError(f"model configuration: {name} must be a whole number from 1 to {MAX_SIZE}, is {value!r}")
        for name in ("norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"model configuration: {name} must be above 0 and finite, is {getattr(self, name)!r}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"model configuration: {self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise ValueError(f"model configuration: rotary embeddings need an even head size, is {self.rotary_dim} of {self.head_dim}")
        if len(self.kinds) != self.n_layers:
            raise ValueError(f"model configuration: {len(self.kinds)} kinds of layers for {self.n_layers} layers")

    @property
    def q_size(self) -> int:
        """Width of all query heads together, H × D."""
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, K × D; the value heads have the same."""
        return self.n_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that turn with the position."""
        return self.head_dim if self.family.rotary_dim is None else self.family.rotary_dim

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer."""
        return self.family.layers or (FULL,) * self.n_layers

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by."""
        scale = self.family.attention_scale
        return self.head_dim**-0.5 if scale is None else scale


@dataclass(frozen=True)
class Projection:
    """One of a layer's seven matrices: its module and its sizes."""

    name: str
    module: str  # of a Block
    out_size: str  # attributes of LlamaConfig
    in_size: str

    @property
    def path(self) -> str:
        """The name inside a layer, as in ``self_attn.q_proj``."""
        return f"{self.module}.{self.name}"

    def shape(self, config: LlamaConfig) -> tuple[int, int]:
        """(out, in) of the weight."""
        return getattr(config, self.out_size), getattr(config, self.in_size)


# In the order of the parameters.
PROJECTIONS = {
    projection.name: projection
    for projection in (
        Projection("q_proj", "self_attn", "q_size", "dim"),
        Projection("k_proj", "self_attn", "kv_size", "dim"),
        Projection("v_proj", "self_attn", "kv_size", "dim"),
        Projection("o_proj", "self_attn", "dim", "q_size"),
        Projection("gate_proj", "mlp", "ffn_dim", "dim"),
        Projection("up_proj", "mlp", "ffn_dim", "dim"),
        Projection("down_proj", "mlp", "dim", "ffn_dim"),
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
