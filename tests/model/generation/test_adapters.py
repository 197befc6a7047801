"""Adapters beside shared weights, through the C step and torch: PEFT's results, and no trace in the rows of others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.adapters import CONFIGS, IDS, pefts_own, reference
from helpers.builders import TINY, random_model
from peft import PeftModel
from torch import Tensor, nn

from model import lora
from model.generation import quantize
from model.generation.adapters import Adapter, read_adapter
from model.generation.completion import Llama
from model.generation.generate import Batch, SequenceState, generate, prompt_log_probabilities
from model.generation.quantize import QuantizedLinear, quantize_
from model.llama import Transformer

PROMPTS = [[5, 9, 300], [7, 8, 9, 10, 11, 12, 13], [42], list(range(40))]
PRECISIONS = ("float32", "bfloat16", "int8", "int4")


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts too, on every processor."""
    monkeypatch.setattr(quantize, "multiplies_bfloat16", lambda device: False)


def stored(precision: str) -> Transformer:
    """The tiny model as it is served."""
    return random_model(TINY) if precision == "float32" else quantize_(random_model(TINY), precision)


def dequantized(model: Transformer) -> Transformer:
    """A plain model in float32 whose weights are what the other multiplies by."""
    plain = random_model(TINY)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, QuantizedLinear):
                layer = plain.get_submodule(name)
                assert isinstance(layer, nn.Linear)
                layer.weight.copy_(module.dequantized())
    return plain


def adapter_of(name: str, model: Transformer, folder: Path) -> Adapter:
    directory = folder / name
    if not directory.exists():
        pefts_own(CONFIGS[name], directory, torch.float32)
    return read_adapter(directory, model)


