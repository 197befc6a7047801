"""Four-choice questions made from held-out documents, and whether the choice survives another wording of the question.

The right answer is the document's own; three wrong ones are answers of the same kind from other groups of held-out documents, of
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
from tasks.evaluation.likelihood import Judged, Text
from tasks.evaluation.probes import Item, Value, as_text

WRONG = 3
POOL = 500  # documents per kind among which wrong answers are looked for
REWORDED = 2  # every second question is asked in another wording too, as each takes four answers more
LONGEST = 400  # characters of an answer: four long ones take long to read and differ in many places


@dataclass(frozen=True)
class Question:
    """A document with four answers, the right one first; ``reworded``: the same in another wording, where one is known."""

    document: Document
    answers: tuple[str, ...]
    reworded: str


class Choices:
    def __init__(self, questions: Sequence[Question], tokenizer: Tokenizer):
        self._questions = questions
        self.texts: list[Text] = []
        for question in questions:
            for asked in filter(None, (question.document.question, question.reworded)):
                self.texts += [as_text(replace(question.document, question=asked, answer=a), tokenizer) for a in question.answers]

    def values(self, judged: Sequence[Judged]) -> Iterator[Value]:
        rest = iter(judged)
        for question in self._questions:
            document = question.document
            item = Item(document.id, document.split, document.kind, document.source)
            picked = _picked(question.answers, rest)
            yield Value("choice", item, 1, float(picked == 0))
            if question.reworded:
                yield Value("consistency", item, 1, float(_picked(question.answers, rest) == picked))


def _picked(answers: Sequence[str], judged: Iterator[Judged]) -> int:
    """The number of the answer with the least nats per byte; of equals the last, so that the first, which is right, gains nothing."""
    costs = [float(next(judged).nats.sum()) / len(answer.encode()) for answer in answers]
    return min(range(len(costs)), key=lambda number: (costs[number], -number))


def questions(documents: Sequence[Document], *, seed: int, per_kind: int) -> list[Question]:
    """Up to ``per_kind`` (0: all) for each kind of document, in an order that the seed fixes; those with three wrong answers to be had."""
    kinds: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda d: share(seed, "choice", d.id)):
        if document.question and 0 < len(document.answer) <= LONGEST:
            kinds.setdefault(document.kind, []).append(document)
    found: list[Question] = []
    for kind in sorted(kinds):
        of_kind: list[Question] = []
        for document in kinds[kind]:
            if per_kind and len(of_kind) == per_kind:
                break
            wrong = _wrong(document, kinds[kind][:POOL], seed)
            if len(wrong) == WRONG:
                reworded = "" if len(of_kind) % REWORDED else _reworded(document, seed)
                of_kind.append(Question(document, (document.answer, *wrong), reworded))
        found += of_kind
    return found


def _wrong(document: Document, pool: Sequence[Document], seed: int) -> list[str]:
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


def _reworded(document: Document, seed: int) -> str:
    wordings, topic = paraphrase.wordings(document)
    if not (wordings and topic):
        return ""
    return wordings[int(share(seed, "reworded", document.id) * len(wordings))].format(topic=topic)
