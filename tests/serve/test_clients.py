"""What clients of other servers send: the fields, forms and routes that they expect, and errors in words that they understand."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.builders import write_tiny_checkpoint
from helpers.chat_templates import TEMPLATES
from helpers.serving import CHAT, COMPLETION, QUESTION, VITALS, RunningServer, error_of, post, run_server, text_of
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from model.generation.completion import Llama

pytestmark = pytest.mark.slow
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_vitals", "description": "Vital signs.", "parameters": VITALS}},
    {"type": "function", "function": {"name": "stop"}},
]


@pytest.fixture(scope="module", params=["Qwen 2.5", "Qwen 3"])
def foreign(
    request: pytest.FixtureRequest, wide_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, Llama]]:
    """A server whose template is another family's."""
    directory = Path(shutil.copytree(wide_checkpoint, tmp_path_factory.mktemp("foreign") / "checkpoint"))
    (directory / "chat_template.jinja").write_text(TEMPLATES[request.param])
    with run_server({"medical-llm": directory}) as running:
        yield running, Llama.build(directory)


class TestFields:
    def test_unknown_ones_that_change_nothing_are_named(self, server: RunningServer) -> None:
        plain = post(server)
        assert "x-ignored-fields" not in plain.headers
        extended = post(server, reasoning_effort="low", verbosity="high", typical_p=1.0, mirostat=0, **{"a b\n": 1})
        assert text_of(extended) == text_of(plain)
        assert extended.headers["x-ignored-fields"] == "mirostat, other, reasoning_effort, typical_p, verbosity"
        many = post(server, **{f"unheard_of_{n}": n for n in range(50)})
        assert many.headers["x-ignored-fields"].endswith("and more") and len(many.headers["x-ignored-fields"]) < 1000

    @pytest.mark.parametrize(
        ("fields", "param", "words"),
        [
            ({"typical_p": 0.5}, "typical_p", "typical_p would change the answer and is not supported"),
            ({"guided_json": {"type": "object"}}, "guided_json", "use response_format"),
            ({"repeat_penalty": 1.3}, "repeat_penalty", "use repetition_penalty"),
            ({"temprature": 0.1}, "temprature", "did you mean temperature?"),
        ],
    )
    def test_those_that_would_change_the_answer_are_refused_by_name(
        self, server: RunningServer, fields: dict[str, Any], param: str, words: str
    ) -> None:
        response = post(server, **fields)
        error = error_of(response)
        assert response.status_code == 400 and error["param"] == param and words in error["message"]

    def test_numbers_may_be_strings_or_have_a_point(self, server: RunningServer) -> None:
        assert text_of(post(server, temperature="0", max_tokens="12", top_p="1.0")) == text_of(post(server, max_tokens=12.0))

    def test_one_model_answers_to_any_name(self, server: RunningServer, wide_checkpoint: Path) -> None:
        plain = text_of(post(server))
        for model in (..., None, "", "gpt-4o-mini"):
            response = post(server, model=model)
            assert text_of(response) == plain and response.json()["model"] == "medical-llm"
            assert response.headers.get("x-ignored-fields") == ("model" if model == "gpt-4o-mini" else None)
        with run_server({"first": wide_checkpoint, "second": wide_checkpoint}) as two:
            assert post(two, model=...).json()["model"] == "first"
            assert post(two, model="gpt-4o-mini").status_code == 404

    def test_a_number_of_tokens_above_the_context_is_shortened(self, server: RunningServer, llama: Llama) -> None:
        room = llama.model.config.max_seq_len - len(llama.tokenizer.prompt(QUESTION))
        for limit in (10**6, -1):
            usage = post(server, max_tokens=limit, ignore_eos=True).json()["usage"]
            assert usage["completion_tokens"] in (room, room + 1)

    def test_a_prompt_above_the_context_is_an_error_that_frameworks_know(self, client: openai.OpenAI) -> None:
        for call in (
            lambda: client.completions.create(**(COMPLETION | {"prompt": [5] * 5000})),
            lambda: client.chat.completions.create(**(CHAT | {"messages": [{"role": "user", "content": "fever " * 5000}]})),
        ):
            with pytest.raises(openai.BadRequestError, match="maximum context length is [0-9]+ tokens") as error:
                call()
            assert error.value.code == "context_length_exceeded"

    def test_penalties_and_biases(self, server: RunningServer, llama: Llama) -> None:
        options: Any = {"max_gen_len": 40, "temperature": 0.0}
        wanted = llama.tokenizer.encode("fever")[0]
        for request, settings in (
            ({"frequency_penalty": 1.5, "presence_penalty": -0.5}, {"frequency_penalty": 1.5, "presence_penalty": -0.5}),
            ({"logit_bias": {str(wanted): 3.5}}, {"logit_bias": ((wanted, 3.5),)}),
        ):
            (expected,) = llama.text_completion([QUESTION], **options, **settings)
            assert text_of(post(server, max_tokens=40, **request)) == expected.text
            assert expected.text != llama.text_completion([QUESTION], **options)[0].text
        forced = post(server, max_tokens=5, logit_bias={str(wanted): 100}, logprobs=0).json()["choices"][0]
        assert forced["text"] == llama.tokenizer.decode([wanted] * 5)

    def test_when_an_answer_ends(self, server: RunningServer, llama: Llama) -> None:
        whole = post(server, max_tokens=30, logprobs=0, ignore_eos=True).json()
        assert whole["usage"]["completion_tokens"] == 30 and whole["choices"][0]["finish_reason"] == "length"
        ids = llama.text_completion([QUESTION], max_gen_len=30, temperature=0.0)[0].ids
        stopped = post(server, max_tokens=30, stop_token_ids=[ids[4]]).json()["choices"][0]
        assert stopped["finish_reason"] == "stop" and stopped["text"] == llama.tokenizer.decode(ids[: ids.index(ids[4])])
        end = llama.tokenizer.stop_ids[0]
        at_once = post(server, max_tokens=30, logit_bias={str(end): 100}).json()
        assert at_once["usage"]["completion_tokens"] == 1 and at_once["choices"][0]["finish_reason"] == "stop"
        later = post(server, max_tokens=30, logit_bias={str(end): 100}, min_tokens=7).json()
        assert later["usage"]["completion_tokens"] == 8 and later["choices"][0]["finish_reason"] == "stop"
        ignored = post(server, max_tokens=6, logit_bias={str(end): 100}, ignore_eos=True).json()
        assert ignored["usage"]["completion_tokens"] == 6 and ignored["choices"][0]["text"] == ""


