"""The likelihood of held-out answers: per token, per content token, per byte."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tasks.corpus.documents import share
from tasks.corpus.shards.format import Split
from tasks.evaluation.likelihood import Judged, Text
from tasks.evaluation.probes import Item, Value
from tasks.evaluation.wording import Wording


class Answers:
    """Documents of a split; a token counts that carries loss there."""

    def __init__(self, name: str, split: Split, numbers: Sequence[int], wording: Wording):
        self.entries = [split.entries[n] for n in numbers]
        self.texts = [Text(*split.document(n)) for n in numbers]
        self._split = name
        self._content = [~wording.mask(entry.kind, text.tokens, text.counts) for entry, text in zip(self.entries, self.texts, strict=True)]

    def values(self, judged: Sequence[Judged]) -> Iterator[Value]:
        for entry, content, of_text in zip(self.entries, self._content, judged, strict=True):
            item = Item(entry.id, self._split, entry.kind, entry.source)
            nats = math.fsum(of_text.nats)
            yield Value("answer_nll", item, len(of_text.nats), nats)
            yield Value("bits_per_byte", item, entry.bytes, nats / math.log(2))
            if content.any():
                yield Value("answer_content_nll", item, int(content.sum()), math.fsum(of_text.nats[content]))

    def wording_share(self) -> float:
        """Of the tokens that count, those that are fixed wording."""
        content = np.concatenate(self._content) if self._content else np.ones(1, bool)
        return 1 - float(content.mean())


def select(split: Split, *, seed: int, max_tokens: int) -> list[int]:
    """Numbers of the documents to score: per kind, in an order that the seed fixes, up to ``max_tokens`` answer tokens (0: all)."""
    taken: dict[str, int] = {}
    chosen = []
    for number in sorted(range(len(split)), key=lambda n: share(seed, split.entries[n].id)):
        kind = split.entries[number].kind
        if max_tokens and taken.get(kind, 0) >= max_tokens:
            continue
        if supervised := int(split.document(number)[1][1:].sum()):
            taken[kind] = taken.get(kind, 0) + supervised
            chosen.append(number)
    return chosen
