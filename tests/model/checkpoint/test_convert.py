"""Checkpoints through Meta's format and GGUF and back to Hugging Face's, what is refused, and the command line."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import write_tiny_checkpoint
from helpers.checkpoints import CONFIGS, LINEAR, OWN_HEAD_SIZE, SCALED, TEXT, weights
from helpers.project import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.checkpoint.config import read_config
from model.checkpoint.convert import convert, inspect
from model.checkpoint.load import load_model
from model.checkpoint.meta_file import MetaFiles, ffn_dim, params_json, read_params
from model.rope import RopeScaling
from model.tokenizer.tokenizer import Tokenizer


@pytest.fixture(params=CONFIGS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "source", CONFIGS[request.param], seed=1)


def logits(directory: Path) -> torch.Tensor:
    with torch.inference_mode():
        return load_model(directory)(torch.arange(5, 65)[None])


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n].view(torch.uint8), other[n].view(torch.uint8)) for n in one)


@pytest.mark.parametrize("files", [1, 2])
def test_hf_to_meta_and_back_keeps_every_bit(source: Path, tmp_path: Path, files: int) -> None:
    convert(source, tmp_path / "meta", "meta", files=files)
    assert len(list((tmp_path / "meta").glob("consolidated.*.pth"))) == files
    convert(tmp_path / "meta", tmp_path / "back", "hf")
    assert same_weights(weights(source), weights(tmp_path / "back"))
    assert read_config(tmp_path / "back") == read_config(source)
    assert Tokenizer.from_path(tmp_path / "back").digest == Tokenizer.from_path(source).digest
    assert torch.equal(logits(tmp_path / "meta"), logits(source))


def test_meta_to_hf_and_back_keeps_every_bit_of_eight_files(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "source", CONFIGS["eight key/value heads"])
    convert(tmp_path / "source", tmp_path / "first", "meta", files=8)
    convert(tmp_path / "first", tmp_path / "hf", "hf")
    convert(tmp_path / "hf", tmp_path / "second", "meta", files=8)
    for rank in range(8):
        one, other = (torch.load(tmp_path / d / f"consolidated.{rank:02d}.pth", weights_only=True) for d in ("first", "second"))
        assert same_weights(one, other)
    assert (tmp_path / "first" / "params.json").read_text() == (tmp_path / "second" / "params.json").read_text()


def test_a_directory_as_meta_publishes_it_needs_params_json_alone(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "source", SCALED)
    convert(tmp_path / "source", tmp_path / "meta", "meta")
    for path in (tmp_path / "meta").iterdir():
        if path.suffix == ".json" and path.name != "params.json":
            path.unlink()
    assert torch.equal(logits(tmp_path / "meta"), logits(tmp_path / "source"))
    files = MetaFiles(tmp_path / "meta")
    assert files.config == replace(SCALED, max_seq_len=131072)


def test_llama_2s_split_embedding_is_merged(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "source", CONFIGS["untied, multi-head"])
    convert(tmp_path / "source", tmp_path / "meta", "meta", files=2)
    ranks = [torch.load(tmp_path / "meta" / f"consolidated.0{n}.pth", weights_only=True) for n in range(2)]
    whole = torch.cat([rank["tok_embeddings.weight"] for rank in ranks])
    for n, rank in enumerate(ranks):
        rank["tok_embeddings.weight"] = whole.chunk(2, 1)[n].contiguous()
        rank["rope.freqs"] = torch.ones(4)
        torch.save(rank, tmp_path / "meta" / f"consolidated.0{n}.pth")
    assert torch.equal(logits(tmp_path / "meta"), logits(tmp_path / "source"))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        # As published with the models.
        ({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05, "vocab_size": -1}, 11008),
        (
            {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "ffn_dim_multiplier": 1.3}
            | {"multiple_of": 1024, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True},
            14336,
        ),
        (
            {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "ffn_dim_multiplier": 1.5}
            | {"multiple_of": 256, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True},
            8192,
        ),
    ],
)
def test_published_params_give_the_published_sizes(params: dict[str, Any], expected: int) -> None:
    config = read_params(params, Path("params.json"), vocabulary=32000)
    assert config.ffn_dim == expected
    if params["dim"] == 2048:
        assert config.rope_scaling == RopeScaling(factor=32.0) and config.max_seq_len == 131072
    written: dict[str, Any] = params_json(config)
    assert ffn_dim(config.dim, written["multiple_of"], written["ffn_dim_multiplier"]) == expected


def test_a_head_size_of_its_own_cannot_be_said_in_metas_format(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "source", OWN_HEAD_SIZE)
    write_tiny_checkpoint(tmp_path / "linear", LINEAR)
    with pytest.raises(ValueError, match="Meta's format has no linear rope scaling"):
        convert(tmp_path / "linear", tmp_path / "meta", "meta")
    with pytest.raises(ValueError, match="no head size of its own"):
        convert(tmp_path / "source", tmp_path / "meta", "meta")
    assert not (tmp_path / "meta").exists()


@pytest.mark.parametrize("way", ["meta", "gguf"])
def test_what_comes_out_opens_in_transformers_with_the_same_logits_and_ids(source: Path, tmp_path: Path, way: str) -> None:
    convert(source, tmp_path / "there", way)
    convert(tmp_path / "there", tmp_path / "back", "hf")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    with torch.inference_mode():
        expected_logits = reference(torch.arange(5, 65)[None]).logits
    torch.testing.assert_close(logits(tmp_path / "back"), expected_logits, atol=1e-5, rtol=0)
    reference_tokenizer, tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back"), Tokenizer.from_path(tmp_path / "back")
    plain = TEXT.replace("<|im_end|>", "")
    assert (
        tokenizer.encode(plain) == reference_tokenizer.encode(plain, add_special_tokens=False) == Tokenizer.from_path(source).encode(plain)
    )
    dialog = [{"role": "user", "content": plain}]
    expected_chat: Any = reference_tokenizer.apply_chat_template(dialog, add_generation_prompt=True)
    assert tokenizer.chat_prompt(dialog) == expected_chat["input_ids"]


class TestRefusals:
    @pytest.fixture
    def meta(self, tmp_path: Path) -> Path:
        write_tiny_checkpoint(tmp_path / "source", CONFIGS["untied, multi-head"])
        convert(tmp_path / "source", tmp_path / "meta", "meta", files=2)
        return tmp_path / "meta"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda rank: rank.pop("layers.1.attention.wq.weight"), "missing: layers.1.attention.wq.weight"),
            (lambda rank: rank.update(extra=torch.ones(3)), "not in the model: extra"),
            (lambda rank: rank.update({"norm.weight": torch.ones(7)}), r"norm.weight is \[7\], not \[32\]"),
            (lambda rank: rank.update({"norm.weight": torch.ones(32)}), "norm.weight differs between the files"),
            (lambda rank: rank.update(norm=3), "expected tensors by name"),
            (lambda rank: rank.update({"norm.weight": torch.ones(32, dtype=torch.int32)}), "no plain tensor"),
        ],
    )
    def test_tensors_of_meta_files_that_do_not_fit_are_named(self, meta: Path, change: Callable[[Any], None], message: str) -> None:
        path = meta / "consolidated.01.pth"
        rank = torch.load(path, weights_only=True)
        change(rank)
        torch.save(rank, path)
        with pytest.raises(ValueError, match=message):
            load_model(meta)

    def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(self, meta: Path, tmp_path: Path) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "ran",)

        torch.save({"norm.weight": Hostile()}, meta / "consolidated.00.pth")
        with pytest.raises(ValueError, match=r"consolidated.00.pth is not a whole PyTorch file of tensors alone"):
            load_model(meta)
        (meta / "consolidated.00.pth").write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(ValueError, match=r"consolidated.00.pth"):
            load_model(meta)
        assert not (tmp_path / "ran").exists()

    def test_a_gap_between_meta_files_is_told(self, meta: Path) -> None:
        (meta / "consolidated.00.pth").unlink()
        with pytest.raises(ValueError, match="without a gap"):
            load_model(meta)

    def test_a_sentencepiece_model_alone_is_refused(self, meta: Path, tmp_path: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (meta / name).unlink()
        (meta / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
        with pytest.raises(ValueError, match=r"SentencePiece model.*tokenizer.json"):
            convert(meta, tmp_path / "hf", "hf")
        assert not (tmp_path / "hf").exists()

    def test_a_target_that_exists_is_kept(self, tmp_path: Path) -> None:
        source = write_tiny_checkpoint(tmp_path / "source")
        (tmp_path / "there").mkdir()
        with pytest.raises(ValueError, match="exists"):
            convert(source, tmp_path / "there", "meta")
        assert not list((tmp_path / "there").iterdir())

    def test_a_gguf_file_is_not_loaded_but_the_command_is_told(self, tmp_path: Path) -> None:
        source = write_tiny_checkpoint(tmp_path / "source")
        convert(source, tmp_path / "model.gguf", "gguf")
        with pytest.raises(ValueError, match="python -m model convert"):
            load_model(tmp_path / "model.gguf")

    def test_an_index_may_not_name_files_elsewhere(self, tmp_path: Path) -> None:
        source = write_tiny_checkpoint(tmp_path / "source")
        shutil.move(source / "model.safetensors", tmp_path / "elsewhere.safetensors")
        index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="files outside the directory"):
            load_model(source)


class TestTheCommandLine:
    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "model", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    @pytest.mark.slow
    def test_it_converts_and_tells_what_is_there(self, tmp_path: Path, tiny_checkpoint: Path) -> None:
        for source, target, options in (
            (tiny_checkpoint, "meta", ["--format", "meta", "--files", "2"]),
            (tmp_path / "meta", "gguf", ["--format", "gguf", "--type", "q8_0"]),
            (tmp_path / "gguf", "hf", []),
        ):
            process = self.run("convert", source, tmp_path / target, *options)
            assert process.returncode == 0, process.stderr
        for directory, format_ in ((tiny_checkpoint, "hf"), (tmp_path / "meta", "meta"), (tmp_path / "gguf", "gguf")):
            text = inspect(directory)
            assert f"format     {format_}" in text and "2 layers of width 32" in text and "tied to the embedding" in text

    @pytest.mark.slow
    def test_bad_input_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16)
        for arguments in (("inspect", tmp_path / "bad.gguf"), ("inspect", tmp_path / "none"), ("convert", tmp_path, tmp_path / "new")):
            process = self.run(*arguments)
            assert process.returncode == 1
            assert process.stderr.startswith(f"{arguments[0]}: ") and process.stderr.count("\n") == 1, process.stderr
