"""Adapters beside PEFT's over transformers' model with the same weights, merged and saved."""

import resource
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.adapters import CONFIGS, IDS, LORA, SUPERVISED, adapted, loss_of, pefts_own, reference, train
from helpers.builders import TINY, random_model, sentences
from peft import PeftModel
from tokenizers import Tokenizer

from model import lora
from model.checkpoint.hf import save_like
from model.checkpoint.load import load_model
from model.checkpoint.shapes import parameters_of
from model.generation.generate import generate
from model.generation.quantize import quantize_
from model.llama import Transformer
from model.lora import TARGETS, LoraConfig
from tasks.training import optim

DORA_ALL = CONFIGS["dora-all"]

every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@every_config
def test_a_new_adapter_changes_no_bit(config: LoraConfig) -> None:
    model = random_model(TINY)
    for dtype in (torch.float32, torch.bfloat16):
        plain = model.to(dtype)(IDS)
        fresh = deepcopy(model)
        lora.add(fresh, config, seed=0)
        assert torch.equal(fresh(IDS), plain)
        assert {p.dtype for n, p in fresh.named_parameters() if ".lora_" in n} == {torch.float32}
        assert not any(p.requires_grad for n, p in fresh.named_parameters() if ".base_layer." in n)


@every_config
def test_under_autocast_a_new_adapter_changes_no_bit_and_its_gradients_are_float32(config: LoraConfig) -> None:
    model = random_model(TINY)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(IDS)
        lora.add(model, config, seed=0)
        optim.freeze(model, "lora")
        assert torch.equal(model(IDS), plain)
        loss_of(model).backward()
    assert {p.grad.dtype for p in trained_parameters(model).values() if p.grad is not None} == {torch.float32}


def test_the_seed_decides_the_adapter() -> None:
    first, again, other = (adapted(LORA, steps=0, seed=seed).state_dict() for seed in (1, 1, 2))
    name = "layers.0.self_attn.q_proj.lora_A.weight"
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first[name.replace("layers.0", "layers.1")])


@every_config
def test_only_the_adapter_trains_and_all_of_it(config: LoraConfig) -> None:
    before, after = adapted(config, steps=0), adapted(config)
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(a, b)}
    parts = ("lora_A.weight", "lora_B.weight", *(["lora_magnitude_vector"] if config.dora else []))
    targeted = {name for name, _ in random_model(TINY).named_modules() if name.rpartition(".")[2] in config.targets}
    assert changed == {f"{name}.{part}" for name in targeted for part in parts}


def test_the_adapter_modes_need_an_adapter() -> None:
    with pytest.raises(ValueError, match="mode 'dora' trains no parameter of this model"):
        optim.freeze(random_model(TINY), "dora")


@every_config
def test_peft_opens_what_we_trained_with_our_weights_logits_and_gradients(config: LoraConfig, tmp_path: Path) -> None:
    model = adapted(config)
    lora.save(model, tmp_path / "adapter", base="tiny")
    peft_model = PeftModel.from_pretrained(reference(), tmp_path / "adapter", is_trainable=True).eval()
    logits = model(IDS)
    torch.testing.assert_close(peft_model(IDS).logits, logits, atol=1e-4, rtol=0)
    assert (logits - random_model(TINY)(IDS)).abs().max() > 0.1, "the adapter does something"
    check_gradients(model, peft_model)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_pefts_and_for_training_alone(p: float, tmp_path: Path) -> None:
    model = adapted(replace(CONFIGS["lora-all-rslora"], dropout=p))
    lora.save(model, tmp_path / "adapter", base="tiny")
    peft_model = PeftModel.from_pretrained(reference(), tmp_path / "adapter", is_trainable=True)
    assert torch.equal(model.eval()(IDS), model(IDS))
    assert not torch.equal(model.train()(IDS), model(IDS))
    check_gradients(model, peft_model.train())


def check_gradients(model: Transformer, peft_model: Any) -> None:
    """Of the same loss, relative to the length of PEFT's; parameters must be the same."""
    model.zero_grad()
    torch.manual_seed(0)  # of dropout, which both draw in the same order
    loss_of(model).backward()
    torch.manual_seed(0)
    peft_model(IDS, labels=IDS.masked_fill(~SUPERVISED, -100)).loss.backward()
    expected_parameters = trained_parameters(peft_model)
    actual_parameters = {peft_name(name): p for name, p in trained_parameters(model).items()}
    assert actual_parameters.keys() == expected_parameters.keys()
    for name, parameter in actual_parameters.items():
        actual, expected = parameter.grad, expected_parameters[name].grad
        assert actual is not None and expected is not None and expected.norm() > 0
        assert torch.equal(parameter, expected_parameters[name]), name
        assert (actual - expected).norm() <= 1e-4 * expected.norm(), name


def peft_name(name: str) -> str:
    module, _, part = name.rpartition(".lora_")
    return f"base_model.model.model.{module}.lora_{part.removesuffix('.weight')}.default.weight"


