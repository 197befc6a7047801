"""The checkpoint directory: configuration, weights and tokenizer in Hugging Face's Llama layout, read strictly, written whole.

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
from model.checkpoint.json_file import check_no_pointer, read_json, write_json
from model.checkpoint.shapes import expected_shapes, shape_mismatches
from model.llama import LlamaConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "original/tokenizer.model")


def open_checked(directory: Path, sha256: Mapping[str, str]) -> tuple[LlamaConfig, Iterator[tuple[str, Tensor]]]:
    """Configuration and parameters of weights whose digests are known; each file is read once."""
    config = read_config(directory)
    files = [CheckedFile(path, sha256.get(path.name, "")) for path in _weight_files(directory)]
    file_by_name = match_tensors(directory, {name: (file.path, shape) for file in files for name, shape in file.shapes.items()}, config)
    parameters = {_file_name(name): name for name in file_by_name}
    return config, ((parameters[name], tensor) for file in files for name, tensor in file.tensors() if name in parameters)


def open_stored(directory: Path, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """The parameters in the stored precision. ``ValueError`` where names or shapes do not fit."""
    return _tensors(match_tensors(directory, _tensor_shapes(directory), config))


def _tensors(file_by_name: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    for name, path in file_by_name.items():
        # Opened anew for each tensor: the pages of those before leave the memory.
        with safe_open(path, "pt") as weights:
            yield name, weights.get_tensor(_file_name(name))


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


def match_tensors(directory: Path, stored: dict[str, tuple[Path, tuple[int, ...]]], config: LlamaConfig) -> dict[str, Path]:
    """The file that holds each parameter, from the file and shape of each stored tensor.

    ``ValueError`` lists tensors that do not fit the configuration.
    """
    expected = expected_shapes(config, len(stored), directory)
    expected_stored = {_file_name(name): shape for name, shape in expected.items()}
    # A tied model's output matrix may be stored again; it is the embedding.
    optional = {"lm_head.weight"} if config.tied else set()
    # Some releases of transformers stored the rotary angles, which follow from the configuration.
    stored = {name: entry for name, entry in stored.items() if not name.endswith(".rotary_emb.inv_freq")}
    if mismatches := shape_mismatches({name: shape for name, (_, shape) in stored.items()}, expected_stored, optional):
        raise ValueError(f"the weights in {directory} do not fit its {CONFIG}: {mismatches}")
    return {name: stored[_file_name(name)][0] for name in expected}


def _file_name(parameter: str) -> str:
    return parameter if parameter.startswith("lm_head.") else f"model.{parameter}"


def save_weights(state: dict[str, Tensor], directory: Path, *, dtype: torch.dtype) -> None:
    """Write parameters (named as in the model) to ``model.safetensors``; the file appears whole or not at all."""
    tensors = {_file_name(name): tensor.detach().to(device="cpu", dtype=dtype).contiguous() for name, tensor in state.items()}
    partial = directory / f".{WEIGHTS}.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.rename(directory / WEIGHTS)


def save_like(source: Path, directory: Path, state: dict[str, Tensor]) -> None:
    """A checkpoint directory with new weights and everything else, the stored precision included, from ``source``."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = read_json(source / CONFIG)
    copy_text_files(source, directory)
    save_weights(state, directory, dtype=stored_dtype(raw, source / CONFIG))
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