def greedy(peft_model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Likeliest tokens and their log-probabilities by the full forward."""
    ids, log_probs = list(prompt), list[float]()
    with torch.no_grad():
        for _ in range(count):
            row = torch.log_softmax(peft_model(torch.tensor([ids])).logits[0, -1], -1)
            ids.append(int(row.argmax()))
            log_probs.append(float(row.max()))
    return ids[len(prompt) :], log_probs


def log_probs_of(peft_model: Any, prompt: list[int], tokens: list[int]) -> list[float]:
    """The log-probabilities of these tokens after the prompt by the full forward."""
    with torch.no_grad():
        rows = torch.log_softmax(peft_model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1], -1)
    return rows[torch.arange(len(tokens)), tokens].tolist()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_and_log_probabilities_are_pefts(name: str, precision: str, tmp_path: Path) -> None:
    model = stored(precision)
    adapter = adapter_of(name, model, tmp_path)
    peft_model = PeftModel.from_pretrained(reference(dequantized(model)), tmp_path / name).eval()
    steps = list(generate(model, PROMPTS, max_new_tokens=8, log_probabilities=0, adapter=adapter))
    plain = list(generate(model, PROMPTS, max_new_tokens=8))
    for row, prompt in enumerate(PROMPTS):
        answer = [step[row] for step in steps]
        tokens = [token.id for token in answer if token]
        logprobs = [token.log_probability.logprob for token in answer if token and token.log_probability]
        if precision in (
            "int8",
            "int4",
        ):  # PEFT does not round activations, so that it may prefer another of two tokens that are nearly as likely
            assert logprobs == pytest.approx(log_probs_of(peft_model, prompt, tokens), abs=0.05)
        else:
            expected, log_probs = greedy(peft_model, prompt, 8)
            assert tokens == expected and logprobs == pytest.approx(log_probs, abs=1e-4)
    assert any(a and b and a.id != b.id for one, other in zip(steps, plain, strict=True) for a, b in zip(one, other, strict=True))


def logits_of(batch: Batch, sequences: list[SequenceState], count: int = 10) -> list[list[Tensor]]:
    """Of each sequence the logits before each of its next tokens."""
    seen: list[list[Tensor]] = [[] for _ in sequences]
    for _ in range(count):
        for own, sequence in zip(seen, sequences, strict=True):
            own.append(sequence.logits.clone())
            batch.sample(sequence)
        batch.step(sequences)
    return seen


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("drafts", [False, True])
def test_a_row_has_the_same_bits_with_any_adapters_in_the_batch(precision: str, drafts: bool, tmp_path: Path) -> None:
    model = stored(precision)
    lora_5, dora_3, mlp_1 = (adapter_of(name, model, tmp_path) for name in ("lora-all-rslora", "dora-all", "lora-mlp"))
    adapters = [None, lora_5, dora_3, lora_5, None, mlp_1]
    prompts = [*PROMPTS, list(range(3, 90)), [1, 2, 3] * 12]

    def batch() -> Batch:
        result = Batch(model, slots=6, max_len=128, drafts=drafts)
        assert result._native
        return result

    mixed = batch()
    together = logits_of(mixed, [mixed.add(prompt, adapter=adapter) for prompt, adapter in zip(prompts, adapters, strict=True)])
    for row, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True)):
        single = batch()
        (expected,) = logits_of(single, [single.add(prompt, adapter=adapter)])
        assert all(torch.equal(a, b) for a, b in zip(together[row], expected, strict=True)), row
    assert not any(torch.equal(one[0], other[0]) for one in together for other in together if one is not other)


@pytest.mark.usefixtures("path")
def test_a_mixed_batch_gives_each_row_its_own_tokens(tmp_path: Path) -> None:
    model = random_model(TINY)
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    adapters = [None, *(adapter_of(name, model, tmp_path) for name in ("lora-all-rslora", "dora-all")), None]
    batch = Batch(model, slots=4, max_len=80)
    sequences = [batch.add(prompt, adapter=adapter) for prompt, adapter in zip(PROMPTS, adapters, strict=True)]
    logits_of(batch, sequences)
    for sequence, prompt, adapter in zip(sequences, PROMPTS, adapters, strict=True):
        steps = generate(model, [prompt], max_new_tokens=10, adapter=adapter)
        assert sequence.tokens == prompt + [token.id for (token,) in steps if token]
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.state_dict().items())


def test_a_prompts_log_probabilities_are_pefts(tmp_path: Path) -> None:
    model = random_model(TINY)
    adapter = adapter_of("dora-all", model, tmp_path)
    peft_model = PeftModel.from_pretrained(reference(), tmp_path / "dora-all").eval()
    prompt = IDS[0].tolist()
    with torch.no_grad():
        expected = torch.log_softmax(peft_model(IDS[:1]).logits[0], -1)[range(len(prompt) - 1), prompt[1:]].tolist()
    for _ in range(2):  # the plain model is the same before and after
        plain = prompt_log_probabilities(model, prompt, 0)
        values = prompt_log_probabilities(model, prompt, 0, adapter)
        assert [value.logprob for value in values if value] == pytest.approx(expected, abs=1e-4)
        assert plain == prompt_log_probabilities(random_model(TINY), prompt, 0) != values


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_adapter_of_another_model_is_refused(precision: str, tmp_path: Path) -> None:
    adapter_of("dora-all", random_model(TINY), tmp_path)
    path = tmp_path / "dora-all" / lora.WEIGHTS
    path.write_bytes(path.read_bytes().replace(b"layers.0.self_attn.q_proj.lora_A", b"layers.9.self_attn.q_proj.lora_A"))
    with pytest.raises(ValueError, match=r"do not fit its adapter_config.json and the model: .*layers.0.self_attn.q_proj.lora_A"):
        read_adapter(tmp_path / "dora-all", stored(precision))


def test_the_library_answers_by_the_adapters_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("lora-all-rslora", "dora-all"):
        adapter_of(name, random_model(TINY), tmp_path)
    llama = Llama.build(tiny_checkpoint, adapters={"one": tmp_path / "lora-all-rslora", "two": str(tmp_path / "dora-all")})
    prompts, messages = ["The patient"], [[{"role": "user", "content": "What is asthma?"}]]
    texts = {name: llama.text_completion(prompts, max_gen_len=8, adapter=name, temperature=0)[0] for name in (None, "one", "two")}
    assert len({completion.ids for completion in texts.values()}) == 3
    echoed = llama.text_completion(prompts, max_gen_len=8, adapter="two", temperature=0, echo=True, log_probabilities=1)[0]
    ids = llama.tokenizer.prompt(prompts[0])
    assert echoed.ids == (*ids, *texts["two"].ids) and echoed.log_probabilities
    assert echoed.log_probabilities[: len(ids)] == tuple(prompt_log_probabilities(llama.model, ids, 1, llama.adapters["two"]))
    assert [token for token, _ in llama.stream(ids, max_gen_len=8, adapter="two", temperature=0)][:-1] == list(texts["two"].ids)
    chats = [llama.chat_completion(messages, max_gen_len=8, adapter=name, temperature=0)[0].ids for name in (None, "two")]
    assert chats[0] != chats[1]
    with pytest.raises(ValueError, match="there is no adapter 'three'; there are: one, two"):
        llama.text_completion(prompts, adapter="three")