@every_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_peft_made_opens_here_with_its_logits(config: LoraConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    peft_model = pefts_own(config, tmp_path / "adapter", dtype)
    model = random_model(TINY)
    loaded = lora.load(model, tmp_path / "adapter")
    assert set(loaded.targets) == set(config.targets)
    assert replace(loaded, targets=config.targets) == config
    logits = peft_model(IDS).logits
    torch.testing.assert_close(model(IDS), logits, atol=1e-4, rtol=0)
    assert (logits - random_model(TINY)(IDS)).abs().max() > 0.1, "the adapter does something"


@every_config
def test_merging_shifts_logits_by_little_and_leaves_a_plain_checkpoint(config: LoraConfig, tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = adapted(config)
    before = model(IDS)
    lora.merge(model)
    assert (model(IDS) - before).abs().max() <= 1e-4
    assert {type(module) for module in model.modules()} == {type(module) for module in random_model(TINY).modules()}
    save_like(tiny_checkpoint, tmp_path / "merged", parameters_of(model))
    assert torch.equal(load_model(tmp_path / "merged")(IDS), model(IDS))


def test_merging_keeps_the_weights_precision_and_rounds_once() -> None:
    bf16_model = random_model(TINY).bfloat16()
    fp32_model = deepcopy(bf16_model).float()
    lora.add(bf16_model, DORA_ALL, seed=0)
    lora.add(fp32_model, DORA_ALL, seed=0)
    for model in (bf16_model, fp32_model):
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(parameter, 1.0, generator=torch.Generator().manual_seed(len(name)))
        lora.merge(model)
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(bf16_model.parameters(), fp32_model.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dora", [False, True])
def test_a_real_model_keeps_its_logits_when_its_adapter_is_merged(dora: bool, smollm2: Path) -> None:
    config = LoraConfig(rank=8, alpha=16, dropout=0.0, targets=TARGETS, dora=dora)
    model = load_model(smollm2).eval()
    # Float32 itself is up to 9e-5 from float64 here, adapter or not. With random tokens for text a merged DoRA shifted by 1.2e-4.
    text = Tokenizer.from_file(str(smollm2 / "tokenizer.json")).encode(" ".join(answer for _, answer in sentences(2)))
    ids = torch.tensor([text.ids])
    plain = model(ids).detach()
    lora.add(model, config, seed=0)
    torch.testing.assert_close(model(ids), plain, atol=1e-6, rtol=0)
    train(model, config, 2, ids, torch.ones_like(ids, dtype=torch.bool), lr=1e-3)
    with torch.no_grad():
        before = model(ids)
        lora.merge(model)
        assert (model(ids) - before).abs().max() <= 1e-4
    assert (before - plain).abs().max() > 1


@every_config
def test_generation_over_the_cache_is_that_of_the_uncached_and_of_the_merged_model(config: LoraConfig) -> None:
    model = adapted(config)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]

    def continued() -> list[list[int]]:
        steps = list(generate(model, prompts, max_new_tokens=12))
        return [[token.id for step in steps if (token := step[row])] for row in range(2)]

    over_cache = continued()
    for prompt, new in zip(prompts, over_cache, strict=True):
        whole = torch.tensor([prompt + new])
        assert new == model(whole)[0].argmax(-1)[len(prompt) - 1 : -1].tolist()
    lora.merge(model)
    assert over_cache == continued()


def test_rows_of_zeros_stay_zeros_with_dora() -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.get_submodule("layers.1.mlp.down_proj").weight.zero_()  # type: ignore[operator]
    plain = model(IDS).detach()
    lora.add(model, DORA_ALL, seed=0)
    assert torch.equal(model(IDS), plain)
    loss_of(model).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_config
def test_what_was_saved_comes_back_bit_for_bit(config: LoraConfig, tmp_path: Path) -> None:
    model, again = adapted(config), random_model(TINY)
    lora.save(model, tmp_path / "adapter", base="tiny")
    assert lora.load(again, tmp_path / "adapter") == config
    assert torch.equal(again(IDS), model(IDS))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_that_cannot_be_written_whole_does_not_appear(tmp_path: Path) -> None:
    model = adapted(DORA_ALL, steps=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(Exception, match="File too large"):
            lora.save(model, tmp_path / "adapter", base="tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "adapter").exists()
    lora.save(model, tmp_path / "adapter", base="tiny")
    assert lora.load(random_model(TINY), tmp_path / "adapter") == DORA_ALL


@pytest.mark.parametrize(
    ("config", "base", "message"),
    [(LORA, "/srv/models/tiny", "is a path of this machine"), (None, "tiny", "the model has no adapters to save")],
)
def test_what_should_not_be_saved_is_refused(config: LoraConfig | None, base: str, message: str, tmp_path: Path) -> None:
    model = adapted(config, steps=0) if config else random_model(TINY)
    with pytest.raises(ValueError, match=message):
        lora.save(model, tmp_path / "adapter", base=base)
    assert not list(tmp_path.iterdir())


def test_a_saved_adapter_is_not_overwritten(tmp_path: Path) -> None:
    lora.save(adapted(LORA, steps=0), tmp_path / "adapter", base="tiny")
    with pytest.raises(ValueError, match=r"adapter exists; give a name that does not"):
        lora.save(adapted(LORA), tmp_path / "adapter", base="tiny")


def test_a_second_adapter_is_refused() -> None:
    model = adapted(LORA, steps=0)
    with pytest.raises(ValueError, match="has adapters already; merge them first"):
        lora.add(model, replace(LORA, targets=("down_proj",)), seed=0)


def test_quantized_weights_take_no_adapter() -> None:
    model = quantize_(random_model(TINY), "int8")
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj is a QuantizedLinear"):
        lora.add(model, LORA, seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank must be a whole number from 1"),
        ({"rank": 2.0}, "rank must be a whole number"),
        ({"alpha": 0.0}, "alpha must be a number above 0"),
        ({"alpha": float("nan")}, "alpha must be a number above 0"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1"),
        ({"targets": ("q_proj", "wq")}, r"unknown targets \['wq'\]; known are q_proj, k_proj"),
        ({"targets": ()}, "targets is empty"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LORA, **wrong)
