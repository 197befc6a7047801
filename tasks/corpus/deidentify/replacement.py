"""What replaces an identifier: a mask, what Safe Harbor lets stand of it, or a surrogate."""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from random import Random

from faker import Faker

from tasks.corpus.deidentify.policy import DeidentifyParams

# Three-digit areas of 20,000 people or fewer, 2010 census: 45 CFR 164.514(b)(2)(i)(B) wants 000 for them.
SMALL_AREAS = frozenset("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split())
OLDEST = 90  # years; a date that tells of a greater age loses its year too
_YEAR = re.compile(r"(?<!\d)(?:18|19|20)\d\d(?!\d)")
_TIME = re.compile(r"(?:,|T|\s)*(?:at\s+)?\d{1,2}:\d\d(?::\d\d)?(?:\s*[AaPp]\.?[Mm]\.?)?(?:Z|\s?hrs)?$")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_FORMATS = (
    *(f"{a}{s}{b}{s}{y}" for a, b in (("%m", "%d"), ("%d", "%m")) for s in "/-." for y in ("%Y", "%y")),
    *(f"%Y{s}%m{s}%d" for s in ("-", "/", ".", "")),
    *(f"{month}{s}%d{c} %Y" for month in ("%B", "%b", "%b.") for c in (",", "") for s in (" ",)),
    *(f"%d{s}{month}{c}{s}{y}" for month in ("%B", "%b", "%b.") for s in (" ", "-") for c in ("", ",") for y in ("%Y", "%y")),
    *(f"{month} %d" for month in ("%B", "%b", "%b.")),
    *(f"%d {month}" for month in ("%B", "%b")),
    *(f"%m{s}%d" for s in "/-"),
)


class Replacements:
    """Of one document: the same identifier gets the same replacement, and a date the same shift as all of its group.

    A surrogate is drawn for the place of an identifier among the document's, never from the identifier: whoever could rng it again
    could otherwise try all names until one fits.
    """

    def __init__(self, params: DeidentifyParams, key: bytes, document: str, group: str, years: list[int]):
        self._params, self._key, self._document = params, key, document
        self._shift = timedelta(days=7 * (1 + _rng(key, "shift", group).randrange(52)))
        self._latest = max(years, default=0)
        self._surrogates: dict[tuple[str, str], str] = {}

    def of(self, type_: str, value: str) -> str:
        """The replacement of a value: a mask, what Safe Harbor lets stand of it, or a surrogate."""
        action = self._params.action(type_)
        if action == "mask":
            return _masked(type_, value)
        if type_ == "DATE":
            return self._year(value) if action == "year" else self._shifted(value)
        key = (type_, _folded(value))
        if key not in self._surrogates:
            self._surrogates[key] = self._part_of_a_name(value) if type_ == "NAME" else ""
        if not self._surrogates[key]:
            rng = _rng(self._key, self._document, type_, len(self._surrogates))
            self._surrogates[key] = _surrogate(type_, value, rng)
        return self._surrogates[key]

    def _year(self, value: str) -> str:
        years = years_in(value)
        return str(years[0]) if years and self._latest - years[0] < OLDEST else "[DATE]"

    def _shifted(self, value: str) -> str:
        text = _ORDINAL.sub("", _TIME.sub("", value))
        time = value[len(_TIME.sub("", value)) :]
        for form in _FORMATS:
            # Without a year it is taken for one of a leap year, in which every day exists.
            with_year = (text, form) if "%Y" in form.replace("%y", "%Y") else (f"{text} 2000", f"{form} %Y")
            try:
                shifted = datetime.strptime(*with_year) - self._shift
            except ValueError:
                continue
            if self._latest - shifted.year >= OLDEST and with_year[0] == text:
                return "[DATE]"
            date = shifted.strftime(form)
            return (date if re.search(r"(?<!\d)0\d", text) else re.sub(r"(?<!\d)0(?=\d\b)", "", date)) + time
        return "[DATE]"

    def _part_of_a_name(self, value: str) -> str:
        """The same part of a surrogate that stands for a longer name: "Smith" after "Mary Smith"."""
        folded = _folded(value)
        for (type_, name), surrogate in self._surrogates.items():
            words, others = name.split(), surrogate.split()
            if type_ == "NAME" and folded in words and len(words) == len(others):
                return others[words.index(folded)]
        return ""


def _folded(value: str) -> str:
    """The same for capitals and small letters, blanks of any kind and letters in parts (NFD)."""
    return unicodedata.normalize("NFC", " ".join(value.split()).casefold())


def years_in(value: str) -> list[int]:
    """The years from 1800 to 2099 in a text, in its order."""
    return [int(year) for year in _YEAR.findall(value)]


def _masked(type_: str, value: str) -> str:
    if type_ == "AGE":
        return f"{OLDEST}+"
    if type_ == "ZIP" and (digits := re.search(r"\d{3}", value)):
        return "000" if digits.group() in SMALL_AREAS else digits.group()
    return f"[{type_}]"


def _rng(key: bytes, *parts: str | int) -> Random:
    return Random(hmac.digest(key or b"-", "\x1f".join(map(str, parts)).encode(), hashlib.sha256))


@cache
def _faker() -> Faker:
    return Faker("en_US")


def _surrogate(type_: str, value: str, rng: Random) -> str:
    fake = _faker()
    fake.seed_instance(rng.getrandbits(64))
    kinds = {
        "NAME": lambda: _like_a_name(value, fake),
        "FACILITY": lambda: f"{fake.last_name()} {rng.choice(('Hospital', 'Clinic', 'Medical Center'))}",
        "ADDRESS": fake.street_address,
        "EMAIL": lambda: f"{fake.user_name()}@example.org",
        "URL": lambda: f"https://example.org/{fake.slug()}",
        "IP": lambda: f"192.0.2.{rng.randrange(1, 255)}",  # a block kept for documents, RFC 5737
        "AGE": lambda: str(rng.randrange(OLDEST, 100)),
    }
    return str(kinds[type_]()) if type_ in kinds else "".join(_like_characters(value, rng))


def _like_a_name(value: str, fake: Faker) -> str:
    first, last = fake.first_name(), fake.last_name()
    parts = f"{first} {last}" if " " in value.strip() else last
    name = f"{last}, {first}" if "," in value else parts
    return name.upper() if value.isupper() else name


def _like_characters(value: str, rng: Random) -> Iterator[str]:
    for character in value:
        if character.isdecimal():
            yield str(rng.randrange(10))
        elif character.isalpha():
            letter = chr(ord("a") + rng.randrange(26))
            yield letter.upper() if character.isupper() else letter
        elif not unicodedata.category(character).startswith("M"):
            yield character
