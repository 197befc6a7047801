"""What the resources of a record state for extraction tasks: numbers by their code, names by their path."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tasks.corpus.extraction.definitions import NamesField, NumbersField, NumberSource, Task

Json = dict[str, Any]
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+/^-]{0,19}")  # of ICD, SNOMED CT, LOINC, RxNorm, ATC
_REFUTED = frozenset({"refuted", "entered-in-error"})


class Fact(NamedTuple):
    """A value of the record for a field of a task."""

    field: str  # task.field, or task.field.name of a number
    value: str  # a number as JSON, or names separated by line ends, those first that are asked for first
    code: str
    stamp: str  # when it was measured or written, as text that sorts


def resource_types(tasks: Mapping[str, Task]) -> frozenset[str]:
    """The types of resources that the tasks need."""
    return frozenset(type_ for task in tasks.values() for field in task.definition.fields.values() for type_ in _types(field))


def facts_of(resource: Json, tasks: Mapping[str, Task]) -> Iterator[Fact]:
    """What a resource states for the fields of the tasks."""
    if _is_refuted(resource):
        return
    stamp = next(filter(None, (_text(resource.get(key)) for key in ("effectiveDateTime", "issued", "authoredOn", "recordedDate"))), "")
    for task in tasks.values():
        for name, field in task.definition.fields.items():
            if resource["resourceType"] not in _types(field):
                continue
            if isinstance(field, NumbersField):
                for number, source in field.numbers.items():
                    for value in _numbers(resource, source):
                        yield Fact(f"{task.name}.{name}.{number}", repr(value), source.code, stamp)
            elif forms := list(dict.fromkeys(form for path in field.names for form in _strings(resource, path))):
                # A code is no text of the note, so nothing that may be a sentence or a name with blanks passes for one.
                codes = [code for code in _strings(resource, field.code) if _CODE.fullmatch(code)] if field.code else [""]
                yield from (Fact(f"{task.name}.{name}", "\n".join(forms), code, stamp) for code in codes[:1])


def _types(field: NumbersField | NamesField) -> frozenset[str]:
    return (
        frozenset(source.resource for source in field.numbers.values()) if isinstance(field, NumbersField) else frozenset(field.resources)
    )


def _is_refuted(resource: Json) -> bool:
    states = [_text(resource.get("status")), *_strings(resource, "verificationStatus.coding.code")]
    return any(state in _REFUTED for state in states)


def _numbers(resource: Json, source: NumberSource) -> Iterator[float]:
    """The numbers of a resource, or of its components, that have the code; of any, where none is asked for."""
    if resource["resourceType"] != source.resource:
        return
    components = resource.get("component")
    for part in (resource, *(components if isinstance(components, list) else ())):
        if isinstance(part, dict) and (not source.code or source.code in _strings(part, "code.coding.code")):
            values = (value for path in source.value for value in values_at(part, path))
            yield from (value for value in values if isinstance(value, int | float) and not isinstance(value, bool))


def _strings(resource: Json, path: str) -> Iterator[str]:
    for value in values_at(resource, path):
        if text := _text(value):
            yield text


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def values_at(value: object, path: str) -> Iterator[object]:
    """What a path of keys leads to, ``code.coding.display``; through each item of a list."""
    if isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, dict):
        key, _, rest = path.partition(".")
        if key in value:
            yield from values_at(value[key], rest)
