"""Looks in any text for what the people of a FHIR export are known by, in every usual spelling, without the project's own rules."""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import date
from functools import cached_property
from itertools import product
from pathlib import Path

from helpers.hospital import Json, resources
from tasks.corpus.deidentify.lexicon import lexicon

PEOPLE = ("Patient", "Practitioner", "RelatedPerson")
_TITLES = "dr doctor mr mrs ms miss prof professor nurse rn md".split()
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")  # 0.02155 is no ZIP code
_TAG = re.compile(r"</?[a-z]+")
_PHONE = re.compile(r"(?<![\d.])(?:\(?\d{3}\)?[ -.]{0,2})?\d{3}[ -]\d{4}(?!\d)|(?<![\d.])\d{10}(?![\d.])")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*"
_DATES = (
    re.compile(r"(?<![\d.])(?P<year>\d{4})(?P<s>[-/. ]?)(?P<a>\d{2})(?P=s)(?P<b>\d{2})(?!\d)"),
    re.compile(r"(?<![\d.])(?P<a>\d{1,2})(?P<s>[-/. ]?)(?P<b>\d{1,2})(?P=s)(?P<year>(?:19|20)\d\d)(?!\d)"),
    re.compile(r"(?<![\d.:=-])(?P<a>\d{1,2})(?P<s>[-/])(?P<b>\d{1,2})(?P=s)(?P<year>\d{2})(?![\d:])"),
    re.compile(rf"(?i)(?<!\d)(?P<a>\d{{1,2}})(?:st|nd|rd|th)?(?: of)?[-. ]*{_MONTH}[-., ]*(?P<year>\d{{4}}|\d\d)(?!\d)"),
    re.compile(rf"(?i)\b{_MONTH}[-. ]*(?P<a>\d{{1,2}})(?:st|nd|rd|th)?[-., ]+(?P<year>\d{{4}}|\d\d)(?!\d)"),
)


class Identifiers:
    """Names, numbers, addresses, telephone numbers, e-mail addresses and birth dates of patients, their contacts and staff."""

    def __init__(self, export: Path):
        self._phrases = defaultdict[str, set[tuple[tuple[str, ...], str]]](set)  # by the first word: all words, and what they are
        self._names: set[tuple[str, str]] = set()  # given and family name
        self._birthdays: set[date] = set()
        self._phones: set[str] = set()
        for _, person in resources(export, *PEOPLE):
            for who in (person, *person.get("contact", [])):
                self._add_contact(who)
            for value in (person["id"], *(identifier["value"] for identifier in person.get("identifier", []))):
                for form in (value, re.sub(r"[\W_]", "", value), *re.findall(r"^\D*(\d{5,})$", value)):
                    self._add("identifier", form)
            if "birthDate" in person:
                self._birthdays.add(date.fromisoformat(person["birthDate"]))

    def _add_contact(self, who: Json) -> None:
        for name in who["name"] if isinstance(who.get("name"), list) else [who.get("name", {})]:
            parts = [*name.get("given", []), name["family"]] if "family" in name else name.get("text", "").split()
            for given in parts[:-1]:
                self._add_name(given.lower(), parts[-1].lower())
        for telecom in who.get("telecom", []):
            digits = re.sub(r"\D", "", telecom["value"])
            if telecom["system"] == "email":
                self._add("e-mail", telecom["value"])
            else:
                self._phones |= {digits[-10:], digits[-7:]}
        for address in who.get("address", []):
            for line in address["line"]:
                self._add("address", line)
            for state in ("", address["state"]):
                self._add("city and ZIP code", f"{address['city']} {state} {address['postalCode']}")

    def _add_name(self, given: str, family: str) -> None:
        self._names.add((given, family))
        for form in (f"{given} {family}", f"{family} {given}"):
            self._add("full name", form)
        for title in _TITLES:
            self._add("title and name", f"{title} {family}")

    def _add(self, kind: str, value: str) -> None:
        words = tuple(_TOKEN.findall(value.lower()))
        self._phrases[words[0]].add((words, kind))

    def __len__(self) -> int:
        return sum(map(len, self._phrases.values())) + len(self._words) + len(self._birthdays) + len(self._phones)

    @cached_property
    def _words(self) -> set[str]:
        return {word for name in self._names for part in name for word in _TOKEN.findall(part) if len(word) > 1}

    @cached_property
    def _ordinary(self) -> set[str]:
        """Names that are also words: House, Flora."""
        return {word for word in self._words if lexicon().is_word(word)}

    def find(self, text: str, *, but: Collection[str] = ()) -> Counter[str]:
        """Which kinds of identifiers stand in a text, and how often; names of one word where they are no other word, nor one of ``but``."""
        text = _TAG.sub(" ", html.unescape(text))
        words = _TOKEN.findall(text.lower())
        kinds = Counter(
            kind for i, word in enumerate(words) for phrase, kind in self._phrases.get(word, ()) if (*words[i : i + len(phrase)],) == phrase
        )
        kinds["name"] = sum(word in self._words - self._ordinary and word not in but for word in words)
        kinds["phone"] = sum(re.sub(r"\D", "", number[0]) in self._phones for number in _PHONE.finditer(text))
        kinds["birth date"] = sum(not self._birthdays.isdisjoint(_days(match)) for form in _DATES for match in form.finditer(text))
        return +kinds

    def ordinary_names(self, text: str) -> Counter[str]:
        """Words with a capital that are also names of these people, each where no other name of such a person is beside it."""
        words, result = _TOKEN.findall(text), Counter[str]()
        either_way = self._names | {(family, given) for given, family in self._names}
        for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
            pairs = {(before.lower(), word.lower()), (word.lower(), after.lower())}
            if word[0].isupper() and word.lower() in self._ordinary and either_way.isdisjoint(pairs):
                result[word] += 1
        return result


def _days(match: re.Match[str]) -> Iterator[date]:
    """The days that a date can mean."""
    parts = match.groupdict()
    years = [int(parts["year"])] if len(parts["year"]) == 4 else [1900 + int(parts["year"]), 2000 + int(parts["year"])]
    if month := parts.get("month"):
        orders = [(_MONTHS.index(month.lower()) + 1, int(parts["a"]))]
    else:
        orders = [(int(parts["a"]), int(parts["b"])), (int(parts["b"]), int(parts["a"]))]
    for year, order in product(years, orders):
        with suppress(ValueError):
            yield date(year, *order)
