"""Meta's checkpoint format: ``params.json`` with ``consolidated.NN.pth``, one file or one per model-parallel rank.

Names and shapes are those of meta-llama/llama-models, models/llama3/model.py; a pickle is read with ``weights_only``, which
runs none of its code. It knows nothing of tokenizers.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint.config import CONFIG, read_config
from model.checkpoint.json_file import check_no_pointer, read_json, write_json
from model.checkpoint.shapes import expected_shapes, parameter_shapes, shape_mismatches
from model.config import SIZES, LlamaConfig
from model.rope import LinearScaling, RopeScaling

PARAMS = "params.json"
# Meta's name inside a layer, and the dimension that model-parallel ranks share; None: every rank has the whole tensor.
LAYER_NAMES: dict[str, tuple[str, int | None]] = {
    "input_layernorm.weight": ("attention_norm.weight", None),
    "post_attention_layernorm.weight": ("ffn_norm.weight", None),
    **{f"self_attn.{name}_proj.weight": (f"attention.w{name}.weight", 0) for name in "qkv"},
    "self_attn.o_proj.weight": ("attention.wo.weight", 1),
    "mlp.gate_proj.weight": ("feed_forward.w1.weight", 0),
    "mlp.up_proj.weight": ("feed_forward.w3.weight", 0),
    "mlp.down_proj.weight": ("feed_forward.w2.weight", 1),
}
MODEL_NAMES: dict[str, tuple[str, int | None]] = {
    "embed_tokens.weight": ("tok_embeddings.weight", 0),  # Llama 2: 1
    "norm.weight": ("norm.weight", None),
    "lm_head.weight": ("output.weight", 0),
}
IGNORED = ("rope.freqs",)  # a table that can be computed


def meta_name(parameter: str) -> tuple[str, int | None]:
    """Meta's name of a parameter of the model, and the dimension that ranks share."""
    if parameter in MODEL_NAMES:
        return MODEL_NAMES[parameter]
    _, layer, inner = parameter.split(".", 2)
    name, dim = LAYER_NAMES[inner]
    return f"layers.{layer}.{name}", dim


def to_interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key projection from rotary pairs (i, i + D/2) to (2i, 2i+1), as Meta and GGUF order them."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(weight.shape)


def from_interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of ``to_interleaved``."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)


def is_rotary(parameter: str) -> bool:
    """Whether the rows of this parameter are ordered by rotary pairs."""
    return parameter.endswith(("q_proj.weight", "k_proj.weight"))


