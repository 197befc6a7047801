"""A model from a checkpoint directory in Hugging Face's or Meta's layout."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint.config import CONFIG, read_config, stored_dtype
from model.checkpoint.families import text_part
from model.checkpoint.hf import INDEX, WEIGHTS, open_checked, open_stored
from model.checkpoint.json_file import read_json
from model.checkpoint.meta_file import MetaFiles
from model.config import LlamaConfig
from model.llama import Block, Transformer


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | Callable[[str], torch.dtype] = torch.float32,
    device: str | torch.device = "cpu",
    max_seq_len: int | None = None,
    sha256: Mapping[str, str] | None = None,
    each_layer: Callable[[Block], None] = lambda layer: None,
) -> Transformer:
    """The model of a checkpoint directory in Hugging Face's or Meta's layout.

    Each parameter is converted to ``dtype`` as it is read; ``dtype`` may be a function of its name. ``max_seq_len`` shortens the
    context. ``sha256``: the digests that the weight files must have, by file name. ``each_layer`` is called with every layer once its
    parameters are there, before the next one is read.

    ``ValueError`` lists tensors that are missing, unexpected or of another shape than the configuration asks for; nothing is
    allocated before that check.
    """
    config, tensors = open_tensors(directory) if sha256 is None else open_checked(directory, sha256)
    if max_seq_len is not None:
        config = replace(config, max_seq_len=min(max_seq_len, config.max_seq_len))
    with torch.device("meta"):
        model = Transformer(config)
    dtype_of = (lambda _: dtype) if isinstance(dtype, torch.dtype) else dtype
    missing = [len(list(layer.parameters())) for layer in model.layers]
    for name, tensor in tensors:
        module, _, parameter = name.rpartition(".")
        value = nn.Parameter(tensor.to(device=device, dtype=dtype_of(name), copy=True))
        setattr(model.get_submodule(module), parameter, value)
        if name.startswith("layers."):
            index = int(name.split(".")[1])
            missing[index] -= 1
            if not missing[index]:
                layer = model.layers[index]
                assert isinstance(layer, Block)
                each_layer(layer)
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def open_tensors(directory: Path) -> tuple[LlamaConfig, Iterator[tuple[str, Tensor]]]:
    """Configuration and parameters, in the stored precision, of a directory of either layout, once names and shapes fit."""
    if directory.is_file():
        raise ValueError(f"{directory} is a file; turn GGUF into a directory with 'python -m model convert {directory} DIR'")
    if is_meta(directory):
        files = MetaFiles(directory)
        return files.config, files.tensors()
    config = read_config(directory)
    return config, open_stored(directory, config)


def is_meta(directory: Path) -> bool:
    """Whether the weights are Meta's files and not Hugging Face's."""
    return (directory / "params.json").exists() and not any((directory / name).exists() for name in (WEIGHTS, INDEX))


def weights_dtype(directory: Path) -> torch.dtype:
    """The precision that a checkpoint directory's weights are stored in."""
    if is_meta(directory):
        return MetaFiles(directory).dtype
    return stored_dtype(text_part(read_json(directory / CONFIG)), directory / CONFIG)
