"""Adapters for generation: beside the weights of one model, which several adapters share, each for some of the rows of a batch.

Nothing of the model changes: the same weights answer without an adapter as before. decode.c and the layers here compute the same. How
adapters are trained and merged is in lora.py.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import lora
from model.config import PROJECTIONS
from model.generation.quantize import QuantizedLinear
from model.llama import Transformer


@dataclass(frozen=True, eq=False)
class LowRank:
    """What an adapter makes of a projection's result Wx: m (Wx + BAx), in float32."""

    down: Tensor  # A [rank, in]
    up: Tensor  # B [out, rank], with the adapter's scale in it
    magnitude: Tensor | None  # m [out], of DoRA: the learned length of each row of W + BA, divided by its length

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """The adapted result [..., out] of x [..., in], in the precision of ``out``."""
        result = out + F.linear(F.linear(x.to(self.down.dtype), self.down), self.up)
        return (result if self.magnitude is None else result * self.magnitude).to(out.dtype)


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter of one model, to be used with that model only. Sequences may share keys and values where they share an adapter."""

    projections: dict[str, LowRank] = field(repr=False)  # by the projection's name in the model
    rank: int
    key: object = field(default_factory=object, repr=False)  # for caches, which are not to keep the adapter in memory


@torch.no_grad()
def read_adapter(directory: Path, model: Transformer) -> Adapter:
    """The adapter in a directory that ``lora.save`` or PEFT wrote, for a model in any precision. ``ValueError`` as of ``lora.load``."""
    config = lora.read_config(directory)
    layers = {name: layer for name, layer in _projections(model) if name.rpartition(".")[2] in config.targets}
    tensors = lora.read_tensors(directory, config, layers)
    return Adapter({name: _low_rank(layer, name, tensors, config) for name, layer in layers.items()}, config.rank)


def _projections(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in PROJECTIONS)


def _low_rank(layer: nn.Module, name: str, tensors: dict[str, Tensor], config: lora.LoraConfig) -> LowRank:
    weight = layer.weight
    assert isinstance(weight, Tensor)

    def tensor(part: str) -> Tensor:
        # A copy: what was read may still be the file's memory.
        return tensors[f"{lora.PREFIX}{name}.{part}"].to(weight.device, torch.float32, copy=True)

    down, up = tensor("lora_A.weight"), tensor("lora_B.weight") * config.scale
    if not config.dora:
        return LowRank(down, up, None)
    plain = layer.dequantized() if isinstance(layer, QuantizedLinear) else weight.float()
    return LowRank(down, up, tensor("lora_magnitude_vector") / lora.row_norms(torch.addmm(plain, up, down)))


class AdaptedModel:
    """A model's layers with adapters beside them: new modules over the same weights.

    It is for one thread at a time: ``for_rows`` says which adapters the next pass uses.
    """

    def __init__(self, model: Transformer):
        self._rows: list[tuple[Adapter, Tensor | None]] = []
        self._model = _with_projections(model, lambda name, layer: _AdaptedLinear(name, layer, self._rows))

    def for_rows(self, adapters: Sequence[Adapter | None]) -> Transformer:
        """The model for a pass of which row b uses ``adapters[b]``, until the next call."""
        self._rows.clear()
        device = self._model.norm.weight.device
        for adapter in dict.fromkeys(adapter for adapter in adapters if adapter):
            rows = [row for row, other in enumerate(adapters) if other is adapter]
            self._rows.append((adapter, None if len(rows) == len(adapters) else torch.tensor(rows, device=device)))
        return self._model


class _AdaptedLinear(nn.Module):
    def __init__(self, name: str, layer: nn.Module, rows: list[tuple[Adapter, Tensor | None]]):
        super().__init__()
        self._name, self._base_layer, self._rows = name, layer, rows

    def forward(self, x_BTC: Tensor) -> Tensor:
        out = self._base_layer(x_BTC)
        for adapter, rows in self._rows:
            low_rank = adapter.projections.get(self._name)
            if low_rank is not None:
                if rows is None:
                    out = low_rank.add_to(out, x_BTC)
                else:
                    out[rows] = low_rank.add_to(out[rows], x_BTC[rows])
        return out


def _with_projections(model: Transformer, replace: Callable[[str, nn.Module], nn.Module]) -> Transformer:
    """Another object of the model with the same parameters, and other projections."""
    replaced = {name: replace(name, layer) for name, layer in _projections(model)}

    def twin_of(module: nn.Module, name: str) -> nn.Module:
        if name in replaced:
            return replaced[name]
        twin = copy.copy(module)
        twin._modules = {key: child and twin_of(child, f"{name}.{key}".lstrip(".")) for key, child in module._modules.items()}
        return twin

    twin = twin_of(model, "")
    assert isinstance(twin, Transformer)
    return twin
