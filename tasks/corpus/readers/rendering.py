"""HTML as text with its layout, by inscriptis: headings, paragraphs, lists with their marks, a table's row as a line of ``a | b | c``.

lxml reads the source. Inline markup is dropped before inscriptis sees it, and what is nested deeper than a limit is hung on a level
above, so that time and memory are linear in the source.
"""

import re
from html import escape, unescape
from textwrap import dedent

from inscriptis.css_profiles import STRICT_CSS_PROFILE
from inscriptis.html_engine import Inscriptis
from inscriptis.html_properties import Display
from inscriptis.model.canvas import Canvas
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_document_state import HtmlDocumentState
from inscriptis.model.html_element import HtmlElement
from inscriptis.model.table import Table, TableRow
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from inscriptis.model.tag.list_tag import li_start_handler
from lxml import etree

from tasks.corpus.readers.html_check import letters, source_texts, without_cdata
from tasks.corpus.readers.records import UnreadableError, bad_characters
from tasks.corpus.readers.streams import MAX_ELEMENTS

MAX_LEVELS = 60  # of elements with a layout; inscriptis calls itself for each
MAX_CELL_LINES = 12  # a cell of more is a part of the page, as in a table that only arranges, and keeps its lines
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_FURTHER_BLOCKS = ("section", "form", "fieldset", "legend", "center", "details", "summary", "caption", "dl", "dt", "hr", "option")
_CELLS = frozenset(("td", "th"))
_LAYOUT = frozenset(STRICT_CSS_PROFILE) | {*_FURTHER_BLOCKS, "dd", "table", "tr", "td", "th", "br"}
_LAYOUT -= {"body", "head", "link", "meta", "script", "title", "style", "q"}
_CLOSE = _CELLS | {"li", "dd"}  # in these, a paragraph begins without a blank line
_UNSEEN = frozenset(("script", "style", "title"))
_PREFORMATTED = re.compile(r"white-space\s*:\s*(?:pre|break-spaces)", re.IGNORECASE)
_VOID = "\ufdd0"  # no character at all, in place of a blank that does not collapse
# Controls that are no line end or tab, and characters that only say where a word may be divided.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\ufeff]")
_CSS = STRICT_CSS_PROFILE | {tag: HtmlElement(display=Display.block) for tag in _FURTHER_BLOCKS}
_CSS |= {tag: HtmlElement(display=Display.block, padding_inline=n) for tag, n in (("ul", 2), ("ol", 3), ("dd", 2))}


def html_text(source: str) -> str:
    """The text of an HTML note as its layout shows it. ``UnreadableError`` where some of it would be lost."""
    if problem := bad_characters(source):
        raise UnreadableError(problem)
    if not source.strip():
        return ""
    source = "".join(without_cdata(source))
    expected = "".join(source_texts(source))
    target = _Layout()
    parser = etree.HTMLParser(target=target, encoding="utf-8", huge_tree=True, no_network=True)  # else 256 open tags and 10 MB are the end
    try:
        parser.feed(source.encode())
        tree = parser.close()
    except (etree.ParserError, etree.XMLSyntaxError):
        raise UnreadableError("holds HTML that cannot be parsed") from None
    text = "".join(target.texts)
    fatal = any(error.level == etree.ErrorLevels.FATAL for error in parser.feed_error_log)
    if fatal or (text.split() != expected.split() and letters(text) != letters(expected)):
        raise UnreadableError("holds HTML of which the parser would lose a part")
    text = "" if target.elements > 1 else unescape("".join(tree.itertext()))
    if "\n" not in text.strip():
        text = Inscriptis(tree, _CONFIG).get_text()
    return plain(dedent(text).replace(_VOID, " "))  # without any element in it, its lines are all the layout that it has


def plain(text: str) -> str:
    """A rendered text without control characters, blanks at the ends of lines, and more than one empty line at a place."""
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n")


