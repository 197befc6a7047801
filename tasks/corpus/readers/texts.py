"""Plain text, Markdown, HTML and RTF: one document per file, a long one in parts. All files of a directory are of one category."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import IO

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.attachments import decoded
from tasks.corpus.readers.file_groups import group_of
from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG, FileOptions, UnreadableError, bad_characters, to_document
from tasks.corpus.readers.rendering import html_text
from tasks.corpus.readers.rtf import rtf_text
from tasks.corpus.readers.sections import MAX_PART_CHARS, parts
from tasks.corpus.readers.streams import open_bytes, open_text


def read_text(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Parts of a file, at most so long, in one group; a part with unusable bytes is rejected."""
    with open_text(path, options) as file:
        yield from _documents(file, name, options)


def read_html(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Parts of an HTML file as it is shown; its encoding is that of the options, or what it says."""
    content = _content(path)
    yield from _documents(StringIO(html_text(decoded(content, options.encoding, is_markup=True))), name, options)


def read_rtf(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Parts of the text of an RTF file."""
    yield from _documents(StringIO(rtf_text(_content(path))), name, options)


def _content(path: Path) -> bytes:
    with open_bytes(path) as file:
        content = file.read(MAX_RECORD + 1)
    if len(content) > MAX_RECORD:
        raise UnreadableError(TOO_LONG)
    return content


def _documents(file: IO[str], name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    category = "-".join(("text", *PurePosixPath(name).parent.parts))
    texts = parts(iter(partial(file.readline, MAX_PART_CHARS), ""))
    for i, part in enumerate(filter(str.strip, texts), 1):
        position = f"part {i}"
        problem = bad_characters(part)
        record = (
            Rejected(name, position, problem) if problem else to_document({"text": part, "group": group_of(name, options)}, name, position)
        )
        yield replace(record, category=category) if isinstance(record, Document) else record
