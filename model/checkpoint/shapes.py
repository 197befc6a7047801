"""Names and shapes of a model's parameters, and whether stored tensors have them."""

import math
from collections.abc import Container
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.config import LlamaConfig
from model.llama import Transformer


@cache
def parameter_shapes(config: LlamaConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Name and shape of every parameter, without allocating one; a tied output matrix is not listed."""
    with torch.device("meta"):
        meta_model = Transformer(config)
    return tuple((name, tuple(parameter.shape)) for name, parameter in meta_model.named_parameters())


def check_layers(config: LlamaConfig, tensors: int, path: Path) -> None:
    """``ValueError`` where there are too few tensors for so many layers, before any is made."""
    if config.n_layers > tensors:
        raise ValueError(f"{path}: {config.n_layers} layers are configured, but there are only {tensors} tensors")


def expected_shapes(config: LlamaConfig, tensors: int, path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, unless there are too few tensors for so many layers."""
    check_layers(config, tensors, path)
    return dict(parameter_shapes(config))


def shape_mismatches(actual: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], optional: Container[str] = ()) -> str:
    """Which tensors are missing, unexpected or of another shape, as a text for people; empty where all fit."""
    problems = {
        "missing": [name for name in expected if name not in actual and name not in optional],
        "not in the model": [name for name in actual if name not in expected and name not in optional],
        "of another shape": [f"{n} is {list(actual[n])}, not {list(s)}" for n, s in expected.items() if n in actual and actual[n] != s],
    }
    return "; ".join(f"{problem}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" for problem, names in problems.items() if names)


def count_parameters(config: LlamaConfig) -> int:
    """Of the whole model; a tied output matrix counts once."""
    return sum(math.prod(shape) for _, shape in parameter_shapes(config))


def parameters_of(model: Transformer) -> dict[str, Tensor]:
    """The model's parameters by name, a tied output matrix once."""
    return dict(model.named_parameters())
