"""XML in bounded memory: a tree as a whole, or the elements of some names as they end. Entities are not expanded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import iterparse

from tasks.corpus.readers.records import UnreadableError
from tasks.corpus.readers.streams import MAX_DEPTH, MAX_TREE, BoundedFile


def root_tag(path: Path) -> str:
    """The name of a file's root element; empty for a file without one."""
    with BoundedFile(path) as file:
        return next((str(element.tag) for _, element in iterparse(file, events=("start",))), "")


def whole_tree(source: Path | IO[bytes]) -> Element:
    """The root of XML that is read whole."""
    with BoundedFile(source, MAX_TREE) as file:
        *_, (root, _) = _closed(file)
    return root


def elements(path: Path, *tags: str) -> Iterator[Element]:
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


def element_text(element: Element | None) -> str:
    """All text within an element, that of its markup too."""
    return re.sub(r"[ \t]+", " ", "".join(element.itertext())).strip() if element is not None else ""
