"""Which words of a run are a name: asked where what stands near the run does not make it sure.

A word is taken for one of five kinds by the lexicon. It knows nothing of what stands around the run.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

from tasks.corpus.deidentify.allowlist import ORDINARY, TESTS, is_a_test
from tasks.corpus.deidentify.lexicon import Lexicon, lexicon
from tasks.corpus.deidentify.prose import is_foreign
from tasks.corpus.deidentify.word_kinds import PARTICLES, SHORT_ACRONYM, SHORTEST, TITLES, Kind, kind_of

# Initials, or a word with what apostrophes and hyphens join to it, but for a possessive's end.
_TOKEN = regex.compile(
    r"(?:\p{L}\.[-‐‑]?)+(?![\p{L}\p{M}]{2})"
    r"|['’]?[\p{L}\p{M}]+(?:['’ʼʻ‘](?!s(?![\p{L}\p{M}]))\p{L}[\p{L}\p{M}]*|[-‐‑]\p{L}?['’]?[\p{L}\p{M}]+)*\.?"
)
_CAPITALIZED = re.compile(r"[A-Z][A-Za-z'-]+")
_JOINED = regex.compile(r"[ \t\u00a0]*,?[ \t\u00a0]*|\.[ \t]")  # between two words of one name
# SMITH, ANN R, where nothing follows that can be the right of something.
_SIDE_BEHIND_A_LISTED_NAME = regex.compile(r"[RL](?=[ \t]*(?:$|[\n|,;()\d]|[ ]{2}|(?:DOB|MRN|ID|Age|Sex)\b))")
_WITHOUT_CASE = regex.compile(r"[\p{Lo}\p{Georgian}]")
_LATIN = regex.compile(r"\p{Latin}")
LATIN_NEAR, ENOUGH_LATIN = 40, 12  # characters, letters
_PLACEHOLDER = regex.compile(r"(?:[XYZ]|[XYZ]{2,}|ABCD?|DEF|ABC DEF|NAME|REDACTED|UNKNOWN)\.?")


# What names of towns begin with: San Francisco, Santa Rosa.
_OF_A_PLACE = regex.compile(r"(?:San|Santa|Los|Las|Saint|St\.?|New|Fort|Ft\.?|Port|Mount|Mt\.?|El|North|South|East|West|Lake)\b")


_DOSE = regex.compile(r"[ \t:,|-]*(?:\p{L}+[ \t:,|-]+)?\d+(?:[.,]\d+)?[ ]?(?:mg|mcg|g|mL|ml|units?|%|percent|IU|mEq|tab|cap|puff|drop)")


class _Word(NamedTuple):
    start: int
    end: int
    kind: Kind
    given: bool


def may_hold_a_name(text: str) -> bool:
    """Whether a text has a word that can be a name, with a capital or beyond ASCII; what stands behind titles does not count."""
    words = lexicon()
    return not text.isascii() or any(_may_be_a_name(word, words) for word in set(_CAPITALIZED.findall(text)))


@lru_cache(maxsize=1 << 16)
def _may_be_a_name(word: str, words: Lexicon) -> bool:
    return kind_of(word, words, among_capitals=True) not in (Kind.NO, Kind.PART, Kind.INITIAL)


def not_a_placeholder(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, but for a letter that stands where a name was taken out before: "Dr. X", "Mrs. ABC"."""
    if not _PLACEHOLDER.fullmatch(text, start, end):
        yield start, end


