"""The requests of OpenAI's two completion routes, strictly typed and bounded.

``null`` counts as not given, and a number may be a string. compatibility.py decides about unknown fields.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from model.generation.completion import users_text
from model.generation.sampling import Sampling
from model.tokenizer.tokenizer import Message, Tokenizer
from serve.response_format import ResponseFormat
from serve.strict import WHOLE_CHARACTERS, Ignored, Lenient, Strict, Text
from serve.tools import MAX_TOOLS, PastCall, Tool, ToolChoice, call_text, introduced, offered, result_text

MAX_N, MAX_STOPS, MAX_STOP_LENGTH, MAX_MESSAGES, MAX_PROMPTS = 16, 16, 200, 128, 128
MIN_TEMPERATURE = 1e-5  # below it logits overflow; the request is answered greedily
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH), WHOLE_CHARACTERS]
DEFAULTS: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # OpenAI's
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
MAX_BIASES = 1024
TEMPLATE_VALUES = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})  # that every chat template gets
_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?")


class StreamOptions(Strict):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_progress: bool = Field(False, description="our own: chunks without choices that say how far the prompt is read")
    include_obfuscation: Ignored = None
    continuous_usage_stats: Literal[False] = False


class Body(Strict):
    """What the bodies of all requests for answers have; compatibility.py decides about unknown fields."""

    model_config = ConfigDict(extra="allow")

    model: str = Field("", max_length=200)
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None

    @model_validator(mode="before")
    @classmethod
    def with_numbers(cls, fields: Any) -> Any:
        """Numbers that some clients send as strings, and whole ones with a point."""
        return (
            {name: _number(value) if name in _NUMERIC else value for name, value in fields.items()} if isinstance(fields, dict) else fields
        )


class GenerationRequest(Body):
    """The fields that both kinds of completion requests have."""

    max_tokens: int | None = Field(None, ge=-1, description="at most so many new tokens; -1: no limit")
    n: int = Field(1, ge=1, le=MAX_N)
    stop: Stop | Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)] = Field(default_factory=list)
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=-1, le=1 << 20, description="the k likeliest tokens; 0 and -1: all")
    min_p: float | None = Field(None, ge=0, le=1, description="at least this share of the likeliest token's probability")
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    seed: int | None = Field(None, ge=-(1 << 62), lt=1 << 62)
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias] = Field(default_factory=dict, max_length=MAX_BIASES)
    min_tokens: int = Field(0, ge=0, description="before an answer may end")
    ignore_eos: bool = Field(False, description="end no answer before max_tokens")
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_STOPS)] = Field(default_factory=list)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def check_generation(self) -> "GenerationRequest":
        """``ValueError`` for fields that do not go together."""
        if self.stream_options and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        if self.max_tokens is not None and 0 <= self.max_tokens < self.min_tokens:
            raise ValueError("min_tokens is more than max_tokens")
        if self.schema_of_answers is not None and (self.min_tokens or self.ignore_eos):
            raise ValueError("an answer in a form ends with it: neither min_tokens nor ignore_eos goes with response_format")
        return self

    @property
    def schema_of_answers(self) -> Mapping[str, Any] | None:
        """The JSON Schema of ``response_format``, if there is one."""
        return self.response_format.schema_of_answers if self.response_format else None

    @property
    def grounding(self) -> str | None:
        """The text in which the values of answers must stand; ``None``: they may be any."""
        return self.source if self.response_format and self.response_format.grounded else None

    @property
    def source(self) -> str:
        """What the user says."""
        raise NotImplementedError

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, also if only one was given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def sampling(self, defaults: Mapping[str, float]) -> Sampling:
        """The sampling settings, by ``defaults`` where the request says nothing; a temperature near 0 becomes 0."""
        given = {name: value for name in DEFAULTS if (value := getattr(self, name)) is not None}
        settings = {**DEFAULTS, **defaults, **given}
        return Sampling(
            temperature=settings["temperature"] if settings["temperature"] >= MIN_TEMPERATURE else 0.0,
            top_p=settings["top_p"],
            top_k=max(int(settings["top_k"]), 0),
            min_p=settings["min_p"],
            repetition_penalty=settings["repetition_penalty"],
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            seed=self.seed,
        )


class CompletionRequest(GenerationRequest):
    """The body of ``POST /v1/completions``."""

    prompt: (
        Text
        | Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
        | Tokens
        | Annotated[list[Tokens], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
    )
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(None, ge=1, description="not more than n")
    suffix: str = Field("", max_length=0)

    @model_validator(mode="after")
    def check_combinations(self) -> "CompletionRequest":
        """``ValueError`` for fields that do not go together."""
        if self.best_of not in (None, self.n):
            raise ValueError("best_of other than n is not supported")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens may be 0 with echo: true alone")
        if self.grounding is not None and not (len(self.prompts) == 1 and isinstance(self.prompts[0], str)):
            raise ValueError("response_format.grounded takes one prompt, as text")
        if len(self.prompts) * self.n > MAX_PROMPTS:
            raise ValueError(f"{len(self.prompts)} prompts with n of {self.n} are more than {MAX_PROMPTS} choices")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as texts or token ids, also if only one was given."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def source(self) -> str:
        """The only prompt, where it is a text."""
        return self.prompts[0] if isinstance(self.prompts[0], str) else ""


class ContentPart(Lenient):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _check_type(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, Mapping) else "text"
        if kind in ("image_url", "input_image", "input_audio", "file"):
            raise ValueError(f"a part of type {kind} cannot be read: this model reads text only, no images, sound or files")
        return value


class ChatMessage(Lenient):
    """A message of a chat. A client may send back an answer as it got it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Field(fail_fast=True, max_length=MAX_MESSAGES)] = ""
    tool_calls: Annotated[list[PastCall], Field(fail_fast=True, max_length=MAX_TOOLS)] = Field(default_factory=list)
    tool_call_id: Ignored = None  # the order says which call a result belongs to

    @model_validator(mode="after")
    def check_calls(self) -> "ChatMessage":
        """``ValueError`` for calls in a message that is no answer, and for a message without content."""
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only messages of the role assistant have tool_calls")
        if "content" not in self.model_fields_set and self.role != "assistant":
            raise ValueError("content is missing")
        return self

    @property
    def own_fields(self) -> dict[str, Any]:
        """The message as templates of transformers expect it, calls with their arguments as objects."""
        fields: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": self.text}
        if self.tool_calls:
            functions = (call.function for call in self.tool_calls)
            calls = [{"name": function.name, "arguments": json.loads(function.arguments)} for function in functions]
            fields["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


def template_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Messages for the chat template, calls and results as text. ``developer`` is the newer name of ``system``."""
    rendered: list[Message] = []
    for is_result, group in groupby(messages, key=lambda message: message.role == "tool"):
        if is_result:
            rendered.append({"role": "user", "content": result_text([message.text for message in group])})
            continue
        for message in group:
            role = "system" if message.role == "developer" else message.role
            rendered.append({"role": role, "content": call_text(message.text, message.tool_calls)})
    return rendered


class ChatCompletionRequest(GenerationRequest):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    add_special_tokens: Ignored = None  # the template writes them
    add_generation_prompt: bool = True
    continue_final_message: bool = Field(False, description="the answer goes on with the last message")
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def check_combinations(self) -> "ChatCompletionRequest":
        """``ValueError`` for fields that do not go together."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens is not None and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens say different numbers")
        if self.max_tokens == 0:
            raise ValueError("max_tokens must be at least 1")
        if len({tool.function.name for tool in self.tools}) < len(self.tools):
            raise ValueError("two tools have one name")
        if given := TEMPLATE_VALUES & self.chat_template_kwargs.keys():
            raise ValueError(f"chat_template_kwargs cannot set {', '.join(sorted(given))}, which other fields or the model decide")
        if self.offered_tools and (self.min_tokens or self.ignore_eos):
            raise ValueError("tools do not go together with min_tokens or ignore_eos; tool_choice: none switches them off")
        if self.offered_tools and self.grounding is not None:
            raise ValueError("tools do not go together with response_format.grounded; tool_choice: none switches them off")
        return self

    @property
    def source(self) -> str:
        """The user's messages."""
        return users_text([{"role": message.role, "content": message.text} for message in self.messages])

    @property
    def offered_tools(self) -> list[Tool]:
        """The tools that the answer may call."""
        return offered(self.tools, self.tool_choice)

    @property
    def template_messages(self) -> list[Message]:
        """The messages for the chat template, with the tools."""
        messages, offered_tools = template_messages(self.messages), self.offered_tools
        return introduced(messages, offered_tools) if offered_tools else messages


