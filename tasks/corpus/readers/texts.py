"""Plain text and Markdown: one document per file, a long one in parts. All files of a directory are of one category."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.records import FileOptions, bad_characters, to_document
from tasks.corpus.readers.sections import MAX_PART_CHARS, parts
from tasks.corpus.readers.streams import open_text


def read_text(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """Parts of a file, at most so long, in one group; a part with unusable bytes is rejected."""
    category = "-".join(("text", *PurePosixPath(name).parent.parts))
    with open_text(path, options) as file:
        texts = parts(iter(partial(file.readline, MAX_PART_CHARS), ""))
        for i, part in enumerate(filter(str.strip, texts), 1):
            position = f"part {i}"
            problem = bad_characters(part)
            record = Rejected(name, position, problem) if problem else to_document({"text": part, "group": name}, name, position)
            yield replace(record, category=category) if isinstance(record, Document) else record