def behind_a_title_in_capitals(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The first word of a span in capitals, and those behind it while they can be names: MR SMITH WAS GIVEN LASIX."""
    words, last = lexicon(), start
    for match in _TOKEN.finditer(text, start, end):
        if last > start and kind_of(match.group(), words, among_capitals=True) < Kind.INITIAL:
            break
        last = match.end()
    if last > start and not _PLACEHOLDER.fullmatch(text, start, last):
        yield start, last


def names_by_role(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The names behind the label of a role or before a degree, where most words that can be names are some."""
    for run in _runs(text, start, end):
        is_everyday = len(run) == 1 and text[run[0].start : run[0].end].lower() in ORDINARY
        if max(word.kind for word in run) >= Kind.WEAK and not is_everyday and not _PLACEHOLDER.fullmatch(text, run[0].start, run[-1].end):
            yield run[0].start, run[-1].end


def names_near_a_cue(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The names between ``start`` and ``end``, where something near them says that a person may follow."""
    for run in _runs(text, start, end):
        kinds = [word.kind for word in run]
        with_initial = len(run) > 1 and Kind.INITIAL in kinds and max(kinds) > Kind.INITIAL
        if max(kinds) >= Kind.STRONG or with_initial or (len(run) > 1 and run[0].given and min(kinds) >= Kind.WEAK):
            yield run[0].start, run[-1].end


def full_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The names of two words or more between ``start`` and ``end`` that nothing near them says to be any."""
    words = lexicon()
    for run in _runs(text, start, end):
        whole = [word for word in run if word.kind > Kind.INITIAL]
        known = words.common.__contains__
        both_unknown = len(whole) > 1 and min(w.kind for w in whole) == Kind.NAME and min(w.end - w.start for w in whole) > 3
        sure = (both_unknown and not _DOSE.match(text, run[-1].end)) or any(
            w.given and (w.kind >= Kind.STRONG or all(known(text[o.start : o.end].lower()) for o in whole)) for w in whole
        )
        everyday = len(whole) == 2 and _is_everyday(text, whole, words)
        if (
            len(whole) > 1
            and (everyday or (sure and max(word.kind for word in whole) == Kind.NAME))
            and not _OF_A_PLACE.match(text, run[0].start)
        ):
            yield run[text.startswith("M. ", run[0].start)].start, run[-1].end  # which can be Monsieur


def _is_everyday(text: str, whole: list[_Word], words: Lexicon) -> bool:
    """Whether a given name and a family name that many people have follow each other, though both are words too: Laura Blake."""
    first, last = (text[word.start : word.end] for word in whole)
    return (
        whole[0].given
        and min(word.kind for word in whole) >= Kind.STRONG
        and first.istitle()
        and last.istitle()
        and last.lower() in words.family
        and last.lower() in words.common
    )


def listed_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, "SMITH,JOHN A", where its parts are names and one of them is nothing else."""
    words = lexicon()
    kinds = [
        Kind.INITIAL
        if match.end() == end and _SIDE_BEHIND_A_LISTED_NAME.match(text, match.start())
        else kind_of(match.group(), words, among_capitals=True)
        for match in _TOKEN.finditer(text, start, end)
    ]
    long = any(
        len(match.group()) > SHORT_ACRONYM - 1 for match in _TOKEN.finditer(text, start, end) if kind_of(match.group(), words) > Kind.WEAK
    )
    if min(kinds) > Kind.NO and max(kinds) >= Kind.STRONG and long:
        yield start, end


def surname_first(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, "Smith, Ann B.", where what follows the comma is a given name, and one of both is nothing else."""
    words, comma = lexicon(), text.index(",", start, end)
    for run in _runs(text, start, end):
        if run[0].start < comma < run[-1].start and max(word.kind for word in run) == Kind.NAME:
            behind = next(word for word in run if word.start > comma)
            if (
                not text[run[0].start : run[-1].end].isupper()
                and behind.kind >= Kind.STRONG
                and text[behind.start : behind.end].lower() in words.given
            ):
                yield run[0].start, run[-1].end


def small_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The names without capitals behind a title between ``start`` and ``end``: the first word, and the next where no list has it."""
    words, last = lexicon(), start
    for match in _TOKEN.finditer(text, start, end):
        word = match.group().rstrip(".")
        kind = kind_of(word, words)
        if kind < (Kind.WEAK if last == start else Kind.STRONG):
            break
        last = match.start() + len(word)
    if last > start:
        yield start, last


def known_small_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, a word without a capital, where it is a name that many people have and no word of anything else."""
    words, word = lexicon(), text[start:end].rpartition(".")[2]
    if word in words.common and kind_of(word, words) == Kind.NAME and (len(word) > SHORTEST or word in words.given):
        yield start, end


def names_of_lists(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, where each of its words is a name and one of them hardly anything else; an abbreviation alone is none."""
    words = lexicon()
    if text[start:end] in words.abbreviations:
        return
    kinds = [kind_of(match.group().title(), words) for match in _TOKEN.finditer(text, start, end)]
    known = [words.is_name(match.group().rstrip(".")) for match in _TOKEN.finditer(text, start, end)]
    if kinds and min(kinds) >= Kind.INITIAL and max(kinds) == Kind.NAME and any(known) and not is_a_test(text, start, end):
        yield start, end


def initial_and_name(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, "J. Smith", where the word is a name and nothing clinical."""
    initials, _, name = text[start:end].rpartition(".")
    name = name.strip()
    if kind_of(name, lexicon()) >= Kind.STRONG and not _DOSE.match(text, end):  # "T. Norvasc  5 mg"
        yield (end - len(name) if initials == "M" else start), end  # which can be Monsieur


def amid_latin(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, in a script without case, where most of what stands around it in its line is in Latin letters."""
    before, after = text[max(0, start - LATIN_NEAR) : start].rpartition("\n")[2], text[end : end + LATIN_NEAR].partition("\n")[0]
    latin, caseless = (len(pattern.findall(before + after)) for pattern in (_LATIN, _WITHOUT_CASE))
    if latin > max(ENOUGH_LATIN, 2 * caseless):
        yield start, end


def known_name(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, one capitalized word, where it is a name that people have and no word of anything else."""
    words = lexicon()
    word = text[start:end].partition(" ")[0].rstrip(",")  # an initial may follow
    is_test = is_a_test(text, start, end) or (word.lower() in TESTS and word.lower() not in words.given)
    is_nothing_else = word.lower() in words.common and not words.is_word(word) and kind_of(word, words) == Kind.NAME
    if is_nothing_else and not is_test and not _DOSE.match(text, end):
        yield start, end


def unknown_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Names, and words that no list has, between ``start`` and ``end``, where what stands near speaks for a person a little."""
    for run in _runs(text, start, end):
        end_of_run = run[-1].end
        if (
            max(word.kind for word in run) == Kind.NAME
            and not is_a_test(text, run[0].start, end_of_run)
            and not _DOSE.match(text, end_of_run)
        ):
            yield run[0].start, run[-1].end


def is_name_of_its_language(text: str, start: int, end: int) -> bool:
    """Whether a span that only its words give away is a name: where the sentence is not English, only lists of names tell."""
    if not is_foreign(text, start):
        return True
    words = [match.group().rstrip(".").lower() for match in _TOKEN.finditer(text, start, end)]
    return len(words) > 1 and all(map(lexicon().is_name, words)) and not lexicon().given.isdisjoint(words)


def _runs(text: str, start: int, end: int) -> Iterator[list[_Word]]:
    """The words between ``start`` and ``end`` that stand together and of which none is an ordinary one."""
    if _WITHOUT_CASE.search(text, start, end):
        yield [_Word(start, end, Kind.NAME, given=True)]  # the pattern alone says how far it goes
        return
    words, run, among_capitals = lexicon(), list[_Word](), _in_capitals(text[start:end])
    for match in _TOKEN.finditer(text, start, end):
        kind = kind_of(match.group(), words, among_capitals=among_capitals)
        if match.group().islower() and match.group().isalpha() and kind > Kind.INITIAL:
            kind = Kind.NO  # of a sentence, though people are called so too
        is_title = match.group().rstrip(".").lower() in TITLES
        if kind == Kind.NO and not is_title and _is_behind_a_particle(run, text) and match.group()[0].isupper():
            kind = Kind.WEAK
        if run and _SIDE_BEHIND_A_LISTED_NAME.match(text, match.start()) and "," in text[run[0].start : run[-1].end]:
            kind = Kind.INITIAL
        stop = match.end() - (match.group().endswith(".") and kind != Kind.INITIAL)
        joined = run and _JOINED.fullmatch(text, run[-1].end, match.start())
        if run and (kind == Kind.NO or not joined):
            yield from _trimmed(run, text)
            run = []
        if kind != Kind.NO:
            run.append(_Word(match.start(), stop, kind, given=_is_usual_given(match.group().rstrip(".").lower(), words)))
    if run:
        yield from _trimmed(run, text)


def _is_usual_given(lower: str, words: Lexicon) -> bool:
    return lower in words.given and lower in words.common and lower not in ORDINARY


def _in_capitals(span: str) -> bool:
    return span.isupper() and len(span.replace(",", " ").split()) > 1


def _is_behind_a_particle(run: list[_Word], text: str) -> bool:
    """Whether the last word of a run that has more is a particle: what follows it is part of the name."""
    return len(run) > 1 and run[-1].kind == Kind.INITIAL and text[run[-1].start : run[-1].end].lower() in PARTICLES


def _trimmed(run: list[_Word], text: str) -> Iterator[list[_Word]]:
    """A run that does not end with a particle."""
    while run and run[-1].kind == Kind.INITIAL and text[run[-1].start : run[-1].end].islower():
        run.pop()
    if run:
        yield run


# Those that find nothing in a text without a capitalized word that can be a name.
NEED_NAMES = frozenset(
    (names_by_role, names_near_a_cue, unknown_names, full_names, known_name, listed_names, surname_first, initial_and_name)
)
