"""Answers whose values a text states: a JSON Schema narrowed to the numbers and words of that text.

A small model copies a long number wrongly now and then, or fills a property in of which the text says nothing. Under a narrowed schema it
can do neither. Which number belongs to which property it still has to know.
"""

import re
from collections.abc import Mapping
from typing import Any

MAX_WORDS = 12  # of a string
MAX_DIGITS = 15  # of a number; more than floating point holds is a code
_MAX_BYTES = 900_000  # of all strings that an answer may have; llguidance takes schemas of up to a megabyte
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SIGN = re.compile(r"(?<!\w)[-−]$")
_WORD = re.compile(r"\w+")
_BEHIND_A_WORD = re.compile(r"[)\]%°+]+(?!\w)")  # may be the end of a value: "0.9%", "aspirin (low dose)"
_NUMBERS, _WHOLE, _STRINGS, _ANY = "x-stated-numbers", "x-stated-whole", "x-stated-strings", "x-stated-any"  # definitions
_BY_TYPE = {"number": _NUMBERS, "integer": _WHOLE, "string": _STRINGS}
_ONE, _LISTED, _NAMED = (
    ("items", "additionalProperties"),
    ("prefixItems", "anyOf", "oneOf", "allOf"),
    ("properties", "$defs", "definitions"),
)


def grounded(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The schema of those answers to ``schema`` whose numbers and strings stand in ``text``: a number as digits, a string as words.

    A string may also be empty, and has at most ``MAX_WORDS`` words. ``enum`` and ``const`` stay as they are, and so does all below
    ``x-stated: false``. Values of no type are numbers, strings, true, false or null. ``ValueError`` for a text that is too long.
    """
    numbers, strings = _numbers(text), _strings(text)
    if sum(len(string.encode()) + 3 for string in strings) > _MAX_BYTES:
        raise ValueError(f"a text of {len(text):,} characters is too long for a grounded answer, about 10,000 are not")
    whole = [number for number in numbers if isinstance(number, int)]
    stated = {_NUMBERS: numbers, _WHOLE: whole, _STRINGS: strings, _ANY: [*numbers, *strings, True, False, None]}
    narrowed = _narrowed(schema)
    return narrowed | {"$defs": narrowed.get("$defs", {}) | {name: {"enum": values} for name, values in stated.items()}}


def readings(token: str) -> list[float]:
    """The numbers that digits with points and commas may mean: ``1,250`` is 1250 or 1.25, ``5.3.2024`` three numbers."""
    parts = re.split("[.,]", token)
    numbers = {float("".join(parts))} if all(len(part) == 3 for part in parts[1:]) and len(parts[0]) <= 3 else set()
    if len(parts) <= 2:
        numbers.add(float(".".join(parts)))
    return sorted(numbers or map(float, parts))


def stated_numbers(text: str) -> list[float]:
    """All numbers that a text may mean by its digits, in its order, without their signs."""
    return [number for token in _NUMBER.findall(text) for number in readings(token)]


def _numbers(text: str) -> list[int | float]:
    """Each once; also below zero, where a minus sign stands before it."""
    numbers: dict[int | float, None] = {}
    for match in _NUMBER.finditer(text):
        if len(match[0]) > MAX_DIGITS:
            continue
        signs = (1, -1) if _SIGN.search(text[max(0, match.start() - 2) : match.start()]) else (1,)
        numbers |= {sign * (int(n) if n.is_integer() else n): None for n in readings(match[0]) for sign in signs}
    return list(numbers)


def _strings(text: str) -> list[str]:
    """Every run of words, each once, with blanks and line ends between them as one blank."""
    words = [match.span() for match in _WORD.finditer(text)]
    strings = {"": None}
    for index, (start, _) in enumerate(words):
        for _, end in words[index : index + MAX_WORDS]:
            strings[" ".join(text[start:end].split())] = None
            if behind := _BEHIND_A_WORD.match(text, end):
                strings[" ".join(text[start : behind.end()].split())] = None
    return list(strings)


def _narrowed(schema: Any) -> Any:
    """A schema in which every value is one of those that a definition of its type lists."""
    if schema is True or schema == {}:
        return _reference(_ANY)
    if not isinstance(schema, Mapping) or schema.get("x-stated") is False or "enum" in schema or "const" in schema:
        return schema
    result = dict(schema)
    result |= {key: _narrowed(schema[key]) for key in _ONE if key in schema}
    result |= {key: list(map(_narrowed, schema[key])) for key in _LISTED if isinstance(schema.get(key), list)}
    result |= {key: {n: _narrowed(v) for n, v in schema[key].items()} for key in _NAMED if isinstance(schema.get(key), Mapping)}
    types = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type")
    if not isinstance(types, list):
        return result
    if "object" in types and not {"additionalProperties", "unevaluatedProperties"} & schema.keys():
        result["additionalProperties"] = _reference(_ANY)
    if "array" in types and "items" not in schema:
        result["items"] = _reference(_ANY)
    if limited := [_reference(_BY_TYPE[of_type]) for of_type in types if of_type in _BY_TYPE]:
        free = [{"type": of_type} for of_type in types if of_type not in _BY_TYPE]
        result["allOf"] = [*result.get("allOf", ()), {"anyOf": limited + free} if free or limited[1:] else limited[0]]
    return result


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}
