"""The requests of OpenAI's two completion routes, strictly typed and bounded.

A field that would change the answer and is not supported is refused, or must have the value that changes nothing. ``null`` counts as
not given.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model.generation.sampling import Sampling
from model.tokenizer.tokenizer import Message

MAX_N, MAX_STOPS, MAX_STOP_LENGTH, MAX_MESSAGES, MAX_PROMPTS = 16, 16, 200, 128, 128
MIN_TEMPERATURE = 1e-5  # below it logits overflow; the request is answered greedily


def _check_surrogates(text: str) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a surrogate pair is no character")
    return text


Text = Annotated[str, AfterValidator(_check_surrogates)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(fail_fast=True, min_length=1)]
Zero = Annotated[float, Field(ge=0, le=0)]
Ignored = Any  # concerns OpenAI's service, not the answer


class Strict(BaseModel):
    """A model without conversions between types, unknown fields, NaN or infinity."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        """Drop fields that are ``null``, so that they get their defaults."""
        return {name: value for name, value in fields.items() if value is not None} if isinstance(fields, dict) else fields


class StreamOptions(Strict):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: Ignored = None


class GenerationRequest(Strict):
    """The fields that both kinds of requests have."""

    model: str = Field(max_length=200)
    max_tokens: int | None = Field(None, ge=0, description="at most so many new tokens")
    n: int = Field(1, ge=1, le=MAX_N)
    stop: Stop | Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=1 << 20, description="the k likeliest tokens; 0 and -1: all")
    min_p: float = Field(0.0, ge=0, le=1, description="at least this share of the likeliest token's probability")
    repetition_penalty: float = Field(1.0, ge=0.1, le=10)
    seed: int | None = Field(None, ge=-(1 << 62), lt=1 << 62)
    frequency_penalty: Zero = 0.0
    presence_penalty: Zero = 0.0
    logit_bias: dict[str, float] = Field(default_factory=dict, max_length=0)
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None

    @model_validator(mode="after")
    def check_stream_options(self) -> "GenerationRequest":
        """``ValueError`` for ``stream_options`` without ``stream``."""
        if self.stream_options and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, also if only one was given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def sampling(self) -> Sampling:
        """The sampling settings; a temperature near 0 becomes 0."""
        return Sampling(
            temperature=self.temperature if self.temperature >= MIN_TEMPERATURE else 0.0,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
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
        if len(self.prompts) * self.n > MAX_PROMPTS:
            raise ValueError(f"{len(self.prompts)} prompts with n of {self.n} are more than {MAX_PROMPTS} choices")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as texts or token ids, also if only one was given."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class ContentPart(Strict):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """A message of a chat. A client may send back an answer as it got it, with fields that are empty here."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[ContentPart], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    name: Ignored = None
    type: Literal["text", "message"] | None = None  # some versions of lm-evaluation-harness send it
    annotations: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    tool_calls: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)

    @property
    def message(self) -> Message:
        """The message for the chat template; ``developer`` is the newer name of ``system``."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ResponseFormat(Strict):
    """OpenAI's ``response_format``; only text is supported."""

    type: Literal["text"]


class ChatCompletionRequest(GenerationRequest):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto"] = "none"
    parallel_tool_calls: Ignored = None

    @model_validator(mode="after")
    def check_combinations(self) -> "ChatCompletionRequest":
        """``ValueError`` for fields that do not go together."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens is not None and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens say different numbers")
        if self.max_tokens == 0:
            raise ValueError("max_tokens must be at least 1")
        return self
