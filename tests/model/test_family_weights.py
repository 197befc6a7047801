"""Every family's adapters against PEFT, its weights in fewer bits, and the text part of a checkpoint that also reads images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import SIZES, VARIANTS, write_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from model import lora, nf4
from model.checkpoint.convert import inspect
from model.checkpoint.hf import save_like
from model.checkpoint.load import load_model
from model.checkpoint.shapes import parameters_of
from model.generation.adapters import read_adapter
from model.generation.generate import Batch
from model.generation.quantize import quantize_

FAMILIES = ("mistral, window", "qwen2", "qwen3", "gemma3", "olmo2", "smollm3", "granite", "phi4-mini")


def _tokens(rows: int = 2, length: int = 30) -> Tensor:
    return torch.randint(3, 256, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("family")
    write_model(path, request.param)
    return path


def _randomize(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_adapters_of_peft_are_read_and_written(directory: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(directory)
    theirs = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **settings)).eval()
    _randomize(theirs)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    with torch.no_grad():
        expected = theirs(_tokens()).logits
    ours = load_model(directory)
    lora.load(ours, tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(_tokens()), expected, rtol=1e-4, atol=1e-4)
    batch = Batch(load_model(directory), slots=1, max_len=64)
    sequence = batch.add(_tokens()[0].tolist(), adapter=read_adapter(tmp_path / "theirs", batch.model))
    torch.testing.assert_close(sequence.logits, expected[0, -1], rtol=1e-4, atol=1e-4)
    lora.save(ours, tmp_path / "ours", base="tiny")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(directory), tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(_tokens()).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_matrix_of_several_projections_has_an_adapter_for_all_of_them(tmp_path: Path) -> None:
    write_model(tmp_path / "phi", "phi3")
    model = load_model(tmp_path / "phi")
    lora.add(model, lora.LoraConfig(4, 8.0, 0.0, ("q_proj", "v_proj"), dora=False), seed=0)
    with pytest.raises(ValueError, match="qkv_proj is one matrix; adapt all of q_proj, k_proj, v_proj or none"):
        lora.save(model, tmp_path / "adapter", base="tiny")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_step_in_fewer_bits_is_that_of_the_rounded_weights(directory: Path, kind: str) -> None:
    model, exact = quantize_(load_model(directory), kind), load_model(directory)
    with torch.no_grad():
        for name, parameter in exact.named_parameters():
            if parameter.dim() == 2:
                module: Any = model.get_submodule(name.removesuffix(".weight"))
                parameter.copy_(module.dequantized() if hasattr(module, "dequantized") else module(torch.arange(len(parameter))))
        expected = exact(_tokens())[:, -1]
    tolerance = 1e-3 if kind == "bfloat16" else 0.15  # activations are rounded to eight bits too
    for row, logits in zip(_tokens().tolist(), expected, strict=True):
        batch = Batch(model, slots=1, max_len=64)
        assert (batch.add(row).logits - logits).abs().mean() < tolerance * logits.std()


def test_four_bits_train_an_adapter(directory: Path) -> None:
    model = nf4.quantize_(load_model(directory), torch.device("cpu"))
    lora.add(model, lora.LoraConfig(4, 8.0, 0.0, lora.TARGETS, dora=True), seed=0)
    model(_tokens())[..., 0].sum().backward()
    gradients = [p.grad for name, p in model.named_parameters() if name.endswith("lora_B.weight")]
    assert len(gradients) == 7 * SIZES["num_hidden_layers"] and all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_gemma_3_that_also_reads_images_is_read_and_written_as_its_text_part(tmp_path: Path) -> None:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = SIZES | VARIANTS["gemma3"].fields
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    theirs = AutoModelForImageTextToText.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "both")
    with torch.no_grad():
        expected = theirs(_tokens()).logits
        ours = load_model(tmp_path / "both")
        torch.testing.assert_close(ours(_tokens()), expected, rtol=1e-4, atol=1e-4)
    save_like(tmp_path / "both", tmp_path / "text", parameters_of(ours))
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert alone.config.model_type == "gemma3_text"
    with torch.no_grad():
        torch.testing.assert_close(alone(_tokens()).logits, expected, rtol=1e-4, atol=1e-4)
    assert "of gemma3_text" in inspect(tmp_path / "both")
