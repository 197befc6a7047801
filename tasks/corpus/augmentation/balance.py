"""Questions of tasks about notes of rare kinds, asked again in other words of the task.

The kind of a question is the file of its note and which fields its answer fills: a model that seldom sees a note without vital signs
invents some for it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.corpus.documents import Document, share
from tasks.corpus.extraction.definitions import note_of, question

MAX_TIMES = 5  # that a question is asked in all
Kind = tuple[str, ...]


def kind_of(document: Document) -> Kind:
    """The kind of a task's document."""
    return (document.task, document.source, *(name for name, values in json.loads(document.answer).items() if values))


def count_kinds(documents: Iterable[Document]) -> Counter[Kind]:
    """How many documents of tasks there are of each kind."""
    return Counter(kind_of(document) for document in documents if document.task)


def times(document: Document, kinds: Counter[Kind], balance: float) -> float:
    """How often a document's question should be asked: (documents of its task's largest kind / of its own) ^ ``balance``."""
    kind = kind_of(document)
    largest = max(count for (task, *_), count in kinds.items() if task == document.task)
    return float(min((largest / kinds[kind]) ** balance, MAX_TIMES))


def asked_again(document: Document, instructions: Sequence[str], often: float, seed: int) -> list[Document]:
    """The document with each of the task's other instructions in turn, so that it is there ``often`` times on average.

    None where the task has one instruction only, as a copy would say the same.
    """
    note = note_of(document)
    others = [instruction for instruction in instructions if question(instruction, note) != document.question]
    copies = int(often) - 1 + (share(seed, "balance", document.id) < often % 1)
    return [replace(document, question=question(others[i % len(others)], note)) for i in range(copies if others else 0)]
