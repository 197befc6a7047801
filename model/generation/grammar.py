"""Answers in a form: before each token a mask of those that may follow, for JSON and tools by llguidance.

The mask depends on the form and the answer so far alone. Keys come in the schema's order, without blanks around them, as in the
answers that models are trained on here.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from model.generation.grounding import grounded
from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

CALL, CALL_END = "<tool_call>\n", "\n</tool_call>"
MAX_EXAMPLE_DEPTH, MAX_EXAMPLE_CHARS = 20, 4000
# Beside properties these say which others there may be.
_OPEN = frozenset("additionalProperties unevaluatedProperties patternProperties anyOf oneOf allOf not if $ref $dynamicRef".split())
_OPTIONS: "JsonCompileOptions" = {"whitespace_flexible": False}


class Form(Protocol):
    """The state of an answer that not every token may continue; ``hints`` are tokens that it may have."""

    hints: Sequence[int]

    def masked(self, logits_V: Tensor) -> Tensor:
        """Logits [V] with those of tokens that cannot follow at minus infinity."""

    def push(self, token: int) -> None:
        """Take the next token. ``ValueError`` for one that cannot follow."""


class GrammarAnswer:
    """The state of one answer under a grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, stop_ids: Sequence[int], hints: Sequence[int]):
        self._matcher = matcher
        self.hints = hints
        self._vocabulary = vocabulary
        self._end, self._ends = stop_ids[0], list(stop_ids)

    def masked(self, logits_V: Tensor) -> Tensor:
        """Logits [V] with those of tokens that cannot follow at minus infinity; once the answer is whole only stop ids are left."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.zeros(len(logits_V), dtype=torch.bool)  # also of rows that the model has beyond the vocabulary
        allowed[: self._vocabulary] = torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(bool))
        allowed[self._ends] = bool(allowed[self._end])
        return logits_V.masked_fill(~allowed.to(logits_V.device), -torch.inf)

    def push(self, token: int) -> None:
        """Take the next token. ``ValueError`` for one that cannot follow, or where the grammar allows too much to go on."""
        if not self._matcher.consume_token(self._end if token in self._ends else token):
            raise ValueError(f"the answer cannot go on under its schema: {self._matcher.get_error()}")


class Grammar:
    """What all answers must fit, compiled for a tokenizer."""

    def __init__(self, grammar: str, tokenizer: Tokenizer, problem: str, example: str):
        """``example``: an answer, whose words others may have. ``ValueError``, which begins with ``problem``, says what is invalid."""
        self._hints = tokenizer.encode(example[:MAX_EXAMPLE_CHARS])
        self._vocabulary, self._stop_ids = tokenizer.n_vocab, tokenizer.stop_ids
        # Its errors would quote the answer.
        limits = LLParserLimits(verbose_errors=False)
        self._start = LLMatcher(_tokens(tokenizer), grammar, log_level=0, limits=limits)
        if self._start.is_error():
            raise ValueError(f"{problem}: {_reason(str(self._start.get_error()))}")

    def answer(self) -> GrammarAnswer:
        """The state before the first token of an answer."""
        return GrammarAnswer(self._start.deep_copy(), self._vocabulary, self._stop_ids, self._hints)


class JsonSchema(Grammar):
    """A JSON Schema: every answer that ends by itself is JSON that fits it."""

    def __init__(self, schema: Mapping[str, Any], tokenizer: Tokenizer, *, grounded_in: str | None = None):
        """``grounded_in``: a text in which the numbers and strings of the answer must stand (grounding.py).

        ``ValueError`` says what in the schema is invalid or cannot be demanded of an answer.
        """
        narrowed = closed(schema) if grounded_in is None else grounded(closed(schema), grounded_in)
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(narrowed, ensure_ascii=False), overrides=_OPTIONS)
        super().__init__(grammar, tokenizer, "the schema cannot be demanded of an answer", _to_text(_example(schema)))


class ToolCalls(Grammar):
    """Calls of tools, each as ``{"name":…,"arguments":…}`` between ``CALL`` and ``CALL_END``, or text where no call is demanded.

    The form is that of Hermes' and Qwen's chat templates. Text cannot begin with ``<``, so that every answer that does is made of calls.
    """

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        required: bool,
        several: bool,
        strict: Collection[str] = (),
        answer: Mapping[str, Any] | None = None,
    ):
        """``parameters``: of each tool, by its name, the JSON Schema. What cannot be demanded in those that are not ``strict`` is not.

        ``answer``: the JSON Schema of an answer that calls none. ``ValueError`` as of ``JsonSchema``.
        """
        calls = [_call(name, schema, lenient=name not in strict) for name, schema in parameters.items()]
        text = r"text: /([^<](.|\n)*)?/" if answer is None else f"text: %json {json.dumps(closed(answer) | {'x-guidance': _OPTIONS})}"
        rules = [
            f"start: {'' if required else 'text | '}call" + (r' ("\n" call)*' if several else ""),
            *([] if required else [text]),
            f"call: {json.dumps(CALL)} (" + " | ".join(f"tool_{n}" for n in range(len(calls))) + f") {json.dumps(CALL_END)}",
            *(f"tool_{n}: %json {json.dumps(call)}" for n, call in enumerate(calls)),
        ]
        example = "\n".join(f"{CALL}{_to_text(_example(call))}{CALL_END}" for call in calls)
        super().__init__(LLMatcher.grammar_from_lark("\n".join(rules)), tokenizer, "the tools cannot be demanded of an answer", example)


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of which objects have only the properties that it names: one that may have others, and says so nowhere, seldom ends.

    What fits it fits the given schema too. A schema that joins others by ``allOf`` stays as it is, and so do objects with properties
    beside ``anyOf`` and its like.
    """
    return dict(schema) if _joins(schema) else _closed(schema)


