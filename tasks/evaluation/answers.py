"""The likelihood of held-out answers: per token, per content token, per byte."""

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tasks.corpus.documents import share
from tasks.corpus.shards.format import Split
from tasks.evaluation.boilerplate import BoilerplateModel
from tasks.evaluation.likelihood import Text, TokenScores
from tasks.evaluation.probes import Item, Value


class Answers:
    """Probe: documents of a split, by index; scored are the tokens that carry loss there."""

    def __init__(self, name: str, split: Split, indices: Sequence[int], boilerplate: BoilerplateModel):
        self.entries = [split.entries[n] for n in indices]
        self.texts = [Text(*split.document(n)) for n in indices]
        self._split = name
        self._content = [
            ~boilerplate.mask(entry.category, text.tokens, text.loss_mask) for entry, text in zip(self.entries, self.texts, strict=True)
        ]

    def values(self, scores: Sequence[TokenScores]) -> Iterator[Value]:
        """Nats of each answer per token and per content token, bits per byte."""
        for entry, content, of_text in zip(self.entries, self._content, scores, strict=True):
            item = Item(entry.id, self._split, entry.category, entry.source)
            nll = math.fsum(of_text.nll)
            yield Value("answer_nll", item, len(of_text.nll), nll)
            yield Value("bits_per_byte", item, entry.bytes, nll / math.log(2))
            if content.any():
                yield Value("answer_content_nll", item, int(content.sum()), math.fsum(of_text.nll[content]))

    def content_digest(self) -> str:
        """SHA-256 of which documents these are and which of their tokens are content."""
        sha = hashlib.sha256()
        for entry, content in zip(self.entries, self._content, strict=True):
            sha.update(f"{entry} {np.packbits(content).tobytes().hex()}\n".encode())
        return sha.hexdigest()

    def boilerplate_share(self) -> float:
        """The share of the scored tokens that is boilerplate."""
        content = np.concatenate(self._content) if self._content else np.ones(1, bool)
        return 1 - float(content.mean())


def select(split: Split, *, seed: int, max_tokens: int, whole: Collection[str] = ()) -> list[int]:
    """Indices of the documents to score: per category, in an order that the seed fixes, up to ``max_tokens`` answer tokens (0: all).

    ``whole``: categories of which the question's tokens count too, as they are long.
    """
    tokens_by_category: dict[str, int] = {}
    chosen = []
    for index in sorted(range(len(split)), key=lambda n: share(seed, split.entries[n].id)):
        category = split.entries[index].category
        if max_tokens and tokens_by_category.get(category, 0) >= max_tokens:
            continue
        tokens, loss_mask = split.document(index)
        if supervised := int(loss_mask[1:].sum()):
            counted = len(tokens) if category in whole else supervised
            tokens_by_category[category] = tokens_by_category.get(category, 0) + counted
            chosen.append(index)
    return chosen
