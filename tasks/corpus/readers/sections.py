"""Long texts in parts that end where a section does: before a heading, else between paragraphs, else between lines, and in no table."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate

from tasks.corpus.documents import Document, content_id

MAX_PART_CHARS = 30_000
LOOK = 300  # characters at the beginning of a line that show what it is
LEAST = 4  # a part has at least this part of its limit, if it can
_HEADING = re.compile(
    r"\s{0,3}(?:#{1,6}\s+\S.*"  # Markdown
    r"|[A-Z][A-Z0-9 /&(),'-]{3,60}(?::.*|\s*)"  # PAST MEDICAL HISTORY: none
    r"|[A-ZÄÖÜÉ][\w /&(),'-]{2,60}:\s*"  # Past medical history:
    r"|\d{1,2}[.)]\s+[A-Z][\w /&-]{2,60}:?\s*)$"  # 3. Past medical history
)
_COLUMNS = re.compile(r"[^|]*\|[^|]*\||[^\t]*\S\t+\S|\s*\S.*?\S? {3,}\S.* {3,}\S|\s*[|+][-=+|: ]{3,}|.*\S {4,}[<>]?[-+]?\d")


def parts(lines: Iterable[str], max_chars: int = MAX_PART_CHARS) -> Iterator[str]:
    """The text of lines, each with its line end, in parts of at most so many characters; joined they are the text."""
    part: list[str] = []
    size = 0
    for line in _cut(lines, max_chars):
        while part and size + len(line) > max_chars:
            at = _border(part, max_chars)
            yield "".join(part[:at])
            part = part[at:]
            size = sum(map(len, part))
        part.append(line)
        size += len(line)
    if part:
        yield "".join(part)


def note_parts(document: Document, max_chars: int) -> list[Document]:
    """A text that is longer than one document may be, in documents of one group; everything else as it is."""
    if document.question or document.before or len(document.answer) <= max_chars:
        return [document]
    texts = [text.strip("\n") for text in parts(io.StringIO(document.answer, newline=""), max_chars)]
    return [
        replace(document, id=content_id(document.id, "part", str(i)), answer=text, position=f"{document.position} part {i}")
        for i, text in enumerate(filter(str.strip, texts), 1)
    ]


def is_heading(line: str) -> bool:
    """Whether a line is the heading of a section."""
    return bool(_HEADING.match(line[:LOOK].rstrip("\r\n"))) and not _is_row(line)


def _is_row(line: str) -> bool:
    """Whether a line is a row of a table: cells between bars, tabs or wide gaps."""
    return bool(_COLUMNS.match(line[:LOOK].rstrip()))


def _border(lines: list[str], max_chars: int) -> int:
    """The index of the line that begins the next part: the last heading, else the last paragraph, else the last line of no table."""
    sizes = list(accumulate(map(len, lines)))
    rows = [_is_row(line) for line in lines]
    borders = [i for i in range(1, len(lines)) if not (rows[i - 1] and rows[i])]
    late = [i for i in borders if sizes[i - 1] >= max_chars // LEAST]
    for of_them in (late, borders):
        for is_kind in (lambda i: is_heading(lines[i]), lambda i: not lines[i - 1].strip(), lambda i: True):
            if fit := [i for i in of_them if is_kind(i)]:
                return fit[-1]
    return len(lines)


def _cut(lines: Iterable[str], max_chars: int) -> Iterator[str]:
    """Lines, one that is longer than a part in pieces that end with a blank where they can."""
    for line in lines:
        while len(line) > max_chars:
            at = line.rfind(" ", max_chars // 2, max_chars) + 1 or max_chars
            yield line[:at]
            line = line[at:]  # noqa: PLW2901
        if line:
            yield line