def _joins(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_joins, schema))
    return isinstance(schema, Mapping) and any(
        _joins(value) or (key == "allOf" and isinstance(value, list) and len(value) > 1) for key, value in schema.items()
    )


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    if isinstance(properties := schema.get("properties"), Mapping):
        required = schema.get("required", [])
        if not _OPEN & schema.keys() and isinstance(required, list) and all(name in [*properties] for name in required):
            result["additionalProperties"] = False
    else:
        result |= {key: list(map(_closed, schema[key])) for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)}
    named = (key for key in ("properties", "$defs", "definitions") if isinstance(schema.get(key), Mapping))
    result |= {key: {name: _closed(value) for name, value in schema[key].items()} for key in named}
    return result | {key: _closed(schema[key]) for key in ("items", "additionalProperties") if key in schema}


def _example(schema: Any, depth: int = 0) -> Any:
    """A value with all keys of a schema, though not one that fits it: its text tells what answers may look like."""
    if not isinstance(schema, Mapping) or depth > MAX_EXAMPLE_DEPTH:
        return 0
    if "const" in schema:
        return schema["const"]
    if isinstance(properties := schema.get("properties"), Mapping):
        return {name: _example(value, depth + 1) for name, value in properties.items()}
    if schema.get("type") == "array":
        return [_example(schema.get("items"), depth + 1)]
    return "" if schema.get("type") == "string" else 0


def _to_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class MinTokens:
    """No stop id before an answer has so many tokens."""

    hints: Sequence[int] = ()

    def __init__(self, count: int, stop_ids: Iterable[int]):
        self._missing = count
        self._stop_ids = list(stop_ids)

    def masked(self, logits_V: Tensor) -> Tensor:
        """Logits [V] with those of stop ids at minus infinity while tokens are missing."""
        if self._missing <= 0 or not self._stop_ids:
            return logits_V
        return logits_V.index_fill(0, torch.tensor(self._stop_ids, device=logits_V.device), -torch.inf)

    def push(self, token: int) -> None:  # noqa: ARG002
        """Take the next token."""
        self._missing -= 1


def _call(name: str, parameters: Mapping[str, Any], *, lenient: bool) -> dict[str, Any]:
    """The schema of a call; definitions that its parameters refer to stand at its root, where references look for them."""
    schema = closed({"type": "object", "properties": {}} | dict(parameters))
    schema = _without_lookaround(schema) if lenient else schema
    shared = {key: schema.pop(key) for key in ("$defs", "definitions") if key in schema}
    properties = {"name": {"const": name}, "arguments": schema}
    whole = {"type": "object", "properties": properties, "required": ["name", "arguments"], "additionalProperties": False}
    return shared | whole | {"x-guidance": {**_OPTIONS, "lenient": lenient}}


def _reason(error: str) -> str:
    """What is wrong with a schema, in words that are not of the schema's own."""
    known = re.search(r"Unimplemented keys: \[[^\]\n]{1,200}\]|Unknown format: [\w-]{1,40}", error)
    return known[0] if known else "it is no valid JSON Schema, or uses what cannot be demanded"


def _without_lookaround(schema: Any) -> Any:
    """A schema without patterns that look around, which no automaton can follow."""
    if isinstance(schema, list):
        return [_without_lookaround(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    looks = isinstance(pattern := schema.get("pattern"), str) and re.search(r"\(\?(?:[=!]|<[=!])", pattern)
    return {key: _without_lookaround(value) for key, value in schema.items() if not (looks and key == "pattern")}


@lru_cache(4)
def _tokens(tokenizer: Tokenizer) -> LLTokenizer:
    """The bytes of every token; control tokens are no text of an answer."""
    return LLTokenizer(TokenizerWrapper(_Tokens(tokenizer)))


class _Tokens:
    """A tokenizer as ``TokenizerWrapper`` asks for it."""

    def __init__(self, tokenizer: Tokenizer):
        self.eos_token_id, self.bos_token_id = tokenizer.stop_ids[0], None
        self.tokens = [tokenizer.decode_bytes([token]) for token in range(tokenizer.n_vocab)]
        self.special_token_ids = sorted(tokenizer.special.values())
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)
