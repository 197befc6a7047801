"""The tables of surface forms, and what they say when their slots are filled.

A form is a sentence in which what must be found, or for a look-alike what must stay, stands between < and >. ``#`` is a digit, ``%``
one from 1 on, ``^`` and ``~`` a letter, ``*`` a letter or digit, ``{name}`` a value of SLOTS, ``{pl_last}`` a name of a language
(``languages``), and a backslash takes any of them as it is. The tables were written before the recognizers, and who works on those
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
_PART = re.compile(r"\\(?P<taken>.)|\{(?P<slot>\w+)\}|(?P<plain>.)", re.S)
_UPPER, _DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
_VIN = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_VIN_VALUES = dict(zip(_VIN, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9, *range(10)], strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


@dataclass(frozen=True)
class Form:
    name: str  # the type of an identifier, or why a look-alike is none
    text: str
    held_out: bool


@dataclass(frozen=True)
class Filled:
    text: str
    marked: tuple[tuple[int, int], ...]  # where what must be found, or stay, begins and ends


def read_forms(table: str) -> list[Form]:
    """The rows of ``forms`` or ``look-alikes``, both halves."""
    rows = []
    for half in ("development", "held-out"):
        with open(TABLES / f"{table}-{half}.csv", encoding="utf-8", newline="") as file:
            rows += [Form(name, text, half == "held-out") for name, text in list(csv.reader(file))[1:]]
    return rows


def fill(form: str, draw: Random) -> Filled:
    """A form with values in its slots; ``ValueError`` for an unknown slot or an unfinished mark."""
    told, length, begun, marked = [], 0, -1, []
    for part in _PART.finditer(form):
        plain = part["plain"]
        if plain == "<":
            begun = length
        elif plain == ">":
            marked.append((begun, length))
            begun = -1
        else:
            told.append(part["taken"] or (_slot(part["slot"], draw) if part["slot"] else _character(plain, draw)))
            length += len(told[-1])
    if begun >= 0 or not marked:
        raise ValueError(f"the form {form!r} does not mark anything")
    return Filled("".join(told), tuple(marked))


def npi(draw: Random) -> str:
    """A provider number whose last digit checks: Luhn's sum over 80840 and the number."""
    digits = str(draw.choice((1, 2))) + "".join(draw.choice(_DIGITS) for _ in range(8))
    return digits + str(-_luhn_sum("80840" + digits + "0") % 10)


def vin(draw: Random) -> str:
    """A vehicle's number whose ninth place checks (49 CFR 565.15)."""
    characters = [draw.choice(_VIN) for _ in range(17)]
    total = sum(_VIN_VALUES[c] * weight for c, weight in zip(characters, _VIN_WEIGHTS, strict=True)) % 11
    characters[8] = "X" if total == 10 else str(total)
    return "".join(characters)


def _luhn_sum(digits: str) -> int:
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d // 10 + d % 10 for d in doubled)


def _character(plain: str, draw: Random) -> str:
    sets = {"#": _DIGITS, "%": _DIGITS[1:], "^": _UPPER, "~": _UPPER.lower(), "*": _UPPER + _DIGITS}
    return draw.choice(sets[plain]) if plain in sets else plain


def _slot(name: str, draw: Random) -> str:
    if (value := languages.slot(name, draw)) is not None:
        return value
    if name not in SLOTS:
        raise ValueError(f"a form names the slot {name!r}; there are {', '.join(sorted(SLOTS))}")
    return str(SLOTS[name](draw))


@cache
def _faker() -> Faker:
    return Faker("en_US")


def _fake(provider: str) -> Callable[[Random], str]:
    def value(draw: Random) -> str:
        _faker().seed_instance(draw.getrandbits(64))
        return str(getattr(_faker(), provider)())

    return value


def _number(low: int, high: int, width: int = 1) -> Callable[[Random], str]:
    return lambda draw: f"{draw.randint(low, high):0{width}d}"


SLOTS: dict[str, Callable[[Random], str]] = {
    "first": _fake("first_name"),
    "last": _fake("last_name"),
    "initial": lambda draw: draw.choice(_UPPER),
    "street": _fake("street_name"),
    "city": _fake("city"),
    "state": _fake("state_abbr"),
    "statename": _fake("state"),
    "zip": _number(501, 99950, 5),
    "county": _fake("last_name"),
    "month": lambda draw: calendar.month_name[draw.randint(1, 12)],
    "mon": lambda draw: calendar.month_abbr[draw.randint(1, 12)],
    "mm": _number(1, 12, 2),
    "m": _number(1, 12),
    "dd": _number(1, 28, 2),
    "d": _number(1, 28),
    "yyyy": _number(1936, 2025),
    "yy": _number(0, 99, 2),
    "weekday": lambda draw: calendar.day_name[draw.randrange(7)],
    "hour": _number(0, 23, 2),
    "minute": _number(0, 59, 2),
    "domain": _fake("domain_name"),
    "user": _fake("user_name"),
    "ssn3": lambda draw: f"{draw.choice([n for n in range(1, 900) if n != 666]):03d}",
    "ssn2": _number(1, 99, 2),
    "ssn4": _number(1, 9999, 4),
    "npi": npi,
    "vin": vin,
    "octet": _number(0, 255),
    "hex": lambda draw: draw.choice("0123456789abcdef"),
    "age90": _number(90, 109),
}
