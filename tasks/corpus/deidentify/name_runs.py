"""Which words of a run are a name: asked where what stands near the run does not make it sure.

A word is taken for one of five kinds by the lexicon. It knows nothing of what stands around the run.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import regex

from tasks.corpus.deidentify.allowlist import ORDINARY, is_ordinary
from tasks.corpus.deidentify.lexicon import Lexicon, lexicon

_TOKEN = regex.compile(r"(?:\p{L}\.[-‐‑]?)+(?![\p{L}\p{M}]{2})|[\p{L}\p{M}]+(?:['’ʼʻ‘]\p{L}[\p{L}\p{M}]*|[-‐‑][\p{L}\p{M}]+)*\.?")
_JOINED = regex.compile(r"[ \t\u00a0]*,?[ \t\u00a0]*|\.[ \t]")  # between two words of one name
_PARTICLES = frozenset("van von vom de del della di da dos das du des la le el al bin bint ibn ben abu y e der den ter ten st st.".split())
_PLACEHOLDER = regex.compile(r"(?:[XYZ]|[XYZ]{2,}|ABCD?|DEF|ABC DEF|NAME|REDACTED|UNKNOWN)\.?")
# All in capitals, and no names.
_ACRONYMS = frozenset("nstemi stemi copd esrd gerd osahs lvad tavr covid hfref hfpef niddm iddm cabg pacu micu sicu nicu picu".split())
SHORT_ACRONYM = 5  # letters: in capitals and unknown, a shorter word is an abbreviation


class Kind(IntEnum):
    """How much of a name a word is."""

    NO = 0  # a word of language or medicine
    INITIAL = 1  # or a particle: part of a name beside another one
    WEAK = 2  # a word of medicine or of every day that is also a name: Young, Long
    STRONG = 3  # another word that is also a name: Smith, Jack
    NAME = 4  # a name, or a word that no list has


class _Word(NamedTuple):
    start: int
    end: int
    kind: Kind
    given: bool


def not_a_placeholder(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, but for a letter that stands where a name was taken out before: "Dr. X", "Mrs. ABC"."""
    if not _PLACEHOLDER.fullmatch(text, start, end):
        yield start, end


def names_by_role(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The names between ``start`` and ``end`` behind the label of a role or before a degree, where most words that can be names are some."""
    for run in _runs(text, start, end):
        if max(word.kind for word in run) >= Kind.WEAK and not _PLACEHOLDER.fullmatch(text, run[0].start, run[-1].end):
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
    for run in _runs(text, start, end):
        whole = [word for word in run if word.kind > Kind.INITIAL]
        if len(whole) > 1 and any(word.given and word.kind >= Kind.STRONG for word in whole) and min(w.kind for w in whole) >= Kind.WEAK:
            if max(word.kind for word in whole) == Kind.NAME:
                yield run[0].start, run[-1].end


def listed_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, "SMITH,JOHN A", where its parts are names and one of them is nothing else."""
    words = lexicon()
    kinds = [kind_of(match.group(), words) for match in _TOKEN.finditer(text, start, end)]
    known = any(words.is_name(match.group().rstrip(".")) for match in _TOKEN.finditer(text, start, end))
    if min(kinds) > Kind.NO and known and sum(kind >= Kind.STRONG for kind in kinds) > 0:
        yield start, end


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


def initial_and_name(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, "J. Smith", where the word is a name and nothing clinical."""
    name = text[start:end].rpartition(".")[2].strip()
    if kind_of(name, lexicon()) >= Kind.STRONG:
        yield start, end


def given_name(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, where it is a name that people have and no word of anything else."""
    words = lexicon()
    if all(words.is_name(part) and kind_of(part, words) == Kind.NAME for part in text[start:end].split()):
        yield start, end


def kind_of(word: str, words: Lexicon) -> Kind:
    """The kind of a word, with or without a full stop."""
    bare = word.rstrip(".").replace("’", "'")
    lower = bare.lower()
    if len(bare) == 1 or regex.fullmatch(r"(?:\p{L}\.?[-‐‑]?){1,3}", word) and "." in word or lower in _PARTICLES:
        return Kind.INITIAL
    if words.is_name(lower):
        if lower in words.clinical or lower in ORDINARY:
            return Kind.WEAK
        return Kind.STRONG if words.is_word(lower) else Kind.NAME
    parts = [part for part in regex.split(r"[-‐‑']", lower) if len(part) > 1]
    if is_ordinary(lower) or words.is_word(lower) or (len(parts) > 1 and all(words.is_word(part) for part in parts)):
        return Kind.NO
    if bare.isupper() and (len(bare) <= SHORT_ACRONYM or lower in _ACRONYMS or not regex.search("[aeiouyäöü]", lower)):
        return Kind.NO
    return Kind.NAME


def _runs(text: str, start: int, end: int) -> Iterator[list[_Word]]:
    """The words between ``start`` and ``end`` that stand together and of which none is an ordinary one."""
    words, run = lexicon(), list[_Word]()
    for match in _TOKEN.finditer(text, start, end):
        kind = kind_of(match.group(), words)
        stop = match.end() - (match.group().endswith(".") and kind != Kind.INITIAL)
        joined = run and _JOINED.fullmatch(text, run[-1].end, match.start())
        if run and (kind == Kind.NO or not joined):
            yield from _trimmed(run)
            run = []
        if kind != Kind.NO:
            run.append(_Word(match.start(), stop, kind, match.group().rstrip(".").lower() in words.given))
    if run:
        yield from _trimmed(run)


def _trimmed(run: list[_Word]) -> Iterator[list[_Word]]:
    """A run that does not begin or end with a particle."""
    while run and run[-1].kind == Kind.INITIAL and run[-1].end - run[-1].start > 2:
        run.pop()
    if run:
        yield run
