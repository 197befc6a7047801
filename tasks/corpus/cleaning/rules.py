"""The rules that one record is cleaned by: repairs, which change text, and reasons to leave a record out. Each has a name."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import ftfy

from tasks.corpus.cleaning.attachments import remove_attachments
from tasks.corpus.documents import Document
from tasks.corpus.readers.records import EMPTY

# What ends a line or a page: separators of lines and paragraphs, a form feed, a vertical tab, NEL.
_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029\x0b\x0c\x85]")
_BLANKS = re.compile(r"[^\S\n\t]")  # of any width
TAB, MAX_INDENT = 4, 16  # columns
_AFTER_SENTENCE = re.compile(r"(?<=[a-z)][.!?:;,]) {2,}(?=\S)")
_WIDE = re.compile(r" {40,}")
# C0 and C1 controls but newline and tab; zero-width, direction and invisible marks; the byte order and replacement characters.
HIDDEN = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufffd]"
_HIDDEN = re.compile(HIDDEN)
_FTFY = ftfy.TextFixerConfig(unescape_html=True, fix_latin_ligatures=False, uncurl_quotes=False, normalization="NFC")
# A citation's number that lost its brackets: "in many countries.1 They". Not "version 2.1", not "p.1", not "Glucose,95".
_GLUED_CITATION = re.compile(r"(?<=[a-z]{4}\.)\d{1,2}(?:,\d{1,2})*(?=[ ]+[A-Z]|[ ]*$)", re.M)
_UNITS = r"(?:mg|mcg|g|kg|mL|ml|L|mmol|mEq|IU|units?|hours?|days?|weeks?|months?|years?|minutes?|mm|cm|percent|%)"
# A range that lost its dash, "100125 mg", or a micro sign that became nothing, "3 mol/L". "510 mg" and "2740 g" can be what they say.
_JOINED = re.compile(rf"\d{{5,}}(?= ?(?:{_UNITS}\b|%))")
_INSIDE = (".", ",", "/", "-")  # a character before digits that are only part of a number
_MOLAR = re.compile(r"(?<![\d.])\d+ ?mol/L")
_GRAMS = re.compile(r"(?:ferritin|folate|vitamin|iron|lead|copper|zinc)\b[^.]{0,80}?\b\d{2,4} ?g/L", re.I)
_LINK = re.compile(r"https?://\S+|www\.\S+")
_ASKS_NOTHING = re.compile(r"(?:what|who|how|why|which)\b(?: (?:is|are|\(are\)|causes?|to|the|for|of))*\s*[?.]*\s*", re.I)


def repair_unicode(text: str) -> str:
    """Mojibake and HTML entities undone, composed characters (NFC)."""
    return text if text.isascii() and "&" not in text else unicodedata.normalize("NFC", ftfy.fix_text(text, _FTFY))


def remove_hidden(text: str) -> str:
    """No control, zero-width or direction characters, which change what is read without being seen."""
    return _HIDDEN.sub("", text)


def collapse_space(text: str) -> str:
    """Single blanks within sentences, no blanks at line ends, no more than one empty line in a row.

    What lays text out stays: indentation, of up to MAX_INDENT blanks, and the gaps between columns. A tab is two blanks or more.
    """
    lines = [_laid_out(line) for line in _LINE_ENDS.sub("\n", text).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _laid_out(line: str) -> str:
    line = _BLANKS.sub(" ", line).replace("\t", " \t").expandtabs(TAB).rstrip()
    content = line.lstrip()
    return " " * min(len(line) - len(content), MAX_INDENT) + _WIDE.sub("  ", _AFTER_SENTENCE.sub(" ", content))


def repair_question(text: str) -> str:
    """What a template left over: "What is (are) X ? ?" becomes "What is X?"."""
    return re.sub(r"\s*\?(?:\s*\?)*\s*$", "?", re.sub(r"\b(is|does|has) \((?:are|do|have)\) ", r"\1 ", text))


def remove_citations(text: str) -> str:
    """Without the digits of citations that are glued to the end of a sentence."""
    return _GLUED_CITATION.sub("", text)


Repair = Callable[[Document], Document]
# White space before hidden characters, as some of those end lines. Citations stand in prose for readers, as an answer is; a note has none.
REPAIRS: dict[str, Repair] = {
    "attachments": lambda d: d.map_texts(remove_attachments),
    "unicode": lambda d: d.map_texts(repair_unicode),
    "white-space": lambda d: d.map_texts(collapse_space),
    "hidden-characters": lambda d: d.map_texts(remove_hidden),
    "question-marks": lambda d: replace(d, question=repair_question(d.question)),
    "glued-citations": lambda d: replace(d, answer=remove_citations(d.answer)) if d.question else d,
}


def has_nothing(document: Document) -> bool:
    """An empty answer, or one of the words that tables write where there is no value."""
    return document.answer.lower() in EMPTY


def asks_nothing(document: Document) -> bool:
    """A question without what it is about: "What is (are) ?"."""
    return bool(document.question) and bool(_ASKS_NOTHING.fullmatch(document.question))


def answers_with_a_question(document: Document) -> bool:
    """An answer that is one question and nothing else."""
    return bool(document.question) and document.answer.endswith("?") and not re.search(r"[.!?\n]", document.answer[:-1])


def is_a_list_of_links(document: Document) -> bool:
    """Names of pages instead of an answer: titles of resources, or addresses with hardly a word between them."""
    items = re.split(r"\s+-\s+|\n", document.answer)[1:]
    if len(items) >= 2 and re.match(r"(?:these|the following|other) (?:resources|links|web ?sites)\b", document.answer, re.I):
        return sum(bool(re.search(r"[.!?]$", item)) for item in items) <= len(items) / 4
    links = _LINK.findall(document.answer)
    return len(links) >= 2 and len(_LINK.sub(" ", document.answer).split()) < 4 * len(links)


def has_suspect_numbers(document: Document) -> bool:
    """Numbers or units of prose that lost a character on the way; which one it was cannot be known, so nothing is repaired.

    Not of a note: every number that somebody measured can be in one.
    """
    return bool(document.question) and any(map(_suspect, document.texts()))


def _suspect(text: str) -> bool:
    return bool(
        any(_is_joined_range(match.group()) and text[match.start() - 1 : match.start()] not in _INSIDE for match in _JOINED.finditer(text))
        or ("mol/L" in text and _MOLAR.search(text))
        or ("g/L" in text and _GRAMS.search(text))
    )


def _is_joined_range(digits: str) -> bool:
    """Whether digits read as two numbers of like size, the second greater, as in 5-10 or 100-125."""
    if digits.startswith("0") or len(digits) > 8 or re.fullmatch(r"(?:19|20)\d\d", digits):
        return False
    half = len(digits) // 2
    low, high = digits[:half], digits[half:]
    return not high.startswith("0") and 1 < int(high) / int(low) <= 3


# The first that holds rejects a record; what it says in the list of the rejected.
REJECTIONS: dict[str, tuple[Callable[[Document], bool], str]] = {
    "empty": (has_nothing, "has nothing left after cleaning"),
    "asks-nothing": (asks_nothing, "has a question about nothing"),
    "answer-is-a-question": (answers_with_a_question, "has an answer that is only a question"),
    "link-list": (is_a_list_of_links, "has an answer that is only a list of links"),
    "suspect-numbers": (has_suspect_numbers, "has numbers or units that look corrupted"),
}
