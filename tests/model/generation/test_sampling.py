"""The filters on a distribution against transformers' logits processors."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model.generation.sampling import (
    GREEDY,
    Sampling,
    adjust,
    apply_repetition_penalty,
    candidates,
    changes_logits,
    log_probability,
    sample,
    sample_rows,
)


def reference(logits: torch.Tensor, settings: Sampling, previous_tokens: list[int]) -> torch.Tensor:
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        processors.append(MinPLogitsWarper(settings.min_p))
    return torch.softmax(processors(torch.tensor([previous_tokens]), logits[None].clone()), -1)[0]  # type: ignore[arg-type]


@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    settings=st.builds(
        Sampling,
        temperature=st.sampled_from([0.3, 0.7, 1.0, 2.5]),
        top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
        top_k=st.sampled_from([0, 1, 5, 300, 5000]),
        min_p=st.sampled_from([0.0, 0.05, 0.5]),
        repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    ),
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_the_filtered_distribution_is_that_of_transformers(seed: int, spread: float, settings: Sampling) -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(seed)) * spread
    previous_tokens = [3, 5, 3, 999]
    ids, probs = candidates(apply_repetition_penalty(logits, previous_tokens, settings.repetition_penalty), settings)
    actual = torch.zeros(1000).scatter(0, ids, probs)
    expected = reference(logits, settings, previous_tokens)
    differ = (actual > 0) != (expected > 0)
    differ = (actual > 0) != (expected > 0)
    # At the border of the nucleus float sums of another order may decide for one token more or less; and where the likeliest tokens hold
    # all that a float32 can tell from 1, the rest is left out.
    assert differ.sum() <= (settings.top_p < 1) or float((actual + expected)[differ].sum()) < 1e-6
    if bool(((actual > 0) == (expected > 0)).all()):
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("settings", [Sampling(top_p=1e-95), Sampling(top_p=5e-324, min_p=1.0), Sampling(temperature=1e-5, top_p=1e-60)])
def test_the_likeliest_token_is_left_by_every_filter(settings: Sampling) -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    assert sample(logits, settings) == 1


def test_samples_come_in_proportion() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)
    drawn = [sample(logits, Sampling(temperature=1.0, top_p=0.75), generator=generator) for _ in range(4000)]
    probs = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    assert probs[2:].sum() == 0
    assert abs(float(probs[0]) - 0.5 / 0.8) < 0.03


def test_temperature_0_takes_the_likeliest_after_the_penalty() -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    assert sample(logits, GREEDY) == 1
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.5), previous_tokens=[1]) == 2


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])) + 7
    log_prob = log_probability(logits, 2, 2)
    assert log_prob.logprob == pytest.approx(torch.tensor(0.2).log().item(), abs=1e-5)
    assert [i for i, _ in log_prob.top] == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2.0}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]


SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 300, 5000]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
)


@given(
    seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 1.0, 4.0]), rows=st.lists(SETTINGS, min_size=1, max_size=5), draw=st.data()
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_rows_together_draw_what_each_row_would_draw(seed: int, spread: float, rows: list[Sampling], draw: st.DataObject) -> None:
    logits = torch.randn(len(rows), 1000, generator=torch.Generator().manual_seed(seed)) * spread
    uniform = [draw.draw(st.floats(0, 1, exclude_max=True, width=32)) for _ in rows]
    adjusted = torch.stack([adjust(row, settings, [3, 5, 3, 999], 1) for row, settings in zip(logits, rows, strict=True)])
    drawn = sample_rows(adjusted, rows, uniform)
    for row, settings, number, token in zip(logits, rows, uniform, drawn, strict=True):
        penalized = apply_repetition_penalty(row, [3, 5, 3, 999], settings.repetition_penalty)
        if settings.temperature == 0:
            assert token == int(penalized.argmax())
            continue
        ids, probs = candidates(penalized, settings)
        # The share of likelier tokens is up to the number, and with its own share above it, but for float sums of another order.
        position = ids.tolist().index(token) if token in ids else len(ids)
        assert probs[:position].sum() <= number + 1e-4
        assert probs[: position + 1].sum() >= number - 1e-4


def test_what_a_row_draws_does_not_depend_on_the_settings_of_others() -> None:
    """Among ties too, of which half precision has many."""
    torch.manual_seed(0)
    logits = torch.randn(40, 3000).bfloat16()
    logits[:, :60] += 6
    uniform = torch.rand(40).tolist()
    settings = [Sampling(temperature=1.0, top_p=0.9)] * 40
    alone = [sample_rows(logits[n : n + 1], settings[:1], uniform[n : n + 1])[0] for n in range(40)]
    for other in (Sampling(top_p=1.0), Sampling(top_k=300), GREEDY):
        together = [sample_rows(logits[[n, 0]], [settings[0], other], [uniform[n], 0.5])[0] for n in range(40)]
        assert together == alone


def test_rows_that_are_not_finite_concern_themselves_alone() -> None:
    logits = torch.randn(4, 300)
    logits[1, 7], logits[2, 8] = float("nan"), float("inf")
    for settings in (GREEDY, Sampling()):
        ids = sample_rows(logits, [settings] * 4, [0.5] * 4)
        assert [token < 0 for token in ids] == [False, True, True, False]


def test_biases_and_penalties_are_those_of_openais_api() -> None:
    """logit[t] + bias[t] - count(t) * frequency - (count(t) > 0) * presence; the counts are those of the answer, not of the prompt."""
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    prompt, answer = [7, 8, 8], [8, 9, 9, 9]
    settings = Sampling(frequency_penalty=0.5, presence_penalty=-1.25, logit_bias=((3, 100.0), (9, -2.0)))
    expected = logits.clone()
    for token in range(50):
        count = answer.count(token)
        expected[token] += {3: 100.0, 9: -2.0}.get(token, 0.0) - 0.5 * count - (-1.25 if count else 0.0)
    torch.testing.assert_close(adjust(logits, settings, prompt + answer, len(prompt)), expected)
    assert changes_logits(settings) and not changes_logits(Sampling(temperature=0.3, top_p=0.5))
    assert sample(logits, Sampling(temperature=0.0, logit_bias=((3, 100.0),))) == 3
    for wrong in ({"frequency_penalty": float("nan")}, {"logit_bias": ((1, float("inf")),)}):
        with pytest.raises(ValueError, match="must be finite"):
            Sampling(**wrong)
