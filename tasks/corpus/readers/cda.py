"""Clinical documents of HL7 CDA, such as C-CDA: the narrative of their sections, as a text, and who their header names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException

from tasks.corpus.documents import Document, KnownPerson, Record, Rejected, content_id
from tasks.corpus.readers.attachments import attached_bytes, attached_text
from tasks.corpus.readers.cda_people import header_people, local
from tasks.corpus.readers.records import UnreadableError, bad_characters
from tasks.corpus.readers.rendering import html_text
from tasks.corpus.readers.xml_trees import whole_tree

ROOT = "{urn:hl7-org:v3}ClinicalDocument"
MAX_LEVELS = 100  # of sections, and of markup in a narrative
_SAME = frozenset("table thead tbody tfoot tr td th sup sub br".split())
_HTML = {"paragraph": "p", "item": "li"} | {tag: tag for tag in _SAME}
_DROPPED = frozenset(("renderMultiMedia", "colgroup", "col"))
_PATIENT_IDS = "{*}recordTarget/{*}patientRole/{*}id"
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NO_TEXT = UnreadableError("is a clinical document without a text")


@dataclass(frozen=True, slots=True)
class ClinicalDocument:
    """What is read of a document. ``people`` are of its patient (True) or others."""

    text: str
    patient: tuple[str, str]  # root and extension of the patient's id; empty where there is none
    people: tuple[tuple[bool, tuple[tuple[str, str], ...]], ...]


def read_cda(path: Path, name: str) -> Iterator[Record]:
    """The document in a file, and the people that its header names; positions are "document"."""
    try:
        document = clinical_document(whole_tree(path))
    except UnreadableError as error:
        yield Rejected(name, "document", str(error))
        return
    patient = document.patient
    key = content_id(name, *patient, document.text)
    group = f"patient:{content_id('patient', *patient)}" if any(patient) else f"record:{key}"
    yield from known_people(document, group)
    if problem := bad_characters(document.text):
        yield Rejected(name, "document", problem)
    else:
        yield Document(key, "", document.text, name, "cda-note", group, "document")


def known_people(document: ClinicalDocument, group: str) -> Iterator[KnownPerson]:
    """The people of a document's header; ``group`` is that of its patient's notes."""
    yield from (KnownPerson(group if is_patients else "", identifiers) for is_patients, identifiers in document.people)


def parsed_document(content: bytes) -> ClinicalDocument:
    """A document that is attached to a record. ``UnreadableError`` says what is wrong with it."""
    try:
        root = whole_tree(BytesIO(content))
    except ParseError:
        raise UnreadableError("holds XML that is not well-formed") from None
    except DefusedXmlException:
        raise UnreadableError("holds XML that defines entities, which are not expanded") from None
    except (LookupError, UnicodeError):
        raise UnreadableError("holds XML that is not in its encoding") from None
    if root.tag != ROOT:
        raise UnreadableError("holds XML that is no clinical document")
    return clinical_document(root)


def clinical_document(root: Element) -> ClinicalDocument:
    """The document below a root element."""
    return ClinicalDocument(_text(root), _patient(root), tuple(header_people(root)))


def _patient(root: Element) -> tuple[str, str]:
    """The first id of the patient with an extension; a root alone names a system, not a patient, but where it is a UUID."""
    ids = [(id_.get("root", ""), id_.get("extension", ""), id_.get("nullFlavor")) for id_ in root.iterfind(_PATIENT_IDS)]
    with_extension = ((system, number) for system, number, _ in ids if number.strip())
    uuids = ((system, "") for system, _, unknown in ids if not unknown and _UUID.fullmatch(system))
    return next(with_extension, None) or next(uuids, ("", ""))


def _text(root: Element) -> str:
    parts = [_line(root.find("{*}title"))]
    body = root.find("{*}component/{*}nonXMLBody/{*}text")
    if body is not None:
        parts.append(_attached(body))
    for component in root.iterfind("{*}component/{*}structuredBody/{*}component"):
        parts += [part for section in component.iterfind("{*}section") for part in _section(section, 1)]
    if not any(parts[1:]):
        raise _NO_TEXT
    return "\n\n".join(part for part in parts if part)


def _section(section: Element, level: int) -> Iterator[str]:
    """The heading and the narrative of a section, then those below it; a section without any text is left out."""
    if level > MAX_LEVELS:
        raise UnreadableError(f"is a clinical document with sections more than {MAX_LEVELS} levels deep")
    code = section.find("{*}code")
    title = _line(section.find("{*}title")) or (code.get("displayName", "") if code is not None else "")
    narrative = section.find("{*}text")
    text = "" if narrative is None else html_text("".join(_markup(narrative, 0)))
    below = [part for child in section.iterfind("{*}component/{*}section") for part in _section(child, level + 1)]
    if text or below:
        yield "\n".join(part for part in (title, text) if part)
        yield from below


def _markup(element: Element, level: int) -> Iterator[str]:
    """The content of an element of narrative as HTML."""
    yield escape(element.text or "", quote=False)
    for child in element:
        tag = local(child)
        if tag not in _DROPPED and child.get("revised") != "delete" and not (tag == "caption" and local(element) == "list"):
            yield from _element(child, tag, level)
        yield escape(child.tail or "", quote=False)


def _element(element: Element, tag: str, level: int) -> Iterator[str]:
    if tag == "list":
        name = "ol" if element.get("listType") == "ordered" else "ul"
    else:
        name = _HTML.get(tag, "caption" if tag == "caption" else "")
    if level > MAX_LEVELS:
        yield escape("".join(element.itertext()), quote=False)
    elif name == "br":
        yield "<br/>"
    else:
        for caption in element.iterfind("{*}caption") if tag == "list" else ():
            yield from ("<div>", *_markup(caption, level + 1), "</div>")
        yield f"<{name}>" if name else ""
        yield from _markup(element, level + 1)
        yield f"</{name}>" if name else ""


def _attached(body: Element) -> str:
    kind, text = body.get("mediaType", "text/plain"), "".join(body.itertext())
    if body.find("{*}reference") is not None and not text.strip():
        raise UnreadableError("is a clinical document whose text is in another file")
    content = attached_bytes(text) if body.get("representation") == "B64" else text.encode()
    return attached_text(content, kind, _refused).strip()


def _refused(_: bytes) -> str:
    raise UnreadableError("is a clinical document within another")


def _line(element: Element | None) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip() if element is not None else ""
