"""An answer in JSON beside the truth: does it parse, which of its values are right, and which does the note state nowhere?

An answer parses where it ends by itself, is one JSON object without repeated keys and is valid under the task's schema; one that does not
counts as an answer without values. Values are the leaves below the schema's properties. A list is a multiset of values, or under
``x-unique`` a set, and an object in a list is one value. Numbers are equal within the schema's ``x-tolerance``, strings but for case and
blanks. It knows no model.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from jsonschema import Draft202012Validator

from model.generation.grounding import stated_numbers

Schema = Mapping[str, Any]
_EPSILON = 1e-9  # what floating-point subtraction may add to a difference that is the tolerance


class Counts(NamedTuple):
    """Numbers of values: of the truth, predicted ones, right ones, those the note should state, and those of them that it does not."""

    true: int = 0
    predicted: int = 0
    right: int = 0
    checked: int = 0
    unstated: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sums."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Marks:
    """What is to be said of an answer; ``fields``: by path of the property, ``vital_signs.heart_rate``."""

    parsed: bool
    exact: bool
    fields: dict[str, Counts]

    def total(self) -> Counts:
        """The sums over all fields."""
        total = Counts()
        for counts in self.fields.values():
            total = total.plus(counts)
        return total


class _Leaf(NamedTuple):
    value: Any
    schema: Schema
    exempt: bool  # the note need not state it


def mark(text: str, truth: str, note: str, schema: Schema, *, complete: bool) -> Marks:
    """Marks of an answer. ``complete``: the model ended it; ``truth``: the right answer, JSON.

    ``ValueError`` where the truth is no JSON.
    """
    answer = parse(text, schema) if complete else None
    expected, given, stated = _leaves(parse_json(truth), schema), _leaves(answer or {}, schema), Stated(note)
    fields = {path: _counts(expected.get(path, ()), given.get(path, ()), stated) for path in sorted({*expected, *given})}
    exact = answer is not None and all(counts.true == counts.predicted == counts.right for counts in fields.values())
    return Marks(answer is not None, exact, fields)


def parse(text: str, schema: Schema) -> dict[str, Any] | None:
    """The object that a text is and nothing else, where it is valid under the schema."""
    try:
        answer = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and Draft202012Validator(schema).is_valid(answer) else None


def parse_json(text: str) -> Any:
    """The value. ``ValueError`` where it is no JSON by RFC 8259, a number is beyond floating point, or a key of an object is repeated:
    which of its values counts, nobody says.
    """
    return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse, parse_int=_integer, parse_float=_finite)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key is repeated")
    return members


def _integer(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _finite(digits: str) -> float:
    return number if math.isfinite(number := float(digits)) else _refuse("a number beyond floating point")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _leaves(answer: Mapping[str, Any], schema: Schema) -> dict[str, list[_Leaf]]:
    leaves: dict[str, list[_Leaf]] = {}
    for path, leaf in _walk(answer, schema, "", False):
        leaves.setdefault(path, []).append(leaf)
    return leaves


def _walk(value: Any, schema: Schema, path: str, exempt: bool) -> Iterator[tuple[str, _Leaf]]:
    exempt = exempt or schema.get("x-stated") is False
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _walk(member, schema.get("properties", {}).get(key, {}), f"{path}.{key}" if path else key, exempt)
    elif isinstance(value, list):
        of_items, members = schema.get("items", {}), [member for member in value if member is not None]
        if schema.get("x-unique"):
            members = [m for n, m in enumerate(members) if not any(equal(m, before, of_items) for before in members[:n])]
        yield from ((path, _Leaf(member, of_items, exempt)) for member in members)
    elif value is not None:
        yield path, _Leaf(value, schema, exempt)


def _counts(expected: Sequence[_Leaf], given: Sequence[_Leaf], stated: "Stated") -> Counts:
    checks = [check for leaf in given if not leaf.exempt and (check := stated.states(leaf.value, leaf.schema)) is not None]
    return Counts(len(expected), len(given), _matched(expected, given), len(checks), checks.count(False))


def _matched(expected: Sequence[_Leaf], given: Sequence[_Leaf]) -> int:
    """The most pairs of equal values, each used once: a maximum matching (Kuhn 1955), as tolerances make one value equal to several."""
    partner: dict[int, int] = {}  # of an expected value

    def assign(index: int, tried: set[int]) -> bool:
        for position, leaf in enumerate(expected):
            if position not in tried and equal(given[index].value, leaf.value, leaf.schema):
                tried.add(position)
                if position not in partner or assign(partner[position], tried):
                    partner[position] = index
                    return True
        return False

    return sum(assign(index, set()) for index in range(len(given)))


def equal(a: Any, b: Any, schema: Schema) -> bool:
    """Whether two values are the same: numbers within the tolerance, strings but for case and blanks, objects and lists part by part."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return _close(a, b, schema)
    if isinstance(a, str) and isinstance(b, str):
        return normalized(a) == normalized(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key], schema.get("properties", {}).get(key, {})) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(equal(*pair, schema.get("items", {})) for pair in zip(a, b, strict=True))
    return False


def _close(a: float, b: float, schema: Schema) -> bool:
    return a == b or abs(a - b) <= schema.get("x-tolerance", 0) + _EPSILON * max(1.0, abs(a))


def normalized(text: str) -> str:
    """Without differences of case, blanks and compatible characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Stated:
    """What a note states: the words and numbers in it."""

    def __init__(self, note: str):
        self._text = normalized(note)
        self._numbers = stated_numbers(self._text)

    def states(self, value: Any, schema: Schema) -> bool | None:
        """Whether the note states a value; of an object and a list, all in it. None where there is nothing that it should state."""
        if schema.get("x-stated") is False or value is None or isinstance(value, bool):
            return None
        if isinstance(value, dict | list):
            parts = _parts(value, schema)
            checks = [check for part, of_part in parts if (check := self.states(part, of_part)) is not None]
            return all(checks) if checks else None
        if isinstance(value, str):
            words = normalized(value)
            return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", self._text) is not None
        return any(_close(abs(value), number, schema) for number in self._numbers)


def _parts(value: dict[str, Any] | list[Any], schema: Schema) -> list[tuple[Any, Schema]]:
    if isinstance(value, dict):
        return [(part, schema.get("properties", {}).get(key, {})) for key, part in value.items()]
    return [(part, schema.get("items", {})) for part in value]
