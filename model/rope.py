"""Rotary positions (RoFormer, arXiv:2104.09864): the angles' frequencies, and how longer contexts stretch them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor (arXiv:2306.15595; ``rope_type: linear`` in a Hugging Face config)."""

    factor: float
    attention_factor: ClassVar[float] = 1.0  # what cosine and sine are multiplied by

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"rope scaling: factor must be at least 1 and finite, is {self.factor!r}")

    def stretched(self, freqs: Tensor, theta: float) -> Tensor:  # noqa: ARG002 - the same for every base
        """The frequencies of positions that are so divided."""
        return freqs / self.factor


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the rotary frequencies (``rope_type: llama3`` in a Hugging Face config)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    attention_factor: ClassVar[float] = 1.0

    def stretched(self, freqs: Tensor, theta: float) -> Tensor:  # noqa: ARG002 - the same for every base
        """Meta's ``apply_scaling``."""
        turns = self.original_max_position_embeddings * freqs / (2 * math.pi)  # full turns within the original context
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = smooth.clamp(0, 1)
        return (1 - smooth) * freqs / self.factor + smooth * freqs


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv:2309.00071, section 3.2; ``rope_type: yarn``): slow channels are divided by the factor, fast ones stay."""

    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0  # full turns within the original context from which a channel stays
    beta_slow: float = 1.0  # up to which it is divided
    truncate: bool = True  # the borders between channels to whole numbers

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"rope scaling: factor must be at least 1 and finite, is {self.factor!r}")

    def stretched(self, freqs: Tensor, theta: float) -> Tensor:
        """Equation 23 of the paper, with borders as transformers rounds them."""
        low, high = (self._channel(turns, 2 * len(freqs), theta) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * len(freqs) - 1)
        ramp = ((torch.arange(len(freqs), dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
        return freqs / self.factor * ramp + freqs * (1 - ramp)

    def _channel(self, turns: float, size: int, theta: float) -> float:
        """Which channel makes so many full turns within the original context."""
        return size * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))


def mscale(factor: float, scale: float = 1.0) -> float:
    """YaRN's attention factor for a context that is so many times longer."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class LongRopeScaling:
    """LongRoPE (arXiv:2402.13753; ``rope_type: longrope``) within the original context: a factor for each channel."""

    short_factor: tuple[float, ...]
    attention_factor: float

    def stretched(self, freqs: Tensor, theta: float) -> Tensor:  # noqa: ARG002 - the same for every base
        """Each frequency divided by its factor."""
        return freqs / torch.tensor(self.short_factor, dtype=torch.float32)

    @staticmethod
    def inferred_attention_factor(factor: float, original: int) -> float:
        """Of a context ``factor`` times as long as the original one (section 3.3 of the paper)."""
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


Scaling = LinearScaling | RopeScaling | YarnScaling | LongRopeScaling


def frequencies(size: int, theta: float, scaling: Scaling | None) -> Tensor:
    """Angle per position of each pair of ``size`` channels, [size/2], float32."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    freqs = 1.0 / theta**exponents
    return freqs if scaling is None else scaling.stretched(freqs, theta)
