"""Under which names Hugging Face's files store the parameters, of every family.

A parameter is named as in ``Transformer``. A file may hold several of them in one tensor, row after row, as Phi does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from model.checkpoint.shapes import parameter_shapes
from model.config import Family, LlamaConfig

_QKV = {f"self_attn.{name}_proj": "self_attn.qkv_proj" for name in "qkv"}
FUSED = {"phi3": {**_QKV, "mlp.gate_proj": "mlp.gate_up_proj", "mlp.up_proj": "mlp.gate_up_proj"}}
# Of a model that also reads images: the language model's names, by the transformers that wrote them, and the rest.
TEXT_PREFIXES = {"language_model.model.": "model.", "model.language_model.": "model.", "language_model.lm_head.": "lm_head."}
OF_IMAGES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: the parameters whose rows it holds, one after the other, with the number of each one's rows."""

    parameters: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]

    def split(self, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each parameter and its rows."""
        names, rows = zip(*self.parameters, strict=True)
        yield from zip(names, tensor.split(rows), strict=True)


def stored_name(parameter: str, family: Family) -> str:
    """The name of the tensor that holds this parameter."""
    if parameter.startswith("lm_head."):
        return parameter
    for part, fused in FUSED.get(family.name, {}).items():
        parameter = parameter.replace(f".{part}.", f".{fused}.")
    for name in "qkv":
        parameter = parameter.replace(f".{name}_bias", f".{name}_proj.bias")
    return f"model.{parameter}"


@cache
def stored_tensors(config: LlamaConfig) -> Mapping[str, Stored]:
    """What a directory of this model holds, by name."""
    return grouped(parameter_shapes(config), lambda name: stored_name(name, config.family))


def grouped(shapes: Iterable[tuple[str, tuple[int, ...]]], stored_by: Callable[[str], str]) -> dict[str, Stored]:
    """The tensors of a file, by the names under which parameters are stored."""
    parts: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in shapes:
        parts.setdefault(stored_by(name), []).append((name, shape))
    return {
        stored: Stored(
            tuple((name, shape[0]) for name, shape in of_tensor), (sum(shape[0] for _, shape in of_tensor), *of_tensor[0][1][1:])
        )
        for stored, of_tensor in parts.items()
    }


def fused(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The tensors to store, by name."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in state.items():
        parts.setdefault(stored_name(name, family), []).append(tensor)
    return {name: of_tensor[0] if len(of_tensor) == 1 else torch.cat(of_tensor) for name, of_tensor in parts.items()}


def text_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """The names in a file of the language model's tensors, by the names that they have in a directory of that model alone.

    Some releases of transformers stored the rotary angles, which follow from the configuration; they are left out.
    """
    kept = (name for name in names if not name.endswith(".rotary_emb.inv_freq"))
    if family.name != "gemma3_text":
        return {name: name for name in kept}
    prefixes = TEXT_PREFIXES.items()
    return {
        next((new + name.removeprefix(old) for old, new in prefixes if name.startswith(old)), name): name
        for name in kept
        if not name.startswith(OF_IMAGES)
    }
