"""The server as OpenAI's own client and lm-evaluation-harness see it, alone and many at once."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.builders import write_tiny_checkpoint
from helpers.serving import CHAT, COMPLETION, QUESTION, RunningServer, error_of, run_server

from model.generation.completion import Llama
from model.generation.generate import prompt_log_probabilities
from serve.engine import CHUNK
from serve.security import Limits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[RunningServer]:
    with run_server({"medical-llm": tiny_checkpoint}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Path) -> Llama:
    return Llama.build(tiny_checkpoint)


class TestOpenAI:
    def test_a_completion_is_the_librarys_and_names_the_version(self, client: openai.OpenAI, llama: Llama) -> None:
        completion = client.completions.create(**COMPLETION)
        (expected,) = llama.text_completion([QUESTION], max_gen_len=12, temperature=0.0)
        assert completion.choices[0].text == expected.text and completion.choices[0].finish_reason == expected.finish_reason
        assert (
            completion.usage
            and completion.usage.prompt_tokens == len(llama.tokenizer.prompt(QUESTION))
            and completion.usage.completion_tokens == 12
        )
        assert (completion.model, completion.system_fingerprint, completion.object) == ("medical-llm", "unverified", "text_completion")
        raw = client.completions.with_raw_response.create(**COMPLETION)
        assert raw.headers["x-model-version"] == "unverified"

    def test_a_chat_goes_through_the_template(self, client: openai.OpenAI, llama: Llama) -> None:
        completion = client.chat.completions.create(**CHAT, seed=1)
        (expected,) = llama.chat_completion([CHAT["messages"]], max_gen_len=12, temperature=0.0)
        assert completion.choices[0].message.content == expected.text and completion.choices[0].message.role == "assistant"
        parts: Any = [{"role": "user", "content": [{"type": "text", "text": QUESTION[:5]}, {"type": "text", "text": QUESTION[5:]}]}]
        assert client.chat.completions.create(**(CHAT | {"messages": parts})).choices[0].message.content == expected.text
        again = [*CHAT["messages"], completion.choices[0].message.model_dump(), CHAT["messages"][0]]
        assert client.chat.completions.create(**(CHAT | {"messages": again})).choices[0].finish_reason

    def test_a_stream_says_how_far_its_prompt_is_read_where_it_is_asked_to(self, server: RunningServer, llama: Llama) -> None:
        def events(**fields: Any) -> list[dict[str, Any]]:
            body = COMPLETION | {"prompt": "Is it a fever? " * 20, "stream": True} | fields
            with server.client.stream("POST", "/v1/completions", json=body) as answer:
                return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]

        asked = events(stream_options={"include_progress": True, "include_usage": True})
        count = len(llama.tokenizer.prompt("Is it a fever? " * 20))
        states = [event["progress"] for event in asked if "progress" in event]
        assert states == [{"index": 0, "queue": 0, "prompt_tokens": count, "read_tokens": CHUNK * n} for n in range(len(states))]
        assert len(states) == -(-count // CHUNK) and all(event["choices"] == [] for event in asked[: len(states)])
        plain = events()
        assert [c["choices"] for c in plain] == [c["choices"] for c in asked if c["choices"]] and "progress" not in json.dumps(plain)
        refusal = server.client.post("/v1/completions", json=COMPLETION | {"stream_options": {"include_progress": True}})
        assert refusal.status_code == 400 and "only for stream" in error_of(refusal)["message"]

    def test_streams_have_the_text_of_whole_answers(self, client: openai.OpenAI) -> None:
        whole, chat = client.completions.create(**COMPLETION), client.chat.completions.create(**CHAT)
        chunks = list(client.completions.create(**COMPLETION, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [whole.choices[0].finish_reason]
        chat_chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
        assert chat_chunks[0].choices[0].delta.role == "assistant" and chat_chunks[-1].choices == []
        assert "".join(c.choices[0].delta.content or "" for c in chat_chunks[:-1]) == chat.choices[0].message.content
        assert chat_chunks[-1].usage == chat.usage or (
            chat_chunks[-1].usage and chat.usage and chat_chunks[-1].usage.total_tokens == chat.usage.total_tokens
        )

    def test_a_stream_is_events_and_ends_with_done(self, server: RunningServer) -> None:
        answer = server.client.post("/v1/completions", json=COMPLETION | {"stream": True})
        events = answer.text.split("\n\n")
        assert answer.headers["content-type"].startswith("text/event-stream") and events[-2:] == ["data: [DONE]", ""]
        assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])

    def test_n_choices_have_their_seeds_and_come_again(self, client: openai.OpenAI) -> None:
        options: Any = COMPLETION | {"n": 4, "temperature": 1.0, "seed": 7}
        texts = [choice.text for choice in client.completions.create(**options).choices]
        assert texts == [choice.text for choice in client.completions.create(**options).choices] and len(set(texts)) == 4
        third = client.completions.create(**(options | {"n": 1, "seed": 9})).choices[0].text
        assert texts[2] == third
        streamed = ["", "", "", ""]
        for chunk in client.completions.create(**options, stream=True):
            streamed[chunk.choices[0].index] += chunk.choices[0].text
        assert streamed == texts

    def test_several_prompts_also_as_tokens(self, client: openai.OpenAI, llama: Llama) -> None:
        alone = [client.completions.create(**(COMPLETION | {"prompt": p})).choices[0].text for p in (QUESTION, "Condition 4")]
        ids = [llama.tokenizer.prompt(p) for p in (QUESTION, "Condition 4")]
        for prompt in ([QUESTION, "Condition 4"], ids):
            completion = client.completions.create(**(COMPLETION | {"prompt": prompt}))
            assert [(choice.index, choice.text) for choice in completion.choices] == list(enumerate(alone))
        assert client.completions.create(**(COMPLETION | {"prompt": ids[0]})).choices[0].text == alone[0]

    def test_stop_strings_and_extensions(self, client: openai.OpenAI) -> None:
        whole = client.completions.create(**COMPLETION).choices[0].text
        for stop in (whole[4:6], [whole[4:6], "never said"]):
            choice = client.completions.create(**COMPLETION, stop=stop).choices[0]
            assert (choice.text, choice.finish_reason) == (whole[: whole.index(whole[4:6])], "stop")
        one = client.completions.create(
            **(COMPLETION | {"temperature": 2.0}), extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0}
        )
        assert one.choices[0].text == whole
        penalized = client.completions.create(**(COMPLETION | {"max_tokens": 60}), extra_body={"repetition_penalty": 5.0})
        assert penalized.choices[0].text != client.completions.create(**(COMPLETION | {"max_tokens": 60})).choices[0].text

    def test_log_probabilities_in_both_dialects(self, client: openai.OpenAI, llama: Llama) -> None:
        (expected,) = llama.text_completion([QUESTION], max_gen_len=12, temperature=0.0, log_probabilities=3)
        scores = client.completions.create(**COMPLETION, logprobs=3).choices[0].logprobs
        assert scores and scores.token_logprobs and scores.top_logprobs and scores.text_offset and expected.log_probabilities
        values = [score.logprob for score in expected.log_probabilities if score]
        assert scores.token_logprobs == pytest.approx(values, abs=1e-4)
        assert all(len(top) == 3 and max(top.values()) == pytest.approx(v) for top, v in zip(scores.top_logprobs, values, strict=True))
        assert scores.text_offset[0] == 0 and scores.text_offset == sorted(scores.text_offset)
        accents = COMPLETION | {"prompt": "Fi\u00e8vre \U0001fac1 then cough"}
        accented = client.completions.create(**accents, logprobs=0, echo=True).choices[0]
        echoed = accented.logprobs
        assert echoed and echoed.tokens and echoed.text_offset and any(name.startswith("bytes:") for name in echoed.tokens)
        for name, at in zip(echoed.tokens, echoed.text_offset, strict=True):
            assert name.startswith("bytes:") or accented.text[at:].startswith(name)
        chat = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2).choices[0]
        assert chat.logprobs and chat.logprobs.content and len(chat.logprobs.content) == 12
        raw = b"".join(bytes(entry.bytes or []) for entry in chat.logprobs.content)
        assert raw.decode(errors="replace") == chat.message.content
        assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in chat.logprobs.content)
        streamed = [c.choices[0].logprobs for c in client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2, stream=True)]
        assert [e.token for part in streamed if part for e in part.content or []] == [e.token for e in chat.logprobs.content]

    def test_echo_scores_a_text_as_harnesses_ask(self, client: openai.OpenAI, llama: Llama) -> None:
        ids = llama.tokenizer.encode(QUESTION)
        completion = client.completions.create(
            model="medical-llm", prompt=[ids], max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234
        )
        logprobs = completion.choices[0].logprobs
        assert logprobs and logprobs.token_logprobs and logprobs.tokens and len(logprobs.tokens) == len(ids) + 1
        first: float | None = logprobs.token_logprobs[0]
        assert first is None and all(value <= 0 for value in logprobs.token_logprobs[1:])
        assert completion.choices[0].text.startswith(QUESTION)
        nothing = client.completions.create(model="medical-llm", prompt=QUESTION, max_tokens=0, echo=True)
        assert nothing.choices[0].text == QUESTION

    def test_the_evaluation_harness_scores_and_asks_through_it(self, server: RunningServer, llama: Llama, tiny_checkpoint: Path) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        url, tokenizer = f"{server.url}/v1/completions", str(tiny_checkpoint)
        harness = LocalCompletionsAPI(model="medical-llm", base_url=url, tokenizer=tokenizer, max_length=256, batch_size=4)
        texts = [(f"What are the signs of condition {n}?", f" Condition {n} shows fever.") for n in range(6)]
        scored = harness.loglikelihood([Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(texts)])
        for (question, answer), (value, _) in zip(texts, scored, strict=True):
            before, ids = llama.tokenizer.encode(question), llama.tokenizer.encode(answer)
            scores = prompt_log_probabilities(llama.model, before + ids, 1)[len(before) :]
            assert value == pytest.approx(sum(score.logprob for score in scores if score), abs=1e-3)
        (text,) = harness.generate_until([Instance("generate_until", {}, (QUESTION, {"until": ["\n\n"], "max_gen_toks": 12}), 0)])
        assert text == llama.text_completion([QUESTION], max_gen_len=12, temperature=0.0)[0].text

    def test_errors_are_its_exceptions(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve("../../etc/passwd")
        assert missing.value.code == "model_not_found" and missing.value.param == "model"
        with pytest.raises(openai.BadRequestError) as bad:
            client.completions.create(**(COMPLETION | {"temperature": 9}))
        assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError, match="leaves no room") as long:
            client.completions.create(**(COMPLETION | {"prompt": "signs " * 1000}))
        assert long.value.code == "context_length_exceeded"

    def test_models_are_listed(self, client: openai.OpenAI) -> None:
        (only,) = client.models.list().data
        assert only.id == "medical-llm" and client.models.retrieve("medical-llm").id == "medical-llm"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(tiny_checkpoint: Path, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_server({"medical-llm": tiny_checkpoint}, slots=2) as server:
        engine = server.rollouts["medical-llm"].current.engine
        step, steps = engine._batch.step, []

        def slowly(rows: Any) -> None:
            time.sleep(0.1)
            steps.append(time.monotonic())
            step(rows)

        monkeypatch.setattr(engine._batch, "step", slowly)
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps(COMPLETION | {"max_tokens": 200, "n": 2, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as leaving:
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            leaving.sendall(head.encode() + body)
            while len(steps) < 5:
                time.sleep(0.005)
        left = time.monotonic()
        assert server.idle() and len([at for at in steps if at > left]) <= 2 + 1  # one may have been under way
        assert server.client.post("/v1/completions", json=COMPLETION).status_code == 200


def test_too_many_requests_get_429_with_retry_after(tiny_checkpoint: Path) -> None:
    with run_server({"medical-llm": tiny_checkpoint}, slots=1, max_waiting=3) as server:
        with server.client.stream("POST", "/v1/completions", json=COMPLETION | {"max_tokens": 230, "n": 4, "stream": True}):
            answer = server.client.post("/v1/completions", json=COMPLETION | {"n": 4})
            assert answer.status_code == 429 and answer.headers["retry-after"] and error_of(answer)["type"] == "rate_limit_error"
        assert server.idle() and server.client.post("/v1/completions", json=COMPLETION | {"n": 4}).status_code == 200
        never = server.client.post("/v1/completions", json=COMPLETION | {"n": 8})
        assert never.status_code == 400 and "more than 4" in error_of(never)["message"]


@pytest.mark.slow
def test_the_time_of_a_request_is_limited(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_server({"medical-llm": tiny_checkpoint}, limits=Limits(answer_seconds=0.3)) as server:
        engine = server.rollouts["medical-llm"].current.engine
        step = engine._batch.step

        def slowly(rows: Any) -> None:
            time.sleep(0.05)
            step(rows)

        monkeypatch.setattr(engine._batch, "step", slowly)
        completion = server.client.post("/v1/completions", json=COMPLETION | {"max_tokens": 200}).json()
        assert completion["choices"][0]["finish_reason"] == "length" and 1 <= completion["usage"]["completion_tokens"] < 20
        assert server.idle()


@pytest.mark.slow
def test_an_engine_that_fails_is_a_server_error_without_words_of_its_own(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with run_server({"medical-llm": tiny_checkpoint}) as server:
        engine = server.rollouts["medical-llm"].current.engine

        def fails(rows: Any) -> None:
            raise RuntimeError(f"secret {rows[0].tokens}")

        with monkeypatch.context() as broken:
            broken.setattr(engine._batch, "step", fails)
            answer = server.client.post("/v1/completions", json=COMPLETION)
            assert answer.status_code == 500 and "secret" not in json.dumps(error_of(answer))
            streamed = server.client.post("/v1/completions", json=COMPLETION | {"stream": True}).text
            assert '"error"' in streamed and streamed.endswith("data: [DONE]\n\n")
        assert "RuntimeError" in caplog.text and "secret [" not in caplog.text
        assert server.client.post("/v1/completions", json=COMPLETION).status_code == 200


def test_a_drain_lets_streams_end_and_refuses_new_requests(server: RunningServer) -> None:
    with server.client.stream("POST", "/v1/completions", json=COMPLETION | {"max_tokens": 150, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.middleware.draining = True
        try:
            refused = server.client.post("/v1/completions", json=COMPLETION)
            assert refused.status_code == 503 and error_of(refused)["code"] == "unavailable"
            assert server.client.get("/readyz").status_code == 503 and server.client.get("/healthz").status_code == 200
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        finally:
            server.middleware.draining = False


def test_the_openapi_description_names_every_route(server: RunningServer) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    assert {"/v1/completions", "/v1/chat/completions", "/v1/models", "/passport", "/healthz", "/readyz"} <= set(paths)


@pytest.mark.slow
def test_two_models_answer_side_by_side(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = write_tiny_checkpoint(tmp_path / "base", seed=1)
    with run_server({"medical-llm": tiny_checkpoint, "base": other}) as server:
        texts: dict[str, str] = {}

        def ask(name: str) -> None:
            texts[name] = server.client.post("/v1/completions", json=COMPLETION | {"model": name}).json()["choices"][0]["text"]

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("medical-llm", "base")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts["medical-llm"] != texts["base"]
        assert [entry["id"] for entry in server.client.get("/v1/models").json()["data"]] == ["medical-llm", "base"]
        info = server.client.get("/passport", params={"model": "base"}).json()
        assert info["model"] == "base" and not info["verified"] and info["metrics"] == [] and info["corpus"] == []
