"""The families of models in GGUF: architecture, tensor names and metadata keys, those of llama.cpp's gguf-py.

Sliding windows, long contexts and the like are written where llama.cpp computes them as the model was trained, else refused.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import gguf

from model.checkpoint.layout import Stored, grouped
from model.checkpoint.shapes import parameter_shapes
from model.config import FULL, LLAMA, NO_ROPE, SLIDING, Family, LlamaConfig
from model.rope import LinearScaling, RopeScaling

ARCHITECTURES = {
    **{"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3", "olmo2": "olmo2"},
    **{"smollm3": "smollm3", "granite": "granite", "phi3": "phi3"},
}
INTERLEAVED = ("llama", "smollm3", "granite")  # whose queries and keys llama.cpp orders as Meta does
MODEL_NAMES = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
_NORMS = {
    "before": {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    "after": {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    "both": {
        **{"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm"},
        **{"pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    },
}
_PROJECTIONS = {
    **{f"self_attn.{name}_proj.weight": f"attn_{name}" for name in "qkv"},
    "self_attn.o_proj.weight": "attn_output",
    **{f"mlp.{name}_proj.weight": f"ffn_{name}" for name in ("gate", "up", "down")},
}
_ATTENTION = {
    **{f"self_attn.{name}_bias": f"attn_{name}.bias" for name in "qkv"},
    **{f"self_attn.{name}_norm.weight": f"attn_{name}_norm.weight" for name in "qk"},
}
_FUSED = {"phi3": {"attn_q": "attn_qkv", "attn_k": "attn_qkv", "attn_v": "attn_qkv", "ffn_gate": "ffn_up"}}
# Of Gemma 3's and SmolLM3's layers in llama.cpp.
SWA_PATTERN, SLIDING_THETA = 6, 10000.0
NO_ROPE_STEP = 4


def gguf_name(parameter: str, family: Family) -> str:
    """GGUF's name of the tensor that holds a parameter of the model."""
    if parameter in MODEL_NAMES:
        return MODEL_NAMES[parameter]
    _, layer, inner = parameter.split(".", 2)
    fused = _FUSED.get(family.name, {})
    names = _ATTENTION | {f"{hf}.weight": f"{name}.weight" for hf, name in _NORMS[family.block_norms].items()}
    names |= {hf: f"{fused.get(name, name)}.weight" for hf, name in _PROJECTIONS.items()}
    return f"blk.{layer}.{names[inner]}"


def gguf_tensors(config: LlamaConfig) -> Mapping[str, Stored]:
    """What a GGUF file of this model holds, by name."""
    return grouped(parameter_shapes(config), lambda name: gguf_name(name, config.family))


def adds_one(parameter: str, family: Family) -> bool:
    """Whether GGUF holds 1 + w of this norm."""
    return family.norm_adds_one and parameter.endswith("norm.weight")


def add_family(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    """Write what the family has besides a Llama's keys. ``ValueError`` for what llama.cpp would compute otherwise."""
    family = config.family
    check(config)
    if family.name == "gemma3_text":
        writer.add_sliding_window(family.window or 0)
        writer.add_sliding_window_pattern([kind == SLIDING for kind in config.kinds])
        if family.logit_cap is not None:
            writer.add_final_logit_softcapping(family.logit_cap)
    if family.name == "granite":
        writer.add_embedding_scale(family.embedding_scale)
        writer.add_residual_scale(family.residual_scale)
        writer.add_attention_scale(config.attention_scale)
        writer.add_logit_scale(1 / family.output_scale)


def check(config: LlamaConfig) -> None:
    """``ValueError`` for what a GGUF file cannot say, or llama.cpp would compute otherwise."""
    family = config.family
    if family.name not in ARCHITECTURES:
        raise ValueError(f"llama.cpp's {family.name} knows no sliding window of {family.window}; GGUF cannot hold this model")
    if config.rope_scaling is not None and not isinstance(config.rope_scaling, LinearScaling | RopeScaling):
        raise ValueError(f"{type(config.rope_scaling).__name__} of rotary positions is not written to GGUF")
    if SLIDING in config.kinds and family.name != "gemma3_text":
        raise ValueError(f"llama.cpp reads no sliding window of {family.name}; GGUF cannot hold this model")
    if family.name == "gemma3_text":
        kinds = tuple(SLIDING if (n + 1) % SWA_PATTERN else FULL for n in range(config.n_layers))
        if (
            config.kinds != kinds
            or family.sliding_theta != SLIDING_THETA
            or not math.isclose(config.attention_scale, config.head_dim**-0.5)
        ):
            raise ValueError("llama.cpp's gemma3 has a global layer after five local ones, a local theta of 10,000 and scores over √D only")
    if family.name == "smollm3" and config.kinds != _smollm3_kinds(config.n_layers):
        raise ValueError(f"llama.cpp's smollm3 leaves rotary positions out of every layer {NO_ROPE_STEP} only")


def _smollm3_kinds(layers: int) -> tuple[str, ...]:
    return tuple(FULL if (n + 1) % NO_ROPE_STEP else NO_ROPE for n in range(layers))


def read_family(fields: dict[str, Any], architecture: str, *, dim: int, layers: int, head_dim: int) -> Family:
    """The family of a file's model. ``KeyError`` names a key that is missing."""

    def scale(key: str) -> float:
        return float(f"{fields.get(f'{architecture}.{key}', 1.0):.6g}")  # stored as float32

    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "qwen2": lambda: {"qkv_bias": True},
        "qwen3": lambda: {"qk_norm": "head"},
        "olmo2": lambda: {"qk_norm": "all", "block_norms": "after"},
        "smollm3": lambda: {"layers": _smollm3_kinds(layers)},
        "phi3": lambda: {"rotary_dim": fields[f"{architecture}.rope.dimension_count"]},
        "granite": lambda: {
            "embedding_scale": scale("embedding_scale"),
            "residual_scale": scale("residual_scale"),
            "attention_scale": scale("attention.scale"),
            "output_scale": 1 / scale("logit_scale"),
        },
        "gemma3": lambda: {
            **{"qk_norm": "head", "block_norms": "both", "norm_adds_one": True, "activation": "gelu_tanh"},
            **{"embedding_scale": dim**0.5, "attention_scale": head_dim**-0.5},
            "layers": tuple(SLIDING if (n + 1) % SWA_PATTERN else FULL for n in range(layers)),
            "window": fields[f"{architecture}.attention.sliding_window"],
            "sliding_theta": SLIDING_THETA,
            "logit_cap": fields.get(f"{architecture}.final_logit_softcapping"),
        },
    }
    if architecture not in readers:
        return LLAMA
    return Family({own: name for name, own in ARCHITECTURES.items()}[architecture], **readers[architecture]())