class TokenizeRequest(Lenient):
    """The body of ``POST /tokenize``: a text as ``prompt`` or ``content``, or a chat as ``messages``."""

    model: str = Field("", max_length=200)
    prompt: Text | None = None
    content: Text | None = None
    messages: Annotated[list[ChatMessage], Field(fail_fast=True, max_length=MAX_MESSAGES)] = Field(default_factory=list)
    add_special_tokens: bool | None = Field(None, description="with the tokens that a text begins with; by default of a prompt alone")
    add_special: bool = False  # llama.cpp's name of it
    add_generation_prompt: bool = True

    @model_validator(mode="after")
    def check_one(self) -> "TokenizeRequest":
        """``ValueError`` unless there is one thing to tokenize."""
        if sum((self.prompt is not None, self.content is not None, bool(self.messages))) != 1:
            raise ValueError("give one of prompt, content and messages")
        return self

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """The token ids."""
        if self.messages:
            return tokenizer.chat_prompt(template_messages(self.messages), add_generation_prompt=self.add_generation_prompt)
        text = self.prompt if self.prompt is not None else self.content or ""
        begins = (self.prompt is not None or self.add_special) if self.add_special_tokens is None else self.add_special_tokens
        return tokenizer.prompt(text) if begins else tokenizer.encode(text)


class DetokenizeRequest(Lenient):
    """The body of ``POST /detokenize``."""

    model: str = Field("", max_length=200)
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


_NUMERIC = frozenset(
    "max_tokens max_completion_tokens max_output_tokens min_tokens n best_of seed temperature top_p top_k min_p repetition_penalty "
    "frequency_penalty presence_penalty logprobs top_logprobs".split()
)


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value) if value.removeprefix("-").isdecimal() else float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
