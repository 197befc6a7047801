"""A second, plain reading of HTML source, against which a parser's is held.

A parser drops in silence what its limits or a lost quote take away, so nothing is believed that two readings do not agree on.
"""

import html
import re
from collections.abc import Iterator

from lxml.html import defs

from tasks.corpus.readers.records import UnreadableError

# Elements whose content is text whatever it looks like; in the first of them, entities count.
ESCAPABLE, RAW = frozenset(("title", "textarea")), frozenset(("script", "style", "xmp", "iframe", "noembed", "noframes"))
_BARE = frozenset(
    "allowfullscreen async autofocus autoplay border controls default defer hidden itemscope loop muted novalidate open".split()
)
KNOWN_TAGS = defs.tags | {"data", "dialog", "frame", "image", "main", "math", "nobr", "picture"}
KNOWN_ATTRIBUTES = defs.safe_attrs | _BARE

# Possessive throughout: no part is tried twice, so the time is linear in the source (the HTML standard, section 13.2.5).
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")
_NAME = re.compile(r"</?([a-zA-Z][^\s/>]*+)")
_ATTRIBUTE = re.compile(r"""[\s/]*+([^\s/>][^\s/>=]*+)(\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|[^\s>"'][^\s>]*+|(?=>)))?+""")
_UNCLOSED = re.compile(r"""\s*+=\s*+["']""")
_END = re.compile(r"[\s/]*+>")
_COMMENT_END = re.compile(r"--!?>")
_DECLARATION = re.compile(r"<!doctype\b|<!\[?(?:if|endif)\b|<\?[a-zA-Z]", re.IGNORECASE)
_NO_LETTERS = re.compile(r"[\W_]+")


def without_cdata(source: str) -> Iterator[str]:
    """XHTML's CDATA sections, which HTML takes for comments, as the text that they are."""
    at = 0
    while (start := source.find("<![CDATA[", at)) >= 0 and (end := source.find("]]>", start)) >= 0:
        yield source[at:start]
        yield html.escape(source[start + 9 : end], quote=False)
        at = end + 3
    yield source[at:]


def letters(text: str) -> str:
    """The letters and digits of a text alone."""
    return _NO_LETTERS.sub("", text)


def source_texts(source: str) -> Iterator[str]:
    """The text outside the markup; ``UnreadableError`` where markup swallows what may be text."""
    at = 0
    # Tags of no known name and without attributes: an end tag must show that they are no text, as "<patient>" may be.
    opened: set[str] = set()
    closed: set[str] = set()
    while match := _MARKUP.search(source, at):
        yield html.unescape(source[at : match.start()])
        start = match.start()
        if name := _NAME.match(source, start):
            at, bare = _tag_end(source, name)
            tag = name[1].lower()
            if source[start + 1] == "/":
                closed.add(tag)
            elif tag == "plaintext":
                yield source[at:]
                return
            elif tag in ESCAPABLE | RAW:
                end = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(source, at)
                if end is None:
                    raise UnreadableError(f"holds HTML with <{tag}> that never ends")
                yield html.unescape(source[at : end.start()]) if tag in ESCAPABLE else source[at : end.start()]
                at = end.start()
            elif tag not in KNOWN_TAGS and bare:
                opened.add(tag)
        else:
            at = _declaration_end(source, start)
    yield html.unescape(source[at:])
    if any(not set(":-") & set(tag) for tag in opened - closed):
        raise UnreadableError('holds HTML with a tag of no known name and no end, which may be text: "<" is written &lt;')


def _tag_end(source: str, name: re.Match[str]) -> tuple[int, bool]:
    """Where a tag ends, and whether it has neither attributes nor a slash at its end."""
    at, first, markup, quotes = name.end(), True, "<" in name[1], False
    while not (end := _END.match(source, at)):
        attribute = _ATTRIBUTE.match(source, at)
        if attribute is None or (attribute[2] is None and _UNCLOSED.match(source, attribute.end())):
            raise UnreadableError("holds HTML that ends within a tag")
        key, at = attribute[1], attribute.end()
        if first and attribute[2] is None and _is_word(key):
            markup = quotes = True
        first = False
        quotes |= any(mark in key for mark in "\"'<") and any(map(str.isalnum, key))
        markup |= "<" in key or any(">" in (value or "") for value in attribute.group(3, 4))
    if (markup and quotes) or "<" in name[1]:
        raise UnreadableError('holds HTML with text inside a tag: "<" is written &lt;, and a quote has its second')
    return end.end(), first and "/" not in end[0]


def _is_word(attribute: str) -> bool:
    return attribute.lower() not in KNOWN_ATTRIBUTES and any(map(str.isalnum, attribute)) and not set(":-") & set(attribute)


def _declaration_end(source: str, start: int) -> int:
    """Where a comment, a doctype or an instruction ends; what only looks like one and holds letters is refused."""
    if source.startswith("<!--", start):
        if short := re.compile("<!--(-?>)").match(source, start):
            return short.end()
        end = _COMMENT_END.search(source, start + 4)
    else:
        end = re.compile(">").search(source, start)
    if end is None:
        raise UnreadableError("holds HTML that ends within a comment")
    inside = source[start : end.end()]
    if not inside.startswith("<!--") and not _DECLARATION.match(inside) and letters(inside):
        raise UnreadableError('holds HTML with text inside "<!", "</" or "<?": "<" is written &lt;')
    return end.end()
