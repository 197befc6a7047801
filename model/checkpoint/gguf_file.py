"""GGUF files (llama.cpp's format) into checkpoint directories, and checkpoint directories into GGUF files.

Metadata keys and tensor names are those of llama.cpp's gguf-py; the ``gguf`` package reads, writes, quantizes and dequantizes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from model.checkpoint.config import CONFIG, config_json
from model.checkpoint.gguf_header import check_header
from model.checkpoint.gguf_vocabulary import add_vocabulary, tokenizer_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import read_json, write_json
from model.checkpoint.load import open_tensors
from model.checkpoint.meta_file import from_interleaved, is_rotary, to_interleaved
from model.checkpoint.shapes import expected_shapes, parameter_shapes, shape_mismatches
from model.config import PROJECTIONS, LlamaConfig
from model.llama import rotary_frequencies
from model.rope import LinearScaling, RopeScaling
from model.tokenizer.tokenizer import Tokenizer

# GGUF's tensor names, by the name of the parameter inside a layer or of the whole model.
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    **{f"{projection.path}.weight": f"{projection.gguf_name}.weight" for projection in PROJECTIONS.values()},
}
MODEL_NAMES = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
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


def gguf_name(parameter: str) -> str:
    """GGUF's name of a parameter of the model."""
    if parameter in MODEL_NAMES:
        return MODEL_NAMES[parameter]
    _, layer, inner = parameter.split(".", 2)
    return f"blk.{layer}.{LAYER_NAMES[inner]}"


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
    save_weights({name: tensor.to(dtype) for name, tensor in _tensors(tensors, config, progress)}, directory, dtype=dtype)
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
    if fields.get("general.architecture") != "llama":
        raise ValueError(f"{path}: general.architecture is {fields.get('general.architecture')!r}; only 'llama' is supported")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ValueError(f"{path}: rope scaling {scaling!r} in GGUF files is not supported")
    try:
        dim, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
        config = LlamaConfig(
            dim=dim,
            n_layers=fields["llama.block_count"],
            n_heads=heads,
            n_kv_heads=fields.get("llama.attention.head_count_kv", heads),
            ffn_dim=fields["llama.feed_forward_length"],
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            head_dim=fields.get("llama.attention.key_length", dim // heads),
            max_seq_len=fields["llama.context_length"],
            # Stored as float32: 1e-5 comes back as 9.99999974e-06.
            norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
            rope_theta=fields.get("llama.rope.freq_base", 10000.0),
            rope_scaling=LinearScaling(float(fields["llama.rope.scaling.factor"])) if scaling == "linear" else None,
            tied="output.weight" not in tensors,
        )
    except KeyError as error:
        raise ValueError(f"{path}: the metadata key {error.args[0]} is missing") from None
    except (TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    shapes = {gguf_name(name): shape for name, shape in expected_shapes(config, len(tensors), path).items()}
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
    names = [name for name, _ in parameter_shapes(config)]
    for name in progress(names):
        tensor = tensors[gguf_name(name)]
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        yield name, from_interleaved(values, config.head_dim) if is_rotary(name) else values


def from_directory(directory: Path, path: Path, *, kind: str = "f16") -> None:
    """Write a checkpoint directory of either layout as a GGUF file whose matrices are of ``kind``, one of ``WRITTEN``.

    One-dimensional tensors stay in float32, and so do rows that Q8_0's blocks of 32 do not divide, in float16.
    """
    if kind not in WRITTEN:
        raise ValueError(f"GGUF files can be written with {' or '.join(WRITTEN)} matrices, not {kind!r}")
    config, tensors = open_tensors(directory)
    source = directory / "tokenizer.json"
    writer = gguf.GGUFWriter(path, "llama")
    _add_config(writer, config, kind)
    add_vocabulary(writer, read_json(source), Tokenizer.from_path(source), source, config.vocab_size)
    shapes = [(gguf_name(n), s, _tensor_type(s, kind)) for n, s in parameter_shapes(config)]
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
    for name, tensor in tensors:
        values = to_interleaved(tensor, config.head_dim) if is_rotary(name) else tensor
        writer.write_tensor_data(_encoded(values.float().numpy(), _tensor_type(tuple(tensor.shape), kind), name, directory))
    writer.close()


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
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if isinstance(config.rope_scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
