"""De-identification of one document."""

from dataclasses import replace

from tasks.corpus.deidentify.finder import finder
from tasks.corpus.deidentify.replacement import Replacements, years_in
from tasks.corpus.documents import Document

# Between a document's texts, which are looked at together; no text has it, as control characters are removed before.
_BORDER = "\n\x00\n"


def deidentified(document: Document, params: str) -> tuple[Document, set[str]]:
    """The document with identifiers replaced, as the params in JSON say, and the types of those that were found."""
    made = finder(params)
    whole = _BORDER.join(document.texts())
    found = made.find(whole)
    if not found:
        return document, set()
    years = [year for f in found if f.type == "DATE" for year in years_in(whole[f.start : f.end])]
    replacements = Replacements(made.params, made.key, document.id, document.group, years)
    told, end = [], 0
    replaced: dict[str, str] = {}
    for f in found:
        value = whole[f.start : f.end]
        replaced[value] = replacements.of(f.type, value)
        told += [whole[end : f.start], replaced[value]]
        end = f.end
    *before, question, answer = "".join([*told, whole[end:]]).split(_BORDER)

    def changed(text: str) -> str:
        for value, replacement in replaced.items():
            text = text.replace(value, replacement)
        return text

    # The topic and its other names are words of the texts.
    made_of = document.map_texts(changed)
    turns = tuple((role, text) for (role, _), text in zip(document.before, before, strict=True))
    return replace(made_of, question=question, answer=answer, before=turns), {f.type for f in found}
