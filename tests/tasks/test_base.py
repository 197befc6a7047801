"""The base model: from a directory of the user's, and what is wrong with one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.builders import write_tiny_checkpoint

from tasks.base import CHATML, base
from tasks.runtime.digests import dvc_digest, tree_sha256
from tasks.training.params import BaseParams


def params(source: Path, template: str = "own") -> BaseParams:
    return BaseParams.model_validate(
        {"source": str(source), "sha256": tree_sha256(source) if source.exists() else "", "chat_template": template}
    )


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_directory_of_the_users_is_taken_as_it_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    base(tmp_path / "base", params=params(tiny_checkpoint))
    assert dvc_digest(tmp_path / "base") == dvc_digest(tiny_checkpoint)


def test_chatml_replaces_the_sources_template(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    change(source / "tokenizer_config.json", chat_template="{{ messages[0]['content'] }}")
    base(tmp_path / "base", params=params(source, "chatml"))
    assert json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())["chat_template"] == CHATML


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda d: change(d / "config.json", num_attention_heads=0), "config.json: "),
        (lambda d: change(d / "config.json", torch_dtype="auto"), "torch_dtype is 'auto'"),
        (lambda d: change(d / "config.json", rope_scaling="linear"), "config.json: "),
        (lambda d: change(d / "tokenizer.json", added_tokens=[{}]), "added_tokens cannot be read"),
        (lambda d: change(d / "config.json", hidden_size=48), "do not fit its config.json"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 100), "not a whole safetensors file"),
        (lambda d: (d / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
        (lambda d: (d / "tokenizer.json").unlink(), "holds no tokenizer: neither tokenizer.json"),
        (lambda d: change(d / "tokenizer_config.json", chat_template=None), "has no chat template"),
        (lambda d: change(d / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}"), "no end"),
        (lambda d: change(d / "tokenizer_config.json", chat_template=CHATML.replace("['content']", "['content'][:9]")), "cuts or tests"),
    ],
)
def test_a_broken_directory_is_refused_with_its_fault(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    source = write_tiny_checkpoint(tmp_path / "source")
    damage(source)
    with pytest.raises(ValueError, match=message):
        base(tmp_path / "base", params=params(source))


def test_a_source_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base.source in params.yaml: .*nowhere is neither"):
        base(tmp_path / "base", params=params(tmp_path / "nowhere"))


def test_another_model_at_the_same_path_is_refused_with_its_digest(tiny_checkpoint: Path, tmp_path: Path) -> None:
    params_with_digest = BaseParams(source=str(tiny_checkpoint), sha256="0" * 64, chat_template="own")
    with pytest.raises(ValueError, match=f"base.sha256.*write {tree_sha256(tiny_checkpoint)}"):
        base(tmp_path / "base", params=params_with_digest)


def test_only_what_belongs_to_a_checkpoint_is_taken(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    settings = source / "tokenizer_config.json"
    change(settings, chat_template=None, eos_token={"content": "<|im_end|>"})
    (source / "chat_template.jinja").write_text(CHATML)
    base(tmp_path / "base", params=params(source))
    assert not (tmp_path / "base" / "pytorch_model.bin").exists()
    assert json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())["chat_template"] == CHATML


def test_a_gguf_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16)
    with pytest.raises(ValueError, match=r"model.gguf"):
        base(tmp_path / "base", params=params(path))
