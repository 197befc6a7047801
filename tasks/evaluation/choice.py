"""Four-choice questions made from held-out documents, and whether the choice survives a rephrased question.

The right answer is the document's own; three wrong ones are answers of the same category from other groups of held-out documents, of
about its length, in which their own topic's name has been replaced by that of the question, so that copying a name does not help.
A model chooses the answer of the least negative log-likelihood per byte, as lm-evaluation-harness's acc_norm does; chance is one in
four. A wrong answer may be true in part.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.augmentation import paraphrase
from tasks.corpus.documents import Document, share
from tasks.evaluation.likelihood import Text, TokenScores
from tasks.evaluation.probes import Item, Value, as_text

WRONG = 3
POOL = 500  # documents per category among which wrong answers are looked for
REPHRASE_EVERY = 2  # every second question is asked in a rephrased form too, as each takes four answers more
MAX_CHARACTERS = 400  # of an answer: four long ones take long to score and differ in many places


@dataclass(frozen=True)
class Question:
    """A document with four answers, the right one first; ``rephrased``: its question in other words, empty where none are known."""

    document: Document
    answers: tuple[str, ...]
    rephrased: str


class Choices:
    """Probe: the answer of four that a model finds likeliest per byte, and whether it stays the same for a rephrased question."""

    def __init__(self, questions: Sequence[Question], tokenizer: Tokenizer):
        self._questions = questions
        self.texts: list[Text] = []
        for question in questions:
            for phrasing in filter(None, (question.document.question, question.rephrased)):
                self.texts += [as_text(replace(question.document, question=phrasing, answer=a), tokenizer) for a in question.answers]

    def values(self, scores: Sequence[TokenScores]) -> Iterator[Value]:
        """1 for each right choice, else 0; and 1 for each that stays the same for the rephrased question, else 0."""
        rest = iter(scores)
        for question in self._questions:
            document = question.document
            item = Item(document.id, document.split, document.category, document.source)
            picked = _picked(question.answers, rest)
            yield Value("choice", item, 1, float(picked == 0))
            if question.rephrased:
                yield Value("consistency", item, 1, float(_picked(question.answers, rest) == picked))


def _picked(answers: Sequence[str], scores: Iterator[TokenScores]) -> int:
    """The index of the answer with the fewest nats per byte; of equals the last, so that the first, which is right, gains nothing."""
    costs = [float(next(scores).nll.sum()) / len(answer.encode()) for answer in answers]
    return min(range(len(costs)), key=lambda index: (costs[index], -index))


def questions(documents: Sequence[Document], *, seed: int, per_category: int) -> list[Question]:
    """Up to ``per_category`` (0: all) for each category of document, in an order that the seed fixes; where three wrong answers exist."""
    categories: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda d: share(seed, "choice", d.id)):
        if document.question and 0 < len(document.answer) <= MAX_CHARACTERS:
            categories.setdefault(document.category, []).append(document)
    chosen: list[Question] = []
    for category in sorted(categories):
        of_category: list[Question] = []
        for document in categories[category]:
            if per_category and len(of_category) == per_category:
                break
            wrong = _wrong(document, categories[category][:POOL], seed)
            if len(wrong) == WRONG:
                rephrased = "" if len(of_category) % REPHRASE_EVERY else _rephrased(document, seed)
                of_category.append(Question(document, (document.answer, *wrong), rephrased))
        chosen += of_category
    return chosen


def _wrong(document: Document, pool: Sequence[Document], seed: int) -> list[str]:
    """Up to three wrong answers from the pool, of other groups, of similar length, about the document's topic."""
    answers: dict[str, None] = {}
    groups = {document.group}
    for other in sorted(pool, key=lambda d: share(seed, document.id, d.id)):
        if other.group in groups or not 0.5 <= len(other.answer) / len(document.answer) <= 2:
            continue
        answer = _about(other, document.topic)
        if answer.lower() != document.answer.lower() and answer not in answers:
            answers[answer] = None
            groups.add(other.group)
        if len(answers) == WRONG:
            break
    return list(answers)


def _about(document: Document, topic: str) -> str:
    """The document's answer, about another topic."""
    if not (topic and document.topic):
        return document.answer
    return re.sub(rf"(?<!\w){re.escape(document.topic)}(?!\w)", lambda _: topic, document.answer, flags=re.I)


def _rephrased(document: Document, seed: int) -> str:
    templates, topic = paraphrase.question_templates(document)
    if not (templates and topic):
        return ""
    return templates[int(share(seed, "reworded", document.id) * len(templates))].format(topic=topic)
