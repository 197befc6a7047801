"""Which encoding a file of text has that is no UTF-8 and says no other: found out from its bytes, or refused where two are possible.

charset-normalizer says which encodings give text at all. Of those, the ones whose letters are those of one language count; where two
give different letters, nothing is guessed. Deterministic, on a bounded sample; then the whole file must decode.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from charset_normalizer import from_bytes

from tasks.corpus.readers.headers import yaml_line
from tasks.corpus.readers.records import UnreadableError
from tasks.corpus.readers.streams import MARKS, is_utf8, open_bytes

PIECE = 1 << 20
SAMPLE = 1 << 16  # bytes of lines that are not ASCII
# In the order in which one is named where several give the same text.
CANDIDATES: tuple[str, ...] = (
    "cp1252",
    "cp1250",
    "iso8859_2",
    "cp1254",
    "cp1251",
    "koi8_r",
    "cp1253",
    "cp1257",
    "mac_roman",
    "cp850",
    "cp852",
)
CANDIDATES += ("cp932", "euc_jp", "gb18030", "big5", "cp949")
# Of these nearly every pair of bytes is a character, so this share of them must be frequent ones.
_WIDE = {"cp932": 0.2, "euc_jp": 0.2, "gb18030": 0.5, "big5": 0.5, "cp949": 0.7}
# The letters beyond ASCII of languages and of the words that they borrow.
_LETTERS = {
    "German": "äöüßéèêàçñ",
    "French": "àâæçéèêëîïôœùûüñ",
    "Spanish, Portuguese": "áéíóúüñãõâêôàçºª",
    "Italian": "àèéìíîòóùúç",
    "Dutch": "áéëïóöüèĳ",
    "Swedish, Finnish": "åäöéüà",
    "Danish, Norwegian": "æøåéèêóòôäöü",
    "Icelandic": "áéíóúýþæöð",
    "Polish": "ąćęłńóśźż",
    "Czech": "áčďéěíňóřšťúůýž",
    "Slovak": "áäčďéíĺľňóôŕšťúýž",
    "Hungarian": "áéíóöőúüű",
    "Croatian, Slovene": "čćđšž",
    "Romanian": "ăâîșțşţ",
    "Turkish": "çğıöşüâîûi̇",
    "Baltic": "āčēģīķļņšūžąęėįųõäöü",
    "Russian, Ukrainian, Bulgarian": "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ№",
    "Greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώϊϋΐΰς",
}
# Signs of all languages, which decide nothing; others, such as those that draw boxes, are no text.
_SIGNS = frozenset("°µ²³¹½¼¾±×÷·§¶©®™€£¥¢«»„“”‚‘’–—…•†‡¿¡¨´`\u00a0\u00ad\ufeff‰‹›≥≤ªº")
_ASCII, _HIGH = bytes(range(128)), bytes(range(128, 256))
_LONGER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")  # characters of UTF-8
_CONTROL = re.compile("[\0\x80-\x9f]")
# What no word has: a sign within it, letters of two scripts.
_NO_WORD = re.compile(r"[^\W\d_][±¶¼½¾¹²³¿¡¬¤¥¢×÷][^\W\d_]|[A-Za-z][\u0370-\u04ff]|[\u0370-\u04ff][A-Za-z]")
_UNIT = re.compile(r"\d ?°|µ[glmM]")
DAMAGED_OF = 10  # one line of so many that is not UTF-8 is a damaged one, if it does not say itself what it is
FITS = 0.97  # of the letters beyond ASCII, in one language
WIDE_SHARE = 0.2  # of the characters of a text in another script than the Latin one


@dataclass(frozen=True)
class _Bytes:
    """What a file's bytes are: how many of UTF-8's longer characters, how many that are none; its lines, and those that are not UTF-8."""

    valid: int
    invalid: int
    lines: int
    bad_lines: int
    sample: bytes


def detected_encoding(path: Path, name: str) -> str:
    """Python's name of the encoding of a file that is not UTF-8; empty where it is, or has a byte order mark, or fits nothing better.

    ``UnreadableError``, with the line of params.yaml to write, where two encodings are possible and give different text.
    """
    with open_bytes(path) as file:
        head = file.read(1 << 14)
    if any(head.startswith(mark) for mark in MARKS):
        return ""
    if encoding := _without_mark(head):
        return encoding if _decodes(path, encoding) else ""
    counted = _counted(path)
    if 4 * counted.invalid <= counted.valid or b"\0" in head:  # UTF-8, in which single bytes are damaged; or no text
        return ""
    candidates = _fitting(path, counted.sample)
    if len(candidates) > 1 and counted.bad_lines == 1 and counted.lines >= DAMAGED_OF:
        return ""
    if len(candidates) > 1:
        names = ", ".join(encoding for encoding, _ in candidates)
        line = yaml_line(name, encoding=candidates[0][0])
        raise UnreadableError(
            f"is not UTF-8, and may be in one of several encodings ({names}). Write the right one into params.yaml: {line}"
        )
    return candidates[0][0] if candidates else ""


def _without_mark(head: bytes) -> str:
    """UTF-16 without a byte order mark: of every second byte most are zero, and of the others none."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    pairs = max(len(head) // 2, 1)
    if odd > 0.3 * pairs and even < 0.01 * pairs:
        return "utf_16_le"
    return "utf_16_be" if even > 0.3 * pairs and odd < 0.01 * pairs else ""


