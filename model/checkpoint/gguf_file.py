"""GGUF files (llama.cpp's format) into checkpoint directories, and checkpoint directories into GGUF files.

Metadata keys and tensor names are those of llama.cpp's gguf-py; the ``gguf`` package reads, writes, quantizes and dequantizes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from model.checkpoint.config import CONFIG, config_json
from model.checkpoint.gguf_families import ARCHITECTURES, INTERLEAVED, add_family, adds_one, check, gguf_tensors, read_family
from model.checkpoint.gguf_header import check_header
from model.checkpoint.gguf_vocabulary import add_vocabulary, tokenizer_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import read_json, write_json
from model.checkpoint.layout import Stored
from model.checkpoint.load import open_tensors
from model.checkpoint.meta_file import from_interleaved, is_rotary, to_interleaved
from model.checkpoint.shapes import check_layers, shape_mismatches
from model.config import Family, LlamaConfig
from model.llama import rotary_frequencies
from model.rope import LinearScaling, RopeScaling
from model.tokenizer.tokenizer import Tokenizer

# Factors that Llama 3.1's scaling divides the rotary frequencies by; GGUF keeps these instead of the settings behind them.
FACTORS = "rope_freqs.weight"
SCALINGS = (None, RopeScaling(factor=8.0), RopeScaling(factor=32.0))

STORED = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}  # what is not quantized
WRITTEN = {
    "f32": (GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "bf16": (GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f16": (GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}

Progress = Callable[[Sequence[str]], Iterable[str]]


def open_file(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """Metadata and tensors of a GGUF file. ``ValueError`` where its header is damaged or reaches beyond the file."""
    check_header(path)
    try:
        reader = gguf.GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}, {t.name: t for t in reader.tensors}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole GGUF file: {error}") from None


def to_directory(path: Path, directory: Path, *, progress: Progress = iter) -> None:
    """Write a GGUF model as a checkpoint directory, in the precision of its matrices, quantized ones in bfloat16.

    ``progress`` wraps the tensors' names, to show how far it is.
    """
    fields, tensors = open_file(path)
    config = read_config(fields, tensors, path)
    matrix = tensors["token_embd.weight"].tensor_type
    dtype = STORED.get(matrix, torch.bfloat16)
    tokenizer = tokenizer_json(fields, path)
    ids = {f"{name}_id": fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    tokens = fields["tokenizer.ggml.tokens"]
    if any(i is not None and not 0 <= i < len(tokens) for i in ids.values()):
        raise ValueError(f"{path}: bos_token_id or eos_token_id is not of the vocabulary of {len(tokens)}")
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(dtype) for name, tensor in _tensors(tensors, config, progress)}
    save_weights(state, directory, dtype=dtype, family=config.family)
    write_json(directory / CONFIG, config_json(config, dtype, **ids))
    write_json(directory / "generation_config.json", {"bos_token_id": ids["bos_id"], "eos_token_id": ids["eos_id"]})
    write_json(directory / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_seq_len, "clean_up_tokenization_spaces": False}
    named = {f"{n}_token": tokens[ids[f"{n}_id"]] for n in ("bos", "eos") if ids[f"{n}_id"] is not None}
    template = {"chat_template": fields.get("tokenizer.chat_template")}
    write_json(directory / "tokenizer_config.json", settings | named | template)


def read_config(fields: dict[str, Any], tensors: dict[str, gguf.ReaderTensor], path: Path) -> LlamaConfig:
    """The configuration in the metadata. ``ValueError`` names a key or tensors that do not fit."""
    if (parts := fields.get("split.count", 1)) > 1:
        raise ValueError(f"{path} is one of {parts} parts of a model; join them with 'llama-gguf-split --merge' of llama.cpp first")
    architecture = str(fields.get("general.architecture"))
    if architecture not in ARCHITECTURES.values():
        raise ValueError(f"{path}: general.architecture is {architecture!r}; supported are {', '.join(map(repr, ARCHITECTURES.values()))}")

    def field(name: str, *default: Any) -> Any:
        return fields.get(f"{architecture}.{name}", *default) if default else fields[f"{architecture}.{name}"]

    scaling = field("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ValueError(f"{path}: rope scaling {scaling!r} in GGUF files is not supported")
    try:
        dim, heads, layers = field("embedding_length"), field("attention.head_count"), field("block_count")
        head_dim = field("attention.key_length", dim // heads)
        config = LlamaConfig(
            dim=dim,
            n_layers=layers,
            n_heads=heads,
            n_kv_heads=field("attention.head_count_kv", heads),
            ffn_dim=field("feed_forward_length"),
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            head_dim=head_dim,
            max_seq_len=field("context_length"),
            # Stored as float32: 1e-5 comes back as 9.99999974e-06.
            norm_eps=float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),
            rope_theta=field("rope.freq_base", 10000.0),
            rope_scaling=LinearScaling(float(field("rope.scaling.factor"))) if scaling == "linear" else None,
            tied="output.weight" not in tensors,
            family=read_family(fields, architecture, dim=dim, layers=layers, head_dim=head_dim),
        )
        check(config)
    except KeyError as error:
        raise ValueError(f"{path}: the metadata key {error.args[0]} is missing") from None
    except (TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    check_layers(config, len(tensors), path)
    shapes = {name: stored.shape for name, stored in gguf_tensors(config).items()}
    if mismatches := shape_mismatches({name: tuple(reversed(t.shape.tolist())) for name, t in tensors.items()}, shapes, {FACTORS}):
        raise ValueError(f"the tensors in {path} do not fit its metadata: {mismatches}")
    return _with_rope_scaling(config, tensors, path)


def _with_rope_scaling(config: LlamaConfig, tensors: dict[str, gguf.ReaderTensor], path: Path) -> LlamaConfig:
    """The configuration with the rope scaling whose factors the file has."""
    if FACTORS not in tensors:
        return config
    factors = np.asarray(tensors[FACTORS].data, dtype=np.float32).ravel()
    for scaling in SCALINGS:
        candidate = replace(config, rope_scaling=scaling)
        expected_factors = rope_factors(candidate)
        if factors.shape == expected_factors.shape and np.allclose(factors, expected_factors, rtol=1e-4):
            return candidate
    raise ValueError(f"{path}: {FACTORS} holds factors of a rope scaling that is not known; Llama 3.1's and 3.2's are")


def rope_factors(config: LlamaConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the rotary frequencies are divided by, float32 [D/2]; ones without scaling."""
    return (rotary_frequencies(replace(config, rope_scaling=None)) / rotary_frequencies(config)).numpy()


