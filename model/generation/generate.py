"""Continuations of token ids: sequences are added, decoded together over a key/value cache, and released.

It knows nothing of text; completion.py has the tokenizer and the stop strings.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.generation import graphs
from model.generation.adapters import AdaptedModel, Adapter
from model.generation.draft import PromptLookup
from model.generation.grammar import Form, JsonSchema
from model.generation.kv_cache import KVCache
from model.generation.native import Native
from model.generation.sampling import GREEDY, LogProbability, Sampling, adjust, changes_logits, log_probability, sample, sample_rows
from model.llama import Transformer

# Up to so many tokens a step in C is faster than torch, which mostly converts weights to float32; with int8 and int4 weights it always is.
MAX_NATIVE_TOKENS = 32
# Up to so many rows, drafts included, a step in C takes little longer than for one: the weights are read once.
MAX_DRAFT_ROWS = 4


class ContextError(ValueError):
    """A prompt that leaves no room for an answer."""


@dataclass(frozen=True)
class Token:
    """A sampled token, with its log-probability where the sequence asks for it."""

    id: int
    log_probability: LogProbability | None


@dataclass
class SequenceState:
    """A sequence in a batch: its cache slot, its tokens so far, prompt included, and the next token's logits."""

    slot: int
    tokens: list[int]
    settings: Sampling
    log_probabilities: int | None  # how many of the likeliest tokens to report; None: no log-probabilities
    generator: torch.Generator | None
    logits: Tensor = field(repr=False)  # [V]; empty until the prefill is complete
    prompt_length: int = 0
    form: Form | None = None  # which tokens may follow, where not all may
    chosen: int | None = None  # on a GPU, the next token, sampled with those of the whole batch
    adapter: Adapter | None = None  # what it is computed with, beside the model's weights
    lookup: PromptLookup | None = None  # drafts its next tokens, where the step is in C
    drafted: deque[tuple[int, Tensor]] = field(default_factory=deque, repr=False)  # next tokens, if they are, each with the logits after it


