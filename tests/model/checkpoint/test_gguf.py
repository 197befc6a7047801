"""Kinds of matrices in GGUF files, written and read, and the same tokens from llama.cpp, which defined the format."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from helpers.builders import TINY, write_tiny_checkpoint
from helpers.checkpoints import CONFIGS, LINEAR, OWN_HEAD_SIZE, SCALED, TEXT, weights

from bench.llamacpp import LlamaCpp
from model.checkpoint.config import read_config
from model.checkpoint.convert import convert
from model.checkpoint.gguf_vocabulary import tokenizer_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import read_json, write_json
from model.checkpoint.load import load_model, weights_dtype
from model.config import LlamaConfig
from model.generation.completion import Llama
from model.generation.generate import generate
from model.tokenizer.tokenizer import Tokenizer
from model.tokenizer.tokenizer_json import added_token


class TestGguf:
    @pytest.mark.parametrize("config", [TINY, OWN_HEAD_SIZE, SCALED, CONFIGS["llama 3.2 rope"]])
    def test_float16_comes_back_as_it_was_rounded(self, tmp_path: Path, config: LlamaConfig) -> None:
        write_tiny_checkpoint(tmp_path / "source", config)
        convert(tmp_path / "source", tmp_path / "model.gguf", "gguf")
        convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
        assert read_config(tmp_path / "back") == config
        before, after = weights(tmp_path / "source"), weights(tmp_path / "back")
        assert all(torch.equal(before[n].half(), after[n]) for n in before)

    @pytest.mark.parametrize("kind", ["f32", "bf16"])
    def test_matrices_keep_the_precision_that_they_are_written_in(self, tmp_path: Path, kind: str) -> None:
        write_tiny_checkpoint(tmp_path / "source", LINEAR)
        convert(tmp_path / "source", tmp_path / "model.gguf", "gguf", kind=kind)
        convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
        assert read_config(tmp_path / "back") == LINEAR
        dtype = torch.float32 if kind == "f32" else torch.bfloat16
        before, after = weights(tmp_path / "source"), weights(tmp_path / "back")
        assert weights_dtype(tmp_path / "back") == dtype and all(torch.equal(before[n].to(dtype), after[n]) for n in before)

    def test_the_kinds_of_tokens_come_back(self, tmp_path: Path) -> None:
        source = write_tiny_checkpoint(tmp_path / "source")
        vocabulary = read_json(source / "tokenizer.json")
        size = TINY.vocab_size - 4
        vocabulary["model"]["vocab"] = {token: i for token, i in vocabulary["model"]["vocab"].items() if i < size}
        vocabulary["model"]["merges"] = vocabulary["model"]["merges"][:-4]
        vocabulary["added_tokens"].append(added_token("<think>", size + 2) | {"special": False})
        write_json(source / "tokenizer.json", vocabulary)
        convert(source, tmp_path / "model.gguf", "gguf")
        types = gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.token_type"].contents()
        assert types[size + 2] == gguf.TokenType.USER_DEFINED and types[size + 3] == gguf.TokenType.UNUSED
        convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
        before, after = Tokenizer.from_path(source), Tokenizer.from_path(tmp_path / "back")
        assert (after.special, after.words, after.n_vocab) == (before.special, {"<think>": size + 2}, before.n_vocab)
        text = f"<think>{TEXT}</think>"
        assert after.encode(text) == before.encode(text) and after.encode(text)[0] == size + 2

    def test_a_part_of_a_split_file_is_named(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
        for name, value in (("no", 1), ("count", 3)):
            writer.add_uint16(f"split.{name}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ValueError, match="00002-of-00003.gguf is one of 3 parts of a model; join them"):
            convert(tmp_path / "m-00002-of-00003.gguf", tmp_path / "back", "hf")

    def test_q8_0_is_near(self, tmp_path: Path) -> None:
        write_tiny_checkpoint(tmp_path / "source", replace(TINY, ffn_dim=40))
        convert(tmp_path / "source", tmp_path / "model.gguf", "gguf", kind="q8_0")
        kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
        assert kinds["blk.0.attn_q.weight"] == "Q8_0" and kinds["blk.0.ffn_down.weight"] == "F16" and kinds["output_norm.weight"] == "F32"
        convert(tmp_path / "model.gguf", tmp_path / "back", "hf")
        before, after = weights(tmp_path / "source"), weights(tmp_path / "back")
        for name in before:
            assert (before[name] - after[name].float()).abs().max() <= before[name].abs().max() / 100

    @pytest.mark.parametrize("kind", ["F32", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K"])
    def test_other_kinds_of_matrices_are_read(self, tmp_path: Path, kind: str) -> None:
        config = replace(TINY, dim=256, n_heads=4, n_kv_heads=4, head_dim=64, ffn_dim=256)
        write_tiny_checkpoint(tmp_path / "source", config)
        convert(tmp_path / "source", tmp_path / "f16.gguf", "gguf")
        rewrite(tmp_path / "f16.gguf", tmp_path / "other.gguf", gguf.GGMLQuantizationType[kind])
        convert(tmp_path / "other.gguf", tmp_path / "back", "hf")
        stored = {"F32": torch.float32}.get(kind, torch.bfloat16)
        assert weights_dtype(tmp_path / "back") == stored
        before, after = weights(tmp_path / "source"), weights(tmp_path / "back")
        if kind in ("F32", "BF16", "Q8_0"):
            assert all((before[n] - after[n].float()).abs().max() <= 0.02 for n in before)
        assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}

    def test_values_beyond_float16_are_refused(self, tmp_path: Path) -> None:
        directory = write_tiny_checkpoint(tmp_path / "source")
        state = {n.removeprefix("model."): t for n, t in weights(directory).items()}
        state["layers.1.mlp.up_proj.weight"][3, 3] = 1e6
        save_weights(state, directory, dtype=torch.float32)
        with pytest.raises(ValueError, match="ffn_up.weight has values beyond float16"):
            convert(directory, tmp_path / "model.gguf", "gguf")
        assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("pre", "said", "adds"), [("llama-bpe", None, True), ("llama-bpe", False, False), ("smollm", None, False), ("smollm", True, True)]
)
def test_a_gguf_file_that_does_not_say_adds_the_first_token_as_llama_cpp_does(pre: str, said: bool | None, adds: bool) -> None:
    fields: dict[str, Any] = {"model": "gpt2", "pre": pre, "tokens": ["<s>", "a"], "token_type": [3, 1], "merges": [], "bos_token_id": 0}
    fields |= {} if said is None else {"add_bos_token": said}
    converted = tokenizer_json({f"tokenizer.ggml.{name}": value for name, value in fields.items()}, Path("model.gguf"))
    assert (converted["post_processor"] is not None) is adds


def rewrite(source: Path, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """The same model with other matrices; K-quants, which the package cannot write, as blocks of zeros."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        values = tensor.data.astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
            continue
        try:
            data = gguf.quantize(values, kind)
        except NotImplementedError:
            block, width = gguf.GGML_QUANT_SIZES[kind]
            data = np.zeros((values.shape[0], values.shape[1] // block * width), np.uint8)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.system
class TestLlamaCpp:
    def test_it_gives_our_ids_and_our_greedy_start(self, smollm2: Path, tmp_path: Path) -> None:
        """float16 weights and activations differ from ours in the last digits, so a long continuation may part."""
        convert(smollm2, tmp_path / "model.gguf", "gguf")
        llama = Llama.build(smollm2, max_seq_len=128)
        with LlamaCpp(tmp_path / "model.gguf", threads=2) as engine:
            assert engine.tokenize(TEXT) == llama.tokenizer.encode(TEXT)
            for prompt in ("The patient was diagnosed with", "Asthma is a disease of", "Antibiotics do not help against"):
                ids = llama.tokenizer.encode(prompt)
                expected = [step[0].id for step in generate(llama.model, [ids], max_new_tokens=10) if step[0]]
                assert engine.greedy(ids, 10) == expected

    @pytest.mark.parametrize("kind", ["f16", "q8_0"])
    def test_llama3_rope_and_untied_output_run_there(self, tmp_path: Path, kind: str) -> None:
        config = replace(SCALED, dim=256, n_heads=4, n_kv_heads=2, head_dim=64, ffn_dim=256)
        source = write_tiny_checkpoint(tmp_path / "source", config)
        convert(source, tmp_path / "model.gguf", "gguf", kind=kind)
        ids = list(range(20, 60))
        with LlamaCpp(tmp_path / "model.gguf", threads=2, length=256) as engine:
            llama_cpp_ids = engine.greedy(ids, 4)
        expected = [s[0].id for s in generate(load_model(source), [ids], max_new_tokens=4) if s[0]]
        # Rounded to eight bits, random weights soon tell another token likeliest.
        assert llama_cpp_ids == expected if kind == "f16" else llama_cpp_ids[0] == expected[0]
