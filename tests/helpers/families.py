"""Tiny random models of every family, as transformers makes and stores them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    **{"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LOCAL_AND_GLOBAL = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@dataclass(frozen=True)
class Variant:
    """A configuration by transformers' names, besides ``SIZES``."""

    model_type: str
    fields: dict[str, Any]


def _variant(model_type: str, **fields: Any) -> Variant:
    return Variant(model_type, fields)


VARIANTS = {
    "llama": _variant("llama"),
    "llama, yarn": _variant("llama", rope_parameters=YARN),
    "llama, dynamic": _variant("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}),
    "llama 3": _variant("llama", rope_parameters=LLAMA3 | {"original_max_position_embeddings": 64}),
    "mistral": _variant("mistral", head_dim=16, sliding_window=None),
    "mistral, window": _variant("mistral", head_dim=16, sliding_window=9),
    "qwen2": _variant("qwen2", tie_word_embeddings=True),
    "qwen2, windows": _variant("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=2),
    "qwen2, yarn": _variant("qwen2", rope_parameters=YARN),
    "qwen3": _variant("qwen3", head_dim=32, tie_word_embeddings=True),
    "qwen3, yarn": _variant("qwen3", head_dim=32, rope_parameters=YARN | {"attention_factor": 1.5}),
    "gemma3": _variant("gemma3_text", head_dim=32, query_pre_attn_scalar=16, sliding_window=8, sliding_window_pattern=2),
    "gemma3, 27b": _variant(
        "gemma3_text", head_dim=16, query_pre_attn_scalar=21, sliding_window=6, sliding_window_pattern=3, rope_parameters=LOCAL_AND_GLOBAL
    ),
    "gemma3, 6 layers": _variant("gemma3_text", num_hidden_layers=6, head_dim=32, query_pre_attn_scalar=32, sliding_window=8),
    "gemma3, soft cap": _variant(
        "gemma3_text", num_hidden_layers=6, head_dim=32, query_pre_attn_scalar=32, sliding_window=8, final_logit_softcapping=2.0
    ),
    "olmo2": _variant("olmo2"),
    "smollm3": _variant("smollm3", tie_word_embeddings=True),
    "granite": _variant("granite", embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.015625),
    "phi3": _variant("phi3", sliding_window=None),
    "phi3, window": _variant("phi3", sliding_window=11),
    "phi4-mini": _variant("phi3", partial_rotary_factor=0.75, tie_word_embeddings=True),
    "phi3, longrope": _variant(
        "phi3",
        max_position_embeddings=1024,
        original_max_position_embeddings=256,
        rope_parameters={
            **{"rope_type": "longrope", "rope_theta": 1e4},
            **{"short_factor": [1.0 + n / 7 for n in range(8)], "long_factor": [2.0 + n for n in range(8)]},
        },
    ),
}


def write_model(directory: Path, variant: str, *, seed: int = 0, **fields: Any) -> Any:
    """Write a tiny random model of transformers as a checkpoint directory in float32; returns the model."""
    chosen = VARIANTS[variant]
    config = AutoConfig.for_model(chosen.model_type, **SIZES | chosen.fields | fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger than transformers' own, so that a missing bias, norm or multiplier shows.
            offset = 1.0 if name.endswith("norm.weight") and chosen.model_type != "gemma3_text" else 0.0
            parameter.copy_(offset + torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() == 1 else 0.15))
    model.save_pretrained(directory)
    return model
