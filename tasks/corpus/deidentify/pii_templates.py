"""The tables of PII templates and hard negatives, and the texts that they give when their slots are filled.

A template is a sentence in which what must be detected, or of a hard negative what must stay, is between < and >. ``#`` is a digit, ``%``
one from 1 on, ``^`` and ``~`` a letter, ``*`` a letter or digit, ``{name}`` a value of SLOTS, ``{pl_last}`` a name of a language
(``languages``), and a backslash takes any of them as it is. The tables were written before the recognizers; whoever works on those
looks at the half for development alone.
"""

import calendar
import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from faker import Faker

from tasks.corpus.deidentify import languages

TABLES = Path(__file__).parent
_PART = re.compile(r"\\(?P<literal>.)|\{(?P<slot>\w+)\}|(?P<plain>.)", re.S)
_UPPER, _DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
_VIN = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_VIN_VALUES = dict(zip(_VIN, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9, *range(10)], strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


@dataclass(frozen=True)
class PiiTemplate:
    """A row of a table."""

    name: str  # the type of an identifier, or why a hard negative is none
    text: str
    held_out: bool


@dataclass(frozen=True)
class FilledTemplate:
    """A text with identifiers, or with what only looks like one."""

    text: str
    spans: tuple[tuple[int, int], ...]  # start and end of what must be detected, or stay


def read_templates(table: str) -> list[PiiTemplate]:
    """The rows of ``pii-templates`` or ``hard-negatives``, both halves."""
    rows = []
    for half in ("development", "held-out"):
        with open(TABLES / f"{table}-{half}.csv", encoding="utf-8", newline="") as file:
            rows += [PiiTemplate(name, text, half == "held-out") for name, text in list(csv.reader(file))[1:]]
    return rows


def fill(template: str, rng: Random) -> FilledTemplate:
    """A template with values in its slots; ``ValueError`` for an unknown slot or an unfinished mark."""
    parts, length, start, spans = [], 0, -1, []
    for part in _PART.finditer(template):
        plain = part["plain"]
        if plain == "<":
            start = length
        elif plain == ">":
            spans.append((start, length))
            start = -1
        else:
            parts.append(part["literal"] or (_slot(part["slot"], rng) if part["slot"] else _character(plain, rng)))
            length += len(parts[-1])
    if start >= 0 or not spans:
        raise ValueError(f"the template {template!r} does not mark anything")
    return FilledTemplate("".join(parts), tuple(spans))


def npi(rng: Random) -> str:
    """A provider number whose last digit checks: Luhn's sum over 80840 and the number."""
    digits = str(rng.choice((1, 2))) + "".join(rng.choice(_DIGITS) for _ in range(8))
    return digits + str(-_luhn_sum("80840" + digits + "0") % 10)


def vin(rng: Random) -> str:
    """A vehicle's number whose ninth place checks (49 CFR 565.15)."""
    characters = [rng.choice(_VIN) for _ in range(17)]
    total = sum(_VIN_VALUES[c] * weight for c, weight in zip(characters, _VIN_WEIGHTS, strict=True)) % 11
    characters[8] = "X" if total == 10 else str(total)
    return "".join(characters)


def _luhn_sum(digits: str) -> int:
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d // 10 + d % 10 for d in doubled)


def _character(plain: str, rng: Random) -> str:
    sets = {"#": _DIGITS, "%": _DIGITS[1:], "^": _UPPER, "~": _UPPER.lower(), "*": _UPPER + _DIGITS}
    return rng.choice(sets[plain]) if plain in sets else plain


def _slot(name: str, rng: Random) -> str:
    if (value := languages.slot(name, rng)) is not None:
        return value
    if name not in SLOTS:
        raise ValueError(f"a template names the slot {name!r}; there are {', '.join(sorted(SLOTS))}")
    return str(SLOTS[name](rng))


@cache
def _faker() -> Faker:
    return Faker("en_US")


def _fake(provider: str) -> Callable[[Random], str]:
    def value(rng: Random) -> str:
        _faker().seed_instance(rng.getrandbits(64))
        return str(getattr(_faker(), provider)())

    return value


def _number(low: int, high: int, width: int = 1) -> Callable[[Random], str]:
    return lambda rng: f"{rng.randint(low, high):0{width}d}"


SLOTS: dict[str, Callable[[Random], str]] = {
    "first": _fake("first_name"),
    "last": _fake("last_name"),
    "initial": lambda rng: rng.choice(_UPPER),
    "street": _fake("street_name"),
    "city": _fake("city"),
    "state": _fake("state_abbr"),
    "statename": _fake("state"),
    "zip": _number(501, 99950, 5),
    "county": _fake("last_name"),
    "month": lambda rng: calendar.month_name[rng.randint(1, 12)],
    "mon": lambda rng: calendar.month_abbr[rng.randint(1, 12)],
    "mm": _number(1, 12, 2),
    "m": _number(1, 12),
    "dd": _number(1, 28, 2),
    "d": _number(1, 28),
    "yyyy": _number(1936, 2025),
    "yy": _number(0, 99, 2),
    "weekday": lambda rng: calendar.day_name[rng.randrange(7)],
    "hour": _number(0, 23, 2),
    "minute": _number(0, 59, 2),
    "domain": _fake("domain_name"),
    "user": _fake("user_name"),
    "ssn3": lambda rng: f"{rng.choice([n for n in range(1, 900) if n != 666]):03d}",
    "ssn2": _number(1, 99, 2),
    "ssn4": _number(1, 9999, 4),
    "npi": npi,
    "vin": vin,
    "octet": _number(0, 255),
    "hex": lambda rng: rng.choice("0123456789abcdef"),
    "age90": _number(90, 109),
}
