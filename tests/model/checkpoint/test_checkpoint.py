import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from model.checkpoint.convert import convert
from model.checkpoint.hf import save_like
from model.checkpoint.load import load_model
from model.checkpoint.shapes import parameters_of
from model.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_transformers_opens_the_directory_and_gives_the_same_logits(tiny_checkpoint: Path) -> None:
    ids = torch.arange(40)[None]
    reference = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    torch.testing.assert_close(load_model(tiny_checkpoint)(ids), reference(ids).logits, atol=1e-4, rtol=0)


def test_saving_what_was_loaded_gives_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_like(tiny_checkpoint, tmp_path / "again", parameters_of(load_model(tiny_checkpoint)))
    for path in tiny_checkpoint.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_sharded_checkpoint_loads(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, members in parts.items():
        save_file({n: tensors[n] for n in members}, copy / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole = load_model(copy)
    (copy / "model.safetensors").unlink()
    sharded = load_model(copy)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), sharded.parameters(), strict=True))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors is missing"):
        load_model(copy)


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.extra.weight"] = tensors.pop("model.norm.weight")


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(33)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "missing: model.norm.weight; not in the model: model.extra.weight"),
        (reshape, r"of another shape: model.norm.weight is \[33\], not \[32\]"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(copy: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str) -> None:
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_model(copy)


def test_stored_rotary_angles_are_passed_over(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    before = load_model(copy)
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, copy / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), load_model(copy).parameters(), strict=True))


@pytest.mark.parametrize("kept", [0, 4, 100, 2000])
def test_truncated_weights_are_refused(copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(copy)


def test_a_lying_header_is_refused_before_anything_is_allocated(copy: Path) -> None:
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; supported are 'gemma3', 'gemma3_text', 'granite', 'llama', "),
        ({"hidden_size": None}, "config.json"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantization_config \(gptq\): such weights cannot be read"),
        ({"model_type": "smollm3", "use_sliding_window": True}, "use_sliding_window is not supported"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping is not supported"),
        ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 2}, "layer_types names chunked_attention; supported are"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "short_factor is missing"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "short_factor has 1 numbers for"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor must be at least 1"),
        ({"rope_scaling": {"rope_type": "proportional"}}, "rope_type 'proportional' is not supported"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(copy: Path, change: dict[str, object], message: str) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_model(copy)


def test_a_directory_without_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json is missing"):
        load_model(tmp_path)


@pytest.mark.slow
def test_the_real_model_has_transformers_logits(smollm2: Path) -> None:
    ids = torch.tensor([[504, 9, 1000, 25, 4000, 17]])
    reference = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(smollm2)(ids), reference(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("window", [None, 1 << 20])
def test_a_mistral_without_a_window_in_effect_has_transformers_logits(copy: Path, window: int | None) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (copy / "config.json").write_text(json.dumps(config | {"sliding_window": window}))
    ids = torch.arange(40)[None]
    reference = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    assert type(reference).__name__ == "MistralForCausalLM"
    torch.testing.assert_close(load_model(copy)(ids), reference(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "model.gguf", "consolidated.00.pth"])
def test_a_pointer_of_git_lfs_is_named(copy: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    if name == "consolidated.00.pth":
        (copy / "model.safetensors").unlink()
        (copy / "params.json").write_text("{}")
    (copy / name).write_text(pointer)
    with pytest.raises(ValueError, match=f"{name} is a pointer of Git LFS, not the file itself; run 'git lfs pull'"):
        if name == "tokenizer.json":
            Tokenizer.from_path(copy)
        convert(copy / name if name.endswith("gguf") else copy, copy / "out", "hf")
