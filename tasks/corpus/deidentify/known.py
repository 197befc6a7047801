"""People and organizations that the data names, looked for in notes in every spelling: case, order, initials, short forms, separators.

A patient is looked for in the documents of the patient's group, staff and organizations in all. What is looked for comes from
``KnownPerson`` records and stands in memory and in the work folder alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache, lru_cache
from pathlib import Path

import regex
from nicknames import NickNamer

from tasks.corpus.cleaning.known_people import read_known
from tasks.corpus.deidentify.analyzer import PiiSpan, merged
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.word_kinds import Kind, kind_of
from tasks.corpus.documents import SPLITS, KnownPerson

ONE_OFF_FROM = 6  # letters of a name, from which one may be wrong, missing or too many
MIN_DIGITS = 5  # of a number that is looked for; fewer where it has MIN_CHARS letters and digits
MIN_CHARS = 6
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*(?:['’](?!s(?!\p{L}))[\p{L}\p{M}]+)*")  # without a possessive's end
_NUMBER = re.compile(r"[A-Za-z]{0,4}[-# ]?\(?\d[\d()A-Za-z]*(?:[ ./()-]{1,2}[A-Za-z]?\d[\dA-Za-z]*)*(?:-[A-Za-z]{1,2}\b)?")
_BETWEEN = regex.compile(r"[ \t.,'’-]{0,3}")
_INITIAL = regex.compile(r"\p{Lu}\b\.?")
# With a period, or at the beginning of a line or behind a mark: of "hepatitis C Smith" the letter stays.
_INITIALS_BEFORE = regex.compile(r"(?:\b\p{Lu}\.[ \t]?|(?:^|(?<=[:;,(/\n\t]|[:;,(/] ))\p{Lu}[ \t]){1,3}$", regex.M)
MAX_INITIALS = 12  # characters before a name in which they stand
_DATE_FORMS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%d/%m/%y", "%m-%d-%Y", "%m-%d-%y", "%d-%m-%Y", "%d.%m.%Y",
    "%d.%m.%y", "%m.%d.%y", "%m%d%Y", "%B %d, %Y", "%b %d, %Y", "%B %d %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y",
    "%d%b%Y", "%d%b%y",
)  # fmt: skip


_TIME = re.compile(r"[T ]\d{1,2}:\d\d.*")  # behind a day


@dataclass
class KnownIdentifiers:
    """What one person, or all staff, are known by, ready to be looked for."""

    names: set[str] = field(default_factory=set)  # words of names in lower case
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)  # by the first word: the words, and their type
    numbers: dict[str, str] = field(default_factory=dict)  # letters and digits alone, to their type
    strings: dict[str, str] = field(default_factory=dict)  # in lower case, to their type: dates, e-mail and web addresses
    near: dict[str, set[str]] = field(default_factory=dict)  # a name with one letter left out, to the name

    def add(self, person: KnownPerson) -> None:
        """What a person is known by, in every spelling."""
        for type_, value in person.identifiers:
            if type_ == "NAME":
                self._add_name(value)
            elif type_ in ("FACILITY", "ADDRESS"):
                self._add_phrase(type_, value)
            elif type_ == "DATE":
                self.strings |= dict.fromkeys(_spellings(value), type_)
            elif type_ in ("EMAIL", "URL"):
                self.strings[value.lower()] = type_
            else:
                self._add_number(type_, value)

    def _add_name(self, value: str) -> None:
        for match in _WORD.finditer(value.lower()):
            word = match.group().replace("’", "'")
            if len(word) > 1 and word not in _NO_NAMES:
                self.names |= {word, word.replace("'", ""), *_short_forms(word)}
                if len(word) >= ONE_OFF_FROM:
                    for form in _with_a_letter_less(word):
                        self.near.setdefault(form, set()).add(word)

    def _add_phrase(self, type_: str, value: str) -> None:
        words = tuple(match.group() for match in re.finditer(r"\w+", value.lower()))
        if len(words) > 1 or (words and len(words[0]) > 3):
            self.phrases.setdefault(words[0], []).append((words, type_))

    def _add_number(self, type_: str, value: str) -> None:
        plain = _plain(value)
        digits = "".join(filter(str.isdecimal, plain))
        if len(digits) >= MIN_DIGITS or (len(plain) >= MIN_CHARS and len(digits) > 2):
            self.numbers[plain] = type_
            self._add_phrase(type_, value)  # with as many blanks and dashes as it may have
        if len(digits) >= MIN_DIGITS:
            self.numbers[digits.lstrip("0")] = type_
            if type_ in ("PHONE", "FAX") and len(digits) > 7:
                self.numbers |= {digits[-10:]: type_, digits[-7:]: type_}

    def __bool__(self) -> bool:
        return any((self.names, self.phrases, self.numbers, self.strings))

    def find(self, text: str) -> Iterator[PiiSpan]:
        """The identifiers in a text, in no order; they may overlap."""
        yield from self._find_names(text)
        yield from self._find_phrases(text)
        yield from self._find_numbers(text)
        lower = text.lower()
        if len(lower) == len(text):
            for string, type_ in self.strings.items():
                start = lower.find(string)
                while start >= 0:
                    end = start + len(string)
                    if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
                        yield PiiSpan(start, end, type_)
                    start = lower.find(string, end)

    def _find_names(self, text: str) -> Iterator[PiiSpan]:
        """Words of names that stand together; one that is also an everyday word counts beside another, or with a capital in a sentence."""
        run = list[tuple[int, int, bool]]()
        for match in _WORD.finditer(text) if self.names else ():
            known = self._is_name(match.group())
            if run and not (_BETWEEN.fullmatch(text, run[-1][1], match.start()) and (known or _INITIAL.fullmatch(match.group()))):
                yield from _names_of(run, text)
                run = []
            if known:
                run.append((match.start(), match.end(), _stands_alone(match.group(), text, match.start())))
            elif run and _INITIAL.fullmatch(match.group()):
                run.append((match.start(), match.end(), False))
        yield from _names_of(run, text)

    def _is_name(self, word: str) -> bool:
        lower = word.lower().replace("’", "'")
        if lower in self.names or lower.replace("'", "") in self.names:
            return True
        if len(lower) < ONE_OFF_FROM - 1 or not word[0].isupper() or lexicon().is_word(lower):
            return False
        candidates = {name for form in (lower, *_with_a_letter_less(lower)) for name in self.near.get(form, ())}
        candidates |= {form for form in _with_a_letter_less(lower) if len(form) >= ONE_OFF_FROM and form in self.names}
        return any(_is_one_off(lower, name) for name in candidates)

    def _find_phrases(self, text: str) -> Iterator[PiiSpan]:
        tokens = [(match.group().lower(), match.start(), match.end()) for match in re.finditer(r"\w+", text)] if self.phrases else []
        for i, (word, start, _) in enumerate(tokens):
            for phrase, type_ in self.phrases.get(word, ()):
                part = tokens[i : i + len(phrase)]
                if tuple(token for token, _, _ in part) == phrase and (len(phrase) > 1 or text[start].isupper()):
                    yield PiiSpan(start, part[-1][2], type_)

    def _find_numbers(self, text: str) -> Iterator[PiiSpan]:
        for match in _NUMBER.finditer(text) if self.numbers else ():
            plain = _plain(match.group())
            digits = "".join(filter(str.isdecimal, plain))
            for form in (plain, digits.lstrip("0"), digits[-10:]):
                if len(form) >= MIN_DIGITS and form in self.numbers:
                    first = next(i for i, c in enumerate(match.group()) if c.isdecimal() or (form == plain and (c.isalpha() or c == "(")))
                    yield PiiSpan(match.start() + first, match.end(), self.numbers[form])
                    break


class KnownPeople:
    """All people that the data names."""

    def __init__(self, people: Iterable[KnownPerson]):
        self._everywhere = KnownIdentifiers()
        self._by_group: dict[str, list[KnownPerson]] = {}
        for person in people:
            if person.group:
                self._by_group.setdefault(person.group, []).append(person)
            else:
                self._everywhere.add(person)
        self._of_group = lru_cache(maxsize=256)(self._identifiers_of)

    def __bool__(self) -> bool:
        return bool(self._by_group) or bool(self._everywhere)

    def find(self, text: str, group: str) -> list[PiiSpan]:
        """What is known of the people of a group, and of staff, in a text; in order and without overlaps.

        The group can have the split of its file before it, as documents of ``ood`` and ``replay`` files do.
        """
        if not self:
            return []
        group = next((group.removeprefix(f"{split}:") for split in SPLITS if group.startswith(f"{split}:")), group)
        spans = [*self._everywhere.find(text), *(self._of_group(group).find(text) if group in self._by_group else ())]
        return merged((span.start, span.end, span.type, 1.0) for span in spans)

    def _identifiers_of(self, group: str) -> KnownIdentifiers:
        identifiers = KnownIdentifiers()
        for person in self._by_group[group]:
            identifiers.add(person)
        return identifiers


NOBODY = KnownPeople(())


def known_people(work: Path) -> KnownPeople:
    """The people that the raw files of a run name, from its work folder; read once per process."""
    files = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted((work / "known").glob("*.jsonl")))
    return _read_people(work, files)


@lru_cache(maxsize=1)
def _read_people(work: Path, _files: tuple[tuple[Path, int, int], ...]) -> KnownPeople:
    return KnownPeople(read_known(work))


_NO_NAMES = frozenset("dr md mr mrs ms miss jr sr ii iii iv rn np pa do phd de la le van von der den of the and".split())


def _stands_alone(word: str, text: str, start: int) -> bool:
    """Whether a word is a name without another beside it: no everyday word, or one with a capital within a sentence."""
    within = bool(re.search(r"[\w,)] $|[\"“]$", text[max(0, start - 2) : start]))
    return kind_of(word, lexicon()) >= Kind.STRONG or (within and word[0].isupper() and not word.isupper())


def _names_of(run: list[tuple[int, int, bool]], text: str) -> Iterator[PiiSpan]:
    """The name that a run is, with the initials before it."""
    if any(is_sure for _, _, is_sure in run) or len(run) > 1:
        start = run[0][0]
        initials = _INITIALS_BEFORE.search(text, max(0, start - MAX_INITIALS), start)
        yield PiiSpan(initials.start() if initials else start, run[-1][1], "NAME")


@cache
def _nick_namer() -> NickNamer:
    return NickNamer()


def _short_forms(name: str) -> set[str]:
    """Bob for Robert, and Robert for Bob."""
    namer = _nick_namer()
    return {form for form in (*namer.nicknames_of(name), *namer.canonicals_of(name)) if len(form) > 2}


def _with_a_letter_less(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


def _is_one_off(word: str, name: str) -> bool:
    """Whether one letter changed, left out or put in makes the word the name, or two beside each other in the other order."""
    if word == name:
        return True
    if len(word) == len(name):
        differing = [i for i, (a, b) in enumerate(zip(word, name, strict=True)) if a != b]
        swapped = len(differing) == 2 and differing[1] == differing[0] + 1 and word[differing[0]] == name[differing[1]]
        return len(differing) == 1 or (swapped and word[differing[1]] == name[differing[0]])
    return word in _with_a_letter_less(name) or name in _with_a_letter_less(word)


def _plain(value: str) -> str:
    return "".join(character for character in value.upper() if character.isalnum())


def _spellings(value: str) -> set[str]:
    """A day in the forms that notes write it in, in lower case; one that can be two days in those of both; else as it is written."""
    forms = {day.strftime(form).lower() for day in _days(value.strip()) for form in _DATE_FORMS}
    if not forms:
        return {value.lower()} if len(value) > 4 else set()
    return forms | {re.sub(r"(?<!\d)0(?=\d)", "", form) for form in forms}


def _days(value: str) -> set[date]:
    """The days that a date may be; a table has its country's form, which can be that of another day elsewhere."""
    day = _TIME.sub("", value)
    return {datetime.strptime(day, form).date() for form in _DATE_FORMS if _is_date(day, form)}


def _is_date(day: str, form: str) -> bool:
    try:
        datetime.strptime(day, form)
    except ValueError:
        return False
    return True
