"""De-identification of one document."""

from collections import Counter
from dataclasses import dataclass, replace

from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.deidentify.known import NOBODY, KnownPeople
from tasks.corpus.deidentify.replacement import Replacements, years_in
from tasks.corpus.documents import Document

# Between a document's texts, which are analyzed together; no text has it, as control characters are removed before.
BORDER = "\n\x00\n"


@dataclass(frozen=True, slots=True)
class Replaced:
    """An identifier of a document's joined texts, from ``start`` to ``end``, and what replaces it."""

    start: int
    end: int
    type: str
    replacement: str


def replaced_identifiers(document: Document, params: str, known: KnownPeople = NOBODY) -> tuple[str, list[Replaced]]:
    """The document's texts, joined, and the identifiers in them in their order, as the params in JSON say, and what the data knows."""
    analyzer = get_analyzer(params)
    whole = BORDER.join(document.texts())
    spans = analyzer.with_known(analyzer.analyze(whole), known.find(whole, document.group))
    if not spans:
        return whole, []
    years = [year for span in spans if span.type == "DATE" for year in years_in(whole[span.start : span.end])]
    replacements = Replacements(analyzer.params, analyzer.key, document.id, document.group, years)
    return whole, [Replaced(span.start, span.end, span.type, replacements.of(span.type, whole[span.start : span.end])) for span in spans]


def deidentified(document: Document, params: str, known: KnownPeople = NOBODY) -> tuple[Document, Counter[str]]:
    """The document with identifiers replaced as the params in JSON say, and how many of each type were detected."""
    whole, identifiers = replaced_identifiers(document, params, known)
    if not identifiers:
        return document, Counter()
    parts, end = [], 0
    replaced: dict[str, str] = {}
    for identifier in identifiers:
        replaced[whole[identifier.start : identifier.end]] = identifier.replacement
        parts += [whole[end : identifier.start], identifier.replacement]
        end = identifier.end
    *before, question, answer = "".join([*parts, whole[end:]]).split(BORDER)

    def with_replacements(text: str) -> str:
        for value, replacement in replaced.items():
            text = text.replace(value, replacement)
        return text

    # The topic and its other names are words of the texts.
    changed = document.map_texts(with_replacements)
    turns = tuple((role, text) for (role, _), text in zip(document.before, before, strict=True))
    return replace(changed, question=question, answer=answer, before=turns), Counter(identifier.type for identifier in identifiers)
