"""The tiny model with an adapter, trained on made-up tokens."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.builders import TINY, random_model
from model import lora
from model.llama import Transformer
from model.lora import LoraConfig
from model.loss import target_positions, token_losses
from tasks.training import optim

LORA = LoraConfig(rank=4, alpha=8, dropout=0.0, targets=("q_proj", "v_proj"), dora=False)
IDS = torch.randint(TINY.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
SUPERVISED = torch.rand(2, 40, generator=torch.Generator().manual_seed(2)) < 0.5
SUPERVISED[:, 0] = False


def loss_of(model: Transformer, ids: Tensor = IDS, supervised: Tensor = SUPERVISED) -> Tensor:
    return token_losses(model.hidden(ids), model.lm_head, ids, target_positions(supervised)).mean()


def adapted(config: LoraConfig, *, steps: int = 3, seed: int = 0) -> Transformer:
    """The tiny model with an adapter that some steps of training have changed."""
    model = random_model(TINY)
    lora.add(model, config, seed=seed)
    train(model, config, steps, IDS, SUPERVISED)
    return model


def train(model: Transformer, config: LoraConfig, steps: int, ids: Tensor, supervised: Tensor, lr: float = 0.02) -> None:
    optim.freeze(model, "dora" if config.dora else "lora")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(steps):
        loss_of(model, ids, supervised).backward()
        optimizer.step()
        optimizer.zero_grad()


def quantized_reference(base: Path) -> Any:
    """transformers' model with bitsandbytes' layers.

    It must stay in training: in evaluation bitsandbytes packs the weights of a CPU with bfloat16 anew, which fails for short rows.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    return AutoModelForCausalLM.from_pretrained(base, quantization_config=config, device_map="cpu", dtype=torch.float32)
