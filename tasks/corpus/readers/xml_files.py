"""XML: which kind a file is, and MedQuAD's question/answer files. Entities are not expanded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException

from tasks.corpus.documents import Document, Record, Rejected
from tasks.corpus.readers import cda, icd10cm, pubmed
from tasks.corpus.readers.records import UnreadableError, to_document
from tasks.corpus.readers.source_index import SourceIndex
from tasks.corpus.readers.streams import declared_encoding
from tasks.corpus.readers.xml_trees import element_text, elements, root_tag, whole_tree

_KINDS = ("clinical documents", "ICD-10-CM tabular lists", "MedQuAD", "PubMed and MEDLINE")


def read_xml(path: Path, name: str, index: SourceIndex) -> Iterator[Record]:
    """The records of an XML file of the kind that its root element names."""
    try:
        declared_encoding(path)
        match root_tag(path):
            case "ICD10CM.tabular":
                yield from icd10cm.read_tabular(whole_tree(path), name)
            case "Document":
                yield from _medquad(path, name)
            case cda.ROOT:
                yield from cda.read_cda(path, name)
            case root if root in pubmed.ROOTS:
                yield from pubmed.read_pubmed(path, name, index)
            case _:
                raise UnreadableError(f"is XML of a kind that is not read ({', '.join(_KINDS)} are)")
    except ParseError as error:
        line, _ = error.position
        raise UnreadableError(f"is not well-formed XML in line {line}") from None
    except DefusedXmlException:
        raise UnreadableError("defines entities, which are not expanded: they can be made to fill any memory") from None
    except (EOFError, OSError, UnicodeError, LookupError) as error:
        raise UnreadableError(f"is damaged ({type(error).__name__})") from None


def _medquad(path: Path, name: str) -> Iterator[Document | Rejected]:
    topic, aliases = "", []
    for element in elements(path, "Focus", "Synonym", "QAPair"):
        if element.tag == "Focus":
            topic = element_text(element)
        elif element.tag == "Synonym":
            aliases.append(element_text(element))
        else:
            question, answer = element.find("Question"), element.find("Answer")
            position = f"pair {element.get('pid', '?')}"
            if len(element.findall("Question")) > 1 or len(element.findall("Answer")) > 1:
                yield Rejected(name, position, "has more than one question or answer")
                continue
            fields = {"question": element_text(question), "answer": element_text(answer), "topic": topic}
            record = to_document(fields, name, position)
            if isinstance(record, Document):
                category = (question.get("qtype") if question is not None else "") or "information"
                record = replace(record, category=f"medquad-{category}", aliases=tuple(aliases))
            yield record
