"""config.json of a checkpoint directory, read strictly and written."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.checkpoint.json_file import read_json
from model.llama import LlamaConfig
from model.rope import LinearScaling, RopeScaling, Scaling

CONFIG = "config.json"
MODEL_TYPES = ("llama", "mistral")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(directory: Path) -> LlamaConfig:
    """The model configuration in ``config.json``; a missing or unsupported field is an error that names it."""
    path = directory / CONFIG
    raw = read_json(path)
    if raw.get("model_type") not in MODEL_TYPES:
        raise ValueError(f"{path}: model_type is {raw.get('model_type')!r}; supported are {', '.join(map(repr, MODEL_TYPES))}")
    if quantization := raw.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ValueError(
            f"{path}: quantization_config ({method}): such weights cannot be read; take the model's release without it, or GGUF"
        )
    _check_window(raw, path)
    for field in ("attention_bias", "mlp_bias"):
        if raw.get(field):
            raise ValueError(f"{path}: {field} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path}: hidden_act is {raw['hidden_act']!r}; only 'silu' is supported")
    stored_dtype(raw, path)
    try:
        heads = raw["num_attention_heads"]
        return LlamaConfig(
            dim=raw["hidden_size"],
            n_layers=raw["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=raw.get("num_key_value_heads") or heads,
            ffn_dim=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            max_seq_len=raw.get("max_position_embeddings", 2048),
            norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=_rope(raw).get("rope_theta", raw.get("rope_theta", 10000.0)),
            rope_scaling=_scaling(_rope(raw)),
            tied=raw.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from None
    except (TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_window(raw: dict[str, Any], path: Path) -> None:
    """Mistral's sliding window does nothing where no text is longer than it."""
    window, context = raw.get("sliding_window"), raw.get("max_position_embeddings", 2048)
    if raw["model_type"] == "mistral" and window is not None and not (isinstance(context, int) and window >= context):
        raise ValueError(
            f"{path}: sliding_window is {window}, below the context of {context}, which is not supported; "
            "with max_position_embeddings set to the window the model reads texts up to it exactly"
        )


def stored_dtype(raw: dict[str, Any], path: Path) -> torch.dtype:
    """The precision that ``config.json`` names; transformers 5 calls it dtype, earlier versions torch_dtype."""
    name = raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"
    if name not in DTYPES:
        raise ValueError(f"{path}: torch_dtype is {name!r}; known are {', '.join(DTYPES)}")
    return DTYPES[name]


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 writes rope_parameters, earlier versions rope_scaling and rope_theta.
    return raw.get("rope_parameters") or raw.get("rope_scaling") or {}


def _scaling(rope: dict[str, Any]) -> Scaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(rope["factor"])
    if kind != "llama3":
        raise ValueError(f"rope_type {kind!r} is not supported; 'default', 'linear' and 'llama3' are")
    return RopeScaling(**{name: rope[name] for name in asdict(RopeScaling())})


def config_json(config: LlamaConfig, dtype: torch.dtype, *, bos_id: int | None = None, eos_id: int | None = None) -> dict[str, Any]:
    """The contents of ``config.json``, readable by transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "hidden_act": "silu",
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
    }


def _scaling_json(scaling: Scaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {"rope_type": "linear" if isinstance(scaling, LinearScaling) else "llama3", **asdict(scaling)}
