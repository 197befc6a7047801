"""Small tests of behaviour, and general text: items that are written down here, the same for every corpus.

``behaviour.csv`` holds questions about negation and dose, each with a right and a wrong answer, balanced so that no fixed answer is right
more often than wrong; the model prefers one by its negative log-likelihood per byte, and chance is one half. ``general.csv`` holds
passages on everyday subjects: how much less likely they become measures forgetting.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document
from tasks.evaluation.likelihood import Text, TokenScores
from tasks.evaluation.probes import Item, Value, as_text

HERE = Path(__file__).resolve().parent
BEHAVIOUR, GENERAL = HERE / "behaviour.csv", HERE / "general.csv"
GENERAL_SPLIT = "general"


@dataclass(frozen=True)
class Pair:
    """A question with a right and a wrong answer; ``metric`` is what it tests."""

    metric: str
    id: str
    question: str
    answers: tuple[str, str]


class Preferences:
    """Probe: which of two answers a model finds likelier per byte."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: Tokenizer):
        self._pairs = pairs
        self.texts = [as_text(_document(p.id, p.question, answer), tokenizer) for p in pairs for answer in p.answers]

    def values(self, scores: Sequence[TokenScores]) -> Iterator[Value]:
        """1 for each pair whose right answer is preferred, else 0."""
        rest = iter(scores)
        for pair in self._pairs:
            right, wrong = (float(next(rest).nll.sum()) / len(answer.encode()) for answer in pair.answers)
            yield Value(pair.metric, Item(pair.id, "behaviour", pair.metric, BEHAVIOUR.name), 1, float(right < wrong))


class GeneralText:
    """Probe: plain text on other subjects than the corpus's, or that training never saw."""

    def __init__(self, documents: Sequence[Document], tokenizer: Tokenizer):
        self._documents = documents
        self.texts: list[Text] = [as_text(document, tokenizer) for document in documents]

    def values(self, scores: Sequence[TokenScores]) -> Iterator[Value]:
        """Nats of each text."""
        for document, of_text in zip(self._documents, scores, strict=True):
            item = Item(document.id, GENERAL_SPLIT, document.category, document.source)
            yield Value("general_nll", item, len(of_text.nll), float(of_text.nll.sum()))


def pairs() -> list[Pair]:
    """The rows of behaviour.csv."""
    with open(BEHAVIOUR, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Pair(row["metric"], f"{row['metric']}-{n}", row["question"], (row["right"], row["wrong"])) for n, row in enumerate(rows)]


def passages() -> list[Document]:
    """The rows of general.csv."""
    with open(GENERAL, encoding="utf-8", newline="") as file:
        return [_document(f"general-{n}", "", row["text"], source=GENERAL.name) for n, row in enumerate(csv.DictReader(file))]


def _document(key: str, question: str, answer: str, *, source: str = BEHAVIOUR.name) -> Document:
    return Document(key, question, answer, source=source, category="general", group=key, position="")
