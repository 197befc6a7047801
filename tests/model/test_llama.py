"""The transformer against transformers' LlamaForCausalLM holding the same weights, and against itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.builders import TINY, random_model
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from model.attention import packed_sequences
from model.checkpoint.config import config_json
from model.checkpoint.shapes import parameter_shapes
from model.config import SIZES, LlamaConfig
from model.generation.kv_cache import KVCache
from model.llama import Transformer
from model.rope import LinearScaling, RopeScaling

SCALED = RopeScaling(factor=8.0, original_max_position_embeddings=32)
CONFIGS = {
    "multi-head": replace(TINY, n_kv_heads=4),
    "grouped": TINY,
    "multi-query": replace(TINY, n_kv_heads=1),
    "untied": replace(TINY, tied=False),
    "llama3 rope": replace(TINY, rope_scaling=SCALED, rope_theta=5e5),
    "linear rope": replace(TINY, rope_scaling=LinearScaling(4.0)),
    "llama3 rope, untied": replace(TINY, rope_scaling=SCALED, tied=False),
    "head size of its own": replace(TINY, head_dim=24),
    "odd vocabulary": replace(TINY, vocab_size=397, norm_eps=1e-3),
}


def transformers_model(model: Transformer) -> LlamaForCausalLM:
    reference = LlamaForCausalLM(TheirConfig(**config_json(model.config, torch.float32)))
    state = {(n if n.startswith("lm_head") else f"model.{n}"): p for n, p in model.state_dict().items()}
    reference.load_state_dict(state)
    return reference.eval()


def tokens(config: LlamaConfig, rows: int, length: int) -> torch.Tensor:
    return torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_are_those_of_transformers(name: str) -> None:
    model = random_model(CONFIGS[name])
    reference, ids = transformers_model(model), tokens(model.config, 2, 70)
    actual, expected = model(ids), reference(ids).logits
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    for logits in (actual, expected):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    their_gradients = {n.removeprefix("model."): p.grad for n, p in reference.named_parameters()}
    for parameter, value in model.named_parameters():
        gradient = their_gradients[parameter]
        assert value.grad is not None and gradient is not None
        assert (value.grad - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, parameter


def test_packed_documents_do_not_see_each_other() -> None:
    model = random_model(TINY)
    first, second = tokens(TINY, 1, 20), tokens(TINY, 1, 31)
    other = (first + 7) % TINY.vocab_size
    documents = packed_sequences(torch.tensor([[0] * 20 + [1] * 31 + [-1] * 5]))
    padding = torch.zeros(1, 5, dtype=torch.long)
    packed = model(torch.cat([first, second, padding], 1), packed=documents)
    changed = model(torch.cat([other, second, padding], 1), packed=documents)
    assert torch.equal(packed[:, 20:51], changed[:, 20:51])
    torch.testing.assert_close(packed[:, 20:51], model(second), atol=1e-5, rtol=0)
    torch.testing.assert_close(packed[:, :20], model(first), atol=1e-5, rtol=0)


def test_positions_start_anew_in_each_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, -1, -1], [5, 5, 5, 5, 5, 5, 5, 5]])
    assert packed_sequences(documents).positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]


@torch.no_grad()
def test_cached_steps_give_the_full_forwards_hidden_states() -> None:
    model = random_model(TINY)
    ids = tokens(TINY, 2, 12)
    cache = KVCache(TINY, 2, 12, dtype=torch.float32, device=torch.device("cpu"))
    pieces = []
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        positions = torch.arange(start, stop).expand(2, -1)
        pieces.append(model.hidden(ids[:, start:stop], positions_BT=positions, cache=cache.layers))
    torch.testing.assert_close(torch.cat(pieces, 1), model.hidden(ids), atol=1e-5, rtol=0)


def test_named_sizes_have_their_makers_parameter_counts() -> None:
    # As the model cards and the safetensors headers on the makers' pages give them.
    published = {"smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120, "llama-2-7b": 6_738_415_616, "llama-3.1-8b": 8_030_261_248}
    published |= {"llama-3.2-1b": 1_235_814_400, "llama-3.1-70b": 70_553_706_496}
    for name, count in published.items():
        assert sum(torch.Size(shape).numel() for _, shape in parameter_shapes(SIZES[name])) == count, name


def test_more_positions_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="context of 256"):
        random_model(TINY)(tokens(TINY, 1, 257))


@pytest.mark.parametrize("wrong", [{"n_kv_heads": 3}, {"head_dim": 7}, {"n_layers": 0}])
def test_an_impossible_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="model configuration|heads"):
        replace(TINY, **wrong)
