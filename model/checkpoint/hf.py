"""The checkpoint directory: configuration, weights and tokenizer in Hugging Face's layout, read strictly, written whole.

Meta's format and GGUF are meta_file.py and gguf_file.py; load.py opens either layout.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint.checked_weights import CheckedFile
from model.checkpoint.config import CONFIG, read_config, stored_dtype
from model.checkpoint.families import text_part
from model.checkpoint.json_file import check_no_pointer, read_json, write_json
from model.checkpoint.layout import Stored, fused, stored_tensors, text_names
from model.checkpoint.shapes import check_layers, shape_mismatches
from model.config import LLAMA, Family, LlamaConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "original/tokenizer.model")


def open_checked(directory: Path, sha256: Mapping[str, str]) -> tuple[LlamaConfig, Iterator[tuple[str, Tensor]]]:
    """Configuration and parameters of weights whose digests are known; each file is read once."""
    config = read_config(directory)
    files = [CheckedFile(path, sha256.get(path.name, "")) for path in _weight_files(directory)]
    located = match_tensors(directory, {name: (file.path, shape) for file in files for name, shape in file.shapes.items()}, config)
    return config, (part for file in files for name, tensor in file.tensors() if name in located for part in located[name][1].split(tensor))


def open_stored(directory: Path, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """The parameters in the stored precision. ``ValueError`` where names or shapes do not fit."""
    return _tensors(match_tensors(directory, _tensor_shapes(directory), config))


def _tensors(located: dict[str, tuple[Path, Stored]]) -> Iterator[tuple[str, Tensor]]:
    for name, (path, stored) in located.items():
        # Opened anew for each tensor: the pages of those before leave the memory.
        with safe_open(path, "pt") as weights:
            yield from stored.split(weights.get_tensor(name))


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / WEIGHTS, directory / INDEX
    if single.exists():
        return [single]
    if not index.exists():
        raise ValueError(f"{directory} holds neither {WEIGHTS} nor {INDEX}")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index}: weight_map is missing")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index}: weight_map names files outside the directory: {', '.join(outside[:3])}")
    return [directory / name for name in names]


def _tensor_shapes(directory: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of every tensor, read from the safetensors headers alone."""
    shapes: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in _weight_files(directory):
        try:
            with safe_open(path, "pt") as weights:
                shapes |= {name: (path, tuple(weights.get_slice(name).get_shape())) for name in weights.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise ValueError(f"{path} is missing, though {INDEX} names it") from None
        except SafetensorError as error:
            check_no_pointer(path)
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    return shapes


def match_tensors(directory: Path, shapes: dict[str, tuple[Path, tuple[int, ...]]], config: LlamaConfig) -> dict[str, tuple[Path, Stored]]:
    """The file of each tensor of the model and what it holds, by its name there, from the file and shape of all stored tensors.

    ``ValueError`` lists tensors that do not fit the configuration.
    """
    check_layers(config, len(shapes), directory)
    expected = stored_tensors(config)
    # A tied model's output matrix may be stored again; it is the embedding.
    optional = {"lm_head.weight"} if config.tied else set()
    names = text_names(shapes, config.family)
    if mismatches := shape_mismatches(
        {name: shapes[own][1] for name, own in names.items()}, {name: stored.shape for name, stored in expected.items()}, optional
    ):
        raise ValueError(f"the weights in {directory} do not fit its {CONFIG}: {mismatches}")
    return {names[name]: (shapes[names[name]][0], stored) for name, stored in expected.items()}


def save_weights(state: dict[str, Tensor], directory: Path, *, dtype: torch.dtype, family: Family = LLAMA) -> None:
    """Write parameters (named as in the model) to ``model.safetensors``; the file appears whole or not at all."""
    on_cpu = {name: tensor.detach().to(device="cpu", dtype=dtype).contiguous() for name, tensor in state.items()}
    tensors = fused(on_cpu, family)
    partial = directory / f".{WEIGHTS}.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.rename(directory / WEIGHTS)


def save_like(source: Path, directory: Path, state: dict[str, Tensor]) -> None:
    """A checkpoint directory with new weights and everything else, the stored precision included, from ``source``."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = text_part(read_json(source / CONFIG))
    copy_text_files(source, directory)
    save_weights(state, directory, dtype=stored_dtype(raw, source / CONFIG), family=read_config(source).family)
    write_json(directory / CONFIG, raw)


def copy_checkpoint(source: Path, directory: Path) -> None:
    """The files of a checkpoint directory that belong to this format: no pickles, no other frameworks' weights."""
    directory.mkdir(parents=True)
    copy_text_files(source, directory)
    for path in (source / CONFIG, source / INDEX, *source.glob("model*.safetensors")):
        if path.exists():
            shutil.copyfile(path, directory / path.name)
    settings, template = directory / "tokenizer_config.json", source / "chat_template.jinja"
    if template.exists() and settings.exists():  # where transformers 5 writes it
        write_json(settings, read_json(settings) | {"chat_template": template.read_text(encoding="utf-8")})


def copy_text_files(source: Path, directory: Path) -> None:
    """Tokenizer, template and generation settings, where the source has them."""
    for name in TEXT_FILES:
        if (source / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, directory / name)


def check_weights(directory: Path) -> None:
    """``ValueError`` where the stored tensors do not fit the configuration; reads headers only."""
    match_tensors(directory, _tensor_shapes(directory), read_config(directory))
