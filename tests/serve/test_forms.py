"""Answers in a form: what clients get under a JSON Schema, and whose values stand in what they sent."""

import json
from typing import Any

import openai
import pytest
from helpers.serving import CHAT, COMPLETION, VITALS, RunningServer, error_of, post, text_of
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from model.generation.completion import Llama

pytestmark = pytest.mark.slow


def test_json_by_a_schema(client: openai.OpenAI, llama: Llama) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "vitals", "schema": VITALS, "strict": True}}
    options: Any = CHAT | {"max_tokens": 60, "response_format": wanted}
    text = client.chat.completions.create(**options).choices[0].message.content
    (expected,) = llama.chat_completion([CHAT["messages"]], max_gen_len=60, temperature=0.0, json_schema=VITALS)
    assert text == expected.text
    streamed = client.chat.completions.create(**options, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text
    for choice in client.chat.completions.create(**(options | {"n": 4, "temperature": 1.5, "seed": 2})).choices:
        Draft202012Validator(VITALS).validate(json.loads(choice.message.content or ""))
    plain = client.completions.create(**(COMPLETION | {"max_tokens": 60}), extra_body={"response_format": wanted})
    Draft202012Validator(VITALS).validate(json.loads(plain.choices[0].text))


def test_the_place_of_a_schema_that_llama_cpp_has(server: RunningServer) -> None:
    for kind in ("json_object", "json_schema"):
        answer = post(server, max_tokens=60, response_format={"type": kind, "schema": VITALS})
        Draft202012Validator(VITALS).validate(json.loads(text_of(answer)))


def test_an_empty_schema_is_any_json(server: RunningServer) -> None:
    answer = post(server, max_tokens=200, response_format={"type": "json_schema", "json_schema": {"schema": {}}}).json()["choices"][0]
    if answer["finish_reason"] == "stop":
        json.loads(answer["text"])
    assert answer["text"][0] in '"{[0123456789-tfn'


def test_any_json_object(client: openai.OpenAI) -> None:
    options: Any = CHAT | {"max_tokens": 300, "response_format": {"type": "json_object"}, "temperature": 1.0, "n": 4, "seed": 1}
    choices = client.chat.completions.create(**options).choices
    assert all((choice.message.content or "").startswith("{") for choice in choices)
    assert all(isinstance(json.loads(c.message.content or ""), dict) for c in choices if c.finish_reason == "stop")


def test_a_parsed_answer_of_openais_client(client: openai.OpenAI) -> None:
    class Vitals(BaseModel):
        pulse: int
        fever: bool | None

    options: Any = CHAT | {"max_tokens": 100, "response_format": Vitals, "temperature": 1.0, "seed": 6}
    assert isinstance(client.chat.completions.parse(**options).choices[0].message.parsed, Vitals)


def test_a_schema_that_cannot_be_demanded_is_refused_with_its_reason(server: RunningServer) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    response = post(server, "/v1/chat/completions", response_format=wanted)
    assert response.status_code == 400 and "uniqueItems" in error_of(response)["message"]


DRUGS = {
    "type": "object",
    "properties": {"drugs": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 2}},
    "required": ["drugs"],
}
NOTE = "Aspirin 75 mg, metformin 500 mg"
GROUNDED: Any = {"type": "json_schema", "json_schema": {"name": "drugs", "schema": DRUGS}, "grounded": True}


def test_values_of_a_grounded_answer_stand_in_the_users_messages(client: openai.OpenAI, llama: Llama) -> None:
    messages: Any = [{"role": "system", "content": "Paracetamol"}, {"role": "user", "content": NOTE}]
    options: Any = {"model": "medical-llm", "messages": messages, "max_tokens": 200, "temperature": 1.5, "n": 4, "seed": 1}
    choices = client.chat.completions.create(**options, response_format=GROUNDED).choices
    answers = [json.loads(choice.message.content or "") for choice in choices if choice.finish_reason == "stop"]
    assert answers and all(drug in NOTE for answer in answers for drug in answer["drugs"])
    (expected,) = llama.chat_completion([messages], max_gen_len=200, temperature=1.5, top_p=1.0, seed=1, json_schema=DRUGS, grounded=True)
    assert choices[0].message.content == expected.text


def test_values_of_a_grounded_completion_stand_in_the_prompt(server: RunningServer) -> None:
    answer = post(server, prompt=NOTE, max_tokens=200, response_format=GROUNDED, temperature=1.5, seed=1).json()["choices"][0]
    assert answer["finish_reason"] == "stop" and all(drug in NOTE for drug in json.loads(answer["text"])["drugs"])


def test_what_a_text_does_not_state_and_a_schema_requires_is_refused(server: RunningServer) -> None:
    messages = [{"role": "user", "content": ""}, {"role": "user", "content": "?"}]
    response = post(server, "/v1/chat/completions", messages=messages, response_format=GROUNDED)
    assert response.status_code == 400 and "the schema cannot be demanded" in error_of(response)["message"]
    long = [{"role": "user", "content": " ".join(f"w{n:05d}" for n in range(3000))}]
    response = post(server, "/v1/chat/completions", messages=long, response_format=GROUNDED)
    assert response.status_code == 400 and "too long for a grounded answer" in error_of(response)["message"]
