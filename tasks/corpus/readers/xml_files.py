"""XML: which kind a file is, MedQuAD's question/answer files, and articles of PubMed and MEDLINE. Entities are not expanded."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from tasks.corpus.documents import Document, Rejected, content_id
from tasks.corpus.readers import icd10cm
from tasks.corpus.readers.records import UnreadableError, to_document
from tasks.corpus.readers.streams import MAX_DEPTH, MAX_TREE, BoundedFile, declared_encoding


def read_xml(path: Path, name: str) -> Iterator[Document | Rejected]:
    """The records of an XML file of the kind that its root element names."""
    try:
        declared_encoding(path)
        with BoundedFile(path) as file:
            root = next((element.tag for _, element in iterparse(file, events=("start",))), "")
        match root:
            case "ICD10CM.tabular":
                yield from icd10cm.read_tabular(_whole(path), name)
            case "Document":
                yield from _medquad(path, name)
            case "PubmedArticleSet" | "MedlineCitationSet":
                yield from _pubmed(path, name)
            case _:
                raise UnreadableError("is XML of a kind that is not read (ICD-10-CM tabular lists, MedQuAD, PubMed and MEDLINE are)")
    except ParseError as error:
        line, _ = error.position
        raise UnreadableError(f"is not well-formed XML in line {line}") from None
    except DefusedXmlException:
        raise UnreadableError("defines entities, which are not expanded: they can be made to fill any memory") from None
    except (EOFError, OSError, UnicodeError, LookupError) as error:
        raise UnreadableError(f"is damaged ({type(error).__name__})") from None


def _whole(path: Path) -> Element:
    """The root of a file that is read whole."""
    with BoundedFile(path, MAX_TREE) as file:
        *_, (root, _) = _closed(file)
    return root


def _elements(path: Path, *tags: str) -> Iterator[Element]:
    """The elements of these tags as they end; what was read is forgotten."""
    with BoundedFile(path) as file:
        for element, above in _closed(file):
            if element.tag in tags:
                yield element
                element.clear()
            if len(above) == 1:  # a child of the root, PubMed's article around its citation for one
                above[0].clear()
            if element.tag in tags or len(above) == 1:
                file.next_record()


def _closed(file: BoundedFile) -> Iterator[tuple[Element, list[Element]]]:
    """Each element as it ends, with those around it."""
    above: list[Element] = []
    for event, element in iterparse(file, events=("start", "end")):
        if event == "start":
            above.append(element)
            file.element()
            if len(above) > MAX_DEPTH:
                raise UnreadableError(f"is XML nested more than {MAX_DEPTH} elements deep")
        else:
            above.pop()
            yield element, above


def _medquad(path: Path, name: str) -> Iterator[Document | Rejected]:
    topic, aliases = "", []
    for element in _elements(path, "Focus", "Synonym", "QAPair"):
        if element.tag == "Focus":
            topic = _text(element)
        elif element.tag == "Synonym":
            aliases.append(_text(element))
        else:
            question, answer = element.find("Question"), element.find("Answer")
            position = f"pair {element.get('pid', '?')}"
            if len(element.findall("Question")) > 1 or len(element.findall("Answer")) > 1:
                yield Rejected(name, position, "has more than one question or answer")
                continue
            fields = {"question": _text(question), "answer": _text(answer), "topic": topic}
            record = to_document(fields, name, position)
            if isinstance(record, Document):
                category = (question.get("qtype") if question is not None else "") or "information"
                record = replace(record, category=f"medquad-{category}", aliases=tuple(aliases))
            yield record


def _pubmed(path: Path, name: str) -> Iterator[Document | Rejected]:
    """Title and abstract of every article, as plain text; positions are the articles' numbers in the file."""
    for i, article in enumerate(_elements(path, "MedlineCitation", "PubmedBookArticle"), 1):
        position = f"article {i}"
        if article.tag == "PubmedBookArticle":
            yield Rejected(name, position, "is a book's entry, which is not read")
            continue
        title, pmid = _text(article.find("Article/ArticleTitle")), _text(article.find("PMID"))
        sections = [(part.get("Label", ""), _text(part)) for part in article.findall("Article/Abstract/AbstractText")]
        abstract = "\n".join(f"{label}: {text}" if label else text for label, text in sections if text)
        if not abstract:
            yield Rejected(name, position, "has no abstract")
            continue
        text = f"{title}\n\n{abstract}" if title else abstract
        key = content_id("pubmed", pmid or text)
        yield Document(key, "", text, name, "pubmed-abstract", f"pubmed:{key}", position)


def _text(element: Element | None) -> str:
    """All text within an element, that of its markup too."""
    return re.sub(r"[ \t]+", " ", "".join(element.itertext())).strip() if element is not None else ""
