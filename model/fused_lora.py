"""Adapters of models whose files hold several projections in one matrix (Phi), in the names that PEFT has for these matrices.

Of one matrix W with rows for several projections, each with BA of its own, the down projections stand under each other and the up
projections on the diagonal: the rank is the sum of theirs. PEFT wants one rank for all, so the rest is filled up with zeros.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
MAX_PARTS = max(map(len, PARTS.values()))
A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


@dataclass(frozen=True)
class Matrix:
    """A projection's shape."""

    in_features: int
    out_features: int


def part_targets(targets: Iterable[str]) -> list[str]:
    """The projections that these targets of PEFT are."""
    return [part for target in targets for part in PARTS.get(target, (target,))]


def fused_targets(targets: Iterable[str]) -> list[str]:
    """PEFT's targets for these projections. ``ValueError`` where only some of a matrix's projections have an adapter."""
    targets = list(targets)
    for fused, parts in PARTS.items():
        if 0 < sum(part in targets for part in parts) < len(parts):
            raise ValueError(f"the model's {fused} is one matrix; adapt all of {', '.join(parts)} or none")
    return list(dict.fromkeys(next((fused for fused, parts in PARTS.items() if target in parts), target) for target in targets))


def fused_layers(layers: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The matrices of the file, by name, from those of the model."""
    sizes: dict[str, Matrix] = {}
    for name, layer in layers.items():
        own = _fused_name(name)
        before = sizes[own].out_features if own in sizes else 0
        sizes[own] = Matrix(layer.in_features, before + layer.out_features)
    return sizes


def fuse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors as PEFT names them, with ``MAX_PARTS`` times the rank."""
    groups: dict[str, list[str]] = {}
    for module in dict.fromkeys(name.rpartition(".lora_")[0] for name in tensors):
        groups.setdefault(_fused_name(module), []).append(module)
    fused: dict[str, Tensor] = {}
    for own, modules in groups.items():
        downs, ups = ([tensors[f"{module}.{part}"] for module in modules] for part in (A, B))
        missing = downs[0].shape[0] * (MAX_PARTS - len(modules))
        fused[f"{own}.{A}"] = F.pad(torch.cat(downs), (0, 0, 0, missing))
        fused[f"{own}.{B}"] = F.pad(torch.block_diag(*ups), (0, missing))
        if f"{modules[0]}.{MAGNITUDE}" in tensors:
            fused[f"{own}.{MAGNITUDE}"] = torch.cat([tensors[f"{module}.{MAGNITUDE}"] for module in modules])
    return fused


def split(tensors: Mapping[str, Tensor], layers: Mapping[str, Matrix], prefix: str) -> dict[str, Tensor]:
    """An adapter's tensors by the names of the model's projections."""
    parts: dict[str, Tensor] = {}
    begins: dict[str, int] = {}
    for name, layer in layers.items():
        own = _fused_name(name)
        begin = begins.get(own, 0)
        begins[own] = end = begin + layer.out_features
        parts[f"{prefix}{name}.{A}"] = tensors[f"{prefix}{own}.{A}"]
        for rows in (B, MAGNITUDE):
            if f"{prefix}{own}.{rows}" in tensors:
                parts[f"{prefix}{name}.{rows}"] = tensors[f"{prefix}{own}.{rows}"][begin:end]
    return parts


def _fused_name(module: str) -> str:
    path, _, name = module.rpartition(".")
    return f"{path}.{next((fused for fused, parts in PARTS.items() if name in parts), name)}"
