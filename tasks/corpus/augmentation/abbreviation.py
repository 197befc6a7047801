"""Abbreviations that a text defines itself: "central venous pressure (CVP)".

The pairs are found as by A. Schwartz and M. Hearst, A simple algorithm for identifying abbreviation definitions in biomedical text,
Pacific Symposium on Biocomputing 2003.
"""

import re
from functools import partial

_DEFINED = re.compile(r"\(([A-Z][A-Za-z0-9-]{1,9})\)")


def definitions(text: str) -> list[tuple[str, str, int]]:
    """Short form, long form and where the definition ends, of each that is defined in the text."""
    pairs = []
    for match in _DEFINED.finditer(text):
        short = match.group(1)
        if sum(c.isupper() for c in short) < 2:
            continue
        words = text[: match.start()].split()
        window = " ".join(words[-min(len(short) + 5, len(short) * 2) :])
        if long := _long_form(short, window):
            pairs.append((short, long, match.end()))
    return pairs


def expanded(text: str) -> str:
    """Every later use of a short form written out."""
    for short, long, end in definitions(text):
        text = text[:end] + re.sub(rf"(?P<opening>[.!?]\s+)?\b{re.escape(short)}\b(?!\w|-|\))", partial(_written, long), text[end:])
    return text


def shortened(text: str) -> str:
    """Every later use of a long form as its short form."""
    for short, long, end in definitions(text):
        text = text[:end] + re.sub(rf"\b{re.escape(long)}\b(?! \()", short, text[end:])
    return text


def _written(long: str, match: re.Match[str]) -> str:
    """A long form, with a capital where a sentence begins."""
    opening = match["opening"] or ""
    return opening + (long[0].upper() + long[1:] if opening else long)


def _long_form(short: str, window: str) -> str:
    """The words whose letters, from the last back, give the short form, the first of them at the start of a word."""
    position = len(window) - 1
    for i in range(len(short) - 1, -1, -1):
        letter = short[i].lower()
        if not letter.isalnum():
            continue
        while position >= 0 and (window[position].lower() != letter or (i == 0 and position > 0 and window[position - 1].isalnum())):
            position -= 1
        if position < 0:
            return ""
        position -= 1
    long = window[position + 1 :].strip()
    words = len(long.split())
    return long if 2 <= words <= min(len(short) + 5, 2 * len(short)) and "(" not in long else ""


def without_defined(text: str, answer: str) -> str:
    """A text without the short and long forms that an answer defines, which say the same."""
    for short, long, _ in definitions(answer):
        text = re.sub(rf"\b(?:{re.escape(short)}|{re.escape(long)})\b", " ", text)
    return text
