"""Questions and answers from the ICD-10-CM tabular list (the XML that NCHS publishes).

Every sentence restates the list's own titles and notes.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from tasks.corpus.documents import Document, content_id
from tasks.corpus.readers.hpo import Names

# The notes of a code, in the order in which an answer has them.
NOTES = (
    ("inclusionTerm", "It includes"),
    ("includes", "It includes"),
    ("excludes1", "Never coded together with it"),
    ("excludes2", "Not part of it"),
    ("codeFirst", "To be coded first"),
    ("useAdditionalCode", "Additional codes"),
)
MAX_ITEMS = 8
# External causes (V-Y) say how an accident happened; single injuries (S, T) repeat one pattern thousands of times.
LEFT_OUT = "VWXY"
ONLY_CATEGORIES = "ST"


def read_tabular(root: ElementTree.Element, source: str) -> Iterator[Document]:
    """One document per code that has notes or subdivisions; group: the three-character category."""
    names = Names(desc.text or "" for desc in root.iter("note"))
    for section in root.iter("section"):
        for top in section.findall("diag"):
            yield from _codes(top, None, names, source)


def _codes(diag: ElementTree.Element, parent: ElementTree.Element | None, names: Names, source: str) -> Iterator[Document]:
    code, title = _text(diag, "name"), _text(diag, "desc")
    children = diag.findall("diag")
    says_more = bool(children) or any(diag.find(tag) is not None for tag, _ in NOTES)
    if says_more and code[0] not in LEFT_OUT and not (code[0] in ONLY_CATEGORIES and len(code) > 5):
        yield _document(code, names.inline(title), _answer(code, title, diag, children, parent, names), source)
    for child in children:
        yield from _codes(child, diag, names, source)


def _document(code: str, name: str, answer: str, source: str) -> Document:
    question = f"Which ICD-10-CM code is used for {name}, and what does it cover?"
    key = content_id(source, question, answer, code)
    return Document(key, question, answer, source, "icd10cm", f"icd10cm:{code[:3]}", code, topic=name)


def _answer(
    code: str,
    title: str,
    diag: ElementTree.Element,
    children: list[ElementTree.Element],
    parent: ElementTree.Element | None,
    names: Names,
) -> str:
    sentences = [f"ICD-10-CM code {code} stands for {names.inline(title)}."]
    if parent is not None:
        sentences.append(f"It belongs to {_text(parent, 'name')}, {names.inline(_text(parent, 'desc'))}.")
    for tag, label in NOTES:
        notes = [_plain(note.text or "") for block in diag.findall(tag) for note in block.findall("note")]
        if notes := [n for n in notes if n]:
            more = f"; and {len(notes) - MAX_ITEMS} more" if len(notes) > MAX_ITEMS else ""
            sentences.append(f"{label}: {'; '.join(notes[:MAX_ITEMS])}{more}.")
    if children:
        shown = [f"{names.inline(_text(c, 'desc'))} ({_text(c, 'name')})" for c in children[:MAX_ITEMS]]
        more = f", and {len(children) - MAX_ITEMS} more" if len(children) > MAX_ITEMS else ""
        sentences.append(f"Its subdivisions are {', '.join(shown)}{more}.")
    return " ".join(sentences)


def _text(element: ElementTree.Element, tag: str) -> str:
    return _plain(element.findtext(tag) or "")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(":")
