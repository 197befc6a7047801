"""Names and shapes of a model's parameters, and whether stored tensors have them."""

import math
from collections.abc import Container
from pathlib import Path

from torch import Tensor

from model.llama import LlamaConfig, Transformer, parameter_shapes


def expected_shapes(config: LlamaConfig, tensors: int, place: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, unless there are too few tensors for so many layers."""
    if config.n_layers > tensors:
        raise ValueError(f"{place}: {config.n_layers} layers are configured, but there are only {tensors} tensors")
    return dict(parameter_shapes(config))


def misfits(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], optional: Container[str] = ()) -> str:
    """Names that are missing, not wanted or of another shape, as a text; empty where all fit."""
    problems = {
        "missing": [name for name in wanted if name not in found and name not in optional],
        "not in the model": [name for name in found if name not in wanted and name not in optional],
        "of another shape": [f"{n} is {list(found[n])}, not {list(s)}" for n, s in wanted.items() if n in found and found[n] != s],
    }
    return "; ".join(f"{what}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" for what, names in problems.items() if names)


def count_parameters(config: LlamaConfig) -> int:
    return sum(math.prod(shape) for _, shape in parameter_shapes(config))


def parameters_of(model: Transformer) -> dict[str, Tensor]:
    """The model's parameters by name, a tied output matrix once."""
    return dict(model.named_parameters())
