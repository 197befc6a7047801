"""Rotary positions (RoFormer, arXiv:2104.09864): the angles' frequencies, and how longer contexts stretch them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor (arXiv:2306.15595; ``rope_type: linear`` in a Hugging Face config)."""

    factor: float

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"rope scaling: factor must be at least 1 and finite, is {self.factor!r}")

    def stretched(self, freqs: Tensor) -> Tensor:
        """The frequencies of positions that are so divided."""
        return freqs / self.factor


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the rotary frequencies (``rope_type: llama3`` in a Hugging Face config)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def stretched(self, freqs: Tensor) -> Tensor:
        """Meta's ``apply_scaling``."""
        turns = self.original_max_position_embeddings * freqs / (2 * math.pi)  # full turns within the original context
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = smooth.clamp(0, 1)
        return (1 - smooth) * freqs / self.factor + smooth * freqs


Scaling = LinearScaling | RopeScaling


def frequencies(head_dim: int, theta: float, scaling: Scaling | None) -> Tensor:
    """Angle per position of each pair of channels, [D/2], float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    freqs = 1.0 / theta**exponents
    return freqs if scaling is None else scaling.stretched(freqs)