class _Layout:
    """What lxml's parser reports, as a tree of the elements that have a layout."""

    def __init__(self) -> None:
        self.texts: list[str] = []  # all of it, that of elements that are not shown too
        self._builder = etree.TreeBuilder()
        self._builder.start("body", {})
        self._open: list[str] = []  # the elements of the tree
        self.elements = self._deeper = self._unseen = 0
        self._in_power = self._after_digit = self._at_break = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "input":
            self._add(_field(attributes))
        elif tag == "sup":
            self._in_power = self._after_digit
        elif tag in _LAYOUT and len(self._open) < MAX_LEVELS:
            self._count()
            self._open.append(tag)
            preformatted = _PREFORMATTED.search(attributes.get("style", ""))
            kept = {"style": "white-space: pre"} if preformatted else {}
            kept |= {name: attributes[name] for name in ("start", "value") if name in attributes}
            shown = "div" if tag == "p" and len(self._open) > 1 and self._open[-2] in _CLOSE else "td" if tag == "th" else tag
            self._builder.start(shown, kept)
            self._after_digit = False
        elif tag in _LAYOUT:
            self._deeper += tag != "br"
            self._break(always=tag == "br")

    def end(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(self._unseen - 1, 0)
        elif tag == "sup":
            self._in_power = False
        elif tag in _LAYOUT and self._deeper:
            self._deeper -= tag != "br"
            self._break(always=False)
        elif self._open and self._open[-1] == tag:
            self._open.pop()
            self._builder.end("div" if tag == "p" and self._open and self._open[-1] in _CLOSE else "td" if tag == "th" else tag)
            self._after_digit = False

    def data(self, text: str) -> None:
        self.texts.append(text)
        if not self._unseen:
            power = self._in_power and re.fullmatch(r"\s*[-+\u2212]?\d+\s*", text)
            self._add("^" + text.strip() if power else text)
            self._after_digit = text[-1:].isdigit()
            self._at_break &= text.isspace()

    def close(self) -> etree._Element:
        while self._open:
            self.end(self._open[-1])
        self._builder.end("body")
        return self._builder.close()

    def _add(self, text: str) -> None:
        # inscriptis decodes entities a second time, and counts a blank that does not collapse among those that do.
        self._builder.data(escape(text.replace(_VOID, ""), quote=False).replace("\xa0", _VOID))

    def _break(self, *, always: bool) -> None:
        if self._at_break and not always:
            return
        self._count()
        self._at_break = True
        self._builder.start("br", {})
        self._builder.end("br")

    def _count(self) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise UnreadableError(f"holds HTML of more than {MAX_ELEMENTS:,} elements, the most that are read")


def _field(attributes: dict[str, str]) -> str:
    """What a form's field shows."""
    kind = attributes.get("type", "text").lower()
    if kind in ("checkbox", "radio"):
        return "[x] " if "checked" in attributes else "[ ] "
    return attributes.get("value", "") if kind in ("text", "number", "date", "time", "datetime-local", "email", "tel") else ""


class _Rows(Table):  # type: ignore[misc]
    """A table of which a row is a line."""

    def __init__(self) -> None:
        super().__init__(left_margin_len=0, cell_separator=" | ")
        self.arranging: set[int] = set()  # rows with a table in a cell

    def get_text(self) -> str:
        lines = [line for i, row in enumerate(self.rows) for line in _row_lines(row, arranging=i in self.arranging)]
        return "\n".join(lines) + "\n"

    def get_annotations(self, *_: int) -> list[object]:
        """None are asked for."""
        return []


def _row_lines(row: TableRow, *, arranging: bool) -> list[str]:
    cells = [[line for line in cell.get_text().split("\n") if line.strip(f" {_VOID}")] for cell in row.columns]
    if arranging or len(cells) == 1 or any(len(lines) > MAX_CELL_LINES for lines in cells):
        return [line for lines in cells for line in lines]
    texts = [" ".join(line.strip() for line in lines) for lines in cells]
    return [joined(texts)] if any(texts) else []


def joined(cells: list[str]) -> str:
    """The line of a row: an empty cell has nothing between its bars."""
    return " | ".join(cells).replace("|  |", "| |").replace("|  |", "| |").strip(" ")


def _start_table(state: HtmlDocumentState, _: object) -> None:
    if state.current_table and state.current_table[-1].rows:
        state.current_table[-1].arranging.add(len(state.current_table[-1].rows) - 1)
    state.tags[-1].set_canvas(Canvas())
    state.current_table.append(_Rows())


def _start_list(state: HtmlDocumentState, _: object) -> None:
    state.li_counter.append("- ")


def _start_item(state: HtmlDocumentState, attributes: dict[str, str]) -> None:
    if state.li_counter:
        li_start_handler(state, attributes)
    else:
        state.tags[-1].list_bullet = "- "


def _start_numbered(state: HtmlDocumentState, attributes: dict[str, str]) -> None:
    start = attributes.get("start", "")
    state.li_counter.append(int(start) if start.isdecimal() and len(start) < 10 else 1)


_HANDLERS = {"table": _start_table, "ul": _start_list, "li": _start_item, "ol": _start_numbered}
_CONFIG = ParserConfig(css=_CSS, custom_html_tag_handler_mapping=CustomHtmlTagHandlerMapping(_HANDLERS, {}))
