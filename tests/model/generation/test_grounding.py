"""Answers whose values a text states: whatever the model, each number and string of an answer stands in the text."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from model.generation.completion import Llama, users_text
from model.generation.grammar import JsonSchema
from model.generation.grounding import MAX_WORDS
from tasks.evaluation.structured import Stated

NOTE = (
    'BP 129/66 mmHg, T 38.5°C, WBC 15,780 /uL, base excess -2.5; Na 140.0.\nAspirin (low dose), 0.9% NaCl.\tMr. O\'Neil said "no". '
    "MRN 1234567890123456 (12)x"
)
FIELDS = {
    "number": {"type": "number"},
    "whole": {"type": "integer", "minimum": 70},
    "text": {"type": ["string", "null"]},
    "names": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 3},
    "code": {"type": "string", "x-stated": False},
    "side": {"enum": ["left", "right"]},
    "any": {},
    "shared": {"$ref": "#/$defs/day"},
}
SCHEMA = {"type": "object", "properties": FIELDS, "$defs": {"day": {"type": "string", "pattern": "^[A-Z]"}}}


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Any) -> Llama:
    return Llama.build(tiny_checkpoint)


def fits(answer: str, schema: dict[str, Any], text: str, llama: Llama) -> bool:
    """Whether a whole answer may be given."""
    tokenizer, state = llama.tokenizer, JsonSchema(schema, llama.tokenizer, grounded_in=text).answer()
    for token in [*tokenizer.encode(answer), tokenizer.stop_ids[0]]:
        if not torch.isfinite(state.masked(torch.zeros(tokenizer.n_vocab))[token]):
            return False
        state.push(token)
    return True


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        ('{"number":129}', True),
        ('{"number":13}', False),
        ('{"number":38.5}', True),
        ('{"number":15780}', True),
        ('{"number":15.78}', True),  # as notes of other countries write it
        ('{"number":140}', True),
        ('{"number":-2.5}', True),
        ('{"number":-129}', False),
        ('{"whole":129}', True),
        ('{"whole":66}', False),  # the schema's own limit holds too
        ('{"text":null}', True),
        ('{"text":""}', True),
        ('{"text":"Aspirin"}', True),
        ('{"text":"aspirin"}', False),
        ('{"text":"spirin"}', False),
        ('{"text":"Aspirin (low dose)"}', True),
        ('{"text":"0.9% NaCl"}', True),
        ('{"text":"NaCl. Mr"}', True),
        ('{"text":"(12)"}', False),
        ('{"text":"12)"}', False),  # "12)x" is another word to the evaluation
        ('{"text":"O\'Neil said \\"no"}', True),
        ('{"names":[]}', True),
        ('{"names":[""]}', False),
        ('{"names":["NaCl","Aspirin"]}', True),
        ('{"names":["Ibuprofen"]}', False),
        ('{"code":"I10"}', True),
        ('{"side":"left"}', True),
        ('{"any":"no"}', True),
        ('{"any":129}', True),
        ('{"any":false}', True),
        ('{"any":"yes"}', False),
        ('{"shared":"Aspirin"}', True),
        ('{"shared":"mmHg"}', False),
        ('{"shared":"Monday"}', False),
    ],
)
def test_which_values_a_text_states(llama: Llama, answer: str, stated: bool) -> None:
    assert fits(answer, SCHEMA, NOTE, llama) == stated


def test_values_below_an_open_object_and_in_open_lists_are_stated_too(llama: Llama) -> None:
    assert fits('{"drug":"NaCl","dose":0.9}', {"type": "object"}, NOTE, llama)
    assert not fits('{"drug":"salt"}', {"type": "object"}, NOTE, llama)
    assert fits('["NaCl",0.9,null]', {"type": "array"}, NOTE, llama) and not fits("[1]", {"type": "array"}, NOTE, llama)
    either = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "string"}}]}
    assert fits("129", either, NOTE, llama) and fits('["Aspirin"]', either, NOTE, llama)
    assert not fits("130", either, NOTE, llama) and not fits('["Aspirine"]', either, NOTE, llama)


def test_a_string_has_at_most_so_many_words(llama: Llama) -> None:
    words = [f"word{chr(97 + n)}" for n in range(MAX_WORDS + 1)]
    for count, stated in ((MAX_WORDS, True), (MAX_WORDS + 1, False)):
        assert fits(json.dumps(" ".join(words[:count])), {"type": "string"}, " ".join(words), llama) == stated


def test_a_value_that_no_text_states_can_only_be_left_out(llama: Llama) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"pulse": {"type": "number"}}}
    assert fits("{}", schema, "no number", llama)
    with pytest.raises(ValueError, match="the schema cannot be demanded of an answer"):
        JsonSchema(schema | {"required": ["pulse"]}, llama.tokenizer, grounded_in="no number")


def test_a_text_may_be_too_long(llama: Llama) -> None:
    words = [f"w{n:05d}" for n in range(3000)]
    assert fits('"w00003 w00004"', {"type": "string"}, " ".join(words[:1400]), llama)
    with pytest.raises(ValueError, match="a text of 20,999 characters is too long for a grounded answer"):
        JsonSchema({"type": "string"}, llama.tokenizer, grounded_in=" ".join(words))


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text('ab éÄ1239.,-−%()"\\/\n\t° µ', max_size=60), seed=st.integers(0, 1 << 30))
def test_no_model_can_say_what_the_text_does_not(llama: Llama, text: str, seed: int) -> None:
    """The evaluation's own rule says what a text states."""
    schema = SCHEMA | {"properties": {name: FIELDS[name] for name in ("number", "whole", "text", "names", "any")}}
    dialog = [{"role": "system", "content": "777 others"}, {"role": "user", "content": text}]
    options: Any = {"max_gen_len": 150, "temperature": 1.0, "top_p": 1.0, "seed": seed}
    (answer,) = llama.chat_completion([dialog], json_schema=schema, grounded=True, **options)
    if answer.finish_reason == "stop":
        given_values = json.loads(answer.text)
        Draft202012Validator(schema).validate(given_values)
        assert all(value == "" or Stated(text).states(value, {}) in (True, None) for value in leaves(given_values)), (text, answer.text)


def test_each_conversation_has_its_own_text(llama: Llama) -> None:
    schema = {"type": "object", "properties": {"pulse": {"type": "number"}}, "required": ["pulse"]}
    dialogs = [[{"role": "user", "content": f"pulse {number}"}] for number in (61, 187)]
    first, second = llama.chat_completion(dialogs, json_schema=schema, grounded=True, temperature=1.0, seed=1)
    assert (first.text, second.text) == ('{"pulse":61}', '{"pulse":187}')
    assert users_text([{"role": "user", "content": "a"}, {"role": "assistant", "content": "7"}]) == "a"
    with pytest.raises(ValueError, match="grounded needs a json_schema"):
        llama.chat_completion(dialogs, grounded=True)
