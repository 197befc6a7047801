"""RTF as text, by striprtf: paragraphs, tabs, rows of tables as lines of ``a | b``; pictures, objects, headers and footers are left out."""

import re
from collections.abc import Iterator

from striprtf.striprtf import font_table_group, rtf_to_text

from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG, UnreadableError, bad_characters
from tasks.corpus.readers.rendering import joined, plain
from tasks.corpus.readers.streams import text_encoding

MAX_FONT_TABLE = 1 << 16  # characters; striprtf's time goes with its square
_CELL, _ROW, _ROW_START = "\ufdd1", "\ufdd2", "\ufdd3"  # no characters of any text
_MARKS = {"nestcell": _CELL, "cell": _CELL, "row": _ROW, "trowd": _ROW_START}
_WORD = re.compile(r"\\\\|\\(?:(nestcell|cell|row|trowd)(?![a-zA-Z])-?\d*|fldinst) ?")
_BINARY = re.compile(rb"\\\\|\\bin(\d{1,10}) ?")
_BRACES = re.compile(r"\\[\\{}]|[{}]")
_CODE_PAGE = re.compile(rb"\\ansicpg(\d{1,5})")


def rtf_text(source: bytes) -> str:
    """The text of an RTF document. ``UnreadableError`` where it is none, or a part of it would be lost."""
    if not source.lstrip().startswith(b"{\\rtf"):
        raise UnreadableError("holds RTF that does not begin as such")
    if len(source) > MAX_RECORD:
        raise UnreadableError(TOO_LONG)
    text = _WORD.sub(_mark, _decoded(b"".join(_without_binary(source))).strip())
    if len(font_table_group(text)) > MAX_FONT_TABLE:
        raise UnreadableError("holds RTF whose list of fonts does not end")
    if not _is_closed(text):
        raise UnreadableError("holds RTF whose groups do not close")
    try:
        text = rtf_to_text(text)
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")  # a character of two halves
    except (ValueError, LookupError):
        raise UnreadableError("holds RTF that is not in its encoding") from None
    if problem := bad_characters(text):
        raise UnreadableError(problem)
    return plain("".join(_with_rows(text.replace("\u2011", "-"))))


def _without_binary(source: bytes) -> Iterator[bytes]:
    """The source without the raw bytes of pictures and objects, which may look like anything."""
    at = start = 0
    while match := _BINARY.search(source, at):
        at = match.end()
        if match[1] is not None:
            yield source[start : match.start()]
            at = start = match.end() + int(match[1])
    yield source[start:]


def _decoded(source: bytes) -> str:
    """RTF is ASCII; what writes other characters as they are does it in UTF-8 or in the document's code page."""
    try:
        return source.decode()
    except UnicodeDecodeError:
        page = _CODE_PAGE.search(source)
        try:
            return source.decode(text_encoding(f"cp{page[1].decode()}" if page else "cp1252"))
        except UnicodeDecodeError:
            raise UnreadableError("holds RTF that is not in its encoding") from None


def _mark(match: re.Match[str]) -> str:
    if match[1]:
        return _MARKS[match[1]]
    # striprtf would look for the address of every link over and over; a field's instruction is no text.
    return "\\datafield " if match[0].startswith("\\fldinst") else match[0]


def _is_closed(text: str) -> bool:
    depth = 0
    for brace in _BRACES.finditer(text):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth <= 0:
            return depth == 0  # what follows the document is none of it
    return False


def _with_rows(text: str) -> Iterator[str]:
    """The text with each row of a table as a line."""
    *rows, rest = text.split(_ROW)
    for row in rows:
        before, _, cells = row.partition(_ROW_START)
        if _CELL in before or not cells:
            before, cells = "", row
        *values, after = cells.replace(_ROW_START, "").split(_CELL)
        yield before + joined([" ".join(value.split()) for value in values]) + "\n" + after.strip()
    yield rest.replace(_ROW_START, "").replace(_CELL, " | ")