class Batch:
    """Sequences that are decoded together. Adding or releasing one does not change the tokens of the others.

    ``compiled``: on a GPU, decode with fused layers, which takes seconds at the start. ``drafts``: where steps are in C and few, compute
    likely tokens beside the next one. That changes no token.
    """

    def __init__(self, model: Transformer, *, slots: int, max_len: int, compiled: bool = False, drafts: bool = True):
        self.model = model
        self._drafts = drafts
        self.max_len = min(max_len, model.config.max_seq_len)
        weight = model.norm.weight
        recorded = graphs.suits(weight.device)
        positions = graphs.positions_for(self.max_len) if recorded else self.max_len
        self.cache = KVCache(model.config, slots, positions, dtype=weight.dtype, device=weight.device)
        self._adapted_model: AdaptedModel | None = None
        self._native = Native.of(model) if weight.dtype == torch.float32 else None
        self._graphs = graphs.GraphedStep(model, self.cache, compiled=compiled) if recorded else None

    def add(
        self,
        prompt: Sequence[int],
        settings: Sampling = GREEDY,
        *,
        log_probabilities: int | None = None,
        form: Form | None = None,
        adapter: Adapter | None = None,
    ) -> SequenceState:
        """Prefill a prompt in a free slot. ``ValueError`` for one that is empty, too long or not of the vocabulary."""
        sequence = self.admit(prompt, settings, log_probabilities=log_probabilities, form=form, adapter=adapter)
        self.prefill(sequence, len(prompt))
        return sequence

    def admit(
        self,
        prompt: Sequence[int],
        settings: Sampling = GREEDY,
        *,
        log_probabilities: int | None = None,
        form: Form | None = None,
        adapter: Adapter | None = None,
    ) -> SequenceState:
        """Allocate a slot for a prompt that ``prefill`` will process. Errors are those of ``add``."""
        check(prompt, vocabulary=self.model.config.vocab_size, context=self.max_len)
        generator = None if settings.seed is None else torch.Generator().manual_seed(settings.seed)
        slot = self.cache.allocate()
        lookup = PromptLookup(prompt, form.hints if form else ()) if self._native and self._drafts else None
        logits = torch.empty(0)
        return SequenceState(
            slot, list(prompt), settings, log_probabilities, generator, logits, len(prompt), form, adapter=adapter, lookup=lookup
        )

    @property
    def reads_in_any_chunks(self) -> bool:
        """Whether the bits after a prompt are the same in whatever chunks it is prefilled; integer sums have no order."""
        return self._native is not None and self._native.multiplies_integers

    def prefill(self, sequence: SequenceState, count: int) -> bool:
        """Process up to ``count`` more tokens of a prompt. True once it is complete and the next token can be sampled."""
        start = self.cache.lengths[sequence.slot]
        hidden = self._forward(sequence.slot, sequence.tokens[start : start + count], sequence.adapter)
        if self.cache.lengths[sequence.slot] < len(sequence.tokens):
            return False
        self._set_logits([sequence], self._logits(hidden[-1:]))
        return True

    def sample(self, sequence: SequenceState) -> Token:
        """The next token of a sequence; appended to ``sequence.tokens``. ``ValueError`` where nothing can be drawn from its logits."""
        chosen = sequence.chosen
        if chosen is None:
            chosen = sample(
                _masked(sequence, sequence.logits),
                sequence.settings,
                previous_tokens=sequence.tokens,
                prompt_length=sequence.prompt_length,
                generator=sequence.generator,
            )
        if chosen < 0:
            raise ValueError("the model's logits are not finite")
        if sequence.form:
            sequence.form.push(chosen)
        sequence.tokens.append(chosen)
        if sequence.lookup:
            sequence.lookup.push(chosen)
        top = sequence.log_probabilities
        return Token(chosen, None if top is None else log_probability(sequence.logits, chosen, top))

    @torch.inference_mode()
    def step(self, sequences: Sequence[SequenceState]) -> None:
        """Process the last token of each of these sequences, so that the next can be sampled."""
        if self._native:
            self._native_step(self._native, [sequence for sequence in sequences if not self._was_drafted(sequence)])
            return
        slots, tokens = [sequence.slot for sequence in sequences], [sequence.tokens[-1] for sequence in sequences]
        positions = [self.cache.lengths[slot] for slot in slots]
        adapters = [sequence.adapter for sequence in sequences]
        if self._graphs and not any(adapters):  # what is recorded has no adapters
            logits = self._graphs.logits(tokens, slots, positions)
        else:
            hidden = self._hidden(self._ids(tokens)[:, None], slots, self._ids(positions)[:, None], max(positions), adapters)
            logits = self._logits(hidden[:, 0])
        self._set_logits(sequences, logits)
        for sequence in sequences:
            self.cache.lengths[sequence.slot] += 1

    def release(self, sequence: SequenceState, *, clear: bool = False) -> None:
        """Free the cache slot of a sequence; ``clear``: it may hold what is not finite, which a mask does not hide."""
        if clear:
            self.cache.clear(sequence.slot)
        self.cache.free(sequence.slot)

    def is_full(self, sequence: SequenceState) -> bool:
        """Whether no position is left for the last sampled token."""
        return self.cache.lengths[sequence.slot] >= self.max_len

    def _was_drafted(self, sequence: SequenceState) -> bool:
        """Whether the last token was computed as a draft already; then the next can be sampled. Drafts that were wrong are dropped."""
        if not sequence.drafted:
            return False
        token, logits = sequence.drafted.popleft()
        if token != sequence.tokens[-1]:
            sequence.drafted.clear()
            return False
        sequence.logits = logits
        self.cache.lengths[sequence.slot] += 1
        return True

    def _native_step(self, native: Native, sequences: Sequence[SequenceState]) -> None:
        """A step in C: of each sequence its last token, and those drafted behind it, each a row."""
        if not sequences:
            return
        room = max(MAX_DRAFT_ROWS // len(sequences) - 1, 0)
        lengths = [self.cache.lengths[sequence.slot] for sequence in sequences]
        drafts = [s.lookup.propose(min(room, self.max_len - n - 1)) if s.lookup else [] for s, n in zip(sequences, lengths, strict=True)]
        rows = list(zip(sequences, lengths, drafts, strict=True))
        tokens = [token for sequence, _, draft in rows for token in (sequence.tokens[-1], *draft)]
        slots = [sequence.slot for sequence, _, draft in rows for _ in range(1 + len(draft))]
        positions = [position for _, n, draft in rows for position in range(n, n + 1 + len(draft))]
        adapters = [sequence.adapter for sequence, _, draft in rows for _ in range(1 + len(draft))]
        hidden = native.step(tokens, slots, positions, self.cache, adapters)
        logits = self._logits(hidden).split([1 + len(draft) for draft in drafts])
        for (sequence, _, draft), own in zip(rows, logits, strict=True):
            self.cache.lengths[sequence.slot] += 1
            sequence.logits, sequence.drafted = own[0], deque(zip(draft, own[1:], strict=True))

    def _set_logits(self, sequences: Sequence[SequenceState], logits_NV: Tensor) -> None:
        """Logits of sequences and, on a GPU, the tokens that follow, so that the host waits once for all of them."""
        for sequence, logits in zip(sequences, logits_NV, strict=True):
            sequence.logits = logits
        if self._graphs:
            settings = [s.settings for s in sequences]
            uniform = [float(torch.rand((), generator=s.generator)) if s.settings.temperature else 0.0 for s in sequences]
            if any(s.form or changes_logits(s.settings) for s in sequences):
                rows = zip(sequences, logits_NV, strict=True)
                logits_NV = torch.stack([adjust(_masked(s, row), s.settings, s.tokens, s.prompt_length) for s, row in rows])
            for sequence, chosen in zip(sequences, sample_rows(logits_NV, settings, uniform), strict=True):
                sequence.chosen = chosen

    @torch.inference_mode()
    def _forward(self, slot: int, tokens: Sequence[int], adapter: Adapter | None = None) -> Tensor:
        """Hidden states [T, C] of tokens that continue the slot's sequence."""
        start = self.cache.lengths[slot]
        positions = range(start, start + len(tokens))
        self.cache.lengths[slot] += len(tokens)
        if self._native and (self.reads_in_any_chunks or len(tokens) <= MAX_NATIVE_TOKENS):
            return self._native.step(tokens, [slot] * len(tokens), positions, self.cache, [adapter] * len(tokens))
        return self._hidden(self._ids(tokens)[None], [slot], self._ids(positions)[None], positions[-1], [adapter])[0]

    def _hidden(
        self, tokens_BT: Tensor, slots: Sequence[int], positions_BT: Tensor, last: int, adapters: Sequence[Adapter | None]
    ) -> Tensor:
        """Hidden states [B, T, C]; ``last`` is the largest position, which the device need not be asked for."""
        model = self._with_adapters(adapters)
        return model.hidden(tokens_BT, cache=self.cache.layers, slots_B=self._ids(slots), positions_BT=positions_BT, span=last + 1)

    def _with_adapters(self, adapters: Sequence[Adapter | None]) -> Transformer:
        if not any(adapters):
            return self.model
        self._adapted_model = self._adapted_model or AdaptedModel(self.model)
        return self._adapted_model.for_rows(adapters)

    @torch.inference_mode()
    def _logits(self, hidden_NC: Tensor) -> Tensor:
        return self._native.logits(hidden_NC) if self._native else self.model.lm_head(hidden_NC)

    def _ids(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.model.norm.weight.device)


def _masked(sequence: SequenceState, logits_V: Tensor) -> Tensor:
    return sequence.form.masked(logits_V) if sequence.form else logits_V


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling] = GREEDY,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    stop: Callable[[int, int], bool] = lambda index, token: False,
    log_probabilities: int | None = None,
    schema: JsonSchema | Sequence[JsonSchema] | None = None,
    adapter: Adapter | None = None,
) -> Iterator[list[Token | None]]:
    """Yield the next token of every prompt, step by step; None for one that has ended.

    A sequence ends at a stop id, which is not yielded, after ``max_new_tokens``, when its context is full, or after a token for
    which ``stop(index of the prompt, id)`` is true. Prompts may differ in length, and each may have settings of its own.
    With a ``schema``, for all or one a prompt, every answer that ends by itself is JSON that fits it. An ``adapter`` must be one of this
    model. ``ValueError`` for a prompt that is empty, fills the context or is not of the vocabulary.
    """
    if not prompts:
        raise ValueError("no prompt was given")
    if max_new_tokens < 1:
        raise ValueError(f"the number of new tokens must be at least 1, is {max_new_tokens}")
    settings_by_prompt = [settings] * len(prompts) if isinstance(settings, Sampling) else list(settings)
    for index, prompt in enumerate(prompts):
        check(prompt, vocabulary=model.config.vocab_size, context=model.config.max_seq_len, index=index)
    batch = Batch(model, slots=len(prompts), max_len=max(map(len, prompts)) + max_new_tokens)
    schemas = schema if isinstance(schema, Sequence) else [schema] * len(prompts)
    sequences = [
        batch.add(p, s, log_probabilities=log_probabilities, form=of_answer.answer() if of_answer else None, adapter=adapter)
        for p, s, of_answer in zip(prompts, settings_by_prompt, schemas, strict=True)
    ]
    running = set(range(len(sequences)))
    for count in range(max_new_tokens):
        tokens = [batch.sample(sequence) if index in running else None for index, sequence in enumerate(sequences)]
        running -= {n for n, token in enumerate(tokens) if token and token.id in stop_ids}
        if not running:
            return
        yield [token if index in running else None for index, token in enumerate(tokens)]
        running -= {n for n in running if batch.is_full(sequences[n]) or stop(n, sequences[n].tokens[-1])}
        if not running or count + 1 == max_new_tokens:
            return
        batch.step([sequences[n] for n in sorted(running)])


