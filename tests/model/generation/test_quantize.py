"""Products of int8 and int4 weights: the sums of integers that they are made of, in any shape, the same for each row in any batch."""

from pathlib import Path

import gguf
import pytest
import torch
import torch.nn.functional as F
from helpers.builders import TINY, random_model
from torch import Tensor

from model.__main__ import arguments
from model.checkpoint.load import load_model
from model.generation import compiled, quantize
from model.generation.generate import Batch
from model.generation.quantize import QuantizedEmbedding, QuantizedLinear, quantize_int4, quantize_int8
from model.tokenizer.tokenizer import Tokenizer

SHAPES = [(1, 1), (16, 32), (17, 33), (300, 100), (47, 1000), (192, 576)]
KINDS = {"int8": quantize_int8, "int4": quantize_int4}


def layer_and_rows(outs: int, ins: int, kind: str) -> tuple[QuantizedLinear, Tensor]:
    """A layer, and 70 rows with some outliers."""
    generator = torch.Generator().manual_seed(outs)
    weight = torch.randn(outs, ins, generator=generator) * torch.rand(outs, 1, generator=generator)
    rows = torch.randn(70, ins, generator=generator) * (1 + 50 * (torch.rand(70, ins, generator=generator) > 0.99))
    return QuantizedLinear(*KINDS[kind](weight), (outs, ins)), rows


def exact_product(layer: QuantizedLinear, x: Tensor) -> Tensor:
    """In float64, of activations that are rounded to 255 values per 32 inputs."""
    groups = F.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    largest = groups.abs().amax(-1, keepdim=True)
    rounded = (
        (groups.double() * (127 / largest)).round() * largest / 127
    )  # in float64, as the C multiplies and adds without rounding between
    return rounded.flatten(1)[:, : x.shape[1]] @ layer.dequantized().double().T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outs", "ins"), SHAPES)
def test_a_product_is_that_of_the_rounded_numbers(outs: int, ins: int, kind: str) -> None:
    layer, x = layer_and_rows(outs, ins, kind)
    expected = exact_product(layer, x)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outs", "ins"), SHAPES)
def test_a_rows_product_is_the_same_bit_for_bit_among_any_others(outs: int, ins: int, kind: str) -> None:
    layer, x = layer_and_rows(outs, ins, kind)
    together = layer(x)
    for count in (*range(1, 27), 64, 70):
        assert torch.equal(torch.cat([layer(part) for part in x.split(count)]), together)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_the_largest_magnitude_do_not_overflow(kind: str) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(512)
    layer = QuantizedLinear(*KINDS[kind](torch.stack([signs.abs(), -signs.abs(), signs] * 11)), (33, 1024))
    product = layer(torch.stack([signs.abs(), signs, -signs]))
    expected = torch.tensor([[1024.0, -1024, 0], [0, 0, 1024], [0, 0, -1024]]).repeat(1, 11)
    if kind == "int4":  # -8 and 7 eighths are the ends of its range
        expected = torch.tensor([[1024.0, -1024, 64], [0, 0, 960], [0, 0, -960]]).repeat(1, 11)
    torch.testing.assert_close(product, expected, atol=0.0, rtol=0.01)  # the scale is kept in bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_stays_so_in_its_row_only(kind: str) -> None:
    layer, x = layer_and_rows(17, 70, kind)
    x[1, 3], x[2, 69] = float("nan"), float("inf")
    product = layer(x)
    assert not product[1:3].isfinite().any() and product[0].isfinite().all() and product[3:].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros_are_zeros(kind: str) -> None:
    layer, _ = layer_and_rows(17, 70, kind)
    assert torch.equal(layer(torch.zeros(2, 3, 70)), torch.zeros(2, 3, 17))


