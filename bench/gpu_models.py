"""What both sides of the GPU's benchmarks share: models of random weights, and the clock."""

import gc
import time
from typing import Any

import torch

from model.config import LlamaConfig
from model.llama import Transformer

Result = dict[str, float]


def the_device() -> torch.device:
    """The GPU or, without one, the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random_weights(config: LlamaConfig, device: torch.device, *, half: bool) -> Transformer:
    """A model on the device; ``half``: frozen matrices in bfloat16, as where adapters train."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if half and device.type == "cuda" else torch.float32)
    with device:
        model = Transformer(config)
    torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if not name.endswith(("_proj.weight", "lm_head.weight")):
            parameter.data = parameter.data.float()
    reset_peak()
    return model


def their_model(config: LlamaConfig, device: torch.device, *, dtype: torch.dtype) -> Any:
    """transformers' model of this shape with random weights, with torch's fused attention."""
    import transformers

    theirs = transformers.LlamaConfig(
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        intermediate_size=config.ffn_dim,
        vocab_size=config.vocab_size,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_seq_len,
        tie_word_embeddings=config.tied,
    )
    torch.set_default_dtype(dtype)
    with device:
        model: Any = transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    reset_peak()
    return model


def reset_peak() -> None:
    """Forget the memory that making the weights took."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def now() -> float:
    """Seconds, when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gb() -> float:
    """Of the GPU's memory."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
