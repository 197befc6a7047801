"""Answers that fit a JSON Schema: before each token a mask of those that may follow, by llguidance.

The mask depends on the schema and the answer so far alone. Keys come in the schema's order, without blanks around them, as in the
answers that models are trained on here.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_OPTIONS: "JsonCompileOptions" = {"whitespace_flexible": False}


class JsonAnswer:
    """The state of one answer: which tokens may come next."""

    def __init__(self, matcher: LLMatcher, vocabulary: int):
        self._matcher = matcher
        self._vocabulary = vocabulary

    def masked(self, logits_V: Tensor) -> Tensor:
        """Logits [V] with those of tokens that cannot follow at minus infinity; once the answer is whole only the first stop id is left."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.zeros(len(logits_V), dtype=torch.bool)  # also of rows that the model has beyond the vocabulary
        allowed[: self._vocabulary] = torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(bool))
        return logits_V.masked_fill(~allowed.to(logits_V.device), -torch.inf)

    def push(self, token: int) -> None:
        """Take the next token. ``ValueError`` for one that cannot follow, or where the schema allows too much to go on."""
        if not self._matcher.consume_token(token):
            raise ValueError(f"the answer cannot go on under its schema: {self._matcher.get_error()}")


class JsonSchema:
    """A JSON Schema, compiled for a tokenizer."""

    def __init__(self, schema: Mapping[str, Any], tokenizer: Tokenizer):
        """``ValueError`` says what in the schema is invalid or cannot be demanded of an answer."""
        self._vocabulary = tokenizer.n_vocab
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
        # Its errors would quote the answer.
        limits = LLParserLimits(verbose_errors=False)
        self._start = LLMatcher(_tokens(tokenizer), grammar, log_level=0, limits=limits)
        if self._start.is_error():
            raise ValueError(f"the schema cannot be demanded of an answer: {self._start.get_error()}")

    def answer(self) -> JsonAnswer:
        """The state before the first token of an answer."""
        return JsonAnswer(self._start.deep_copy(), self._vocabulary)


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