def test_the_weights_are_close_to_what_they_were_and_an_embedding_has_the_same() -> None:
    weight = torch.randn(41, 70, generator=torch.Generator().manual_seed(0))
    panels, scale = quantize_int8(weight)
    values = QuantizedLinear(panels, scale, (41, 70)).dequantized()
    assert float((values - weight).abs().max()) <= 1.02 * float(weight.abs().max()) / 254
    assert panels.dtype == torch.int8 and int(panels.abs().max()) == 127
    ids = torch.tensor([[0, 40], [17, 3]])
    assert torch.equal(QuantizedEmbedding(panels, scale, 70)(ids), values[ids])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_int4_weights_are_those_of_llama_cpps_q4_0(precision: torch.dtype) -> None:
    weight = torch.randn(41, 96, generator=torch.Generator().manual_seed(0)).to(precision).float()
    weight[0, :32], weight[1, :4] = 0, torch.tensor([4.0, -4, 4, -4])  # the first of the largest sets the scale
    panels, scale = quantize_int4(weight)
    blocks = torch.from_numpy(gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q4_0)).view(41, 3, 18)
    assert panels.dtype == torch.uint8
    assert torch.equal(panels.permute(0, 3, 1, 2, 4).reshape(48, 3, 16)[:41], blocks[..., 2:])
    # Of bfloat16 weights bfloat16 holds the scale exactly; of others it is rounded to 8 bits, llama.cpp's to 11.
    expected = torch.from_numpy(gguf.dequantize(blocks.flatten(1).numpy(), gguf.GGMLQuantizationType.Q4_0))
    actual = QuantizedLinear(panels, scale, (41, 96)).dequantized()
    torch.testing.assert_close(actual, expected, atol=0, rtol=0 if precision == torch.bfloat16 else 0.005)


def test_with_int4_projections_the_embedding_and_the_output_matrix_are_int8() -> None:
    model, other = quantize.quantize_(random_model(TINY), "int4"), quantize.quantize_(random_model(TINY), "int8")
    assert torch.equal(model.embed_tokens.weight, other.embed_tokens.weight)
    assert model.lm_head.weight is model.embed_tokens.weight
    projections = {name: module.weight for name, module in model.layers.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(projections) == 7 * TINY.n_layers and {weight.dtype for weight in projections.values()} == {torch.uint8}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_compiler_torch_multiplies_what_is_not_rounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "library", lambda: "no compiler")
    monkeypatch.setattr(quantize, "multiplies_bfloat16", lambda device: False)
    layer, x = layer_and_rows(17, 70, kind)
    torch.testing.assert_close(layer(x), x @ layer.dequantized().T)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_same_bits_read_in_any_pieces_as_token_by_token(kind: str) -> None:
    assert not isinstance(compiled.library(), str), compiled.library()
    model = quantize.quantize_(random_model(TINY), kind)
    prompt = torch.randint(400, (150,), generator=torch.Generator().manual_seed(0)).tolist()
    caches, logits = [], []
    for count in (1, 7, 64, 150):
        batch = Batch(model, slots=1, max_len=160)
        sequence = batch.admit(prompt)
        while not batch.prefill(sequence, count):
            pass
        caches.append(batch.cache)
        logits.append(sequence.logits)
    assert all(torch.equal(one, logits[0]) for one in logits[1:])
    assert all(torch.equal(cache.keys, caches[0].keys) and torch.equal(cache.values, caches[0].values) for cache in caches[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_measures_what_fewer_bits_change(
    kind: str, tiny_checkpoint: Path, tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    (tmp_path / "text").write_text("fever and cough " * 30)
    options = arguments().parse_args(["quantize", str(tiny_checkpoint), str(tmp_path / "text"), "--tokens", "40", "--type", kind])
    options.run(options)
    ids = torch.tensor([Tokenizer.from_path(tiny_checkpoint).prompt("fever and cough " * 30)[:40]])
    bfloat16, other = (quantize.quantize_(load_model(tiny_checkpoint, dtype=torch.bfloat16), name) for name in ("bfloat16", kind))
    difference = quantize.difference(bfloat16, other, ids)
    assert difference["kl"] > 0
    expected = f"{difference['kl']:.4f} nats, the same likeliest token at {difference['greedy_agreement']:.1%}"
    assert capsys.readouterr().out == f"40 tokens: Kullback-Leibler divergence {expected}\n"
