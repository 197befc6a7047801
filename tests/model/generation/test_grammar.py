"""Answers under a JSON Schema: they fit it, by another library's word, whatever the model and the way of stepping."""

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from model.generation import graphs
from model.generation.completion import Llama
from model.generation.generate import Batch, Native, generate
from model.generation.grammar import CALL, CALL_END, Form, JsonSchema, MinTokens, ToolCalls, closed
from model.generation.sampling import GREEDY, Sampling

NAMES = st.text('abc_ é"\\{', min_size=1, max_size=6)
BOUNDED = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "integer", "minimum": -20, "maximum": 300}]),
    st.sampled_from([{"type": "string", "maxLength": 8}, {"type": "number", "minimum": 0, "maximum": 9}, {"const": {"a": [1, "x"]}}]),
    st.lists(NAMES, min_size=1, max_size=4, unique=True).map(lambda names: {"enum": names}),
)


def _with_properties(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    required = st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([])
    return required.map(lambda names: {"type": "object", "properties": properties, "required": names, "additionalProperties": False})


SCHEMAS = st.recursive(
    BOUNDED,
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=4).flatmap(_with_properties),
        st.tuples(inner, st.integers(0, 3)).map(lambda pair: {"type": "array", "items": pair[0], "maxItems": pair[1]}),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=6,
)
EXTRACTION = {
    "type": "object",
    "properties": {
        "vital_signs": {
            "type": "object",
            "properties": {"pulse": {"type": "integer", "minimum": 0, "maximum": 300, "x-unit": "/min"}},
            "additionalProperties": False,
        },
        "x-ray": {"enum": ["chest", "hand", "none"]},
    },
    "required": ["vital_signs", "x-ray"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Any) -> Llama:
    return Llama.build(tiny_checkpoint)


@pytest.fixture(params=["c", "torch", "graphs"])
def _stepping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways of it; the GPU's is run without a recording."""
    if request.param == "graphs":
        monkeypatch.setattr(graphs, "suits", lambda device: True)
    if request.param != "c":
        monkeypatch.setattr(Native, "of", lambda model: None)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schema=SCHEMAS, seed=st.integers(0, 1 << 30))
def test_every_answer_that_ends_is_valid_and_has_no_control_token(llama: Llama, schema: dict[str, Any], seed: int) -> None:
    dialogs = [[{"role": "user", "content": "Answer as JSON."}]]
    (answer,) = llama.chat_completion(dialogs, max_gen_len=200, json_schema=schema, temperature=1.0, top_p=1.0, seed=seed)
    assert not {*answer.ids} & {*llama.tokenizer.special.values()}
    if answer.finish_reason == "stop":
        Draft202012Validator(schema).validate(json.loads(answer.text))


LABS = {"type": "object", "properties": {"lab": {"$ref": "#/$defs/lab"}}, "required": ["lab"], "$defs": {"lab": {"enum": ["Na", "K"]}}}


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_an_answer_with_tools_is_calls_that_fit_them_or_text(llama: Llama, *, required: bool, seed: int) -> None:
    parameters = {"get_lab": LABS, "stop": {}}
    grammar = ToolCalls(parameters, llama.tokenizer, required=required, several=True)
    bias = ((llama.tokenizer.encode("<")[0], 0.0 if seed % 2 else 100.0),)
    settings = Sampling(temperature=1.0, top_p=1.0, seed=seed, logit_bias=() if required else bias)
    options: Any = {"max_new_tokens": 150, "stop_ids": llama.tokenizer.stop_ids, "schema": grammar}
    ids = [token.id for (token,) in generate(llama.model, [[5, 9, 30]], settings, **options) if token]
    text = llama.tokenizer.decode(ids)
    assert required <= text.startswith(CALL)
    calls = text.split(CALL)[1:] if text.startswith("<") else []
    if len(ids) == 150:
        calls = calls[:-1]
    for call in calls:
        called = json.loads(call.removesuffix("\n").removesuffix(CALL_END))
        assert list(called) == ["name", "arguments"]
        Draft202012Validator(parameters[called["name"]]).validate(called["arguments"])
        assert set(called["arguments"]) <= {"lab"}


def test_objects_have_the_properties_that_their_schema_names() -> None:
    person = {"type": "object", "properties": {"items": {"type": "object", "properties": {}}}}
    shut = {"type": "object", "properties": {"items": {"type": "object", "properties": {}, "additionalProperties": False}}}
    assert closed(person) == shut | {"additionalProperties": False}
    assert closed({"items": person})["items"]["additionalProperties"] is False
    assert closed({"anyOf": [person, {"type": "null"}]})["anyOf"][0]["additionalProperties"] is False
    assert closed({"$ref": "#/$defs/p", "$defs": {"p": person}})["$defs"]["p"]["additionalProperties"] is False
    others: tuple[dict[str, Any], ...] = (
        {"type": "object"},
        {"allOf": [person, person]},
        {"properties": {"a": True}, "anyOf": [person]},
        {"properties": {"a": {"enum": [{"properties": {}}]}}, "additionalProperties": {"type": "string"}},
        {"properties": {"a": {}}, "patternProperties": {"^x": {}}},
        {"properties": {"a": {}}, "required": ["b"]},
        {"const": {"properties": {}}},
    )
    for other in others:
        assert closed(other) == other


