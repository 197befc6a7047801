"""The definition of an extraction task: which values of the record a question asks for, and how a note states them.

A definition is a YAML file: those in this folder by name, a user's own in ``data/``, where it ends in ``.task.yaml``. ``tasks.json``
beside the documents holds those that they were made with, each with the JSON Schema of its answers.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from tasks.corpus.documents import Document
from tasks.runtime.errors import did_you_mean
from tasks.runtime.files import write_whole
from tasks.runtime.params import Params

ENDING = ".task.yaml"  # of a user's own definition
FILE = "tasks.json"
_FOLDER = Path(__file__).parent
NOTE_BORDER = "\n\n"  # between the notes of a stay
_BORDER = "\n\n"  # between the instruction and the note
Json = dict[str, Any]


class NumberSource(Params):
    """Where the record holds a number, and how notes state it."""

    stated: tuple[str, ...] = Field(min_length=1)  # "HR #", "BP #/*": words, # for the number, * for another one
    code: str = ""  # of the resource, or of one of its components
    resource: str = "Observation"
    value: tuple[str, ...] = ("valueQuantity.value", "valueInteger")  # paths
    unit: str = ""

    @field_validator("stated")
    @classmethod
    def _check_stated(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if pattern.count("#") != 1 or not pattern[0].isalpha():
                raise ValueError(f"{pattern!r} is not a word with one # behind it, where the number stands")
        return patterns


class NumbersField(Params):
    """An object of numbers by their names."""

    numbers: dict[str, NumberSource] = Field(min_length=1)
    scope: Literal["encounter", "patient"] = "encounter"  # whose resources count


class NamesField(Params):
    """A list of names, such as drugs; with ``code``, of objects with a name and a code."""

    resources: tuple[str, ...] = Field(min_length=1)
    names: tuple[str, ...] = Field(min_length=1)  # paths; the first that the note states is the name
    code: str = ""  # a path
    scope: Literal["encounter", "patient"] = "encounter"
    # The record should hold every name that a note states: no question is asked about a note with a name that only other records have.
    complete: bool = False
    # Answers hold at most so many, so that each ends; no question is asked about a note with more.
    max_items: int | None = Field(None, ge=1)


class Definition(Params):
    """What a definition file holds."""

    version: Literal[1]
    instructions: tuple[str, ...] = Field(min_length=1)  # in different words
    max_chars: int = Field(ge=100)  # of a note, or of all of a stay; nothing is asked about longer ones
    notes: Literal["one", "stay"] = "one"  # what a question is about: a note, or those of an encounter in a file, in their order
    note_types: tuple[str, ...] = ()  # codes of types of notes, such as LOINC's 11506-3; none: all
    fields: dict[str, NumbersField | NamesField] = Field(min_length=1)

    @field_validator("instructions")
    @classmethod
    def _check_instructions(cls, instructions: tuple[str, ...]) -> tuple[str, ...]:
        if any(_BORDER in text or text != text.strip() or not text for text in instructions):
            raise ValueError("an instruction is text without an empty line and without blanks around it")
        return instructions


class Task:
    """An extraction task by its name, with the JSON Schema of its answers."""

    def __init__(self, name: str, definition: Definition):
        self.name, self.definition = name, definition

    @property
    def category(self) -> str:
        """The category of its documents."""
        return f"extract-{self.name}"

    @cached_property
    def schema(self) -> Json:
        """The JSON Schema of an answer.

        ``x-stated: false`` marks what no note need state; ``x-unit`` is a UCUM unit; in an array with ``x-unique`` a value counts once,
        however often it stands there (``uniqueItems`` cannot be demanded of an answer).
        """
        fields = {name: _schema_of(field) for name, field in self.definition.fields.items()}
        return _object(fields, required=list(fields))


NO_TASKS: Mapping[str, Task] = MappingProxyType({})


def note_of(document: Document) -> str:
    """The note in the question of a document with a task."""
    return document.question.partition(_BORDER)[2]


def question(instruction: str, note: str) -> str:
    """The question that asks for what a note states."""
    return f"{instruction}{_BORDER}{note}"


def load_tasks(names: Sequence[str], data: Path) -> dict[str, Task]:
    """The tasks of these names, in their order. ``ValueError`` names the file that is missing or wrong, and the place in it."""
    tasks = [_load(name, data) for name in names]
    by_name = {task.name: task for task in tasks}
    if len(by_name) < len(tasks):
        raise ValueError("params.yaml: preprocess.tasks names one task twice")
    return by_name


def write_tasks(tasks: Mapping[str, Task], documents: Path) -> None:
    """Write the definitions, with the schemas of their answers, beside the documents."""
    write_whole(documents / FILE, {name: _to_json(task) | {"schema": task.schema} for name, task in tasks.items()})


def read_tasks(documents: Path) -> dict[str, Task]:
    """The tasks that documents were made with; empty where they were made with none."""
    path = documents / FILE
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_bytes())
        return {name: Task(name, _parsed({k: v for k, v in fields.items() if k != "schema"})) for name, fields in stored.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not what preprocess writes; run 'dvc repro --force preprocess'") from None


def _load(name: str, data: Path) -> Task:
    own = name.endswith(ENDING)
    path = data / name if own else _FOLDER / f"{name}.yaml"
    shipped = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
    if not own and name not in shipped:
        there = f"{did_you_mean(name, shipped)}; there are {', '.join(shipped)}, and your own in {data.name}/, which end in {ENDING}"
        raise ValueError(f"params.yaml: preprocess.tasks names {name!r}, which is no task{there}")
    try:
        return Task(Path(name).name.removesuffix(ENDING), _parsed(YAML(typ="safe").load(path)))
    except FileNotFoundError:
        raise ValueError(f"params.yaml: preprocess.tasks names {name!r}, and {data.name} holds no such file") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path.name}{line} is not YAML: {error.problem}") from None
    except ValidationError as error:
        problems = ("{}: {}".format(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors(include_url=False, include_input=False))
        raise ValueError(f"{path.name} is no definition of a task: {'; '.join(problems)}") from None


def _parsed(raw: object) -> Definition:
    return Definition.model_validate_json(json.dumps(raw, default=str))  # strict, and still takes a list for a tuple


def _to_json(task: Task) -> Json:
    return task.definition.model_dump(mode="json")


def _schema_of(field: NumbersField | NamesField) -> Json:
    if isinstance(field, NumbersField):
        units = {name: {"x-unit": source.unit} if source.unit else {} for name, source in field.numbers.items()}
        return _object({name: {"type": "number"} | unit for name, unit in units.items()}, required=[])
    name: Json = {"type": "string", "minLength": 1}
    coded = _object({"name": name, "code": {"type": "string", "x-stated": False}}, required=["name", "code"])
    limit: Json = {} if field.max_items is None else {"maxItems": field.max_items}
    return {"type": "array", "items": coded if field.code else name, "x-unique": True} | limit


def _object(properties: Json, required: Sequence[str]) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
