"""Whether a number can name something: check digits, and what measured values look like."""

import re
from collections.abc import Iterator

from stdnum import iban, luhn

_MEASURED = re.compile(
    r"[<>]?\d{1,3}(?:[.,]\d{1,3})?(?:[ \t]?[-/][ \t]?\d{1,3}(?:[.,]\d{1,3})?)?[HLhlMF]?|(?:19|20)\d\d(?:-(?:19|20)\d\d)?"
    r"|\d{1,2}/\d{1,2}/(?:\d\d|\d{4})|\d{1,4}\.\d{1,4}|[A-Z]{1,4}\d{1,3}/\d{1,3}"
)

_FRACTION = re.compile(r"\d{1,3}(?:/\d{1,3})+")  # 16/450/5, of a ventilator

_VITALS = re.compile(r"\d{2,3}/\d{2,3}(?!\d)|\b\d{2}\.\d(?!\d)")  # 120/80, 98.6


# Of a bank account, ISO 13616, in groups or not.
IBAN = re.compile(r"(?<![A-Z0-9])(?P<span>[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?)(?![A-Z0-9])")


def whole_iban(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The account number in a span, which words or numbers behind it may have joined; nothing where none checks."""
    while end > start:
        if iban.is_valid(text[start:end]):
            yield start, end
            return
        end = max((text.rfind(border, start, end) for border in " -"), default=start)


def luhn_checks(number: str) -> bool:
    """Whether the last digit of a payment card's number is that of Luhn's check, ISO/IEC 7812-1."""
    return luhn.is_valid("".join(filter(str.isdecimal, number)))


def checks_as_npi(digits: str) -> bool:
    """Luhn's check over 80840 and the number (45 CFR 162.406)."""
    return len(digits) == 10 and luhn.is_valid("80840" + digits)


def checks_as_vin(text: str) -> bool:
    """The check in the ninth place of a vehicle's number (49 CFR 565.15)."""
    values = {c: int(v) for c, v in zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True)}
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    total = sum((int(c) if c.isdecimal() else values.get(c, 0)) * w for c, w in zip(text, weights, strict=False)) % 11
    return len(text) == 17 and text[8] == ("X" if total == 10 else str(total))


def is_code(text: str) -> bool:
    """Whether a value can be a number that names something: no decimal, range, score, year or number of three digits."""
    return (
        not _MEASURED.fullmatch(text)
        and not _FRACTION.fullmatch(text)
        and (sum(map(str.isdecimal, text)) >= 4 or any(map(str.isalpha, text)))
    )


def is_dialled(text: str) -> bool:
    """Whether a value has the seven digits or more of a telephone number, and is no date or row of vital signs."""
    return sum(map(str.isdecimal, text)) >= 7 and not _MEASURED.fullmatch(text) and not _VITALS.search(text)
