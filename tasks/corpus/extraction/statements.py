"""Where a note states a value: numbers behind their label, names as words."""

import re
from collections.abc import Sequence
from functools import lru_cache

_NUMBER = r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?"
_GAP = r"[\s:=(]+(?:(?:is|was|of|at)[\s:=(]+)?"
_MIN_NAME = 3  # characters; a shorter one may stand for anything, but for two capitals
# A number with more digits behind it, and a dose, which is no measurement: "Sodium bicarbonate 500 mg".
_NO_END = r"(?!/?\d|[.,]\d|\s?(?:m?g|mcg|µg|mL|ml|units?|tablets?)\b(?!/))"


def stated_numbers(note: str, patterns: Sequence[str]) -> list[str]:
    """The numbers that stand where the patterns say, as the note writes them, in its order."""
    lowered = note.lower()
    compiled = (expression for label, expression in map(_pattern, patterns) if label in lowered)
    matches = sorted((match.start(1), match[1]) for expression in compiled for match in expression.finditer(note))
    return [number for _, number in matches]


def is_rounded(stated: str, value: float) -> bool:
    """Whether a number in a note is a value of the record, rounded to the digits that the note gives."""
    stated = stated.replace(",", "")
    decimals = len(stated.partition(".")[2])
    return abs(float(stated) - value) <= 0.5 * 10**-decimals + 1e-9 * max(1.0, abs(value))


def to_number(stated: str) -> int | float:
    """A number as JSON has it: whole ones without a point."""
    plain = stated.replace(",", "")
    return float(plain) if "." in plain else int(plain)


def find_name(note: str, name: str) -> list[tuple[int, int]]:
    """The places of a name that stands as words of their own, in any case; of one like NS, as it is; of other short ones, none."""
    short = len(name) < _MIN_NAME
    if (short and not (len(name) > 1 and name.isupper())) or name.lower() not in note.lower():
        return []
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", note, 0 if short else re.IGNORECASE)]


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> tuple[str, re.Pattern[str]]:
    """The label of ``HR #`` or ``BP #/*`` in small letters, and an expression. Labels in capitals count as they are, others in any case."""
    label = re.match(r"[^#*]*", pattern)[0].strip()  # type: ignore[index]
    words = {"#": f"({_NUMBER})", "*": f"(?:{_NUMBER})"}
    parts = (words.get(part, _GAP if part.isspace() else re.escape(part)) for part in re.split(r"(\s+|[#*])", pattern))
    end = _NO_END if pattern[-1] in "#*" else ""
    return label.lower(), re.compile(rf"(?<![\w/]){''.join(parts)}{end}", 0 if label.isupper() else re.IGNORECASE)
