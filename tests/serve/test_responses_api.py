"""OpenAI's Responses API, by OpenAI's own client: an answer is that of a chat."""

import json
from typing import Any

import openai
import pytest
from helpers.serving import CHAT, QUESTION, VITALS, RunningServer, error_of, post, text_of
from jsonschema import Draft202012Validator

pytestmark = pytest.mark.slow
OF_CHATS: Any = ({"n": 2}, {"messages": CHAT["messages"]}, {"max_tokens": 5}, {"conversation": "c"}, {"prompt": {"id": "p"}})
NO_SCHEMA = {"text": {"format": {"type": "json_schema", "name": "x"}}}


def test_an_answer_is_that_of_a_chat(client: openai.OpenAI) -> None:
    options: Any = {"model": "medical-llm", "max_output_tokens": 12, "temperature": 0}
    chat = client.chat.completions.create(**CHAT)
    whole = client.responses.create(input=QUESTION, **options)
    assert whole.output_text == chat.choices[0].message.content and whole.usage and chat.usage
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (chat.usage.prompt_tokens, 12)
    assert whole.status == "incomplete" and whole.incomplete_details and whole.incomplete_details.reason == "max_output_tokens"
    system: Any = [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    instructed = client.responses.create(input=[{"role": "user", "content": QUESTION}], instructions="Be brief.", **options)
    assert instructed.output_text == client.chat.completions.create(**(CHAT | {"messages": system})).choices[0].message.content
    again: Any = [{"role": "user", "content": QUESTION}, *[item.model_dump() for item in whole.output], *CHAT["messages"]]
    assert client.responses.create(input=again, **options).output_text


def test_a_stream_has_all_of_its_events(client: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "vitals", "schema": VITALS}}
    options: Any = {"model": "medical-llm", "input": QUESTION, "max_output_tokens": 100, "temperature": 0, "text": wanted}
    with client.responses.stream(**options) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == client.responses.create(**options).output_text
    assert final.output_text == "".join(event.delta for event in events if event.type == "response.output_text.delta")
    raw = list(client.responses.create(**options, stream=True))
    assert [event.sequence_number for event in raw] == list(range(len(raw)))
    assert [raw[0].type, raw[-1].type] == ["response.created", "response.completed"]
    cut = list(client.responses.create(**(options | {"max_output_tokens": 3}), stream=True))
    assert cut[-1].type == "response.incomplete"


def test_other_settings_are_those_of_a_chat(server: RunningServer) -> None:
    chat = post(server, "/v1/chat/completions", temperature=1.0, seed=3, top_k=4, max_tokens=9)
    body = {"input": QUESTION, "temperature": "1.0", "seed": 3, "top_k": 4, "max_output_tokens": "9", "unheard_of": 1}
    response = server.client.post("/v1/responses", json=body)
    assert response.json()["output"][0]["content"][0]["text"] == text_of(chat)
    assert response.headers["x-ignored-fields"] == "unheard_of"
    other = server.client.post("/v1/responses", json=body | {"model": "gpt-4o-mini"})
    assert other.headers.get_list("x-ignored-fields", split_commas=True) == ["model", "unheard_of"]


def test_an_answer_in_a_form(client: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "vitals", "schema": VITALS, "strict": True}}
    answer = client.responses.create(model="medical-llm", input=QUESTION, text=wanted, temperature=1.0, max_output_tokens=100)
    assert answer.status == "completed"
    Draft202012Validator(VITALS).validate(json.loads(answer.output_text))


def test_what_needs_a_memory_or_tools_is_refused(server: RunningServer) -> None:
    for fields in (
        {"previous_response_id": "resp_1"},
        {"tools": [{"type": "web_search"}]},
        {"background": True},
        {"typical_p": 0.5},
        NO_SCHEMA,
        *OF_CHATS,
    ):
        refused = server.client.post("/v1/responses", json={"input": QUESTION} | fields)
        assert refused.status_code == 400 and error_of(refused)
