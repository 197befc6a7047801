"""What a probe is: texts whose tokens a model judges, and the values read from that; base and tuned become scores side by side."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document
from tasks.corpus.shards.tokenize import tokenized
from tasks.evaluation.likelihood import Judged, Text
from tasks.evaluation.scores import Score


class Item(NamedTuple):
    """What is known of a scored item."""

    id: str
    split: str
    category: str
    source: str


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of one item under one model: ``total`` over ``weight``."""

    metric: str
    item: Item
    weight: float
    total: float


class Probe(Protocol):
    @property
    def texts(self) -> Sequence[Text]:
        """What is to be judged."""

    def values(self, judged: Sequence[Judged]) -> Iterable[Value]:
        """What follows from it, in an order that does not depend on the model."""


def paired(base: Sequence[Value], tuned: Sequence[Value]) -> list[Score]:
    """The values of both models on the same items."""
    scores = []
    for one, other in zip(base, tuned, strict=True):
        assert (one.metric, one.item, one.weight) == (other.metric, other.item, other.weight)
        scores.append(Score(one.metric, *one.item, weight=one.weight, base=one.total, tuned=other.total))
    return scores


def as_text(document: Document, tokenizer: Tokenizer) -> Text:
    """A document as the shards would hold it: its answer counts, the end-of-turn token included."""
    (made,) = tokenized([document], tokenizer, loss_on_all=False)
    return Text(made.tokens, made.loss)


def digest(texts: Iterable[Text]) -> str:
    """Of which tokens are judged, and where."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(len(text.tokens).to_bytes(8, "little"))
        sha.update(np.ascontiguousarray(text.tokens, "<u4").tobytes())
        sha.update(np.ascontiguousarray(text.counts, np.uint8).tobytes())
    return sha.hexdigest()