def test_no_answer_ends_before_it_has_so_many_tokens(llama: Llama) -> None:
    stop_ids = llama.tokenizer.stop_ids
    form: Form = MinTokens(2, stop_ids)
    logits = torch.zeros(llama.tokenizer.n_vocab)
    for allowed in (False, False, True):
        assert bool(torch.isfinite(form.masked(logits)[list(stop_ids)]).all()) == allowed
        form.push(5)


@pytest.mark.usefixtures("_stepping")
def test_answers_end_and_keys_stand_in_the_schemas_order(llama: Llama) -> None:
    schema = JsonSchema(EXTRACTION, llama.tokenizer)
    ids: list[list[int]] = [[], []]
    options = {"max_new_tokens": 120, "stop_ids": llama.tokenizer.stop_ids, "schema": schema}
    for step in generate(llama.model, [[5, 9, 30], [7, 8]], Sampling(temperature=1.0, seed=3), **options):  # type: ignore[arg-type]
        for row, token in zip(ids, step, strict=True):
            if token:
                row.append(token.id)
    for row in ids:
        answer = json.loads(llama.tokenizer.decode(row))
        Draft202012Validator(EXTRACTION).validate(answer)
        assert list(answer) == ["vital_signs", "x-ray"]


@pytest.mark.usefixtures("_stepping")
def test_what_may_follow_is_the_likeliest_of_the_valid_tokens(llama: Llama) -> None:
    tokenizer, words = llama.tokenizer, ["fever", "cough"]
    schema = JsonSchema({"enum": words}, tokenizer)
    batch = Batch(llama.model, slots=2, max_len=64)
    sequence, other = batch.add([5, 9, 30], form=schema.answer(), log_probabilities=0), batch.add([7, 8])
    prompt, alone = len(sequence.tokens), greedy(llama, [7, 8])
    while True:
        logits, text = sequence.logits.clone(), tokenizer.decode(sequence.tokens[prompt:])
        token = batch.sample(sequence)
        if token.id in tokenizer.stop_ids:
            assert text in [f'"{word}"' for word in words]
            break
        assert batch.sample(other).id == alone.pop(0)  # a sequence beside it may go on as it likes
        valid = [t for t in range(tokenizer.n_vocab) if t not in tokenizer.special.values() and begins(tokenizer.decode([t]), text, words)]
        assert token.id == max(valid, key=lambda t: float(logits[t]))
        assert token.log_probability and abs(token.log_probability.logprob - float(torch.log_softmax(logits, -1)[token.id])) < 1e-5
        batch.step([sequence, other])


def begins(piece: str, text: str, words: list[str]) -> bool:
    return bool(piece) and any(f'"{word}"'.startswith(text + piece) for word in words)


def greedy(llama: Llama, prompt: list[int]) -> list[int]:
    return [token.id for (token,) in generate(llama.model, [prompt], GREEDY, max_new_tokens=40) if token]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nonsense"}, "no valid JSON Schema"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"enum": []}, "the schema cannot be demanded of an answer"),
        ({"$ref": "https://example.org/schema.json"}, "no valid JSON Schema"),
        ({"pattern": "(SECRET", "type": "string"}, "no valid JSON Schema"),
        ({"type": "object", "properties": {"SECRET": {}}, "required": 5}, "no valid JSON Schema"),
        ({"type": "object", "properties": {"SECRET": {}}, "required": [["SECRET"]]}, "no valid JSON Schema"),
        ({"type": "array", "items": 5, "properties": 5}, "no valid JSON Schema"),
    ],
)
def test_a_schema_that_cannot_be_demanded_is_refused(llama: Llama, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        JsonSchema(schema, llama.tokenizer)
    assert "SECRET" not in str(error.value)


def test_a_token_that_cannot_follow_is_an_error_without_the_text(llama: Llama) -> None:
    answer = JsonSchema({"enum": ["secret"]}, llama.tokenizer).answer()
    with pytest.raises(ValueError, match="cannot go on under its schema") as error:
        answer.push(llama.tokenizer.encode("x")[0])
    assert "secret" not in str(error.value)


def test_rows_beyond_the_vocabulary_never_follow(llama: Llama) -> None:
    masked = JsonSchema({"type": "null"}, llama.tokenizer).answer().masked(torch.zeros(llama.tokenizer.n_vocab + 70))
    assert torch.isinf(masked[llama.tokenizer.n_vocab :]).all() and torch.isfinite(masked).any()
