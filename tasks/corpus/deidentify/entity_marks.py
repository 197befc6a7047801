"""Which parts of a model's entities are marked: those that are no values, drugs, headings or words of language and medicine.

A name is asked word by word, as it is where a rule sees that a person may follow. Another entity is not marked where a clinical span is in
it. What is left must have the form of its type: a number is marked without the words around it, an age from 90 on, and a place with a
capitalized word that can be a name. It does not know which model found an entity.
"""

import re
from collections.abc import Iterator, Sequence

from tasks.corpus.deidentify.ages import OVER_89
from tasks.corpus.deidentify.clinical_spans import find_spans
from tasks.corpus.deidentify.entity_models import Entity
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.name_runs import names_near_a_cue
from tasks.corpus.deidentify.word_kinds import Kind, kind_of

LAYOUT = frozenset({"row", "columns"})  # clinical spans that a mask within a line does not harm
_LINE = re.compile(r"\w(?:[^\n]*\w)?")
_WORD = re.compile(r"[^\W\d_]+")
_MONTH = r"\b(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_NUMBER = re.compile(r"\S*\d(?:.*\d)?\w*")
_FORMS = {
    "AGE": re.compile(rf"(?<!\d)(?:{OVER_89.pattern})(?!\d)"),
    "DATE": re.compile(rf"(?:{_MONTH}|\S*\d)(?:.*(?:\d|{_MONTH}))?\w*"),
    "EMAIL": re.compile(r"\S+@\S+"),
    "URL": re.compile(r"\S+\.\S+"),
}


def marked(entities: Sequence[Entity], text: str) -> Iterator[Entity]:
    """The parts of entities that are marked in a text; none crosses a line."""
    has_others = any(entity.type != "NAME" for entity in entities)
    clinical = [span for span in find_spans(text, lexicon().drugs) if span.type not in LAYOUT] if has_others else []
    for start, end, type_ in by_line(entities, text):
        if type_ == "NAME":
            parts = names_near_a_cue(text, start, end)
        elif any(span.start < end and start < span.end for span in clinical):
            continue
        else:
            parts = _of_its_form(type_, text, start, end)
        yield from (Entity(*part, type_) for part in parts)


def by_line(entities: Sequence[Entity], text: str) -> Iterator[Entity]:
    """Entities as one of each of their lines, from its first letter or digit to its last."""
    yield from (Entity(*line.span(), entity.type) for entity in entities for line in _LINE.finditer(text, entity.start, entity.end))


def _of_its_form(type_: str, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    has_digit = any(map(str.isdecimal, text[start:end]))
    if type_ in ("FACILITY", "ADDRESS"):
        if _has_a_name(text, start, end) or (type_ == "ADDRESS" and has_digit):
            yield start, end
    elif has_digit or type_ != "DATE":  # a month without a day is none
        yield from (match.span() for match in _FORMS.get(type_, _NUMBER).finditer(text, start, end))


def _has_a_name(text: str, start: int, end: int) -> bool:
    """Whether a place has a capitalized word that is none of language or medicine."""
    words = (match.group() for match in _WORD.finditer(text, start, end))
    return any(word[0].isupper() and kind_of(word, lexicon()) >= Kind.STRONG for word in words)
