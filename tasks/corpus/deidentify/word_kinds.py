"""How much of a name a word is, by the lexicon alone: nothing of what stands around it is known."""

from enum import IntEnum

import regex

from tasks.corpus.deidentify import titles
from tasks.corpus.deidentify.allowlist import ORDINARY, is_ordinary
from tasks.corpus.deidentify.lexicon import COUNTRIES, LANGUAGES, Lexicon

_INITIALS = regex.compile(r"(?:\p{L}\.[-‐‑]?)+|\p{Lu}|(?:Ch|Th|Ph|Cs|Zs|Sz|Gy|D[zž]|Lj|Nj|Kh|Sh|Zh)\.")

PARTICLES = frozenset(
    "van von vom zu zum zur binti binte bte de del della dell dello dalla di da do dos das du des la le lo las les los el al bin bint "
    "ibn ben abu ould y e i der den dem "
    "ter ten te af av mac mc ní nic ó ap 't 's ’t ’s st".split()
)

TITLES = frozenset(
    title.lower().rstrip(".")
    for title in (*titles.TITLES, *titles.UNSURE_TITLES, *titles.TITLES_BEHIND, *titles.KIN_ABROAD, *titles.KIN_IN_GERMAN, "m", "mm")
)

_NEVER = frozenset(
    "hasta adı soyadı paciente patiente paziente pacjent pacjentka nombre nom nome "
    "per mom mum dad mommy daddy monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat sun".split()
)

# All in capitals, and no names.
_ACRONYMS = frozenset("nstemi stemi copd esrd gerd osahs lvad tavr covid hfref hfpef niddm iddm cabg pacu micu sicu nicu picu".split())

SHORTEST = 4  # letters of an unknown word that can be a name

_SIDES = ("R", "L")  # right and left

_INNER_APOSTROPHE = regex.compile(r"\p{L}+'\p{L}{2}")

SHORT_ACRONYM = 5  # letters: in capitals and unknown, a shorter word is an abbreviation

# Capitals where no name has them: PFTs, DTaP, NTproBNP, ActHIB; not JSmith. And one at the end: MenB, IgE, VitD.
_MIXED = regex.compile(r"(?!\p{Lu}{2}\p{Ll}{2,}$)(?=.*\p{Lu}{2})(?=.*\p{Ll})\p{L}+")
_TYPED = regex.compile(r"(?P<head>\p{Lu}?\p{Ll}{1,3})\p{Lu}")


class Kind(IntEnum):
    """How much of a name a word is."""

    NO = 0  # a word of language or medicine
    PART = 1  # a short word that no list has, as abbreviations are: part of a name beside one
    INITIAL = 2  # or a particle
    WEAK = 3  # a word of medicine or of every day that is also a name: Young, Long
    STRONG = 4  # another word that is also a name: Smith, Jack
    NAME = 5  # a name, or a word that no list has


def kind_of(word: str, words: Lexicon, *, among_capitals: bool = False) -> Kind:
    """The kind of a word, with or without a full stop; ``among_capitals`` where the words around it are in capitals too."""
    bare = word.rstrip(".").replace("’", "'")
    lower = bare.lower()
    is_short_form = bare in words.abbreviations and not bare.isupper()  # IgE
    if is_short_form or word in _SIDES or (lower in TITLES and word != "M") or lower in _NEVER or lower in LANGUAGES:
        return Kind.NO
    if lower in COUNTRIES:
        return Kind.WEAK if words.is_name(lower) else Kind.NO
    if _INITIALS.fullmatch(word) or lower in PARTICLES:
        return Kind.INITIAL
    if words.is_name(lower):
        return _kind_of_name(bare, words, among_capitals=among_capitals)
    if _INNER_APOSTROPHE.match(lower):
        return Kind.NAME  # O'Brien, Sa'id
    return _kind_of_other(bare, words, among_capitals=among_capitals)


def _kind_of_name(word: str, words: Lexicon, *, among_capitals: bool) -> Kind:
    """The kind of a word that people have as a name: how much it is something else."""
    lower = word.lower()
    if (
        lower in words.clinical
        or lower in words.drugs
        or lower in ORDINARY
        or (word.isupper() and len(word) < SHORT_ACRONYM and not among_capitals)
    ):
        return Kind.WEAK
    is_word = lower in words.words or (lower in words.frequent and words.is_word(lower))  # also in another form: hands
    return Kind.STRONG if is_word and lower not in words.rather_names else Kind.NAME


def _kind_of_other(word: str, words: Lexicon, *, among_capitals: bool) -> Kind:
    """The kind of a word that no list of names has."""
    lower = word.lower()
    parts = [part for part in regex.split("[-‐‑]", lower) if len(part) > 1]
    if len(parts) > 1 and any(words.is_name(part) or part in PARTICLES for part in parts) and (word[0].isupper() or parts[0] in PARTICLES):
        return Kind.STRONG
    if lower in words.eponyms:
        return Kind.WEAK
    ordinary = is_ordinary(lower) or words.is_word(lower) or (len(parts) > 1 and all(words.is_word(part) for part in parts))
    if ordinary or (lower.isascii() and lower in _ACRONYMS):
        return Kind.NO
    if _is_short_form(word, words):
        return Kind.NO
    if len(parts) > 1 and word.isupper() and all(len(part) <= SHORT_ACRONYM for part in parts):
        return Kind.PART if among_capitals else Kind.NO  # PT-INR
    return _kind_of_unknown(word, among_capitals=among_capitals)


def _is_short_form(word: str, words: Lexicon) -> bool:
    """Whether a word that no list of names has is an abbreviation by its capitals."""
    typed = _TYPED.fullmatch(word)
    return bool(_MIXED.fullmatch(word)) or (typed is not None and not words.is_name(typed["head"].lower()))


def _kind_of_unknown(word: str, *, among_capitals: bool) -> Kind:
    """The kind of a word that no list has, by its letters."""
    lower = word.lower()
    if not lower.isascii():
        is_whole = len(word) > SHORTEST - 2 or (len(word) > 1 and (word.istitle() or among_capitals))
        return Kind.NAME if is_whole else Kind.NO  # Cà, Lê
    if len(word) < SHORTEST - 1:
        return Kind.NO
    if word.isupper() and (len(word) <= SHORT_ACRONYM or not regex.search("[aeiouy]", lower)):
        return Kind.PART if among_capitals else Kind.NO
    return Kind.NAME if len(word) >= SHORTEST else Kind.PART