class TestTools:
    def test_a_demanded_call(self, client: openai.OpenAI) -> None:
        for choice in ("required", {"type": "function", "function": {"name": "get_vitals"}}):
            options: Any = CHAT | {"max_tokens": 100, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
            answer = client.chat.completions.create(**options).choices[0]
            assert answer.finish_reason == "tool_calls" and answer.message.content is None and answer.message.tool_calls
            (call,) = answer.message.tool_calls
            assert call.type == "function" and call.function.name in ("get_vitals", "stop")
            parameters = VITALS if call.function.name == "get_vitals" else {"maxProperties": 0}
            Draft202012Validator(parameters).validate(json.loads(call.function.arguments))
            chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**options, stream=True)]
            (delta,) = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
            assert delta.function and (delta.function.name, delta.function.arguments) == (call.function.name, call.function.arguments)
            assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]
            assert not any(chunk.delta.content for chunk in chunks)

    def test_without_a_call_the_answer_is_text(self, client: openai.OpenAI, llama: Llama) -> None:
        options: Any = CHAT | {"max_tokens": 30, "tools": TOOLS, "temperature": 1.0, "seed": 6}
        less: Any = options | {"logit_bias": {str(llama.tokenizer.encode("<")[0]): -100}}
        whole = client.chat.completions.create(**less).choices[0]
        assert whole.message.content and not whole.message.tool_calls
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**less, stream=True)]
        assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
        off = client.chat.completions.create(**(options | {"tool_choice": "none"})).choices[0].message.content
        plain: Any = {name: value for name, value in options.items() if name != "tools"}
        assert off == client.chat.completions.create(**plain).choices[0].message.content

    def test_an_answer_in_a_form_beside_tools(self, client: openai.OpenAI) -> None:
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "vitals", "schema": VITALS}}
        options: Any = CHAT | {"max_tokens": 200, "tools": TOOLS, "response_format": wanted, "temperature": 1.0, "n": 6, "seed": 1}
        kinds = set()
        for choice in client.chat.completions.create(**options).choices:
            kinds.add(choice.finish_reason)
            if choice.finish_reason == "stop":
                Draft202012Validator(VITALS).validate(json.loads(choice.message.content or ""))
        assert "stop" in kinds

    def test_a_part_of_a_schema_that_cannot_be_demanded_is_not_unless_it_is_strict(self, server: RunningServer) -> None:
        properties: Any = {"codes": {"type": "array", "uniqueItems": True, "maxItems": 1, "items": {"enum": ["a"]}}}
        properties |= {"price": {"type": "string", "pattern": "^(?!-)[0-9]$", "maxLength": 2}, "key": {"const": "x", "format": "password"}}
        function = {"name": "f", "parameters": {"type": "object", "properties": properties, "required": ["codes"]}, "returns": "nothing"}
        for strict, status in ((False, 200), (True, 400)):
            tools = [{"type": "function", "function": function | {"strict": strict}}]
            response = post(server, "/v1/chat/completions", tools=tools, tool_choice="required", max_tokens=100)
            assert response.status_code == status, response.text
        assert "tool_0" not in response.text and "codes" not in response.text

    def test_a_tool_without_parameters_is_called_without_arguments(self, server: RunningServer) -> None:
        options = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "stop"}}, "max_tokens": 60}
        (call,) = post(server, "/v1/chat/completions", **options).json()["choices"][0]["message"]["tool_calls"]
        assert call["function"]["arguments"] == "{}"

    def test_parsed_messages_of_openais_client_can_be_sent_back(self, client: openai.OpenAI) -> None:
        class Vitals(BaseModel):
            pulse: int
            fever: bool

        options: Any = CHAT | {"max_tokens": 300, "temperature": 1.0, "seed": 1}
        parsed = client.chat.completions.parse(**options, response_format=Vitals).choices[0].message
        tool: Any = openai.pydantic_function_tool(Vitals)
        called = client.chat.completions.parse(**options, tools=[tool], tool_choice="required").choices[0].message
        assert called.tool_calls
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "80"}
        history: Any = [*CHAT["messages"], parsed, CHAT["messages"][0], called, result]
        assert client.chat.completions.create(**(CHAT | {"messages": history})).choices[0].message.content

    def test_calls_and_results_in_the_history(self, server: RunningServer, llama: Llama) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "get_vitals", "arguments": '{"pulse": 80}'}}
        history = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "pulse 80"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "no fever"}]},
        ]
        written = [
            *history[:2],
            {"role": "assistant", "content": '<tool_call>\n{"name":"get_vitals","arguments":{"pulse": 80}}\n</tool_call>'},
            {"role": "user", "content": "<tool_response>\npulse 80\n</tool_response>\n<tool_response>\nno fever\n</tool_response>"},
        ]
        (expected,) = llama.chat_completion([written], max_gen_len=12, temperature=0.0)  # type: ignore[list-item]
        assert text_of(post(server, "/v1/chat/completions", messages=history)) == expected.text
        offered = {"messages": history, "tools": TOOLS}
        count = post(server, "/v1/chat/completions", **offered).json()["usage"]["prompt_tokens"]
        assert count > post(server, "/v1/chat/completions", messages=history).json()["usage"]["prompt_tokens"] + 50


