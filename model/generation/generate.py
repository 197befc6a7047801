"""Continuations of token ids: sequences that join, step together over a key/value cache, and leave.

It knows nothing of text. ``python -m model generate CHECKPOINT --prompt "…"`` is completion.py's command line.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.generation.native import Native
from model.generation.sampling import GREEDY, LogProbability, Sampling, draw, log_probability
from model.llama import KVCache, Transformer

# With so few tokens a step in C is faster than torch, which then mostly waits for weights to be widened.
NATIVE_ROWS = 32


class ContextError(ValueError):
    """A prompt that leaves no room for an answer."""


@dataclass(frozen=True)
class Token:
    id: int
    log_probability: LogProbability | None


@dataclass
class Row:
    """A sequence in a batch: its slot of the cache, its tokens so far, prompt included, and the next token's logits."""

    slot: int
    tokens: list[int]
    settings: Sampling
    log_probabilities: int | None  # how many of the likeliest tokens to tell of; None: no log-probabilities
    generator: torch.Generator | None
    logits: Tensor = field(repr=False)  # [V]; none before the whole prompt was read


class Batch:
    """Sequences that are continued together. One joins or leaves at any time; what the others draw does not change."""

    def __init__(self, model: Transformer, *, slots: int, max_len: int):
        self.model = model
        self.max_len = min(max_len, model.config.max_seq_len)
        weight = model.norm.weight
        self.cache = KVCache(model.config, slots, self.max_len, dtype=weight.dtype, device=weight.device)
        self._native = Native.of(model) if weight.dtype == torch.float32 else None

    def join(self, prompt: Sequence[int], settings: Sampling = GREEDY, *, log_probabilities: int | None = None) -> Row:
        """Read a prompt into a free slot. ``ValueError`` for one that is empty, too long or not of the vocabulary."""
        row = self.enter(prompt, settings, log_probabilities=log_probabilities)
        self.read(row, len(prompt))
        return row

    def enter(self, prompt: Sequence[int], settings: Sampling = GREEDY, *, log_probabilities: int | None = None) -> Row:
        """Take a free slot for a prompt that ``read`` will read. ``ValueError`` as of ``join``."""
        check(prompt, vocabulary=self.model.config.vocab_size, context=self.max_len)
        device = self.model.norm.weight.device
        generator = None if settings.seed is None else torch.Generator(device).manual_seed(settings.seed)
        return Row(self.cache.take(), list(prompt), settings, log_probabilities, generator, torch.empty(0))

    def read(self, row: Row, count: int) -> bool:
        """Read up to ``count`` more tokens of a prompt; whether all of it is read and the next token can be drawn."""
        start = self.cache.lengths[row.slot]
        hidden = self._read(row.slot, row.tokens[start : start + count])
        if self.cache.lengths[row.slot] < len(row.tokens):
            return False
        row.logits = self._logits(hidden[-1:])[0]
        return True

    def draw(self, row: Row) -> Token:
        """The next token of a sequence; it is appended to ``row.tokens``."""
        chosen = draw(row.logits, row.settings, seen=row.tokens, generator=row.generator)
        row.tokens.append(chosen)
        told = row.log_probabilities
        return Token(chosen, None if told is None else log_probability(row.logits, chosen, told))

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> None:
        """Read the last drawn token of each of these sequences, so that the next can be drawn."""
        slots, tokens = [row.slot for row in rows], [row.tokens[-1] for row in rows]
        positions = [self.cache.lengths[slot] for slot in slots]
        if self._native:
            hidden = self._native.step(tokens, slots, positions, self.cache)
        else:
            where = {"slots_B": self._ids(slots), "positions_BT": self._ids(positions)[:, None]}
            hidden = self.model.hidden(self._ids(tokens)[:, None], cache=self.cache, **where)[:, 0]
        for row, logits in zip(rows, self._logits(hidden), strict=True):
            row.logits = logits
            self.cache.lengths[row.slot] += 1

    def leave(self, row: Row) -> None:
        self.cache.free(row.slot)

    def is_full(self, row: Row) -> bool:
        """Whether no position is left to read the last drawn token."""
        return self.cache.lengths[row.slot] >= self.max_len

    @torch.inference_mode()
    def _read(self, slot: int, tokens: Sequence[int]) -> Tensor:
        """Hidden states [T, C] of tokens that go on where the slot's sequence ends."""
        start = self.cache.lengths[slot]
        positions = range(start, start + len(tokens))
        self.cache.lengths[slot] += len(tokens)
        if self._native and len(tokens) <= NATIVE_ROWS:
            return self._native.step(tokens, [slot] * len(tokens), positions, self.cache)
        where = {"slots_B": self._ids([slot]), "positions_BT": self._ids(positions)[None]}
        return self.model.hidden(self._ids(tokens)[None], cache=self.cache, **where)[0]

    @torch.inference_mode()
    def _logits(self, hidden_NC: Tensor) -> Tensor:
        return self._native.logits(hidden_NC) if self._native else self.model.lm_head(hidden_NC)

    def _ids(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.model.norm.weight.device)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling] = GREEDY,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    stop: Callable[[int, int], bool] = lambda number, token: False,
    log_probabilities: int | None = None,
) -> Iterator[list[Token | None]]:
    """Yield the next token of every prompt, step by step; None for one that has ended.

    A sequence ends at a stop id, which is not yielded, after ``max_new_tokens``, when its context is full, or after a token for
    which ``stop`` says so, asked with the prompt's number and the token's id. Prompts may differ in length, and each may have
    settings of its own. ``ValueError`` for a prompt that is empty, fills the context or is not of the vocabulary.
    """
    if not prompts:
        raise ValueError("no prompt was given")
    if max_new_tokens < 1:
        raise ValueError(f"the number of new tokens must be at least 1, is {max_new_tokens}")
    each = [settings] * len(prompts) if isinstance(settings, Sampling) else list(settings)
    for number, prompt in enumerate(prompts):
        check(prompt, vocabulary=model.config.vocab_size, context=model.config.max_seq_len, number=number)
    batch = Batch(model, slots=len(prompts), max_len=max(map(len, prompts)) + max_new_tokens)
    rows = [batch.join(p, s, log_probabilities=log_probabilities) for p, s in zip(prompts, each, strict=True)]
    going = set(range(len(rows)))
    for count in range(max_new_tokens):
        tokens = [batch.draw(row) if number in going else None for number, row in enumerate(rows)]
        going -= {n for n, token in enumerate(tokens) if token and token.id in stop_ids}
        if not going:
            return
        yield [token if number in going else None for number, token in enumerate(tokens)]
        going -= {n for n in going if batch.is_full(rows[n]) or stop(n, rows[n].tokens[-1])}
        if not going or count + 1 == max_new_tokens:
            return
        batch.step([rows[n] for n in sorted(going)])


@torch.inference_mode()
def prompt_log_probabilities(model: Transformer, prompt: Sequence[int], top: int) -> list[LogProbability | None]:
    """Of every token of a prompt given those before it; the first has none."""
    ids = torch.tensor(prompt, device=model.norm.weight.device)
    hidden = model.hidden(ids[None])[0, :-1]
    # Some positions' logits at a time: all of a long prompt's would take gigabytes.
    logits = (row for some in hidden.split(64) for row in model.lm_head(some))
    return [None] + [log_probability(row, token, top) for row, token in zip(logits, prompt[1:], strict=True)]


def check(prompt: Sequence[int], *, vocabulary: int, context: int, number: int = 0) -> None:
    if not prompt:
        raise ValueError(f"prompt {number} is empty")
    if len(prompt) >= context:
        raise ContextError(f"prompt {number} has {len(prompt)} tokens; the model's context of {context} leaves no room for an answer")
    if max(prompt) >= vocabulary or min(prompt) < 0:
        raise ValueError(f"prompt {number} has token ids outside the vocabulary of {vocabulary}")
