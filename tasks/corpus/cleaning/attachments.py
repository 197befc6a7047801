"""Pictures and other files that stand in a text as base64: letters that say nothing, and would be trained on."""

import re

MIN_RUN = 200  # characters without a blank; no word, gene or address has so many
MIN_LINE = 60  # of lines of base64, which end after 64 or 76 characters
_LONG, _LAST = rf"[ \t]*[A-Za-z0-9+/]{{{MIN_LINE},}}={{0,2}}", r"[ \t]*[A-Za-z0-9+/]+={1,2}"  # a short last line has signs that fill it
_DATA_URL = re.compile(
    r"!?\[[^\]\n]{0,200}\]\(\s*data:[\w.+/-]{0,80};base64,[^)]*\)|"
    r"data:[\w.+/-]{0,80}(?:;[\w.=+-]{1,80})*;base64,[A-Za-z0-9+/=%]*"
    rf"(?:\r?\n{_LONG}(?![\w-]))*(?:\r?\n{_LAST}(?![^\s\"'<>)\]]))?"
)
_LINES = re.compile(rf"(?:^{_LONG}[ \t]*(?:\r?\n|\Z)){{2,}}(?:{_LAST}[ \t]*$)?", re.M)
_RUN = re.compile(rf"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{MIN_RUN},}}={{0,2}}")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)", re.S)  # sequences of bases or amino acids have capitals alone


def remove_attachments(text: str) -> str:
    """The text without base64: data URLs, lines of it, long runs of it."""
    if len(text) < MIN_LINE:
        return text
    if ";base64," in text:
        text = _DATA_URL.sub("", text)
    for pattern in (_LINES, _RUN):
        text = pattern.sub(lambda match: "" if _MIXED.match(match[0]) else match[0], text)
    return text
