"""Lay words after medical ones, in an answer: "dyspnea (difficulty breathing)".

The pairs are the Human Phenotype Ontology's: a term and its synonym that is marked as a layperson's. They are added as a gloss and
never put in a term's place, and only where the term is a whole noun phrase.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

MAX_GLOSSES = 2  # per answer
MAX_TERM_WORDS = 5
# Terms that are ordinary words, or whose lay word says something else in running text.
NOT_GLOSSED = frozenset(
    "progressive abnormality fever pain cough obesity asthma stroke cancer death onset seizure seizures fatigue".split()
)
_NEGATED = re.compile(r"\b(?:no|not|without|never|absence|absent|neither|nor|denies|excluded?|rarely|unless)\b", re.I)
_WORD = re.compile(r"[A-Za-z][\w'’-]*")
# What may stand before and behind a whole noun phrase.
_BEFORE = re.compile(
    r"(?:^|[.;:,(\n]\s*|\b(?:and|or|with|of|by|from|includes?|including|causes?|as|is|are|the|a|an|have|has|to|for|in|develops?|like|than)\s)$",
    re.I,
)
_AFTER = re.compile(r"[.;:,)\n]|$|\s(?:and|or|is|are|in|that|which|may|can|with|due|caused|because|was|were|occurs?|develops?)\b", re.I)


def lay_terms(synonyms: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Lay words by term, both in lower case, from pairs of them; without terms that have several or are ordinary words."""
    by_term: dict[str, str | None] = {}
    for term, lay in synonyms:
        key, words = term.lower(), lay.lower()
        if (
            key in NOT_GLOSSED
            or key.endswith(" onset")
            or words in key
            or key in words
            or len(key.split()) > MAX_TERM_WORDS
            or not _WORD.fullmatch(key.split()[0])
        ):
            continue
        by_term[key] = words if by_term.get(key, words) == words else None
    return {term: lay for term, lay in by_term.items() if lay}


def glossed(answer: str, lay: Mapping[str, str]) -> str:
    """The answer with lay words in parentheses behind up to MAX_GLOSSES of its terms, each at its first use."""
    parts, end, seen = [], 0, set[str]()
    for start, stop in _terms(answer, lay):
        term = answer[start:stop].lower()
        if len(seen) == MAX_GLOSSES or term in seen or lay[term] in answer.lower():
            continue
        clause = re.split(r"[.;:!?\n]", answer[:start])[-1]
        if _NEGATED.search(clause) or not _BEFORE.search(answer[:start]) or not _AFTER.match(answer, stop):
            continue
        seen.add(term)
        parts += [answer[end:stop], f" ({lay[term]})"]
        end = stop
    return "".join([*parts, answer[end:]])


def _terms(answer: str, lay: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Start and end of each term, the longest at each position, none within another."""
    words, first = list(_WORD.finditer(answer)), 0
    while first < len(words):
        for last in range(min(first + MAX_TERM_WORDS, len(words)) - 1, first - 1, -1):
            start, stop = words[first].start(), words[last].end()
            if answer[start:stop].lower() in lay:
                yield start, stop
                first = last
                break
        first += 1
