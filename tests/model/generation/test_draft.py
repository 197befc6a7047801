"""Drafts change no token and no bit; where an answer copies, they save steps."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from model.generation import generate as generation
from model.generation.completion import Llama
from model.generation.draft import LENGTHS, TRIES, PromptLookup
from model.generation.generate import MAX_DRAFT_ROWS, Batch, SequenceState
from model.generation.grammar import JsonSchema
from model.generation.sampling import GREEDY, Sampling

FORM = {
    "type": "object",
    "properties": {
        "heart_rate": {"type": "integer", "minimum": 40, "maximum": 200},
        "spo2": {"enum": [91, 92, 93]},
        "awake": {"type": "boolean"},
    },
    "required": ["heart_rate", "spo2", "awake"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Any) -> Llama:
    return Llama.build(tiny_checkpoint)


def naive(tokens: Sequence[int], count: int) -> list[int]:
    """The tokens behind the last place where the longest end of a sequence stood before."""
    for length, most in LENGTHS.items():
        end = tokens[len(tokens) - length :] if len(tokens) >= length else None
        for start in reversed(range(len(tokens) - length)):
            if end == tokens[start : start + length]:
                return list(tokens[start + length : start + length + min(most, count)])
    return []


@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40), more=st.lists(st.integers(0, 3), max_size=20), count=st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_a_draft_is_what_followed_before(tokens: list[int], more: list[int], count: int) -> None:
    lookup = PromptLookup(tokens)
    for token in more:
        lookup.push(token)
    assert lookup.propose(count) == naive([*tokens, *more], count)


def test_drafts_that_are_mostly_wrong_end() -> None:
    rng = random.Random(1)
    lookup = PromptLookup([1, 2, 3] * 4)
    proposed = []
    for _ in range(400):
        proposed.append(len(lookup.propose(8)))
        lookup.push(rng.randrange(8))
    assert sum(proposed) >= TRIES and not any(proposed[-200:])


def test_hints_are_drafted_and_nothing_across_their_end() -> None:
    lookup = PromptLookup([5, 7, 8], hints=[7, 8, 9])
    assert lookup.propose(8) == [9]


def decode(batch: Batch, sequences: list[SequenceState], steps: int) -> tuple[list[list[int]], list[torch.Tensor]]:
    prompts = [len(sequence.tokens) for sequence in sequences]
    logits = []
    for _ in range(steps):
        logits.append(torch.stack([sequence.logits for sequence in sequences]))
        for sequence in sequences:
            batch.sample(sequence)
        batch.step(sequences)
    return [sequence.tokens[start:] for sequence, start in zip(sequences, prompts, strict=True)], logits


@pytest.mark.parametrize(
    "setting", [GREEDY, Sampling(temperature=0.7, seed=4), Sampling(temperature=1.5, top_p=1.0, seed=5, frequency_penalty=0.4)]
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_tokens_and_logits_have_the_same_bits(llama: Llama, setting: Sampling, count: int) -> None:
    rng = random.Random(count)
    prompts = [[rng.randrange(4, 12) for _ in range(rng.randrange(3, 60))] for _ in range(count)]
    results = []
    for drafts in (True, False):
        batch = Batch(llama.model, slots=count, max_len=160, drafts=drafts)
        results.append(decode(batch, [batch.add(prompt, setting) for prompt in prompts], 60))
    (tokens, logits), (plain_tokens, plain_logits) = results
    assert tokens == plain_tokens
    assert all(torch.equal(one, other) for one, other in zip(logits, plain_logits, strict=True))


@pytest.fixture
def rows_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of rows of each step in C."""
    rows: list[int] = []
    native_step = generation.Native.step

    def counted(self: Any, tokens: Sequence[int], *rest: Any) -> torch.Tensor:
        rows.append(len(tokens))
        return native_step(self, tokens, *rest)

    monkeypatch.setattr(generation.Native, "step", counted)
    return rows


def test_an_answer_that_copies_takes_fewer_steps_also_at_the_end_of_the_context(llama: Llama, rows_of_steps: list[int]) -> None:
    bias = tuple((token, 10_000.0) for token in (20, 21))
    setting = Sampling(temperature=0.0, logit_bias=bias, frequency_penalty=50.0)  # the two in turn
    prompt, limit = [20, 21] * 4, 48
    answers = []
    for drafts in (False, True):
        rows_of_steps.clear()
        batch = Batch(llama.model, slots=1, max_len=limit, drafts=drafts)
        sequence = batch.add(prompt, setting)
        rows_of_steps.clear()
        while True:
            batch.sample(sequence)
            if batch.is_full(sequence):
                break
            batch.step([sequence])
        answers.append((sequence.tokens, list(rows_of_steps)))
    (plain, plain_rows), (drafted, drafted_rows) = answers
    assert plain == drafted and len(plain) == limit + 1
    assert set(plain_rows) == {1} and len(drafted_rows) * 2 < len(plain_rows) and max(drafted_rows) == MAX_DRAFT_ROWS


def test_the_keys_of_a_form_are_drafted(llama: Llama, rows_of_steps: list[int]) -> None:
    schema = JsonSchema(FORM, llama.tokenizer)
    texts, counts = [], []
    for drafts in (True, False):
        batch = Batch(llama.model, slots=1, max_len=200, drafts=drafts)
        sequence = batch.add([5, 9, 30], form=schema.answer())
        rows_of_steps.clear()
        while batch.sample(sequence).id not in llama.tokenizer.stop_ids:
            batch.step([sequence])
        texts.append(llama.tokenizer.decode(sequence.tokens[3:-1]))
        counts.append(len(rows_of_steps))
    assert texts[0] == texts[1] and counts[0] * 1.5 < counts[1]
    Draft202012Validator(FORM).validate(json.loads(texts[0]))


def test_sequences_come_and_go_beside_one_that_is_drafted(llama: Llama) -> None:
    prompt = [20, 21, 22] * 5
    alone = Batch(llama.model, slots=1, max_len=120, drafts=False)
    (expected,), _ = decode(alone, [alone.add(prompt)], 60)
    batch = Batch(llama.model, slots=3, max_len=120)
    steady = batch.add(prompt)
    rng = random.Random(3)
    others: list[SequenceState] = []
    for _ in range(60):
        if len(others) < 2 and rng.random() < 0.3:
            others.append(batch.add([rng.randrange(5, 40) for _ in range(rng.randrange(1, 30))] * 2, Sampling(temperature=1.0, seed=1)))
        if others and rng.random() < 0.2:
            batch.release(others.pop(0))
        for sequence in (steady, *others):
            batch.sample(sequence)
        batch.step([steady, *others])
    assert steady.tokens[len(prompt) :] == expected
