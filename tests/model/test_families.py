"""Every family against transformers, on tiny random models: what a checkpoint of theirs computes here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import VARIANTS, write_model
from safetensors.torch import load_file
from torch import Tensor

from model.attention import packed_sequences
from model.checkpoint.hf import save_like
from model.checkpoint.layout import fused
from model.checkpoint.load import load_model
from model.checkpoint.shapes import parameters_of
from model.generation.generate import Batch, generate
from model.llama import Transformer


@pytest.fixture(scope="module", params=list(VARIANTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Transformer]:
    """A directory, transformers' model of it, and ours."""
    directory = tmp_path_factory.mktemp("family")
    theirs = write_model(directory, request.param)
    return directory, theirs, load_model(directory).eval()


def _close(actual: Tensor, expected: Tensor | None) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def _tokens(rows: int, length: int) -> Tensor:
    return torch.randint(3, 256, (rows, length), generator=torch.Generator().manual_seed(1))


def test_logits_are_those_of_transformers(pair: tuple[Path, Any, Transformer]) -> None:
    _, theirs, ours = pair
    tokens = _tokens(2, 40)
    with torch.no_grad():
        expected, actual = theirs(tokens).logits, ours(tokens)
    _close(actual, expected)
    assert expected.std() > 0.1


def test_gradients_are_those_of_transformers(pair: tuple[Path, Any, Transformer]) -> None:
    directory, theirs, _ = pair
    tokens = _tokens(2, 24)
    ours = load_model(directory)
    for logits in (theirs(tokens).logits, ours(tokens)):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    actual = fused({n: p.grad for n, p in ours.named_parameters() if p.grad is not None}, ours.config.family)
    assert set(actual) == set(gradients)
    for name, gradient in actual.items():
        _close(gradient, gradients[name])
    theirs.zero_grad()


def test_greedy_continuations_are_those_of_transformers(pair: tuple[Path, Any, Transformer]) -> None:
    _, theirs, ours = pair
    for length in (3, 30):
        prompt = _tokens(1, length)
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False, eos_token_id=None)
        steps = list(generate(ours, [prompt[0].tolist()], max_new_tokens=24))
        assert [tokens[0].id for tokens in steps if tokens[0]] == expected[0, length:].tolist()


def test_a_step_in_c_is_the_step_in_torch(pair: tuple[Path, Any, Transformer]) -> None:
    _, _, ours = pair
    prompt = _tokens(1, 21)[0].tolist()
    batch = Batch(ours, slots=2, max_len=64, drafts=False)
    assert batch._native is not None
    sequence = batch.add(prompt)
    batch.add(prompt[::-1])
    for token in prompt:
        sequence.tokens.append(token)
        batch.step([sequence])
    with torch.no_grad():
        expected = ours(torch.tensor([prompt + prompt]))[0, -1]
    _close(sequence.logits, expected)


@pytest.mark.parametrize("backend", ["dense", "documents"])
def test_packed_documents_are_those_by_themselves(
    pair: tuple[Path, Any, Transformer], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, ours = pair
    monkeypatch.setattr("model.llama.choose_backend", lambda *_: backend)
    tokens = _tokens(1, 60)
    documents = torch.tensor([[0] * 14 + [1] * 26 + [2] * 20])
    with torch.no_grad():
        packed = ours(tokens, packed=packed_sequences(documents))[0]
        parts = [ours(part)[0] for part in tokens.split([14, 26, 20], dim=1)]
    _close(packed, torch.cat(parts))


def test_a_round_trip_keeps_every_bit(pair: tuple[Path, Any, Transformer], tmp_path: Path) -> None:
    directory, _, ours = pair
    save_like(directory, tmp_path / "copy", parameters_of(ours))
    before, after = (load_file(path / "model.safetensors") for path in (directory, tmp_path / "copy"))
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in after)
