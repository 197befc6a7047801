"""Configurations and a text that the formats of checkpoints treat differently, and the weights of a checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.builders import TINY
from model.rope import LinearScaling, RopeScaling

# The factors and context of Llama 3.1, at sizes where the scaling shows within few positions.
SCALED = replace(TINY, rope_scaling=RopeScaling(), rope_theta=5e5, tied=False)
CONFIGS = {
    "tied, grouped": TINY,
    "untied, multi-head": replace(TINY, tied=False, n_kv_heads=4),
    "llama3 rope": SCALED,
    "llama 3.2 rope": replace(SCALED, rope_scaling=RopeScaling(factor=32.0)),
    "eight key/value heads": replace(TINY, dim=64, n_heads=8, n_kv_heads=8, ffn_dim=96, tied=False),
    "odd feed-forward": replace(TINY, ffn_dim=100),
}
LINEAR = replace(TINY, rope_scaling=LinearScaling(4.0))
OWN_HEAD_SIZE = replace(TINY, head_dim=24)
TEXT = "Condition 3 shows fever, later joint pain: β-blockers ½ 37.5 °C \n\n <|im_end|>"


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")
