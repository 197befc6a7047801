"""What a probe is: texts whose tokens a model scores, and the values that follow; base and tuned values become paired scores."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document
from tasks.corpus.shards.tokenize import tokenized
from tasks.evaluation.likelihood import Text, TokenScores
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.scores import Score


class Item(NamedTuple):
    """A scored item: a document or a question."""

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
    """What every probe has; list a new one in ``run.py``."""

    @property
    def texts(self) -> Sequence[Text]:
        """The texts to score."""

    def values(self, scores: Sequence[TokenScores]) -> Iterable[Value]:
        """The values that follow from the scores of ``texts``, in an order that does not depend on the model."""


def paired(base: Sequence[Value], tuned: Sequence[Value], groups: Mapping[str, str]) -> list[Score]:
    """The values of both models on the same items; ``groups``: by item's id, of those that were sampled with others."""
    scores = []
    for before, after in zip(base, tuned, strict=True):
        assert (before.metric, before.item) == (after.metric, after.item)
        assert before.weight == after.weight or METRICS[before.metric].own_weights
        group = groups.get(before.item.id, "")
        scores.append(Score(before.metric, *before.item, before.weight, after.weight, before.total, after.total, group))
    return scores


def as_text(document: Document, tokenizer: Tokenizer) -> Text:
    """A document as the shards would hold it: its answer is scored, with the end-of-turn token."""
    (tokenized_document,) = tokenized([document], tokenizer, loss_on_all=False)
    return Text(tokenized_document.tokens, tokenized_document.loss)


def digest(texts: Iterable[Text]) -> str:
    """SHA-256 of the tokens and of which of them are scored."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(len(text.tokens).to_bytes(8, "little"))
        sha.update(np.ascontiguousarray(text.tokens, "<u4").tobytes())
        sha.update(np.ascontiguousarray(text.loss_mask, np.uint8).tobytes())
    return sha.hexdigest()
