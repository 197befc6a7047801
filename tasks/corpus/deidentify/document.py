"""De-identification of one document."""

from dataclasses import replace

from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.deidentify.replacement import Replacements, years_in
from tasks.corpus.documents import Document

# Between a document's texts, which are analyzed together; no text has it, as control characters are removed before.
_BORDER = "\n\x00\n"


def deidentified(document: Document, params: str) -> tuple[Document, set[str]]:
    """The document with identifiers replaced as the params in JSON say, and the types of the identifiers that were detected."""
    analyzer = get_analyzer(params)
    whole = _BORDER.join(document.texts())
    spans = analyzer.analyze(whole)
    if not spans:
        return document, set()
    years = [year for span in spans if span.type == "DATE" for year in years_in(whole[span.start : span.end])]
    replacements = Replacements(analyzer.params, analyzer.key, document.id, document.group, years)
    parts, end = [], 0
    replaced: dict[str, str] = {}
    for span in spans:
        value = whole[span.start : span.end]
        replaced[value] = replacements.of(span.type, value)
        parts += [whole[end : span.start], replaced[value]]
        end = span.end
    *before, question, answer = "".join([*parts, whole[end:]]).split(_BORDER)

    def with_replacements(text: str) -> str:
        for value, replacement in replaced.items():
            text = text.replace(value, replacement)
        return text

    # The topic and its other names are words of the texts.
    changed = document.map_texts(with_replacements)
    turns = tuple((role, text) for (role, _), text in zip(document.before, before, strict=True))
    return replace(changed, question=question, answer=answer, before=turns), {span.type for span in spans}
