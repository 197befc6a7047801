"""Greedy generation on a GPU: this project's, and transformers'."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.gpu_models import Result, now, peak_gb, random_weights, the_device, their_model
from model.config import LlamaConfig
from model.generation.generate import Batch

NEW_TOKENS, FEW, PROMPT = 128, 8, 64


@dataclass(frozen=True)
class Generation:
    """A case of generation: so many prompts at once."""

    size: str
    batch: int


def our_generation(case: Generation, config: LlamaConfig) -> Result:
    """This project's greedy generation."""
    device = the_device()
    model = random_weights(config, device, half=True).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    prompts = _prompts(case, config)

    batch = Batch(model, slots=case.batch, max_len=PROMPT + NEW_TOKENS, compiled=True)  # as the server has it

    @torch.inference_mode()
    def run(count: int) -> float:
        began = now()
        sequences = [batch.add(prompt) for prompt in prompts]
        for left in reversed(range(count)):
            for sequence in sequences:
                batch.sample(sequence)
            if left:
                batch.step(sequences)
        for sequence in sequences:
            batch.release(sequence)
        return now() - began

    return _decoding(run, case.batch, read_by_a_step(model, config))


def their_generation(case: Generation, config: LlamaConfig, *, static: bool) -> Result:
    """transformers' greedy ``generate``: with a static cache, for which it compiles the model, or with its own choice."""
    device = the_device()
    model = their_model(config, device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
    model.generation_config.eos_token_id = None  # nothing ends an answer
    ids = torch.tensor(_prompts(case, config), device=device)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    if static and device.type == "cuda":
        options["cache_implementation"] = "static"

    def run(count: int) -> float:
        began = now()
        model.generate(ids, max_new_tokens=count, **options)
        return now() - began

    return _decoding(run, case.batch, read_by_a_step(model, config))


def read_by_a_step(model: torch.nn.Module, config: LlamaConfig) -> int:
    """Bytes of the weights that every step reads: all but an embedding of its own, of which it reads rows."""
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    return whole if config.tied else whole - config.vocab_size * config.dim * next(iter(model.parameters())).element_size()


def _prompts(case: Generation, config: LlamaConfig) -> list[list[int]]:
    return [np.random.default_rng(n).integers(config.vocab_size, size=PROMPT).tolist() for n in range(case.batch)]


def _decoding(run: Callable[[int], float], batch: int, weight_bytes: int) -> Result:
    """Tokens per second of decoding alone: the time of many new tokens less that of few, the better of two."""
    run(NEW_TOKENS)
    seconds = min(run(NEW_TOKENS) for _ in range(2)) - min(run(FEW) for _ in range(2))
    steps = (NEW_TOKENS - FEW) / seconds
    return {"tokens_per_second": steps * batch, "peak_gb": peak_gb(), "weights_gb_per_second": steps * weight_bytes / 1e9}
