"""The precision of matrix products: whether a device has fast ones in bfloat16."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "bfloat16", "float32"]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix products; x86 CPUs have them with AMX or AVX512-BF16.

    Without these torch emulates such products, at a tenth of float32's speed (measured on an AVX2 processor). It does so too where
    ``ATEN_CPU_CAPABILITY`` limits it to AVX2.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def use_bf16(device: torch.device, precision: Precision) -> bool:
    """Whether matrix products run in bfloat16; "auto" means where the device multiplies it."""
    return multiplies_bfloat16(device) if precision == "auto" else precision == "bfloat16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """A context in which matrix products run in bfloat16 where ``use_bf16`` says so."""
    # A weight is converted once in a pass; torch's cache would only keep the copies of all layers until its end.
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(device, precision), cache_enabled=False)
