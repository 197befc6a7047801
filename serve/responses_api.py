"""OpenAI's Responses API, text alone: its requests as those of a chat, and its answers, whole and as events.

Nothing is stored, so that no request can go on from an earlier one; clients send the conversation, as with chat completions.
"""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from model.tokenizer.tokenizer import Tokenizer
from serve.responses import ChatResponseBuilder
from serve.schema import MAX_MESSAGES, Body, ChatCompletionRequest
from serve.strict import Ignored, JsonSchemaField, Lenient, Strict, Text
from serve.text import CompletionStream, StreamChunk

# Fields of chats that OpenAI's Responses API does not have, and this one takes.
SAMPLING = frozenset(
    "top_k min_p repetition_penalty frequency_penalty presence_penalty logit_bias seed stop stop_token_ids min_tokens ignore_eos".split()
)


class InputPart(Lenient):
    """A part of a message; only text is supported."""

    type: Literal["input_text", "output_text"]
    text: Text


class InputMessage(Lenient):
    """A message of ``input``. A client may send back an item of an answer as it got it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[InputPart], Field(fail_fast=True, max_length=MAX_MESSAGES)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Strict):
    """The ``format`` of ``text``: a ``response_format`` without a level."""

    type: Literal["text", "json_object", "json_schema"]
    name: Ignored = None
    description: Ignored = None
    strict: bool = False
    json_schema: JsonSchemaField | None = Field(None, alias="schema")


class TextOptions(Lenient):
    """OpenAI's ``text``."""

    format: TextFormat | None = None


class ResponsesRequest(Body):
    """The body of ``POST /v1/responses``."""

    input: Text | Annotated[list[InputMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    text: TextOptions | None = None
    truncation: Literal["disabled", "auto"] = "disabled"
    background: Literal[False] = False
    tools: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto"] = "none"
    previous_response_id: None = None
    include: Ignored = None
    reasoning: Ignored = None
    parallel_tool_calls: Ignored = None
    stream_options: Ignored = None
    top_logprobs: Ignored = None  # of what include asks for, which is not given

    @model_validator(mode="before")
    @classmethod
    def without_history(cls, fields: Any) -> Any:
        """``ValueError`` for a request that goes on from another."""
        if isinstance(fields, dict) and fields.get("previous_response_id"):
            raise ValueError("previous_response_id is not supported, as nothing is stored; send the conversation as input")
        return fields

    @property
    def chat(self) -> ChatCompletionRequest:
        """The same as a chat."""
        messages = [{"role": "system", "content": self.instructions}] if self.instructions else []
        listed = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        messages += [{"role": message.role, "content": message.text} for message in listed]
        text_format = self.text.format if self.text else None
        response_format: dict[str, Any] | None = {"type": text_format.type} if text_format else None
        if response_format and text_format and text_format.json_schema is not None:
            response_format["json_schema"] = {"schema": text_format.json_schema}
        fields: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": self.max_output_tokens, "stream": self.stream}
        fields |= {"temperature": self.temperature, "top_p": self.top_p, "response_format": response_format}
        fields |= {name: value for name, value in (self.model_extra or {}).items() if name in SAMPLING}
        return ChatCompletionRequest.model_validate(fields)

    @property
    def unknown(self) -> dict[str, Any]:
        """Fields that neither this API has nor is taken from chats."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in SAMPLING}


class ResponsesBuilder(ChatResponseBuilder):
    """Builds responses of ``/v1/responses``, of one message each."""

    id_prefix = "resp"

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, *, with_logprobs: bool):
        super().__init__(model, fingerprint, tokenizer, with_logprobs=with_logprobs)
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._text = ""
        self._finish: str | None = None
        self._number = 0

    def build(self, chunks_by_choice: Sequence[Sequence[StreamChunk]], stream: CompletionStream) -> dict[str, Any]:
        """The whole response."""
        (chunks,) = chunks_by_choice
        self._text, self._finish = "".join(chunk.text for chunk in chunks), chunks[-1].finish
        return self._response(stream)

    def initial_chunks(self, choices: int) -> list[dict[str, Any]]:  # noqa: ARG002
        """The events before all text."""
        return [
            self._event("response.created", response=self._response(None)),
            self._event("response.in_progress", response=self._response(None)),
            self._event("response.output_item.added", output_index=0, item=self._item("in_progress", [])),
            self._of_part("response.content_part.added", part=self._part("")),
        ]

    def events(self, chunk: StreamChunk) -> list[dict[str, Any]]:
        """The event of new text, if there is any."""
        self._text += chunk.text
        self._finish = chunk.finish
        return [self._of_part("response.output_text.delta", delta=chunk.text, logprobs=[])] if chunk.text else []

    def final_events(self, stream: CompletionStream, *, include_usage: bool) -> list[dict[str, Any]]:  # noqa: ARG002
        """The events after all text; the last one has the whole response."""
        whole = self._response(stream)
        return [
            self._of_part("response.output_text.done", text=self._text, logprobs=[]),
            self._of_part("response.content_part.done", part=self._part(self._text)),
            self._event("response.output_item.done", output_index=0, item=whole["output"][0]),
            self._event(f"response.{whole['status']}", response=whole),
        ]

    def _response(self, stream: CompletionStream | None) -> dict[str, Any]:
        """The response so far; with ``stream``, at its end."""
        status = "in_progress" if not stream else "incomplete" if self._finish == "length" else "completed"
        return {
            "id": self._shared["id"],
            "object": "response",
            "created_at": self._shared["created"],
            "model": self._shared["model"],
            "status": status,
            "output": [self._item(status, [self._part(self._text)])] if stream else [],
            "usage": self._usage(stream) if stream else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "error": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "store": False,
        }

    def _usage(self, stream: CompletionStream) -> dict[str, Any]:
        cached = {"cached_tokens": min(stream.cached_tokens, stream.prompt_tokens)}
        counts = {"input_tokens": stream.prompt_tokens, "input_tokens_details": cached, "output_tokens": stream.completion_tokens}
        return counts | {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": stream.prompt_tokens + stream.completion_tokens}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _of_part(self, type_: str, **fields: Any) -> dict[str, Any]:
        return self._event(type_, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _event(self, type_: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": type_, "sequence_number": self._number - 1} | fields
