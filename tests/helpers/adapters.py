"""The tiny model with an adapter, trained on made-up tokens, and adapters that PEFT made."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from helpers.builders import TINY, random_model
from model import lora
from model.checkpoint.config import config_json
from model.llama import Transformer
from model.lora import TARGETS, LoraConfig
from model.loss import target_positions, token_losses
from tasks.training import optim

LORA = LoraConfig(rank=4, alpha=8, dropout=0.0, targets=("q_proj", "v_proj"), dora=False)
IDS = torch.randint(TINY.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
SUPERVISED = torch.rand(2, 40, generator=torch.Generator().manual_seed(2)) < 0.5
SUPERVISED[:, 0] = False

ATTENTION, MLP = TARGETS[:4], TARGETS[4:]
CONFIGS = {
    "lora": LORA,
    "lora-mlp": LoraConfig(rank=1, alpha=2, dropout=0.0, targets=MLP, dora=False),
    "lora-all-rslora": LoraConfig(rank=5, alpha=2.5, dropout=0.0, targets=TARGETS, dora=False, rslora=True),
    "dora": LoraConfig(rank=4, alpha=8, dropout=0.0, targets=("k_proj", "down_proj"), dora=True),
    "dora-all": LoraConfig(rank=3, alpha=3, dropout=0.0, targets=TARGETS, dora=True),
}


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


def reference(model: Transformer | None = None) -> Any:
    """transformers' model with the tiny model's weights, or those of another of its configuration."""
    result = LlamaForCausalLM(LlamaConfig(**config_json(TINY, torch.float32)))
    weights = (model or random_model(TINY)).state_dict()
    result.load_state_dict({(n if n.startswith("lm_head") else f"model.{n}"): p for n, p in weights.items()})
    return result.eval()


def pefts_own(config: LoraConfig, directory: Path, dtype: torch.dtype) -> Any:
    """A random adapter made and saved by PEFT, in the given precision."""
    torch.manual_seed(3)
    targets = "all-linear" if config.targets == TARGETS else list(config.targets)
    settings: dict[str, Any] = {
        "lora_alpha": config.alpha,
        "use_dora": config.dora,
        "use_rslora": config.rslora,
        "task_type": "CAUSAL_LM",
        "init_lora_weights": False,
    }
    peft_model = get_peft_model(reference(), PeftConfig(r=config.rank, target_modules=targets, **settings))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                changed = parameter * 1.3 if "magnitude" in name else 0.2 * torch.randn_like(parameter)
                parameter.copy_(changed.to(dtype))
    peft_model.save_pretrained(str(directory))
    tensors = load_file(directory / lora.WEIGHTS)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, directory / lora.WEIGHTS)
    return peft_model.eval()
