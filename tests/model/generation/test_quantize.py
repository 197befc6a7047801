"""Products of int8 weights: the sums of integers that they are made of, whatever the shape, and the same for each row in any batch."""

import pytest
import torch
import torch.nn.functional as F
from helpers.builders import TINY, random_model
from torch import Tensor

from model.generation import compiled, quantize
from model.generation.generate import Batch
from model.generation.quantize import QuantizedEmbedding, QuantizedLinear, quantize_int8

SHAPES = [(1, 1), (16, 32), (17, 33), (300, 100), (47, 1000), (192, 576)]


def layer_and_rows(outs: int, ins: int) -> tuple[QuantizedLinear, Tensor]:
    """A layer, and 70 rows with some outliers."""
    generator = torch.Generator().manual_seed(outs)
    weight = torch.randn(outs, ins, generator=generator) * torch.rand(outs, 1, generator=generator)
    rows = torch.randn(70, ins, generator=generator) * (1 + 50 * (torch.rand(70, ins, generator=generator) > 0.99))
    return QuantizedLinear(*quantize_int8(weight), (outs, ins)), rows


def exact_product(layer: QuantizedLinear, x: Tensor) -> Tensor:
    """In float64, of activations that are rounded to 255 values per 32 inputs."""
    groups = F.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    largest = groups.abs().amax(-1, keepdim=True)
    rounded = (
        (groups.double() * (127 / largest)).round() * largest / 127
    )  # in float64, as the C multiplies and adds without rounding between
    return rounded.flatten(1)[:, : x.shape[1]] @ layer.dequantized().double().T


@pytest.mark.parametrize(("outs", "ins"), SHAPES)
def test_a_product_is_that_of_the_rounded_numbers(outs: int, ins: int) -> None:
    layer, x = layer_and_rows(outs, ins)
    expected = exact_product(layer, x)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(("outs", "ins"), SHAPES)
def test_a_rows_product_is_the_same_bit_for_bit_among_any_others(outs: int, ins: int) -> None:
    layer, x = layer_and_rows(outs, ins)
    together = layer(x)
    for count in (*range(1, 27), 64, 70):
        assert torch.equal(torch.cat([layer(part) for part in x.split(count)]), together)


def test_numbers_of_the_largest_magnitude_do_not_overflow() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(512)
    layer = QuantizedLinear(*quantize_int8(torch.stack([signs.abs(), -signs.abs(), signs] * 11)), (33, 1024))
    product = layer(torch.stack([signs.abs(), signs, -signs]))
    expected = torch.tensor([[1024.0, -1024, 0], [0, 0, 1024], [0, 0, -1024]]).repeat(1, 11)
    torch.testing.assert_close(product, expected, atol=0.0, rtol=0.01)  # the scale is kept in bfloat16


def test_what_is_not_finite_stays_so_in_its_row_only() -> None:
    layer, x = layer_and_rows(17, 70)
    x[1, 3], x[2, 69] = float("nan"), float("inf")
    product = layer(x)
    assert not product[1:3].isfinite().any() and product[0].isfinite().all() and product[3:].isfinite().all()


def test_rows_of_zeros_are_zeros() -> None:
    layer, _ = layer_and_rows(17, 70)
    assert torch.equal(layer(torch.zeros(2, 3, 70)), torch.zeros(2, 3, 17))


def test_the_weights_are_close_to_what_they_were_and_an_embedding_has_the_same() -> None:
    weight = torch.randn(41, 70, generator=torch.Generator().manual_seed(0))
    panels, scale = quantize_int8(weight)
    values = QuantizedLinear(panels, scale, (41, 70)).dequantized()
    assert float((values - weight).abs().max()) <= 1.02 * float(weight.abs().max()) / 254
    assert panels.dtype == torch.int8 and int(panels.abs().max()) == 127
    ids = torch.tensor([[0, 40], [17, 3]])
    assert torch.equal(QuantizedEmbedding(panels, scale, 70)(ids), values[ids])


def test_without_a_compiler_torch_multiplies_what_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "library", lambda: "no compiler")
    monkeypatch.setattr(quantize, "multiplies_bfloat16", lambda device: False)
    layer, x = layer_and_rows(17, 70)
    torch.testing.assert_close(layer(x), x @ layer.dequantized().T)


def test_a_prompt_has_the_same_bits_read_in_any_pieces_as_token_by_token() -> None:
    assert not isinstance(compiled.library(), str), compiled.library()
    model = quantize.quantize_(random_model(TINY), "int8")
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
