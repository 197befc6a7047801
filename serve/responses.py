"""OpenAI's response shapes, whole and in chunks, of completions and of chat completions."""

import time
import uuid
from abc import ABC, abstractmethod
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Sequence
from typing import Any

from model.generation.grammar import CALL
from model.generation.sampling import LogProbability
from model.tokenizer.tokenizer import Tokenizer
from serve.engine import Progress
from serve.text import CompletionStream, StreamChunk
from serve.tools import parse_calls

MIN_LOGPROB = -9999.0  # OpenAI's value for the logarithm of 0, which JSON does not have
ScoredTokens = Sequence[tuple[int, LogProbability | None]]


class ResponseBuilder(ABC):
    """Builds one response; its choices share id, time, model and fingerprint.

    ``with_logprobs``: whether the request asks for log-probabilities.
    """

    id_prefix: str
    object_name: str
    chunk_object_name: str

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, *, with_logprobs: bool):
        self._shared = {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._tokenizer, self._with_logprobs = tokenizer, with_logprobs

    @abstractmethod
    def _choice(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, choice: int, tokens: ScoredTokens) -> dict[str, Any]: ...

    def initial_chunks(self, choices: int) -> list[dict[str, Any]]:  # noqa: ARG002
        """The chunks that come before all text, for ``choices`` choices."""
        return []

    def build(self, chunks_by_choice: Sequence[Sequence[StreamChunk]], stream: CompletionStream) -> dict[str, Any]:
        """The whole response, from all chunks of every choice; ``stream`` gives the usage."""
        choices = []
        for choice, chunks in enumerate(chunks_by_choice):
            tokens = [token for chunk in chunks for token in chunk.tokens]
            text = "".join(chunk.text for chunk in chunks)
            choices.append(self._common(choice, tokens, chunks[-1].finish) | self._choice(text))
        return self._shared | {"object": self.object_name, "choices": choices, "usage": usage(stream)}

    def build_chunk(self, chunk: StreamChunk) -> dict[str, Any] | None:
        """The chunk as a streamed event; ``None`` if it has nothing to send."""
        if not (chunk.text or chunk.finish or (self._with_logprobs and chunk.tokens)):
            return None
        return self._chunk([self._delta(chunk.text) | self._common(chunk.choice, chunk.tokens, chunk.finish)])

    def events(self, chunk: StreamChunk) -> list[dict[str, Any]]:
        """The streamed events of a chunk."""
        built = self.build_chunk(chunk)
        return [built] if built else []

    def progress_chunk(self, choice: int, progress: Progress, stream: CompletionStream) -> dict[str, Any]:
        """A chunk without choices: how far the prompt of one choice is read."""
        tokens = len(stream.prompts[choice // stream.options.n])
        state = {"index": choice, "queue": progress.queue, "prompt_tokens": tokens, "read_tokens": progress.read_tokens}
        return self._chunk([]) | {"progress": state}

    def final_events(self, stream: CompletionStream, *, include_usage: bool) -> list[dict[str, Any]]:
        """The last events of a stream: with ``include_usage`` one without choices, with the usage."""
        return [self._chunk([]) | {"usage": usage(stream)}] if include_usage else []

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._shared | {"object": self.chunk_object_name, "choices": choices}

    def _common(self, choice: int, tokens: ScoredTokens, finish: str | None) -> dict[str, Any]:
        """The fields that choices of both kinds have."""
        return {"index": choice, "logprobs": self._logprobs(choice, tokens) if self._with_logprobs else None, "finish_reason": finish}

    def _token_name(self, token: int) -> str:
        """OpenAI's name of a token: its text, or its bytes if they are not whole characters."""
        raw = self._tokenizer.decode_bytes([token])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class CompletionResponseBuilder(ResponseBuilder):
    """Builds responses of ``/v1/completions``. Log-probabilities are parallel lists with offsets into the text."""

    id_prefix = "cmpl"
    object_name = chunk_object_name = "text_completion"

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, *, with_logprobs: bool):
        super().__init__(model, fingerprint, tokenizer, with_logprobs=with_logprobs)
        # By choice: the characters so far, and a decoder that may hold the first bytes of the next one.
        self._offsets: dict[int, tuple[int, IncrementalDecoder]] = {}

    def _choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    _delta = _choice

    def _logprobs(self, choice: int, tokens: ScoredTokens) -> dict[str, Any]:
        return {
            "tokens": [self._token_name(token) for token, _ in tokens],
            "token_logprobs": [finite(score.logprob) if score else None for _, score in tokens],
            "top_logprobs": [self._top(token, score) if score else None for token, score in tokens],
            "text_offset": self._text_offsets(choice, tokens),
        }

    def _text_offsets(self, choice: int, tokens: ScoredTokens) -> list[int]:
        """Where each token begins in the choice's text, in characters. An echo does not show the tokenizer's prefix."""
        prefix = self._tokenizer.prefix if choice not in self._offsets else ()
        offset, decoder = self._offsets.get(choice) or (0, getincrementaldecoder("utf-8")("replace"))
        offsets = []
        for index, (token, _) in enumerate(tokens):
            offsets.append(offset)
            if (token,) != prefix[index : index + 1]:
                offset += len(decoder.decode(self._tokenizer.decode_bytes([token])))
        self._offsets[choice] = (offset, decoder)
        return offsets

    def _top(self, token: int, score: LogProbability) -> dict[str, float]:
        return {self._token_name(other): finite(value) for other, value in (*score.top, (token, score.logprob))}


class ChatResponseBuilder(ResponseBuilder):
    """Builds responses of ``/v1/chat/completions``. Log-probabilities are one entry per token, with its bytes."""

    id_prefix = "chatcmpl"
    object_name, chunk_object_name = "chat.completion", "chat.completion.chunk"

    def initial_chunks(self, choices: int) -> list[dict[str, Any]]:
        """One chunk per choice with the role, as OpenAI sends it."""
        first = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [self._chunk([{"index": choice, **first}]) for choice in range(choices)]

    def _choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _logprobs(self, choice: int, tokens: ScoredTokens) -> dict[str, Any]:  # noqa: ARG002
        content = [
            {**self._entry(token, score.logprob), "top_logprobs": [self._entry(*other) for other in score.top]}
            for token, score in tokens
            if score
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self._token_name(token), "logprob": finite(value), "bytes": list(self._tokenizer.decode_bytes([token]))}


class ToolResponseBuilder(ChatResponseBuilder):
    """Builds responses of chats with tools: an answer that calls some has ``tool_calls`` instead of a content.

    A stream sends text as it comes, and calls, with whole arguments, at the end of the answer.
    """

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, *, with_logprobs: bool):
        super().__init__(model, fingerprint, tokenizer, with_logprobs=with_logprobs)
        self._undecided: dict[int, list[StreamChunk]] = {}  # by choice, the chunks of what may be calls
        self._is_text: set[int] = set()

    def build_chunk(self, chunk: StreamChunk) -> dict[str, Any] | None:
        """The chunk as a streamed event; ``None`` while its answer may be one of calls."""
        if chunk.choice in self._is_text:
            return super().build_chunk(chunk)
        chunks = self._undecided.setdefault(chunk.choice, [])
        chunks.append(chunk)
        text = "".join(part.text for part in chunks)
        if not chunk.finish and (text.startswith(CALL) or CALL.startswith(text)):
            return None
        tokens = tuple(token for part in chunks for token in part.tokens)
        if chunk.finish and (calls := parse_calls(text)):
            delta = {"tool_calls": [{"index": index} | call for index, call in enumerate(calls)]}
            return self._chunk([{"delta": delta} | self._common(chunk.choice, tokens, "tool_calls")])
        self._is_text.add(chunk.choice)
        return super().build_chunk(StreamChunk(chunk.choice, text, tokens, chunk.finish))

    def _choice(self, text: str) -> dict[str, Any]:
        if calls := parse_calls(text):
            message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
            return {"message": message, "finish_reason": "tool_calls"}
        return super()._choice(text)


def usage(stream: CompletionStream) -> dict[str, Any]:
    """OpenAI's ``usage``. Each prompt counts once, also with several choices."""
    prompt_tokens, completion_tokens = stream.prompt_tokens, stream.completion_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min(stream.cached_tokens, prompt_tokens)},
    }


def finite(value: float) -> float:
    """A log-probability that JSON can hold: at least ``MIN_LOGPROB``."""
    return max(value, MIN_LOGPROB)