class TestChats:
    def test_the_last_message_is_continued(self, server: RunningServer, llama: Llama) -> None:
        started = [*CHAT["messages"], {"role": "assistant", "content": "The signs are"}]
        ids = llama.tokenizer.chat_prompt(started, continue_final_message=True)
        assert llama.tokenizer.decode(ids).endswith("The signs are")
        assert ids[: -len(llama.tokenizer.encode("The signs are"))] == llama.tokenizer.chat_prompt(CHAT["messages"])
        response = post(server, "/v1/chat/completions", messages=started, continue_final_message=True, add_generation_prompt=False)
        assert response.json()["usage"]["prompt_tokens"] == len(ids)
        without = post(server, "/v1/chat/completions", add_generation_prompt=False).json()["usage"]["prompt_tokens"]
        assert without == len(llama.tokenizer.chat_prompt(CHAT["messages"], add_generation_prompt=False))

    def test_arguments_that_the_template_does_not_read_change_nothing(self, server: RunningServer) -> None:
        plain = text_of(post(server, "/v1/chat/completions"))
        assert text_of(post(server, "/v1/chat/completions", chat_template_kwargs={"enable_thinking": False})) == plain

    def test_arguments_reach_the_template(self, server: RunningServer, foreign: tuple[RunningServer, Llama]) -> None:
        running, llama = foreign
        for thinking in (True, False):
            ids = llama.tokenizer.chat_prompt(CHAT["messages"], arguments={"enable_thinking": thinking})
            answer = post(running, "/v1/chat/completions", chat_template_kwargs={"enable_thinking": thinking})
            assert answer.json()["usage"]["prompt_tokens"] == len(ids)
        refused = post(server, "/v1/chat/completions", chat_template_kwargs={"tools": []})
        assert refused.status_code == 400 and "chat_template_kwargs cannot set tools" in refused.json()["error"]["message"]

    @pytest.mark.parametrize("foreign", ["Qwen 2.5"], indirect=True)
    def test_a_template_that_writes_tools_gets_them_and_the_calls_as_they_are(self, foreign: tuple[RunningServer, Llama]) -> None:
        running, llama = foreign
        call = {"name": "get_vitals", "arguments": {"pulse": 70}}
        sent = {"id": "call_1", "type": "function", "function": call | {"arguments": json.dumps(call["arguments"])}}
        history = [
            *CHAT["messages"],
            {"role": "assistant", "content": None, "tool_calls": [sent]},
            {"role": "tool", "tool_call_id": "call_1", "content": "taken"},
        ]
        seen = [
            *CHAT["messages"],
            {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": "taken"},
        ]
        answer = post(running, "/v1/chat/completions", messages=history, tools=TOOLS, max_tokens=200).json()
        assert answer["usage"]["prompt_tokens"] == len(llama.tokenizer.chat_prompt(seen, tools=TOOLS))


class TestRoutes:
    def test_names_of_other_servers(self, server: RunningServer) -> None:
        assert server.client.get("/health").status_code == 200
        (model,) = server.client.get("/v1/models").json()["data"]
        assert server.client.get("/models").json()["data"] == [model] and server.client.get("/models/medical-llm").json() == model
        assert model["root"] == "medical-llm" and model["created"] > 1_700_000_000
        for path in ("/completions", "/chat/completions"):
            assert text_of(post(server, path)) == text_of(post(server, f"/v1{path}"))

    def test_tokens_of_a_text_and_back(self, server: RunningServer, llama: Llama) -> None:
        ids = llama.tokenizer.prompt(QUESTION)
        for body in ({"prompt": QUESTION, "return_token_strs": False}, {"content": QUESTION, "add_special": True}):
            answer = server.client.post("/tokenize", json={"model": "medical-llm", **body}).json()
            assert answer == {"tokens": ids, "count": len(ids), "max_model_len": llama.model.config.max_seq_len}
        assert server.client.post("/tokenize", json={"content": QUESTION}).json()["tokens"] == llama.tokenizer.encode(QUESTION)
        chat = server.client.post("/tokenize", json={"messages": CHAT["messages"]}).json()
        assert chat["tokens"] == llama.tokenizer.chat_prompt(CHAT["messages"])
        bare = server.client.post("/tokenize", json={"content": QUESTION, "add_special_tokens": False}).json()["tokens"]
        back = server.client.post("/detokenize", json={"tokens": bare}).json()
        assert back == {"prompt": QUESTION, "content": QUESTION}
        for path, wrong in (("/tokenize", {}), ("/tokenize", {"prompt": "a", "content": "b"}), ("/detokenize", {"tokens": [10**7]})):
            refused = server.client.post(path, json=wrong)
            assert refused.status_code == 400 and error_of(refused)


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "fields", "param", "message"),
        [
            (
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "messages",
                "this model reads text only",
            ),
            (
                "/v1/completions",
                {"response_format": {"type": "json_object", "schema": {"const": "\ud800"}}},
                "response_format",
                "surrogate",
            ),
            ("/v1/completions", {"response_format": {"type": "json_object", "schema": {"required": 5}}}, None, "no valid JSON Schema"),
            ("/v1/completions", {"prompt": "\ud800 secret"}, "prompt", "half of a surrogate pair"),
            ("/v1/completions", {"logit_bias": {"secret": 1}}, "logit_bias", "pattern"),
            ("/v1/completions", {"stop": ["secret" * 100]}, "stop", "characters"),
            ("/v1/completions", {"response_format": {"type": "secret"}}, "response_format", "json_object"),
        ],
    )
    def test_they_name_the_field_and_neither_code_nor_the_request(
        self, server: RunningServer, path: str, fields: dict[str, Any], param: str | None, message: str
    ) -> None:
        body = json.dumps((CHAT if "chat" in path else COMPLETION) | fields)
        response = server.client.post(path, content=body, headers={"Content-Type": "application/json"})
        error = error_of(response)
        assert response.status_code == 400 and error["param"] == param and message in error["message"]
        for word in ("secret", "function-after", "list[", "_check", "Value error", " object at 0x", "constrained"):
            assert word not in response.text


def test_settings_of_the_checkpoint_are_the_defaults(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "model")
    path = checkpoint / "generation_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"temperature": 1.7, "top_k": 40, "repetition_penalty": 1.2}))
    llama = Llama.build(checkpoint)
    with run_server({"medical-llm": checkpoint}) as server:
        (expected,) = llama.text_completion(
            [QUESTION], max_gen_len=12, temperature=1.7, top_p=1.0, top_k=40, repetition_penalty=1.2, seed=5
        )
        assert text_of(post(server, temperature=..., seed=5)) == expected.text
        (plain,) = llama.text_completion([QUESTION], max_gen_len=12, temperature=0.0, repetition_penalty=1.0)
        assert text_of(post(server, temperature=0, repetition_penalty=1.0)) == plain.text
