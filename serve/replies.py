"""Answers in OpenAI's shapes, whole and in chunks, of completions and of chats."""

import time
import uuid
from abc import ABC, abstractmethod
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Sequence
from typing import Any

from model.generation.sampling import LogProbability
from model.tokenizer.tokenizer import Tokenizer
from serve.text import Answers, Piece

LEAST = -9999.0  # what OpenAI writes for a logarithm of nothing, which JSON has not
Told = Sequence[tuple[int, LogProbability | None]]


class Reply(ABC):
    """The parts of an answer that its choices share. One object is one answer, ``tokens`` whether log-probabilities are asked for."""

    prefix: str
    whole: str
    chunk: str

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, *, tokens: bool):
        self._shared = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._tokenizer, self._tokens = tokenizer, tokens
        self._said: dict[int, tuple[int, IncrementalDecoder]] = {}  # of each choice, how many characters, and half of one perhaps

    @abstractmethod
    def _choice(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _log_probabilities(self, choice: int, told: Told) -> dict[str, Any]: ...

    def openings(self, choices: int) -> list[dict[str, Any]]:  # noqa: ARG002
        """Chunks that come before all text."""
        return []

    def of_all(self, pieces: Sequence[Sequence[Piece]], answers: Answers) -> dict[str, Any]:
        choices = []
        for number, some in enumerate(pieces):
            told = [token for piece in some for token in piece.tokens]
            choices.append(self._choice("".join(piece.text for piece in some)) | self._end(number, told, some[-1].finish))
        return self._shared | {"object": self.whole, "choices": choices, "usage": usage(answers)}

    def of_piece(self, piece: Piece) -> dict[str, Any] | None:
        """A chunk, where a piece says anything."""
        if not (piece.text or piece.finish or (self._tokens and piece.tokens)):
            return None
        return self._chunk([self._delta(piece.text) | self._end(piece.choice, piece.tokens, piece.finish)])

    def of_usage(self, answers: Answers) -> dict[str, Any]:
        return self._chunk([]) | {"usage": usage(answers)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._shared | {"object": self.chunk, "choices": choices}

    def _end(self, choice: int, told: Told, finish: str | None) -> dict[str, Any]:
        return {"index": choice, "logprobs": self._log_probabilities(choice, told) if self._tokens else None, "finish_reason": finish}

    def _name(self, token: int) -> str:
        """As OpenAI names it: by its text, or by its bytes where those are not whole characters."""
        raw = self._tokenizer.decode_bytes([token])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class CompletionReply(Reply):
    prefix = "cmpl"
    whole = chunk = "text_completion"

    def _choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    _delta = _choice

    def _log_probabilities(self, choice: int, told: Told) -> dict[str, Any]:
        prefix = self._tokenizer.prefix if choice not in self._said else ()  # which an echo does not show
        at, decoder = self._said.get(choice) or (0, getincrementaldecoder("utf-8")("replace"))
        offsets = []
        for place, (token, _) in enumerate(told):
            offsets.append(at)
            if (token,) != prefix[place : place + 1]:
                at += len(decoder.decode(self._tokenizer.decode_bytes([token])))
        self._said[choice] = (at, decoder)
        return {
            "tokens": [self._name(token) for token, _ in told],
            "token_logprobs": [finite(found.logprob) if found else None for _, found in told],
            "top_logprobs": [self._top(token, found) if found else None for token, found in told],
            "text_offset": offsets,
        }

    def _top(self, token: int, found: LogProbability) -> dict[str, float]:
        return {self._name(other): finite(value) for other, value in (*found.top, (token, found.logprob))}


class ChatReply(Reply):
    prefix = "chatcmpl"
    whole, chunk = "chat.completion", "chat.completion.chunk"

    def openings(self, choices: int) -> list[dict[str, Any]]:
        first = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [self._chunk([{"index": number, **first}]) for number in range(choices)]

    def _choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _log_probabilities(self, choice: int, told: Told) -> dict[str, Any]:  # noqa: ARG002
        content = [
            {**self._entry(token, found.logprob), "top_logprobs": [self._entry(*other) for other in found.top]}
            for token, found in told
            if found
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self._name(token), "logprob": finite(value), "bytes": list(self._tokenizer.decode_bytes([token]))}


def usage(answers: Answers) -> dict[str, Any]:
    read, written = answers.prompt_tokens, answers.completion_tokens
    known = {"cached_tokens": min(answers.reused_tokens, read)}
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, "prompt_tokens_details": known}


def finite(value: float) -> float:
    return max(value, LEAST)