def _tensors(tensors: dict[str, gguf.ReaderTensor], config: LlamaConfig, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    stored = gguf_tensors(config)
    for own in progress(list(stored)):
        tensor = tensors[own]
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        for name, part in stored[own].split(values):
            rows = from_interleaved(part, config.head_dim) if _interleaved(name, config.family) else part
            yield name, rows - 1 if adds_one(name, config.family) else rows


def _interleaved(parameter: str, family: Family) -> bool:
    return family.name in INTERLEAVED and is_rotary(parameter)


def from_directory(directory: Path, path: Path, *, kind: str = "f16") -> None:
    """Write a checkpoint directory of either layout as a GGUF file whose matrices are of ``kind``, one of ``WRITTEN``.

    One-dimensional tensors stay in float32, and so do rows that Q8_0's blocks of 32 do not divide, in float16.
    """
    if kind not in WRITTEN:
        raise ValueError(f"GGUF files can be written with {' or '.join(WRITTEN)} matrices, not {kind!r}")
    config, tensors = open_tensors(directory)
    source = directory / "tokenizer.json"
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.family.name])
    _add_config(writer, config, kind)
    add_family(writer, config)
    add_vocabulary(writer, read_json(source), Tokenizer.from_path(source), source, config.vocab_size)
    stored_by_name = gguf_tensors(config)
    shapes = [(name, stored.shape, _tensor_type(stored.shape, kind)) for name, stored in stored_by_name.items()]
    if isinstance(config.rope_scaling, RopeScaling):
        shapes.insert(0, (FACTORS, (config.head_dim // 2,), GGMLQuantizationType.F32))
    for name, shape, stored in shapes:
        block, width = gguf.GGML_QUANT_SIZES[stored]
        size = int(np.prod(shape)) * width // block
        # The shape of a quantized tensor is given in bytes.
        info_shape = (*shape[:-1], shape[-1] * width // block) if block > 1 else shape
        writer.add_tensor_info(name, info_shape, np.dtype(np.uint8 if block > 1 else np.float32), size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if isinstance(config.rope_scaling, RopeScaling):
        writer.write_tensor_data(rope_factors(config))
    for name, values in _joined(tensors, stored_by_name, config):
        writer.write_tensor_data(_encoded(values.numpy(), _tensor_type(tuple(values.shape), kind), name, directory))
    writer.close()


def _joined(tensors: Iterable[tuple[str, Tensor]], stored: Mapping[str, Stored], config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the file in float32, as soon as all of its parameters are there, in the order of the file."""
    parts: dict[str, Tensor] = {}
    names = iter(stored.items())
    own, pending = next(names, ("", None))
    for name, tensor in tensors:
        rows = to_interleaved(tensor, config.head_dim) if _interleaved(name, config.family) else tensor
        parts[name] = rows.float() + 1 if adds_one(name, config.family) else rows.float()
        while pending and all(parameter in parts for parameter, _ in pending.parameters):
            yield own, torch.cat([parts.pop(parameter) for parameter, _ in pending.parameters])
            own, pending = next(names, ("", None))


def _tensor_type(shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    stored = WRITTEN[kind][0]
    return GGMLQuantizationType.F16 if shape[-1] % gguf.GGML_QUANT_SIZES[stored][0] else stored


def _encoded(values: np.ndarray[Any, Any], kind: GGMLQuantizationType, name: str, directory: Path) -> np.ndarray[Any, Any]:
    if kind == GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
        raise ValueError(f"{directory}: {name} has values beyond float16's range")
    return values if kind == GGMLQuantizationType.F32 else gguf.quantize(values, kind)


def _add_config(writer: gguf.GGUFWriter, config: LlamaConfig, kind: str) -> None:
    writer.add_file_type(WRITTEN[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if isinstance(config.rope_scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
