"""A model from a checkpoint directory in Hugging Face's or Meta's layout."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint.config import CONFIG, read_config, stored_dtype
from model.checkpoint.hf import INDEX, WEIGHTS, open_checked, open_stored
from model.checkpoint.json_file import read_json
from model.checkpoint.meta_file import MetaFiles
from model.llama import LlamaConfig, Transformer


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | Callable[[str], torch.dtype] = torch.float32,
    device: str | torch.device = "cpu",
    max_seq_len: int | None = None,
    sha256: Mapping[str, str] | None = None,
) -> Transformer:
    """The model of a checkpoint directory in Hugging Face's or Meta's layout.

    Each parameter is converted to ``dtype`` as it is read; ``dtype`` may be a function of its name. ``max_seq_len`` shortens the
    context. ``sha256``: the digests that the weight files must have, by file name.

    ``ValueError`` lists tensors that are missing, unexpected or of another shape than the configuration asks for; nothing is
    allocated before that check.
    """
    config, tensors = open_tensors(directory) if sha256 is None else open_checked(directory, sha256)
    if max_seq_len is not None:
        config = replace(config, max_seq_len=min(max_seq_len, config.max_seq_len))
    with torch.device("meta"):
        model = Transformer(config)
    dtype_of = (lambda _: dtype) if isinstance(dtype, torch.dtype) else dtype
    state = {name: tensor.to(device=device, dtype=dtype_of(name), copy=True) for name, tensor in tensors}
    model.load_state_dict(state, strict=False, assign=True)  # strictness was established above, name by name
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
    return stored_dtype(read_json(directory / CONFIG), directory / CONFIG)
