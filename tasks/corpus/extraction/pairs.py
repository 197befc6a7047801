"""A note and the record of its stay to a question with its answer: what the record holds and the note states."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.corpus.documents import Document, content_id, share
from tasks.corpus.extraction.definitions import NamesField, NumbersField, NumberSource, Task, note_of, question
from tasks.corpus.extraction.facts import Fact
from tasks.corpus.extraction.statements import find_name, is_rounded, stated_numbers, to_number

Json = dict[str, Any]
Facts = Callable[[str, str], Sequence[Fact]]  # of a field and a scope
Names = Callable[[str], Sequence[str]]  # that any record has for a field


class NotAskedError(ValueError):
    """A note about which nothing is asked: where it states what its record does not hold, which of them is right nobody can say here."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name where a note states it."""

    start: int
    end: int
    name: str
    code: str


def make_document(note: Document, task: Task, recorded: Facts, all_names: Names) -> Document | None:
    """The document that asks for what a note states; None where the note states nothing of the record.

    ``NotAskedError`` says why nothing can be asked.
    """
    if len(note.answer) > task.definition.max_chars:
        raise NotAskedError("is longer than the task's max_chars")
    answer = {name: _value(note.answer, task, name, recorded, all_names) for name in task.definition.fields}
    if not any(answer.values()):
        return None
    instructions = task.definition.instructions
    instruction = instructions[int(share(task.name, note.id) * len(instructions))]
    asked = replace(note, question=question(instruction, note.answer), answer=_to_text(answer))
    return replace(asked, id=content_id(note.id, "task", task.name), category=task.category, task=task.name)


def keep_stated(document: Document, task: Task) -> Document:
    """The document with an answer of what the task asks for and its note still states, after identifiers and what else goes were taken
    out of the note.

    So an answer holds no word that the note does not, but for codes. It is empty where nothing is left.
    """
    note, before = note_of(document), json.loads(document.answer)
    answer: Json = {}
    for name, field in task.definition.fields.items():
        if isinstance(field, NumbersField):
            asked = {key: value for key, value in before[name].items() if key in field.numbers}
            stated = {key: map(to_number, stated_numbers(note, field.numbers[key].stated)) for key in asked}
            answer[name] = {key: value for key, value in asked.items() if value in stated[key]}
        else:
            answer[name] = [item for item in before[name] if find_name(note, item["name"] if field.code else item)]
    return replace(document, answer=_to_text(answer) if any(answer.values()) else "")


def _value(note: str, task: Task, name: str, recorded: Facts, all_names: Names) -> Json | list[Any]:
    field, path = task.definition.fields[name], f"{task.name}.{name}"
    if isinstance(field, NumbersField):
        of_stay = task.definition.notes == "stay"
        numbers = {
            key: _number(note, source, recorded(f"{path}.{key}", field.scope), of_stay=of_stay) for key, source in field.numbers.items()
        }
        return {key: number for key, number in numbers.items() if number is not None}
    own = recorded(path, field.scope)
    if field.complete and _has_other_names(note, own, all_names(path)):
        raise NotAskedError("states a name that other records have and its own has not")
    stated = _names(note, field, own)
    if field.max_items is not None and len(stated) > field.max_items:
        raise NotAskedError("states more names than the task's max_items")
    return [{"name": named.name, "code": named.code} if field.code else named.name for named in stated]


def _number(note: str, source: NumberSource, recorded: Sequence[Fact], *, of_stay: bool) -> int | float | None:
    """The number that a note states and the record has; of several, the last one.

    In a single note that must be the one that was measured last: which of them is meant else, a reader cannot know.
    """
    if not (stated := stated_numbers(note, source.stated)):
        return None
    matches = [(fact.stamp, number) for number in stated for fact in recorded if is_rounded(number, float(fact.value))]
    if {number for _, number in matches} != set(stated):
        raise NotAskedError("states a number that its record does not have")
    latest = max(stamp for stamp, _ in matches)
    if not of_stay and (latest, stated[-1]) not in matches:
        raise NotAskedError("states several values of one kind, of which the last is not the one that was measured last")
    return to_number(stated[-1])


def _names(note: str, field: NamesField, recorded: Sequence[Fact]) -> list[_Name]:
    """The names that a note states, each once, in its order."""
    of_record = {(fact.code, form) for fact in recorded if fact.code or not field.code for form in fact.value.split("\n")}
    stated = [_Name(start, end, note[start:end], code) for code, form in of_record for start, end in find_name(note, form)]
    first = {named.name.casefold(): named for named in sorted(_longest(stated), key=lambda p: (-p.start, p.code))}
    return sorted(first.values(), key=lambda named: (named.start, named.code))


def _has_other_names(note: str, recorded: Sequence[Fact], names: Sequence[str]) -> bool:
    own = {form.casefold() for fact in recorded for form in fact.value.split("\n")}
    stated = [_Name(start, end, name, "") for name in names for start, end in find_name(note, name)]
    return any(named.name.casefold() not in own for named in _longest(stated))


def _longest(stated: Sequence[_Name]) -> list[_Name]:
    """The stated without those that are within a longer one."""
    return [p for p in stated if not any(o.start <= p.start and p.end <= o.end and o.end - o.start > p.end - p.start for o in stated)]


def _to_text(answer: Json) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
