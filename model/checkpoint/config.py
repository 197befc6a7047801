"""config.json of a checkpoint directory, read strictly and written; families.py has what differs from Llama."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import families
from model.checkpoint.json_file import read_json
from model.config import FULL, NO_ROPE, SLIDING, LlamaConfig
from model.rope import LinearScaling, RopeScaling, Scaling

CONFIG = "config.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(directory: Path) -> LlamaConfig:
    """The model configuration in ``config.json``; a missing or unsupported field is an error that names it."""
    path = directory / CONFIG
    raw = families.text_part(read_json(path))
    if quantization := raw.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ValueError(
            f"{path}: quantization_config ({method}): such weights cannot be read; take the model's release without it, or GGUF"
        )
    stored_dtype(raw, path)
    try:
        raw = families.with_defaults(raw)
        heads, rope = raw["num_attention_heads"], families.rope(raw)
        return LlamaConfig(
            dim=raw["hidden_size"],
            n_layers=raw["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=raw.get("num_key_value_heads") or heads,
            ffn_dim=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            head_dim=families.head_dim(raw),
            max_seq_len=families.context(raw),
            norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta") or raw.get("rope_theta") or 10000.0,
            rope_scaling=families.scaling(raw),
            tied=raw.get("tie_word_embeddings", False),
            family=families.family(raw),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from None
    except (TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def stored_dtype(raw: dict[str, Any], path: Path) -> torch.dtype:
    """The precision that ``config.json`` names; transformers 5 calls it dtype, earlier versions torch_dtype."""
    name = raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"
    if name not in DTYPES:
        raise ValueError(f"{path}: torch_dtype is {name!r}; known are {', '.join(DTYPES)}")
    return DTYPES[name]


ARCHITECTURES = {
    **{"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"},
    **{"gemma3_text": "Gemma3ForCausalLM", "olmo2": "Olmo2ForCausalLM", "smollm3": "SmolLM3ForCausalLM"},
    **{"granite": "GraniteForCausalLM", "phi3": "Phi3ForCausalLM"},
}


def config_json(config: LlamaConfig, dtype: torch.dtype, *, bos_id: int | None = None, eos_id: int | None = None) -> dict[str, Any]:
    """The contents of ``config.json``, readable by transformers 4 and 5."""
    return {
        "architectures": [ARCHITECTURES[config.family.name]],
        "model_type": config.family.name,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "hidden_act": "silu" if config.family.activation == "silu" else "gelu_pytorch_tanh",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_json(config.rope_scaling),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        **_family_json(config),
    }


def _family_json(config: LlamaConfig) -> dict[str, Any]:
    """What the family's config.json has besides a Llama's."""
    family = config.family
    types = {FULL: "full_attention", SLIDING: "sliding_attention", NO_ROPE: "full_attention"}
    windows = {"sliding_window": family.window, "layer_types": [types[kind] for kind in config.kinds]}
    if family.name == "gemma3_text":
        scalar = config.attention_scale**-2
        return {
            **windows,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": round(scalar),
            "rope_local_base_freq": family.sliding_theta,
            "final_logit_softcapping": family.logit_cap,
        }
    if family.name == "granite":
        return {
            "embedding_multiplier": family.embedding_scale,
            "residual_multiplier": family.residual_scale,
            "attention_multiplier": config.attention_scale,
            "logits_scaling": 1 / family.output_scale,
        }
    if family.name == "smollm3":
        return {"no_rope_layers": [int(kind != NO_ROPE) for kind in config.kinds]}
    if family.name == "phi3":
        return {"partial_rotary_factor": config.rotary_dim / config.head_dim, "sliding_window": family.window}
    if family.name == "mistral":
        return {"sliding_window": family.window}
    return {**windows, "use_sliding_window": family.window is not None} if family.name in ("qwen2", "qwen3") else {}


def _scaling_json(scaling: Scaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if not isinstance(scaling, LinearScaling | RopeScaling):
        raise ValueError(f"{type(scaling).__name__} cannot be written to {CONFIG}; copy the source's")
    return {"rope_type": "linear" if isinstance(scaling, LinearScaling) else "llama3", **asdict(scaling)}
