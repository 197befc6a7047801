"""What too few train documents state to be learned, and the task without it: no question is asked about that."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.corpus.documents import Document
from tasks.corpus.extraction.definitions import NamesField, NumbersField, Task


def stated_numbers_of(document: Document) -> Iterator[str]:
    """``field.number`` of each number in the answer of a task's document."""
    for field, values in json.loads(document.answer).items():
        if isinstance(values, dict):
            yield from (f"{field}.{number}" for number in values)


@dataclass(frozen=True)
class Learnable:
    """A task with what enough train documents state; None where that is nothing."""

    task: Task | None
    dropped: tuple[str, ...]  # ``field.number`` of the others


def learnable(task: Task, documents: Mapping[str, int], min_examples: int) -> Learnable:
    """The task with the numbers that at least ``min_examples`` train documents state; ``documents`` counts them by ``field.number``."""
    fields: dict[str, NumbersField | NamesField] = {}
    dropped: list[str] = []
    for name, field in task.definition.fields.items():
        if not isinstance(field, NumbersField):
            fields[name] = field
            continue
        rare = {number for number in field.numbers if documents.get(f"{name}.{number}", 0) < min_examples}
        dropped += [f"{name}.{number}" for number in field.numbers if number in rare]
        if kept := {number: source for number, source in field.numbers.items() if number not in rare}:
            fields[name] = field.model_copy(update={"numbers": kept})
    definition = task.definition.model_copy(update={"fields": fields})
    return Learnable(Task(task.name, definition) if fields else None, tuple(dropped))
