"""Messages of HL7 v2, taken apart by the library hl7: segments, fields, repetitions, components, without escapes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import hl7

from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG, UnreadableError, bad_characters
from tasks.corpus.readers.streams import is_utf8, numbered, text_encoding

_ENVELOPES = ("FHS", "BHS", "FTS", "BTS")
_KNOWN = ("PID", "PV1", "ORC", "OBR", "OBX", "NTE", "TXA", "EVN", "NK1", "PD1")
# Segments that may stand without fields. Not PID, DRG, CON and others, which are words of notes: pelvic inflammatory disease.
_BARE = frozenset("PV1 PV2 ORC OBR OBX NTE TXA EVN NK1 PD1 SFT UAC ROL GT1 IN1 IN2 IN3 DG1 AL1 SPM TQ1 TQ2 CTI DSC FT1 PRT PR1 SAC".split())
_BEGINS = re.compile(rf"(?:{'|'.join(_ENVELOPES)}|MSH)(?![\w\s-])")  # not MSH2 and MSH-6, which are genes
_OTHER_SEPARATOR = re.compile(rf"(?:{'|'.join(_KNOWN)})[^\w\s:,.()/-]")
_HEADER = re.compile(r"MSH([^\w\s])([^\w\s])([^\w\s])([^\w\s])([^\w\s])?([^\w\s])?\1")
_MLLP = str.maketrans("", "", "\x0b\x1c")
_LINE_BREAKS = re.compile(r"\.(?:br|sp|ce)\s*[+]?(\d{0,2})")
_BLANKS = re.compile(r"\.(?:in|ti|sk)\s*[+]?(-?\d{0,2})")


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a message. Fields are numbered as in the standard, from 1 on."""

    name: str
    line: int
    fields: tuple[str, ...]
    separators: str  # of components, repetitions and subcomponents, and the escape character, as in MSH-2
    field_separator: str

    def raw(self, number: int) -> str:
        """A field as it stands in the message; empty where it is left out."""
        return self.fields[number] if number < len(self.fields) and self.fields[number] != '""' else ""

    def repetitions(self, number: int) -> list[str]:
        """The repetitions of a field, with their escapes."""
        text = self.raw(number)
        return text.split(self.separators[1]) if text else []

    def components(self, repetition: str) -> list[str]:
        """The components of a repetition as text; of subcomponents the first."""
        return [self.text(part.split(self.separators[3])[0]) for part in repetition.split(self.separators[0])]

    def first(self, number: int) -> str:
        """The first component of the first repetition of a field."""
        return next((self.components(text)[0].strip() for text in self.repetitions(number)), "")

    def text(self, value: str) -> str:
        """A value with its escapes decoded."""
        escape = self.separators[2]
        if escape not in value:
            return value
        parts = value.split(escape)
        if len(parts) % 2 == 0:  # the last one is not closed, and stands for itself
            parts[-2:] = [f"{parts[-2]}{escape}{parts[-1]}"]
        return "".join(part if i % 2 == 0 else self._decoded(part) for i, part in enumerate(parts))

    def _decoded(self, sequence: str) -> str:
        plain = {
            "F": self.field_separator,
            "S": self.separators[0],
            "R": self.separators[1],
            "E": self.separators[2],
            "T": self.separators[3],
        }
        if sequence in plain:
            return plain[sequence]
        if match := _LINE_BREAKS.fullmatch(sequence):
            return "\n" * max(int(match[1] or 1), 1)
        if match := _BLANKS.fullmatch(sequence):
            return " " * max(int(match[1] or 1), 0) if sequence.startswith(".sk") else ""
        if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", sequence):
            data = bytes.fromhex(sequence[1:])
            text = data.decode("utf-8", "ignore") if is_utf8(data) else data.decode("latin-1")
            return text.replace("\r\n", "\n").replace("\r", "\n")
        # Highlighting and formatting say nothing; anything else was no escape sequence.
        return (
            ""
            if sequence in ("H", "N", ".fi", ".nf") or re.fullmatch(r"[CMZ].*", sequence)
            else f"{self.separators[2]}{sequence}{self.separators[2]}"
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message, or what is wrong with what stands in place of one, from a line on."""

    line: int
    segments: tuple[Segment, ...] = ()
    problem: str = ""


def messages(file: IO[str]) -> Iterator[Message]:
    """The messages of a file, one at a time; frames of MLLP and envelopes of batches are left out."""
    lines: list[tuple[int, str]] = []
    size, is_long = 0, False
    for number, line in numbered(file):
        text = (line or "").translate(_MLLP).strip("\r\n")
        begins = _BEGINS.match(text)
        if begins:
            if lines:
                yield _message(lines, is_long)
            lines, size, is_long = [], 0, False
        if (begins and begins[0] != "MSH") or (line is not None and not text.strip()):
            continue
        size += len(text)
        is_long |= line is None or size > MAX_RECORD
        lines.append((number, "" if is_long and lines else text))
    if lines:
        yield _message(lines, is_long)


def _message(lines: list[tuple[int, str]], is_long: bool) -> Message:
    start, header = lines[0]
    if is_long:
        return Message(start, problem=TOO_LONG)
    if not header.startswith("MSH"):
        return Message(start, problem="is not in a message: no MSH segment is before it")
    match = _HEADER.match(header)
    if match is None or len(set(match[0][3:-1])) < len(match[0][3:-1]):
        return Message(start, problem="has separators that are none (MSH-1 and MSH-2)")
    try:
        return Message(start, tuple(_segments(_decoded(lines, match[1]), match)))
    except UnreadableError as problem:
        return Message(start, problem=str(problem))
    except (hl7.HL7Exception, ValueError, IndexError, AssertionError):
        return Message(start, problem="is no HL7 message")


def _segments(lines: list[tuple[int, str]], header: re.Match[str]) -> Iterator[Segment]:
    separators, field_separator = "".join(header.group(2, 3, 4)) + (header[5] or "&"), header[1]
    numbers: list[int] = []
    texts: list[list[str]] = []  # each segment's lines
    for number, text in lines:
        if text in _BARE or (re.match(r"[A-Z][A-Z0-9]{2}", text) and text[3:4] == field_separator):
            numbers.append(number)
            texts.append([text])
        elif _OTHER_SEPARATOR.match(text):
            raise UnreadableError("has segments with another separator than MSH-1")
        else:  # a line end in a text, which should have been escaped
            texts[-1].append(text)
    line_break = f"{separators[2]}.br{separators[2]}"
    for number, segment in zip(numbers, hl7.parse("\r".join(line_break.join(text) for text in texts)), strict=True):
        fields = [str(field) for field in segment]
        yield Segment(fields[0], number, tuple(fields), separators, field_separator)


def _decoded(lines: list[tuple[int, str]], separator: str) -> list[tuple[int, str]]:
    """The lines in the encoding that MSH-18 names, where they are not in the file's."""
    joined_lines = "\n".join(text for _, text in lines)
    if not bad_characters(joined_lines):
        return lines
    fields = lines[0][1].split(separator)
    named = fields[17].split("~")[0].strip() if len(fields) > 17 else ""
    encoding = text_encoding(f"iso-{named.replace('/', '-')}" if named.startswith("8859/") else named or "utf-8")
    try:
        texts = joined_lines.encode("utf-8", "surrogateescape").decode(encoding).split("\n")
    except UnicodeError:
        raise UnreadableError("holds bytes that are not in the file's encoding") from None
    if problem := bad_characters("".join(texts)):
        raise UnreadableError(problem)
    return [(number, text) for (number, _), text in zip(lines, texts, strict=True)]
