"""QLoRA on the CPU against PEFT over bitsandbytes' layers, with the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.adapters import IDS, SUPERVISED, loss_of, quantized_reference, train
from helpers.builders import TINY, random_model, write_tiny_checkpoint
from peft import PeftModel

from model import lora, nf4
from model.checkpoint.load import load_model
from model.config import PROJECTIONS
from model.llama import Transformer
from model.lora import LoraConfig
from model.nf4 import Nf4Linear

CPU = torch.device("cpu")
CONFIGS = {dora: LoraConfig(4, 8.0, 0.0, ("q_proj", "v_proj", "down_proj"), dora=dora) for dora in (False, True)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "base")


def adapted(base: Path, config: LoraConfig) -> Transformer:
    """The quantized model with an adapter that some steps of training have changed."""
    model = nf4.quantize_(load_model(base), CPU)
    lora.add(model, config, seed=1)
    train(model, config, 3, IDS, SUPERVISED)
    return model


def test_weights_are_bitsandbytes_own(base: Path) -> None:
    import bitsandbytes

    ours = nf4.quantize_(load_model(base), CPU)
    modules = ((name.removeprefix("model."), module) for name, module in quantized_reference(base).named_modules())
    theirs: dict[str, Any] = {name: module for name, module in modules if isinstance(module, bitsandbytes.nn.Linear4bit)}
    layers = {name: module for name, module in ours.named_modules() if isinstance(module, Nf4Linear)}
    assert layers.keys() == theirs.keys() and len(layers) == TINY.n_layers * len(PROJECTIONS)
    for name, layer in layers.items():
        weight = theirs[name].weight
        exact = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        torch.testing.assert_close(layer.dequantized(), exact, atol=0, rtol=0)


@pytest.mark.parametrize("dora", [False, True], ids=["qlora", "qdora"])
def test_logits_and_adapter_gradients_are_those_of_peft(base: Path, tmp_path: Path, *, dora: bool) -> None:
    model = adapted(base, CONFIGS[dora])
    lora.save(model, tmp_path / "adapter", base="tiny")
    peft_model = PeftModel.from_pretrained(quantized_reference(base), tmp_path / "adapter", is_trainable=True).train()
    torch.testing.assert_close(model(IDS), peft_model(IDS).logits, atol=1e-3, rtol=0)
    loss_of(model).backward()
    peft_model(IDS, labels=IDS.masked_fill(~SUPERVISED, -100)).loss.backward()
    theirs = {name: p.grad for name, p in peft_model.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(ours) == len(theirs)
    for name, gradient in ours.items():
        module, _, part = name.rpartition(".lora_")
        expected = theirs[f"base_model.model.model.{module}.lora_{part.removesuffix('.weight')}.default.weight"]
        assert (gradient - expected).norm() <= 1e-3 * expected.norm(), name


@pytest.mark.parametrize("dora", [False, True], ids=["qlora", "qdora"])
def test_merging_leaves_plain_weights_that_give_the_same_logits(base: Path, *, dora: bool) -> None:
    model = adapted(base, CONFIGS[dora])
    expected = model(IDS)
    lora.merge(model)
    assert not [m for m in model.modules() if isinstance(m, Nf4Linear | lora.LoraLinear)]
    torch.testing.assert_close(model(IDS), expected, atol=1e-4, rtol=0)
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in random_model(TINY).named_parameters()}


def test_an_adapter_says_what_it_was_trained_on(base: Path, tmp_path: Path) -> None:
    lora.save(adapted(base, CONFIGS[False]), tmp_path / "adapter", base="tiny")
    stated = lora.read_json(tmp_path / "adapter" / lora.QUANTIZATION)
    assert stated == nf4.DESCRIPTION | {"sha256": nf4.digest(nf4.quantize_(load_model(base), CPU))}


def test_a_layer_keeps_four_bits_of_a_weight() -> None:
    layer = Nf4Linear(torch.randn(1024, 2048))
    bits = 8 * sum(t.numel() * t.element_size() for t in layer.tensors())
    assert bits / (1024 * 2048) == pytest.approx(nf4.BITS, rel=0.01)