def _counted(path: Path) -> _Bytes:
    """What the bytes of a file are; ASCII, which most are, costs next to nothing."""
    valid = invalid = count = bad = size = 0
    sample: list[bytes] = []
    for piece in _pieces(path):
        count += piece.count(b"\n")
        if piece.isascii():
            continue
        try:
            valid += len(piece) - len(piece.decode())
            continue
        except UnicodeDecodeError:
            high = len(piece.translate(None, _ASCII))
            longer = sum(map(len, _LONGER.findall(piece)))
            valid, invalid = valid + longer // 2, invalid + high - longer
        for line in piece.splitlines(keepends=True):
            if not line.isascii():
                bad += not is_utf8(line)
                sample += [line[: SAMPLE - size]] if size < SAMPLE else []
                size += len(line)
    return _Bytes(valid, invalid, count, bad, b"".join(sample))


def _pieces(path: Path) -> Iterator[bytes]:
    """A file in pieces that end with a line; where one is very long, with a character of ASCII if that is near."""
    rest = b""
    with open_bytes(path) as file:
        while piece := file.read(PIECE):
            piece = rest + piece + file.readline(PIECE)
            cut = len(piece.rstrip(_HIGH)) if not piece[-4:].isascii() and not piece.endswith(b"\n") else len(piece)
            cut = cut if len(piece) - cut <= 4 else len(piece)
            rest = piece[cut:]
            yield piece[:cut]
    if rest:
        yield rest


def _fitting(path: Path, sample: bytes) -> list[tuple[str, str]]:
    """The encodings that fit, each with the sample's text in it; of those that give the same text, the first."""
    matches = from_bytes(sample, cp_isolation=list(CANDIDATES), threshold=0.3, preemptive_behaviour=False, language_threshold=0.0)
    possible = {encoding for match in matches for encoding in (match.encoding, *match.could_be_from_charset)}
    texts: dict[str, str] = {}
    for encoding in (name for name in CANDIDATES if name in possible):
        text = codecs.getincrementaldecoder(encoding)("strict").decode(sample)
        if text not in texts and _fits(text, encoding) and _decodes(path, encoding):
            texts[text] = encoding
    units = {text: len(_UNIT.findall(text)) for text in texts}
    return [(encoding, text) for text, encoding in texts.items() if units[text] == max(units.values())]


def _fits(text: str, encoding: str) -> bool:
    """Whether what is beyond ASCII are signs and the letters of one language, as its words have them."""
    beyond = [c for c in text.lower() if not c.isascii() and c not in _SIGNS]
    if encoding in _WIDE:
        common = sum(_is_common(character, encoding) for character in beyond)
        return len(beyond) >= WIDE_SHARE * len(text) and common >= _WIDE[encoding] * len(beyond)
    if _NO_WORD.search(text) or _has_capital_within(text):
        return False
    if any(not unicodedata.category(c).startswith(("L", "M")) for c in beyond):
        return False
    if len(beyond) < WIDE_SHARE * len(text) and any(c >= "\u0370" for c in beyond):
        return False  # a few Greek or Cyrillic letters in a text in Latin ones
    if not beyond:  # signs alone, which older encodings than those of Windows have elsewhere
        return encoding.startswith("cp125")
    return max(sum(c in letters for c in beyond) for letters in _LETTERS.values()) >= FITS * len(beyond)


def _has_capital_within(text: str) -> bool:
    """Whether a word has a capital beyond ASCII behind a small letter, or between letters of which the next is small."""
    capitals = (i for i, c in enumerate(text) if i and not c.isascii() and c.isupper())
    return any(text[i - 1].islower() or (text[i - 1].isalpha() and text[i + 1 : i + 2].islower()) for i in capitals)


def _is_common(character: str, encoding: str) -> bool:
    """Whether a character is one of the frequent ones of an encoding's language: kana, Hangul, the first level of a Chinese standard."""
    if encoding in ("cp932", "euc_jp"):
        return "\u3040" <= character <= "\u30ff"
    if encoding == "cp949":
        return "\uac00" <= character <= "\ud7a3"
    first, last, standard = (0xB0, 0xD7, "gb2312") if encoding == "gb18030" else (0xA4, 0xC6, "big5")
    return first <= character.encode(standard, "replace")[0] <= last


def _decodes(path: Path, encoding: str) -> bool:
    """Whether all of a file is text in an encoding, without control characters."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with open_bytes(path) as file:
            for piece in iter(partial(file.read, PIECE), b""):
                if _CONTROL.search(decoder.decode(piece)):
                    return False
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
