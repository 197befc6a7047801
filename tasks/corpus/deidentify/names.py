"""Names of people that something near them gives away: a title, a role, kin, a degree, the form of a letter.

A letter is a letter in every script: ``\\p{Lu}`` and not A to Z. Text is taken to be composed (NFC).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import regex

from tasks.corpus.deidentify import name_runs, titles
from tasks.corpus.deidentify.lazy_pattern import LazyPattern

Refine: TypeAlias = Callable[[str, int, int], Iterator[tuple[int, int]]]  # the names between two places of a text
# Capitalized words that open a sentence or name a place or a thing where a name might stand.
_NO_NAMES = (
    "the this that these those she they with and but not yes his her their our "
    "patient patients doctor nurse nurses physician department clinic hospital emergency unit center centre medical health care service "
    "services history date name address phone fax email dob mrn ssn age sex male female none unknown see please discharge admission "
    "diagnosis disease syndrome disorder type stage grade group names icd who fda cdc nih usa "
    "practitioner practitioners surgery surgeon medicine pediatrics cardiology oncology neurology radiology pathology number "
    "january february march april may june july august september october november december monday tuesday wednesday thursday friday "
    "saturday sunday interpreter sincerely regards phd facs facp crna mbbs lcsw frcp dds dpm pharmd "
    # of the other languages whose labels are listed
    "patientin vorname nachname geburtsdatum geburtsname geschlecht adresse telefon anamnese diagnose station klinik krankenhaus "
    "oberarzt nom prénom adresse téléphone médecin sexe paciente nombre apellidos fecha sexo dirección teléfono paziente cognome nome "
    "data sesso indirizzo telefono pacjent pacjentka nazwisko imię adres pesel płeć hasta adı soyadı tarih cinsiyet adres januar "
    "februar märz mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonntag"
)
# With a hyphen behind it such a word is the half of a name: In-su.
_SHORT = "a an he it we i you in on at of for from or if as to no my id dr mr mrs ms md do np rn va us uk"
_END = r"(?![\p{L}\p{M}])"
# As lists by name: written out in every pattern they take seconds to compile.
_LISTS = {"no_names": _NO_NAMES.split(), "short": _SHORT.split()}
_NOT = rf"(?!(?i:\L<no_names>){_END}|(?i:\L<short>)(?![\p{{L}}\p{{M}}]|[-‐‑]\p{{L}}))"

_UPPER, _LETTER, BLANK, _HYPHEN, _APOSTROPHE = r"[\p{Lu}\p{Lt}]", r"[\p{L}\p{M}]", r"[ \t\u00a0\u202f\u3000]", "[-‐‑]", "['’ʼʻ‘]"
# What follows an apostrophe or a hyphen and is no part of the name.
_NOT_OF_IT = rf"(?:s|ll|d|ve|re|m|t){_END}"
_SAID_OF_IT = (
    r"(?:led|like|type|based|related|approved|associated|directed|recommended|prescribed|ordered|guided|positive|negative|supervised|style"
    rf"|assisted|a|an|the|who|with|is|was){_END}"
)
# O'Connor, d'Ângelo, al-Sayed, McDonald, Müller-Weiß, Min-jun, Лук'яненко, GÖRÜŞÜK: whole, as nothing that is possessive gives back.
_WORD = (
    rf"(?:(?<=Ó[ ])h(?={_UPPER})|\p{{L}}{{1,4}}{_APOSTROPHE}(?={_UPPER})"
    rf"|(?:[Aa][lrsztdn]|[Ee][lsnr]|[Aa]sh|[Uu][lr]){_HYPHEN}(?={_UPPER}))?+{_UPPER}{_LETTER}++"
    rf"(?:{_APOSTROPHE}(?!{_NOT_OF_IT}){_LETTER}++|{_HYPHEN}(?!{_SAID_OF_IT})(?:\p{{L}}{_APOSTROPHE})?+{_LETTER}++)*+(?!\d\p{{L}})"
)
# J. R., J.-P., Zs. Kovács, and a letter alone.
_INITIALS = (
    rf"(?:(?:{_UPPER}\.{_HYPHEN}?){{1,6}}+(?!{_LETTER}{{2}})|(?:Ch|Th|Ph|Cs|Zs|Sz|Gy|D[zž]|Lj|Nj|Kh|Sh|Zh)\.(?={BLANK}?{_UPPER})"
    rf"|(?:(?![AI](?!{_HYPHEN}\p{{L}}))|(?=A[ ]\p{{Lu}}[\p{{L}}\p{{M}}]{{2}})){_UPPER}(?![\p{{L}}\p{{M}}\d]))"
)
_PARTICLE = (
    r"(?:v[oa]n|vom|del?|dell[aeo]|dei|degli|di|da|dos|das|du|des|l[aeo]|las|les|los|el|al|zum?|zur|de[rnm]|te[rn]|a[fv]|bin|binti?|binte|bte|ibn|ben|abu"
    rf"|ould|[Mm]ac an|['’][tsTS]){BLANK}+"
)
_BETWEEN = rf"(?:{_PARTICLE}|(?:do|[yY]|[eE]|i){BLANK}+){{0,3}}"
# An, Do, He and My are names too: before another one, or where it ends what is said.
_SHORT_NAME = rf"(?:An|Do|He|My)(?={BLANK}+{_NOT}\p{{Lu}}\p{{Ll}}|[ ]*(?:[.,;()\n]|$))"
_PART = rf"(?:{_NOT}{_WORD}|{_INITIALS}|{_SHORT_NAME})"
_MORE = rf"(?:{BLANK}(?!{BLANK}){_BETWEEN}(?:{_PART}|(?:An|My){_END}))"
# Scripts without case. Where no blanks part words, a longer run is a sentence, of which a name can be the first four characters.
_SIGN = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}々ー]"
_SIGNS = rf"(?:{_SIGN}{{1,7}}+(?!{_SIGN})|{_SIGN}{{4}})(?:[ \u3000・·]{_SIGN}{{1,7}}+(?!{_SIGN})){{0,3}}"
_CASELESS_WORD = r"(?![ªº])[\p{Lo}\p{Georgian}][\p{Lo}\p{Lm}\p{Georgian}\p{M}\u200c\u200d'’׳״־-]*+"
CASELESS = rf"(?:{_SIGNS}|{_CASELESS_WORD}(?:{BLANK}{_CASELESS_WORD}){{0,4}})"
# "Ann B. Smith", "Smith, Ann B." and "A. Smith", within a line.
FULL = rf"(?:(?:{_PARTICLE}){{0,3}}{_PART}{_MORE}{{0,4}}(?:{BLANK}*[(（]{_SIGNS}[)）])?|{CASELESS})"
# A surname may also be one of the words above.
_SURNAME = rf"(?:{_PARTICLE}){{0,3}}(?:{_INITIALS}{BLANK}+)?(?:{_BETWEEN}{_WORD})(?:{BLANK}{_BETWEEN}{_WORD})?(?:{BLANK}{_BETWEEN}{_PART})?"
LISTED = rf"{_SURNAME},{BLANK}*{_PART}{_MORE}{{0,2}}"
ANY = rf"(?:{LISTED}|{FULL})"
CAPITALS = rf"(?:\p{{Lu}}{_APOSTROPHE})?+\p{{Lu}}[\p{{Lu}}\p{{M}}ß]++(?:['’-][\p{{Lu}}\p{{M}}ß]++)*+{_END}"
_DESCRIPTION = r"(?:is|was) an? (?:very )?(?:pleasant|lovely|delightful|elderly|young|right-handed|\d{1,3}[- ]?(?:y|M\b|F\b))"
_ALONE = r"(?<![\w/-])"

_DESCRIBED, _LABELLED = regex.compile(rf"\b{_DESCRIPTION}"), regex.compile(r"[:=：|-]|\.{3}")


def one_of(words: Iterable[str]) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(regex.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))


def _prefilter(words: Iterable[str]) -> frozenset[str]:
    """What a text must hold one of for a pattern that begins with the words to be worth trying."""
    return frozenset(regex.search(r"\w+", word.lower()).group() for word in words)


def _opened(words: Iterable[str]) -> str:
    """As the words, which a sentence may open with."""
    return "|".join(f"[{word[0].upper()}{word[0]}]{regex.escape(word[1:])}" for word in words)


_TITLE = rf"(?:{one_of(titles.TITLES)})(?![\p{{L}}\p{{M}}])\.?"
_TITLES = rf"{_ALONE}{_TITLE}{BLANK}*+(?:(?:{_TITLE}|{titles.TITLE_ADDED}){BLANK}*+){{0,5}}(?<=[\s.])"
_ARTICLE = rf"(?<=\b(?:El|Al|Del|Il|Le|Cher|Liebe|Lieber){BLANK})"
_UNSURE = rf"(?<![\w/-])(?:{_ARTICLE}|(?<!\p{{Lu}}[\p{{L}}\p{{M}}]*\.?,?{BLANK}|\d{BLANK}?))(?:{one_of(titles.UNSURE_TITLES)})"
_PATIENT = rf"\b(?:{titles.PATIENT}){BLANK}+"
_OPENS = rf"[\p{{Lu}}\p{{Lt}}\p{{Lo}}\p{{Georgian}}]|{_PARTICLE}"
STARTS = rf"(?<!\w)(?<!\p{{L}}-)(?={_OPENS})"
_COLON = rf"(?:[:=：|-]|\.{{3,}}){BLANK}*+(?={_OPENS}|\p{{Ll}}{{1,4}}['’-])"
_KINS = frozenset(titles.KIN_WORDS)
_LETTERS = frozenset("sincerely regards truly wishes respectfully referring discussed spoke seen signed dear".split())


# A prefilter: what a text must hold for a pattern to be worth trying: one of some words, a match, or both.
Words: TypeAlias = regex.Pattern[str] | re.Pattern[str] | frozenset[str] | tuple[frozenset[str], regex.Pattern[str] | re.Pattern[str]]


@dataclass(frozen=True)
class NamePattern:
    """A pattern for names that something near them gives away."""

    pattern: LazyPattern  # with a group "span"
    score: float  # how sure it is
    prefilter: Words
    refine: Refine | None = None  # which part of the span is a name; None: all of it


def _as_prefilter(words: Words | Iterable[str]) -> Words:
    if isinstance(words, frozenset | regex.Pattern | re.Pattern) or (isinstance(words, tuple) and isinstance(words[0], frozenset)):
        return words
    return frozenset(word for word in words if isinstance(word, str))


def pattern(
    before: str, span: str, score: float, words: Words | Iterable[str], *, after: str = "", refine: Refine | None = None
) -> NamePattern:
    """What stands before a name, the name, and what stands behind it, as one pattern."""
    return NamePattern(LazyPattern(rf"{before}(?P<span>{span}){after}", _LISTS), score, _as_prefilter(words), refine)


PATTERNS = (
    pattern(_TITLES, FULL, 0.8, _prefilter(titles.TITLES), refine=name_runs.not_a_placeholder),
    pattern(
        rf"{_ALONE}(?:{one_of(titles.TITLES_IN_CAPITALS)})\b\.?{BLANK}+",
        rf"{CAPITALS}(?:,?{BLANK}+{_NOT}(?:{CAPITALS}|\p{{Lu}}{_END}\.?)){{0,4}}",
        0.7,
        _prefilter(titles.TITLES_IN_CAPITALS),
        refine=name_runs.behind_a_title_in_capitals,
    ),
    pattern(rf"{_UNSURE}{BLANK}+", FULL, 0.6, _prefilter(titles.UNSURE_TITLES), refine=name_runs.names_near_a_cue),
    pattern(
        rf"\b{titles.MONSIEUR}(?<={titles.BEFORE_MONSIEUR}{BLANK}*MM?\.){BLANK}+", FULL, 0.6, ("m", "mm"), refine=name_runs.names_near_a_cue
    ),
    # Looked for from the colon on, of which there are fewer than of words.
    pattern(rf"{_COLON}(?<=\b(?i:{titles.LABELS}){BLANK}*(?:[:=：-]|\.{{3,}}){BLANK}*)", ANY, 0.8, _LABELLED),
    pattern(rf"{_COLON}(?<=\b(?i:{titles.LABELS}){BLANK}*[|]{BLANK}*)", ANY, 0.8, regex.compile("[|]"), refine=name_runs.names_by_role),
    pattern(
        rf"{_COLON}(?<=\b(?i:{titles.ROLE_LABELS}){BLANK}*(?:[:=：|-]|\.{{3,}}){BLANK}*)",
        ANY,
        0.8,
        _LABELLED,
        refine=name_runs.names_by_role,
    ),
    pattern(rf"{_COLON}(?<=\b(?i:{titles.UNSURE_LABELS}){BLANK}*[:=：|-]{BLANK}*)", ANY, 0.6, _LABELLED, refine=name_runs.names_near_a_cue),
    pattern(_PATIENT, FULL, 0.7, _prefilter(titles.PATIENTS), after=titles.GOES_ON, refine=name_runs.names_by_role),
    pattern(_PATIENT, FULL, 0.6, _prefilter(titles.PATIENTS), after=titles.HAS, refine=name_runs.names_by_role),
    pattern(
        rf"(?i:\b(?:{titles.KIN})(?:,| named|[ ]is|[ ]\(|[:] )?(?:{BLANK}+)?)(?<=[\s(,:])",
        FULL,
        0.6,
        _KINS,
        refine=name_runs.names_near_a_cue,
    ),
    pattern(rf"\b(?:{_opened(titles.KIN_ABROAD)}),?{BLANK}+", FULL, 0.6, _prefilter(titles.KIN_ABROAD), refine=name_runs.names_near_a_cue),
    pattern(
        rf"\b{titles.BEFORE_KIN_IN_GERMAN}{BLANK}+(?:{one_of(titles.KIN_IN_GERMAN)}),?{BLANK}+",
        FULL,
        0.6,
        _prefilter(titles.KIN_IN_GERMAN),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(STARTS, FULL, 0.7, _prefilter(titles.TITLES_BEHIND), after=rf"(?={BLANK}(?:{one_of(titles.TITLES_BEHIND)}){_END})"),
    pattern(r"(?i:\b(?:sincerely|regards|yours truly|best wishes|respectfully|yours faithfully),)\s+", FULL, 0.7, _LETTERS),
    pattern(
        rf"{STARTS}(?=.{{1,80}}?{_DESCRIPTION})", FULL, 0.7, _DESCRIBED, after=rf"(?=,? {_DESCRIPTION})", refine=name_runs.names_by_role
    ),
)
