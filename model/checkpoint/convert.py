"""Checkpoints converted from one format to another, and described: ``python -m model inspect|convert SRC [DST]``.

Everything passes through the checkpoint directory in Hugging Face's layout; weights keep the precision that they are stored in.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from model.checkpoint import gguf_file, meta_file
from model.checkpoint.config import CONFIG, config_json
from model.checkpoint.hf import TEXT_FILES, check_weights, copy_checkpoint, save_weights
from model.checkpoint.json_file import write_json
from model.checkpoint.load import is_meta, open_tensors
from model.checkpoint.shapes import count_parameters
from model.config import SIZES, LlamaConfig
from model.tokenizer.tokenizer import TIKTOKEN_FILES, Tokenizer
from model.tokenizer.tokenizer_json import tiktoken_to_tokenizer_json
from model.tokenizer.vocabulary import LLAMA3_CHAT_TEMPLATE

FORMATS = ("hf", "meta", "gguf")
TIKTOKEN_FILE = TIKTOKEN_FILES[0]


def format_of(source: Path) -> str:
    """ "hf", "meta" or "gguf". ``ValueError`` where it is none of them."""
    if source.is_file():
        return "gguf"
    if not source.is_dir():
        raise ValueError(f"{source} is missing; a checkpoint is a directory or a GGUF file")
    return "meta" if is_meta(source) else "hf"


def convert(source: Path, target: Path, to: str, *, files: int = 1, kind: str = "f16") -> None:
    """Write the checkpoint ``source`` to ``target`` in the format ``to``. ``target`` appears whole or not at all.

    ``ValueError`` where ``target`` exists or the format cannot hold the model.

    ``files`` is the number of model-parallel files of Meta's format, ``kind`` the matrices' type in GGUF.
    """
    if target.exists():
        raise ValueError(f"{target} exists; give a name that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename at the end stays on one file system.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        directory = source
        if format_of(source) != "hf":
            directory = Path(folder) / "hf"
            _to_hf(source, directory)
        result = Path(folder) / "done"
        writers: dict[str, Callable[[], None]] = {
            "hf": lambda: _copy(directory, result),
            "meta": lambda: _to_meta(directory, result, files),
            "gguf": lambda: gguf_file.from_directory(directory, result, kind=kind),
        }
        writers[to]()
        result.rename(target)


def _to_hf(source: Path, directory: Path) -> None:
    if format_of(source) == "gguf":
        gguf_file.to_directory(source, directory)
        return
    files = meta_file.MetaFiles(source)
    directory.mkdir(parents=True)
    _text_from_meta(source, directory)
    tokenizer = Tokenizer.from_path(directory)
    state = dict(files.tensors())
    save_weights(state, directory, dtype=files.dtype)
    if not (directory / CONFIG).exists():
        ids = {"bos_id": tokenizer.special.get(tokenizer.bos), "eos_id": tokenizer.special.get(tokenizer.eos)}
        write_json(directory / CONFIG, config_json(files.config, files.dtype, **ids))


def _text_from_meta(source: Path, directory: Path) -> None:
    """Copy the configuration and tokenizer that are beside Meta's weights: those of an export, or the tiktoken file of Meta's download."""
    for name in (CONFIG, *TEXT_FILES):
        if (source / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, directory / name)
    keep = directory / "original" / meta_file.PARAMS
    keep.parent.mkdir(exist_ok=True)
    shutil.copyfile(source / meta_file.PARAMS, keep)
    bpe_file = source / "tokenizer.model"
    if (directory / "tokenizer.json").exists() or not bpe_file.exists():
        return
    write_json(directory / "tokenizer.json", tiktoken_to_tokenizer_json(bpe_file))
    shutil.copyfile(bpe_file, directory / TIKTOKEN_FILE)
    tokenizer = Tokenizer.from_path(bpe_file)
    named = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos, "chat_template": LLAMA3_CHAT_TEMPLATE}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | named)
    ends = {"bos_token_id": tokenizer.special[tokenizer.bos], "eos_token_id": list(tokenizer.stop_ids)}
    write_json(directory / "generation_config.json", ends)


def _to_meta(directory: Path, target: Path, files: int) -> None:
    config, tensors = open_tensors(directory)
    meta_file.write(target, dict(tensors), config, files=files)
    # params.json does not name context, precision and exact scaling; with these files nothing is lost.
    for name in (CONFIG, *TEXT_FILES):
        if (directory / name).exists() and name != TIKTOKEN_FILE:
            shutil.copyfile(directory / name, target / name)
    if (directory / TIKTOKEN_FILE).exists():
        shutil.copyfile(directory / TIKTOKEN_FILE, target / "tokenizer.model")


def _copy(directory: Path, target: Path) -> None:
    check_weights(directory)
    copy_checkpoint(directory, target)


def inspect(source: Path) -> str:
    """Format, configuration, precision, size and tokenizer, as lines for people."""
    source_format = format_of(source)
    if source_format == "gguf":
        fields, tensors_by_name = gguf_file.open_file(source)
        config = gguf_file.read_config(fields, tensors_by_name, source)
        types = sorted({t.tensor_type.name for t in tensors_by_name.values()})
        tokenizer = f"{fields.get('tokenizer.ggml.model')}, {fields.get('tokenizer.ggml.pre')}, {config.vocab_size:,} ids"
        size = source.stat().st_size
    else:
        config, tensors = open_tensors(source)
        types = sorted({str(tensor.dtype).removeprefix("torch.") for _, tensor in tensors})
        tokenizer = _tokenizer_line(source)
        size = sum(p.stat().st_size for p in source.iterdir() if p.suffix in (".safetensors", ".pth"))
    lines = {
        "format": f"{source_format}, of {config.family.name}",
        "size": f"{_named(config)}{count_parameters(config):,} parameters, {size / 1e9:.2f} GB of {', '.join(types)}",
        "shape": f"{config.n_layers} layers of width {config.dim}, feed-forward {config.ffn_dim}",
        "heads": f"{config.n_heads} of size {config.head_dim}, {config.n_kv_heads} for keys and values",
        "context": f"{config.max_seq_len:,} positions, theta {config.rope_theta:g}, scaling {config.rope_scaling or 'none'}",
        "output": "tied to the embedding" if config.tied else "a matrix of its own",
        "tokenizer": tokenizer,
    }
    return "\n".join(f"{name:10} {text}" for name, text in lines.items())


def _tokenizer_line(directory: Path) -> str:
    try:
        tokenizer = Tokenizer.from_path(directory)
    except ValueError as error:
        return f"not usable: {error}"
    return f"{tokenizer.n_vocab:,} ids, {len(tokenizer.special)} control tokens, {'a' if tokenizer.template else 'no'} chat template"


def _named(config: LlamaConfig) -> str:
    return next((f"{name}, " for name, size in SIZES.items() if size == config), "")
