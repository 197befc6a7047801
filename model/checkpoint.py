"""The checkpoint directory: configuration, weights and tokenizer in Hugging Face's Llama layout, read strictly, written whole.

Meta's format and GGUF are meta_file.py and gguf_file.py. ``python -m model.checkpoint inspect|convert`` is convert.py's command line.
"""

import math
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.checked_weights import CheckedFile
from model.json_file import read_json, write_json
from model.llama import LlamaConfig, RopeScaling, Transformer, parameter_shapes

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "original/tokenizer.model")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(directory: Path) -> LlamaConfig:
    """The model configuration in ``config.json``; a missing or unsupported field is an error that names it."""
    path = directory / CONFIG
    raw = read_json(path)
    if raw.get("model_type") != "llama":
        raise ValueError(f"{path}: model_type is {raw.get('model_type')!r}; only Llama-family models ('llama') are supported")
    for field in ("attention_bias", "mlp_bias"):
        if raw.get(field):
            raise ValueError(f"{path}: {field} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path}: hidden_act is {raw['hidden_act']!r}; only 'silu' is supported")
    stored_dtype(raw, path)
    try:
        heads = raw["num_attention_heads"]
        return LlamaConfig(
            dim=raw["hidden_size"],
            n_layers=raw["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=raw.get("num_key_value_heads") or heads,
            ffn_dim=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            max_seq_len=raw.get("max_position_embeddings", 2048),
            norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=_rope(raw).get("rope_theta", raw.get("rope_theta", 10000.0)),
            rope_scaling=_scaling(_rope(raw)),
            tied=raw.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from None
    except (TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def stored_dtype(raw: dict[str, Any], path: Path) -> torch.dtype:
    """The precision that ``config.json`` names; transformers 5 calls it dtype, earlier versions torch_dtype."""
    name = raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"
    if name not in DTYPES:
        raise ValueError(f"{path}: torch_dtype is {name!r}; known are {', '.join(DTYPES)}")
    return DTYPES[name]


def weights_dtype(directory: Path) -> torch.dtype:
    """The precision that a checkpoint directory's weights are stored in."""
    if is_meta(directory):
        from model.meta_file import MetaFiles

        return MetaFiles(directory).dtype
    return stored_dtype(read_json(directory / CONFIG), directory / CONFIG)


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 writes rope_parameters, earlier versions rope_scaling beside rope_theta.
    return raw.get("rope_parameters") or raw.get("rope_scaling") or {}


def _scaling(rope: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope_type {kind!r} is not supported; 'default' and 'llama3' are")
    return RopeScaling(**{name: rope[name] for name in asdict(RopeScaling())})


def config_json(config: LlamaConfig, dtype: torch.dtype, *, bos_id: int | None = None, eos_id: int | None = None) -> dict[str, Any]:
    """What ``config.json`` says of the model, readable by transformers 4 and 5."""
    scaling = config.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling is None else {"rope_type": "llama3", **asdict(scaling)},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
    }


def load(
    directory: Path,
    *,
    dtype: torch.dtype | Callable[[str], torch.dtype] = torch.float32,
    device: str | torch.device = "cpu",
    max_seq_len: int | None = None,
    sha256: Mapping[str, str] | None = None,
) -> Transformer:
    """The model of a checkpoint directory, Hugging Face's or Meta's, each parameter converted to ``dtype`` as it is read, or to that of
    its name. ``max_seq_len`` shortens the context. ``sha256``: digests by file name, which the bytes that are read must have.

    ``ValueError`` lists tensors that are missing, unexpected or of another shape than the configuration asks for; nothing is
    allocated before that check.
    """
    config, tensors = open_tensors(directory) if sha256 is None else _open_checked(directory, sha256)
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
        raise ValueError(f"{directory} is a file; turn GGUF into a directory with 'python -m model.checkpoint convert {directory} DIR'")
    if is_meta(directory):
        from model.meta_file import MetaFiles  # it builds on this module

        files = MetaFiles(directory)
        return files.config, files.tensors()
    config = read_config(directory)
    return config, _tensors(fitting(directory, _tensor_shapes(directory), config))


def _open_checked(directory: Path, sha256: Mapping[str, str]) -> tuple[LlamaConfig, Iterator[tuple[str, Tensor]]]:
    """As ``open_tensors``, of weights in Hugging Face's layout whose digests are known; each file is read once."""
    config = read_config(directory)
    files = [CheckedFile(path, sha256.get(path.name, "")) for path in _weight_files(directory)]
    places = fitting(directory, {name: (file.path, shape) for file in files for name, shape in file.shapes.items()}, config)
    parameters = {_file_name(name): name for name in places}
    return config, ((parameters[name], tensor) for file in files for name, tensor in file.tensors() if name in parameters)


def is_meta(directory: Path) -> bool:
    """Whether the weights are Meta's files and not Hugging Face's."""
    return (directory / "params.json").exists() and not any((directory / name).exists() for name in (WEIGHTS, INDEX))


def _tensors(places: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    for name, path in places.items():
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
    if foreign := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index}: weight_map names files outside the directory: {', '.join(foreign[:3])}")
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
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    return shapes


def fitting(directory: Path, found: dict[str, tuple[Path, tuple[int, ...]]], config: LlamaConfig) -> dict[str, Path]:
    """The file that holds each parameter; ``ValueError`` lists tensors that do not fit the configuration."""
    expected = expected_shapes(config, len(found), directory)
    wanted = {_file_name(name): shape for name, shape in expected.items()}
    # A tied model's output matrix may be stored again; it is the embedding.
    optional = {"lm_head.weight"} if config.tied else set()
    # Some releases of transformers stored the rotary angles, which follow from the configuration.
    found = {name: place for name, place in found.items() if not name.endswith(".rotary_emb.inv_freq")}
    told = misfits({name: shape for name, (_, shape) in found.items()}, wanted, optional)
    if told:
        raise ValueError(f"the weights in {directory} do not fit its {CONFIG}: {told}")
    return {name: found[_file_name(name)][0] for name in expected}


def expected_shapes(config: LlamaConfig, tensors: int, place: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, unless there are too few tensors for so many layers."""
    if config.n_layers > tensors:
        raise ValueError(f"{place}: {config.n_layers} layers are configured, but there are only {tensors} tensors")
    return dict(parameter_shapes(config))


def misfits(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], optional: Container[str] = ()) -> str:
    """Names that are missing, not wanted or of another shape, as a text; empty where all fit."""
    problems = {
        "missing": [name for name in wanted if name not in found and name not in optional],
        "not in the model": [name for name in found if name not in wanted and name not in optional],
        "of another shape": [f"{n} is {list(found[n])}, not {list(s)}" for n, s in wanted.items() if n in found and found[n] != s],
    }
    return "; ".join(f"{what}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" for what, names in problems.items() if names)


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
    fitting(directory, _tensor_shapes(directory), read_config(directory))


def count_parameters(config: LlamaConfig) -> int:
    return sum(math.prod(shape) for _, shape in parameter_shapes(config))


def parameters_of(model: Transformer) -> dict[str, Tensor]:
    """The model's parameters by name, a tied output matrix once."""
    return dict(model.named_parameters())


if __name__ == "__main__":
    from model.convert import main  # it builds on this module

    main()