class MetaFiles:
    """The weights of a directory in Meta's format; opening it checks names and shapes of every file against ``params.json``."""

    def __init__(self, directory: Path):
        self.paths = sorted(directory.glob("consolidated.*.pth"))
        self.directory = directory
        if [p.name for p in self.paths] != [f"consolidated.{n:02d}.pth" for n in range(len(self.paths))] or not self.paths:
            raise ValueError(f"{directory}: expected consolidated.00.pth and on without a gap, found {[p.name for p in self.paths]}")
        ranks = [_open(path) for path in self.paths]
        self.dtype = ranks[0]["tok_embeddings.weight"].dtype if "tok_embeddings.weight" in ranks[0] else torch.bfloat16
        self.config, self._embedding_dim = self._configuration(ranks[0])
        self._check(ranks)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter by the model's name, merged over the ranks, in the stored precision."""
        names = [name for name, _ in parameter_shapes(self.config)]
        for _, layer in groupby(names, lambda name: name.split(".")[:2]):
            # Opened anew for each layer: the pages of those before leave the memory.
            ranks = [_open(path) for path in self.paths]
            for name in layer:
                yield name, self._merged(name, ranks)

    def _configuration(self, first: dict[str, Tensor]) -> tuple[LlamaConfig, int]:
        params = read_json(self.directory / PARAMS)
        embedding = first.get("tok_embeddings.weight")
        if embedding is None or embedding.dim() != 2:
            raise ValueError(f"{self.paths[0]}: tok_embeddings.weight is missing or no matrix")
        rows, width = embedding.shape
        dim = params.get("dim")
        split = 0 if width == dim else 1
        vocabulary = rows * (len(self.paths) if split == 0 else 1)
        config = read_params(params, self.directory / PARAMS, vocabulary=vocabulary)
        config_path = self.directory / CONFIG
        if config_path.exists():  # has what params.json has not: context, precision, exact scaling
            whole = read_config(self.directory)
            for field in ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size"):
                if getattr(whole, field) != getattr(config, field):
                    raise ValueError(f"{config_path}: {field} is {getattr(whole, field)}, in {PARAMS} it is {getattr(config, field)}")
            return whole, split
        output = first.get("output.weight")
        tied = output is None or (output.shape == embedding.shape and torch.equal(output, embedding))
        return replace(config, tied=tied), split

    def _check(self, ranks: list[dict[str, Tensor]]) -> None:
        shapes = expected_shapes(self.config, min(map(len, ranks)), self.directory)
        optional = {*IGNORED, "output.weight"} if self.config.tied else {*IGNORED}
        expected = {meta_name(name)[0]: self._rank_shape(name, shape) for name, shape in shapes.items()}
        for path, rank in zip(self.paths, ranks, strict=True):
            mismatches = shape_mismatches({name: tuple(tensor.shape) for name, tensor in rank.items()}, expected, optional)
            if mismatches:
                raise ValueError(f"the tensors in {path} do not fit {PARAMS}: {mismatches}")

    def _rank_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        dim, count = self._split(name), len(self.paths)
        if dim is None:
            return shape
        if shape[dim] % count:
            raise ValueError(f"{self.directory}: {meta_name(name)[0]} cannot be shared by {count} files")
        return tuple(size // count if n == dim else size for n, size in enumerate(shape))

    def _split(self, name: str) -> int | None:
        return self._embedding_dim if name == "embed_tokens.weight" else meta_name(name)[1]

    def _merged(self, name: str, ranks: list[dict[str, Tensor]]) -> Tensor:
        meta, dim = meta_name(name)[0], self._split(name)
        if dim is None:
            if any(not torch.equal(rank[meta], ranks[0][meta]) for rank in ranks[1:]):
                raise ValueError(f"{self.directory}: {meta} differs between the files; it must be the same in all")
            merged = ranks[0][meta]
        else:
            merged = torch.cat([rank[meta] for rank in ranks], dim) if len(ranks) > 1 else ranks[0][meta]
        return from_interleaved(merged, self.config.head_dim) if is_rotary(name) else merged


def _open(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged or hostile pickle can fail in any way; none of its code has run
        check_no_pointer(path)
        raise ValueError(f"{path} is not a whole PyTorch file of tensors alone: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tensors, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items()):
        raise ValueError(f"{path}: expected tensors by name")
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.bfloat16, torch.float16, torch.float32) or not tensor.is_contiguous() or tensor.is_meta:
            raise ValueError(f"{path}: {name} is no plain tensor of bfloat16, float16 or float32")
    return tensors


def read_params(params: dict[str, Any], path: Path, *, vocabulary: int) -> LlamaConfig:
    """The configuration in ``params.json``. ``ValueError`` names a key that is missing or out of range.

    The file has neither context nor the scaling's factor. These come from the entry of ``SIZES`` with the same dimensions, else
    from Llama 3.1, 3 or 2.
    """
    try:
        dim, heads = params["dim"], params["n_heads"]
        config = LlamaConfig(
            dim=dim,
            n_layers=params["n_layers"],
            n_heads=heads,
            n_kv_heads=params.get("n_kv_heads") or heads,
            ffn_dim=ffn_dim(dim, params["multiple_of"], params.get("ffn_dim_multiplier")),
            vocab_size=vocabulary if params.get("vocab_size", -1) == -1 else params["vocab_size"],
            head_dim=dim // heads,
            max_seq_len=131072 if params.get("use_scaled_rope") else 8192 if "rope_theta" in params else 4096,
            norm_eps=params["norm_eps"],
            rope_theta=params.get("rope_theta", 10000.0),
            rope_scaling=RopeScaling() if params.get("use_scaled_rope") else None,
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from None
    except (TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    named = next((size for size in SIZES.values() if _same_dimensions(size, config)), None)
    return config if named is None else replace(config, max_seq_len=named.max_seq_len, rope_scaling=named.rope_scaling)


def _same_dimensions(one: LlamaConfig, other: LlamaConfig) -> bool:
    fields = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size", "head_dim", "rope_theta")
    return all(getattr(one, f) == getattr(other, f) for f in fields) and bool(one.rope_scaling) == bool(other.rope_scaling)


def ffn_dim(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """The inner width of the feed-forward part (FeedForward in Meta's model.py)."""
    hidden = int(2 * (4 * dim) / 3)
    hidden = int(multiplier * hidden) if multiplier is not None else hidden
    return multiple_of * math.ceil(hidden / multiple_of)


def write(directory: Path, state: dict[str, Tensor], config: LlamaConfig, *, files: int = 1) -> None:
    """Write parameters, in their own precision, as ``files`` model-parallel files with ``params.json``.

    ``ValueError`` where Meta's format cannot express the configuration or the tensors cannot be shared evenly.
    """
    if config.head_dim * config.n_heads != config.dim:
        raise ValueError(
            f"Meta's format has no head size of its own; this model's is {config.head_dim}, not {config.dim // config.n_heads}"
        )
    if isinstance(config.rope_scaling, LinearScaling):
        raise ValueError("Meta's format has no linear rope scaling")
    directory.mkdir(parents=True, exist_ok=True)
    state = state if "lm_head.weight" in state else state | {"lm_head.weight": state["embed_tokens.weight"]}
    for name in state:
        dim = meta_name(name)[1]
        if dim is not None and (state[name].shape[dim] % files or (is_rotary(name) and state[name].shape[0] // config.head_dim % files)):
            raise ValueError(f"{name} {list(state[name].shape)} cannot be shared evenly by {files} files")
    for rank in range(files):
        torch.save(
            {meta_name(n)[0]: _share(n, t, config, rank, files) for n, t in state.items()}, directory / f"consolidated.{rank:02d}.pth"
        )
    write_json(directory / PARAMS, params_json(config))


def _share(name: str, tensor: Tensor, config: LlamaConfig, rank: int, files: int) -> Tensor:
    tensor = to_interleaved(tensor, config.head_dim) if is_rotary(name) else tensor
    dim = meta_name(name)[1]
    # A copy: a view would save the whole storage.
    return tensor.clone() if dim is None else tensor.chunk(files, dim)[rank].clone(memory_format=torch.contiguous_format)


def params_json(config: LlamaConfig) -> dict[str, Any]:
    """The contents of ``params.json``; ``ffn_dim`` gives the same inner width for them."""
    base = int(2 * (4 * config.dim) / 3)
    multiple_of = 256 if config.ffn_dim % 256 == 0 else 1
    # Half a unit off, so that rounding in ffn_dim() ends where it should.
    multiplier = (config.ffn_dim + (-0.5 if multiple_of > 1 else 0.5)) / base
    return {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": multiple_of,
        "ffn_dim_multiplier": multiplier,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": config.rope_scaling is not None,
    }
