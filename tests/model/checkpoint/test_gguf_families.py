"""GGUF files of other families than Llama: there and back bit for bit, and the same greedy tokens in llama.cpp."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.builders import TINY, write_tiny_checkpoint
from helpers.checkpoints import weights
from helpers.families import write_model
from helpers.qwen import write_qwen_vocabulary
from helpers.sentencepiece import write_gemma_vocabulary, write_vocabulary

from bench.llamacpp import LlamaCpp
from model.checkpoint.config import read_config
from model.checkpoint.convert import convert
from model.checkpoint.hf import copy_text_files
from model.checkpoint.load import load_model
from model.generation.generate import generate
from model.tokenizer.tokenizer import Tokenizer

WRITTEN = ("mistral", "qwen2", "qwen3", "gemma3, 6 layers", "gemma3, soft cap", "olmo2", "smollm3", "granite", "phi3", "phi4-mini")
REFUSED = {
    "mistral, window": "knows no sliding window of 9",
    "qwen2, windows": "reads no sliding window of qwen2",
    "qwen3, yarn": "YarnScaling of rotary positions is not written to GGUF",
    "gemma3": "a global layer after five local ones",
    "phi3, longrope": "LongRopeScaling of rotary positions is not written to GGUF",
}


def _source(folder: Path, variant: str) -> Path:
    write_model(folder / "source", variant, vocab_size=TINY.vocab_size)
    copy_text_files(write_tiny_checkpoint(folder / "tokenizer"), folder / "source")
    return folder / "source"


@pytest.mark.system
@pytest.mark.parametrize("variant", WRITTEN)
def test_it_runs_in_llama_cpp_with_the_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    source = _source(tmp_path, variant)
    convert(source, tmp_path / "model.gguf", "gguf", kind="f32")
    for seed in (0, 1):
        ids = torch.randint(10, TINY.vocab_size, (40,), generator=torch.Generator().manual_seed(seed)).tolist()
        expected = [s[0].id for s in generate(load_model(source), [ids], max_new_tokens=8) if s[0]]
        with LlamaCpp(tmp_path / "model.gguf", threads=2, length=256) as engine:
            assert engine.greedy(ids, 8) == expected


@pytest.mark.parametrize("variant", WRITTEN)
def test_it_comes_back(variant: str, tmp_path: Path) -> None:
    source = _source(tmp_path, variant)
    convert(source, tmp_path / "model.gguf", "gguf", kind="f32")
    convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
    assert read_config(tmp_path / "back") == read_config(source)
    before, after = weights(source), weights(tmp_path / "back")
    assert all(torch.allclose(before[n], after[n], rtol=0, atol=1e-7) for n in before)
    if not variant.startswith("gemma3"):  # whose norms are stored as 1 + w
        assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("variant", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(variant: str, tmp_path: Path) -> None:
    source = _source(tmp_path, variant)
    with pytest.raises(ValueError, match=REFUSED[variant]):
        convert(source, tmp_path / "model.gguf", "gguf")
    assert not (tmp_path / "model.gguf").exists()


TEXTS = ("What are the signs of condition 5?", "Condition 123 shows\n\nfever  and 4.5 mg <think>", "it's   A-1 é 发烧")


def _prepend(folder: Path) -> Path:
    return write_vocabulary(folder, "prepend", by_score=True)


VOCABULARIES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "Qwen 3": ("qwen3", write_qwen_vocabulary),
    "Gemma 3": ("gemma3, 6 layers", write_gemma_vocabulary),
    "Llama 2": ("llama", _prepend),
}
of_vocabularies = pytest.mark.parametrize("name", VOCABULARIES)


def _converted(folder: Path, name: str) -> Tokenizer:
    variant, write = VOCABULARIES[name]
    write_model(folder / "source", variant, vocab_size=640)
    write(folder / "source")
    convert(folder / "source", folder / "model.gguf", "gguf", kind="f32")
    return Tokenizer.from_path(folder / "source")


@of_vocabularies
def test_a_vocabulary_comes_back(name: str, tmp_path: Path) -> None:
    before = _converted(tmp_path, name)
    convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
    after = Tokenizer.from_path(tmp_path / "back")
    assert [after.encode(text) for text in TEXTS] == [before.encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("scheme", "by_score", "message"),
    [("prepend", False, "is not merged from every two pieces that it has"), ("first", True, "this vocabulary before some \\(first\\)")],
)
def test_a_vocabulary_that_llama_cpp_would_cut_otherwise_is_refused(scheme: str, by_score: bool, message: str, tmp_path: Path) -> None:
    write_model(tmp_path / "source", "llama", vocab_size=640)
    write_vocabulary(tmp_path / "source", scheme, by_score=by_score)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "source", tmp_path / "model.gguf", "gguf", kind="f32")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.system
@of_vocabularies
def test_a_vocabulary_gives_the_same_ids_in_llama_cpp(name: str, tmp_path: Path) -> None:
    before = _converted(tmp_path, name)
    with LlamaCpp(tmp_path / "model.gguf", threads=2, length=256) as engine:
        ours = [before.prompt(text)[len(before.prefix) :] for text in TEXTS]
        assert [engine.tokenize(text) for text in TEXTS] == ours