@torch.inference_mode()
def prompt_log_probabilities(
    model: Transformer, prompt: Sequence[int], top: int, adapter: Adapter | None = None
) -> list[LogProbability | None]:
    """Log-probability of every token of a prompt given those before it; None for the first."""
    ids = torch.tensor(prompt, device=model.norm.weight.device)
    if adapter:
        model = AdaptedModel(model).for_rows([adapter])
    hidden = model.hidden(ids[None])[0, :-1]
    # In chunks: the logits of a long prompt would take gigabytes.
    logits = (row for chunk in hidden.split(64) for row in model.lm_head(chunk))
    return [None] + [log_probability(row, token, top) for row, token in zip(logits, prompt[1:], strict=True)]


def check(prompt: Sequence[int], *, vocabulary: int, context: int, index: int = 0) -> None:
    """``ValueError`` for a prompt that is empty or not of the vocabulary; ``ContextError`` for one that fills the context."""
    if not prompt:
        raise ValueError(f"prompt {index} is empty")
    if len(prompt) >= context:
        raise ContextError(f"prompt {index} has {len(prompt)} tokens; the model's context of {context} leaves no room for an answer")
    if max(prompt) >= vocabulary or min(prompt) < 0:
        raise ValueError(f"prompt {index} has token ids outside the vocabulary of {vocabulary}")
