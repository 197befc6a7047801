"""Greedy answers to many prompts: a sequence that ends makes room for the next, and a prefix that prompts share is computed once.

It knows nothing of what the answers are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.generation.completion import Llama
from model.generation.generate import Batch, SequenceState
from model.generation.grammar import JsonSchema
from tasks.runtime.progress import progress

SLOTS = 8  # sequences decoded together
MIN_PREFIX = 16  # tokens that are copied instead of computed; fewer cost about as much to copy


@dataclass(frozen=True, slots=True)
class Request:
    """Token ids of a prompt, and how many new tokens an answer may have; ``max_prose``: one that does not begin with a brace.

    ``schema``: which the answer must fit.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    max_prose: int
    schema: JsonSchema | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated text, its ids, and whether the model ended it."""

    text: str
    ids: tuple[int, ...]
    complete: bool


def answer(llama: Llama, requests: Sequence[Request], *, label: str) -> list[Answer]:
    """The greedy answers, in the order of the requests; ``label`` names the progress bar.

    ``ValueError`` for a prompt that fills the model's context.
    """
    if not requests:
        return []
    decoder = _Decoder(llama, max(len(r.prompt) + r.max_new_tokens for r in requests))
    # Sorted, prompts that share a prefix follow each other.
    waiting = sorted(range(len(requests)), key=lambda index: requests[index].prompt, reverse=True)
    running: dict[int, SequenceState] = {}
    answers: dict[int, Answer] = {}
    bar = progress(total=len(requests), unit="answer", desc=label)
    while waiting or running:
        while waiting and len(running) < SLOTS:
            index = waiting.pop()
            running[index] = decoder.admit(requests[index])
        for index, sequence in list(running.items()):
            if (ended := decoder.sample(sequence, requests[index])) is not None:
                answers[index] = ended
                decoder.batch.release(running.pop(index))
                bar.update()
        if running:
            decoder.batch.step(list(running.values()))
    bar.close()
    return [answers[index] for index in range(len(requests))]


class _Decoder:
    """A batch, and the tokens whose keys and values each of its slots holds."""

    def __init__(self, llama: Llama, max_len: int):
        self.batch = Batch(llama.model, slots=SLOTS, max_len=max_len)
        self._tokenizer = llama.tokenizer
        self._resident: dict[int, tuple[int, ...]] = {}  # by slot, also of sequences that were released

    def admit(self, request: Request) -> SequenceState:
        prompt = request.prompt
        sequence = self.batch.admit(prompt, form=request.schema.answer() if request.schema else None)
        shared = {slot: min(_common(tokens, prompt), len(prompt) - 1) for slot, tokens in self._resident.items()}
        source = max(shared, key=lambda slot: shared[slot], default=None)
        if source is not None and shared[source] >= MIN_PREFIX:
            self.batch.cache.copy(source, sequence.slot, shared[source])
        self._resident[sequence.slot] = prompt
        self.batch.prefill(sequence, len(prompt))
        return sequence

    def sample(self, sequence: SequenceState, request: Request) -> Answer | None:
        """Take the next token; the answer where it has ended."""
        token = self.batch.sample(sequence).id
        ids = sequence.tokens[len(request.prompt) :]
        if token in self._tokenizer.stop_ids:
            return Answer(self._tokenizer.decode(ids[:-1]), tuple(ids[:-1]), True)
        full = len(ids) == request.max_new_tokens or self.batch.is_full(sequence)
        if full or (len(ids) == request.max_prose and not self._tokenizer.decode(ids).lstrip().startswith("{")):
            return Answer(self._tokenizer.decode(ids), tuple(ids), False)
        return None


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
