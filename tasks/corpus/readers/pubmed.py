"""Articles of PubMed and MEDLINE: title and abstract as plain text, of each citation the newest version, without what was withdrawn."""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException

from tasks.corpus.documents import Document, Record, Rejected, Skipped, content_id
from tasks.corpus.readers.source_index import IndexWriter, SourceIndex, place_of
from tasks.corpus.readers.xml_trees import element_text, elements, root_tag

ROOTS = ("PubmedArticleSet", "MedlineCitationSet")
_EVERYWHERE = ""  # numbers of citations are the same in every folder
_RETRACTED = "is a retracted article"
_NOTICES = ("Retraction of Publication", "Retraction Notice")


def index_files(data: Path, names: Iterable[str], writer: IndexWriter) -> None:
    """Add the citations of XML files to an index. What cannot be read is left to the reader, which says so."""
    for name in names:
        try:
            if root_tag(data / name) in ROOTS:
                for position, element in _numbered(data / name):
                    _add(element, name, position, writer)
        except (EOFError, OSError, ValueError, LookupError, zlib.error, ParseError, DefusedXmlException):
            continue


def read_pubmed(path: Path, name: str, index: SourceIndex) -> Iterator[Record]:
    """The articles of a file; positions are their numbers in it."""
    for position, article in _numbered(path):
        if article.tag == "DeleteCitation":
            yield Skipped(name, position, "lists citations that were deleted")
        elif article.tag == "PubmedBookArticle":
            yield Rejected(name, position, "is a book's entry, which is not read")
        else:
            yield _article(article, name, position, index)


def _article(article: Element, name: str, position: str, index: SourceIndex) -> Record:
    pmid = element_text(article.find("PMID"))
    if reason := _reason(article) or (pmid and index.withdrawn(_EVERYWHERE, pmid)):
        return Skipped(name, position, reason)
    newest = index.newest_citation(_EVERYWHERE, pmid) if pmid else ""
    if newest and newest != place_of(name, position):  # what is in an archive is not in the index
        return Skipped(name, position, "is an older version of a citation")
    title = element_text(article.find("Article/ArticleTitle"))
    sections = [(part.get("Label", ""), element_text(part)) for part in article.findall("Article/Abstract/AbstractText")]
    abstract = "\n".join(f"{label}: {text}" if label else text for label, text in sections if text)
    if not abstract:
        return Rejected(name, position, "has no abstract")
    text = f"{title}\n\n{abstract}" if title else abstract
    key = content_id("pubmed", pmid or text)
    return Document(key, "", text, name, "pubmed-abstract", f"pubmed:{key}", position)


def _numbered(path: Path) -> Iterator[tuple[str, Element]]:
    number = 0
    for element in elements(path, "MedlineCitation", "PubmedBookArticle", "DeleteCitation"):
        number += element.tag != "DeleteCitation"
        yield ("deletions" if element.tag == "DeleteCitation" else f"article {number}"), element


def _add(element: Element, name: str, position: str, writer: IndexWriter) -> None:
    if element.tag == "DeleteCitation":
        for deleted in element.findall("PMID"):
            writer.add("withdrawn", _EVERYWHERE, element_text(deleted), "is a citation that was deleted")
    elif element.tag == "MedlineCitation" and (number := element.find("PMID")) is not None:
        pmid = element_text(number)
        date = "".join((element.findtext(f"DateRevised/{part}") or "").strip().zfill(2) for part in ("Year", "Month", "Day"))
        writer.add("citation", _EVERYWHERE, pmid, f"{number.get('Version', '1').strip().zfill(6)}|{date}", place_of(name, position))
        if _reason(element) == _RETRACTED:
            writer.add("withdrawn", _EVERYWHERE, pmid, _RETRACTED)
        for retracted in element.findall("CommentsCorrectionsList/CommentsCorrections[@RefType='RetractionOf']/PMID"):
            writer.add("withdrawn", _EVERYWHERE, element_text(retracted), _RETRACTED)


def _reason(article: Element) -> str:
    """Why an article is not used, as far as it says so itself; empty where it is."""
    kinds = {element_text(kind) for kind in article.findall("Article/PublicationTypeList/PublicationType")}
    relations = {relation.get("RefType") for relation in article.findall("CommentsCorrectionsList/CommentsCorrections")}
    if "Retracted Publication" in kinds or "RetractionIn" in relations:
        return _RETRACTED
    return "is the notice of a retraction" if kinds & set(_NOTICES) or "RetractionOf" in relations else ""
