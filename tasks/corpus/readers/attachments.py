"""What is attached to a record, in FHIR and in HL7 v2: base64 of a text in one of the formats of notes."""

import base64
import binascii
import re
from collections.abc import Callable

from tasks.corpus.readers.records import MAX_RECORD, UnreadableError, bad_characters
from tasks.corpus.readers.rendering import html_text
from tasks.corpus.readers.rtf import rtf_text
from tasks.corpus.readers.streams import MARKS, text_encoding

MAX_ATTACHMENT = MAX_RECORD  # bytes of what is attached
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_DECLARED = re.compile(rb"""(?:<\?xml[^>]*?\sencoding|<meta[^>]*?\scharset|;\s*charset)\s*=\s*["']?([^\s"'>;/]+)""", re.IGNORECASE)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_TEXT, _HTML, _RTF, _XML = "text/plain", "text/html", "text/rtf", "application/xml"
_KINDS = {
    "": "",
    "application/octet-stream": "",
    "binary/octet-stream": "",
    _TEXT: _TEXT,
    "text/markdown": _TEXT,
    _HTML: _HTML,
    "application/xhtml+xml": _HTML,
    _RTF: _RTF,
    "application/rtf": _RTF,
    "application/x-rtf": _RTF,
    "text/richtext": _RTF,
    _XML: _XML,
    "text/xml": _XML,
    "application/hl7-cda+xml": _XML,
    "application/hl7-sda+xml": _XML,
    "application/cda+xml": _XML,
}
_SNIFFED = {
    _XML: re.compile(rb"(?:<\?xml[^>]*>)?\s*(?:<!--.*?-->\s*)*<(?:\w+:)?ClinicalDocument\b", re.DOTALL),
    _HTML: re.compile(rb"(?:<\?xml[^>]*>)?\s*<(?:!doctype html|html|head|body|div|p|table)\b", re.IGNORECASE),
    _RTF: re.compile(rb"\{\\rtf"),
}
_BINARY = re.compile(rb"%PDF-|\x89PNG|\xff\xd8\xff|II\*\0|MM\0\*|GIF8|PK\x03\x04|\xd0\xcf\x11\xe0|BM.{4}\0\0\0\0", re.DOTALL)
_NAME = re.compile(r"[a-z0-9]+/[a-z0-9.+-]{1,60}")


class NoTextError(UnreadableError):
    """What is attached is a picture, a PDF or the like, which holds no text that is read."""


def content_kind(content_type: str) -> str:
    """The kind of text of a content type, empty for one that says nothing; ``NoTextError`` names one that is none."""
    name = content_type.partition(";")[0].strip().lower()
    if name not in _KINDS:
        shown = name if _NAME.fullmatch(name) else "its name is none"
        raise NoTextError(f"holds a note that is neither text, HTML, RTF nor a clinical document ({shown})")
    return _KINDS[name]


def attached_bytes(data: str) -> bytes:
    """What base64 stands for, in lines or not. ``UnreadableError`` where it is none, too long, or encoded a second time."""
    if len(data) > MAX_ATTACHMENT * 1.4:
        raise UnreadableError(f"holds an attachment of more than {MAX_ATTACHMENT >> 20} MiB, the most that is read")
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableError("holds a note that is not base64") from None
    if len(content) >= 24 and _BASE64.fullmatch(inner := "".join(content.decode("latin-1").split())) and _is_text(inner):
        raise UnreadableError("holds a note that is encoded twice in base64")
    return content


def attached_text(content: bytes, content_type: str, clinical_document: Callable[[bytes], str]) -> str:
    """The text of what is attached. ``UnreadableError`` says why there is none; ``clinical_document`` reads XML."""
    kind = content_kind(content_type) or _sniffed(content)
    if kind == _XML:
        return clinical_document(content)
    if kind == _RTF or (kind == _TEXT and content[:8].lstrip().startswith(b"{\\rtf")):
        return rtf_text(content)
    charset = _CHARSET.search(content_type)
    text = decoded(content, charset[1] if charset else "", is_markup=kind == _HTML)
    return html_text(text) if kind == _HTML else text


def decoded(content: bytes, charset: str, *, is_markup: bool) -> str:
    """Bytes in the encoding that is named beside them, by their byte order mark, in UTF-8, or as the markup itself says."""
    mark = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), "")
    encoding = text_encoding(charset) if charset else mark or "utf-8"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        declared = _DECLARED.search(content[:2000]) if is_markup and not charset else None
        if declared is None:
            raise UnreadableError("holds a note that is not base64 of text in its encoding") from None
        try:
            text = content.decode(text_encoding(declared[1].decode("ascii", "replace")))
        except UnicodeDecodeError:
            raise UnreadableError("holds a note that is not base64 of text in its encoding") from None
    if problem := bad_characters(text):
        raise UnreadableError(problem)
    return text


def _sniffed(content: bytes) -> str:
    """The kind of an attachment whose type is not told."""
    head = content[:4000].lstrip()
    if _BINARY.match(head):
        raise NoTextError("holds a note that is neither text, HTML, RTF nor a clinical document (its type is not told)")
    return next((kind for kind, pattern in _SNIFFED.items() if pattern.match(head)), _TEXT)


def _is_text(encoded: str) -> bool:
    """Whether base64 stands for something readable; a long word of a note's text may be base64 by chance, and stands for none."""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return bool(text) and sum(character.isprintable() or character in "\r\n\t" for character in text) == len(text)
