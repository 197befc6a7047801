"""GGUF files (llama.cpp's format) into checkpoint directories.

Metadata keys and tensor names are those of llama.cpp's gguf-py; the ``gguf`` package reads and dequantizes.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from model.checkpoint import CONFIG, config_json, save_weights, write_json
from model.llama import LlamaConfig, parameter_shapes

# GGUF's tensor names, by the name of the parameter inside a layer or of the whole model.
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
MODEL_NAMES = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}

# tokenizer.ggml.pre: the pre-tokenizers of Hugging Face that they stand for.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS: dict[str, Any] = {
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]},
    "gpt-2": _BYTE_LEVEL,
}
CONTROL = 3  # gguf.TokenType.CONTROL


Watch = Callable[[Sequence[str]], Iterable[str]]


def to_directory(path: Path, directory: Path, *, watch: Watch = iter) -> None:
    """Write a GGUF model as a bfloat16 checkpoint directory; ``watch`` may follow the tensors' names as they are converted."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole GGUF file: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(fields, tied="output.weight" not in tensors, path=path)
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(_weights(tensors, config, path, watch), directory, dtype=torch.bfloat16)
    ids = {f"{n}_id": fields.get(f"tokenizer.ggml.{n}_token_id") for n in ("bos", "eos")}
    write_json(directory / CONFIG, config_json(config, torch.bfloat16, **ids))
    write_json(directory / "generation_config.json", {"bos_token_id": ids["bos_id"], "eos_token_id": ids["eos_id"]})
    write_json(directory / "tokenizer.json", _tokenizer(fields, path))
    tokens = fields["tokenizer.ggml.tokens"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_seq_len, "clean_up_tokenization_spaces": False}
    named = {f"{n}_token": tokens[ids[f"{n}_id"]] for n in ("bos", "eos") if ids[f"{n}_id"] is not None}
    template = {"chat_template": fields.get("tokenizer.chat_template")}
    write_json(directory / "tokenizer_config.json", settings | named | template)


def _config(fields: dict[str, Any], *, tied: bool, path: Path) -> LlamaConfig:
    if fields.get("general.architecture") != "llama":
        raise ValueError(f"{path}: general.architecture is {fields.get('general.architecture')!r}; only 'llama' is supported")
    if fields.get("llama.rope.scaling.type", "none") != "none":
        raise ValueError(f"{path}: rope scaling {fields['llama.rope.scaling.type']!r} in GGUF files is not supported")
    try:
        dim, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
        return LlamaConfig(
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
            tied=tied,
        )
    except KeyError as error:
        raise ValueError(f"{path}: the metadata key {error.args[0]} is missing") from None


def _weights(tensors: dict[str, gguf.ReaderTensor], config: LlamaConfig, path: Path, watch: Watch) -> dict[str, Tensor]:
    shapes = dict(parameter_shapes(config))
    names = {name: _gguf_name(name) for name in shapes}
    if extra := sorted(set(tensors) - set(names.values())):
        raise ValueError(f"{path}: tensors are not in a Llama model: {', '.join(extra[:5])}")
    if missing := [theirs for theirs in names.values() if theirs not in tensors]:
        raise ValueError(f"{path}: tensors are missing: {', '.join(missing[:5])}")
    state = {}
    for name in watch(list(names)):
        theirs = names[name]
        tensor = tensors[theirs]
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if values.shape != shapes[name]:
            raise ValueError(f"{path}: {theirs} is {list(values.shape)}, expected {list(shapes[name])}")
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = from_interleaved(values, config.head_dim)
        state[name] = values.to(torch.bfloat16)
    return state


def _gguf_name(parameter: str) -> str:
    if parameter in MODEL_NAMES:
        return MODEL_NAMES[parameter]
    _, number, inner = parameter.split(".", 2)
    return f"blk.{number}.{LAYER_NAMES[inner]}"


def from_interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key projection from rotary pairs (2i, 2i+1), as Meta and GGUF order them, to (i, i + D/2)."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)


def _tokenizer(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """The vocabulary as a ``tokenizer.json`` that Hugging Face's tokenizers and our own read alike."""
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(f"{path}: tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported; known: {', '.join(PRE_TOKENIZERS)}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t} | flags for i, t in enumerate(tokens) if types[i] == CONTROL],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }
