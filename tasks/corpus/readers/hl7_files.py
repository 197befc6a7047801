"""Notes in HL7 v2 messages, such as ORU^R01 and MDM^T02: the texts of the OBX segments below each OBR or TXA, as one note."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tasks.corpus.documents import Document, KnownPerson, Record, Rejected, Skipped, content_id
from tasks.corpus.readers import cda
from tasks.corpus.readers.attachments import NoTextError, attached_bytes, attached_text
from tasks.corpus.readers.hl7_messages import Message, Segment, messages
from tasks.corpus.readers.hl7_people import message_people, patient_of
from tasks.corpus.readers.records import FileOptions, UnreadableError, bad_characters
from tasks.corpus.readers.rendering import plain
from tasks.corpus.readers.streams import open_text

_TEXTS = ("TX", "FT", "ST", "ED")
# Deleted, wrong, cancelled, obsolete.
_NOT_USED = frozenset(("D", "W", "X", "CA", "OB"))
_STATES = {"OBX": (11,), "OBR": (25,), "TXA": (17, 19)}
_CANCELLED = "T11"  # the event of a document's cancellation
_SUBTYPES = {"rtf": "text/rtf", "html": "text/html", "xhtml": "text/html", "plain": "text/plain", "pdf": "application/pdf"}
_SUBTYPES |= {"xml": "text/xml", "x-hl7-cda-level-one": "text/xml", "text": "text/plain", "txt": "text/plain"}


@dataclass(slots=True)
class _Note:
    """The segments of one note: what it is of (OBR or TXA), and what it says."""

    head: Segment | None
    line: int
    parts: list[Segment] = field(default_factory=list)


def read_hl7(path: Path, name: str, options: FileOptions) -> Iterator[Record]:
    """The notes of the messages in a file, and the people that they name; a group is a patient, named by a digest."""
    with open_text(path, options) as file:
        for message in messages(file):
            if message.problem:
                yield Rejected(name, f"line {message.line}", message.problem)
            else:
                yield from _records(message, name)


def _records(message: Message, name: str) -> Iterator[Record]:
    position, segments = f"line {message.line}", message.segments
    is_cancelled = _CANCELLED in segments[0].components(segments[0].raw(9))
    has_notes = False
    for part in _of_patients(segments):
        patient = patient_of(part)
        group = f"patient:{content_id('patient', *patient)}" if patient else ""
        for is_patients, identifiers in message_people(part):
            yield KnownPerson(group if is_patients else "", identifiers)
        for note in _notes(part) if not is_cancelled else ():
            has_notes = True
            yield from _of_note(note, name, group, patient)
    if is_cancelled:
        yield Skipped(name, position, "cancels a document")
    elif not has_notes:
        yield Skipped(name, position, "is a message without results or a document")


def _of_patients(segments: tuple[Segment, ...]) -> Iterator[tuple[Segment, ...]]:
    """The segments of each patient, from one PID to the next; those before the first PID are the first patient's."""
    starts = [i for i, segment in enumerate(segments) if segment.name == "PID"]
    bounds = [0, *starts[1:], len(segments)]
    yield from (segments[start:end] for start, end in pairwise(bounds))


def _notes(segments: tuple[Segment, ...]) -> Iterator[_Note]:
    note: _Note | None = None
    for segment in segments:
        if segment.name in ("OBR", "TXA"):
            if note:
                yield note
            note = _Note(segment, segment.line)
        elif segment.name in ("OBX", "NTE") and (note or segment.name == "OBX"):
            note = note or _Note(None, segment.line)
            note.parts.append(segment)
    if note:
        yield note


def _of_note(note: _Note, name: str, group: str, patient: tuple[str, ...]) -> Iterator[Record]:
    position = f"line {note.line}"
    if note.head and (state := _state(note.head)):
        yield Skipped(name, position, f"has the status {state}")
        return
    used: list[Segment] = []
    for part in note.parts:
        if part.name == "OBX" and (state := _state(part)):
            yield Skipped(name, f"line {part.line}", f"is a result with the status {state}")
        else:
            used.append(part)
    if not any(part.name == "OBX" and part.first(2).upper() in (*_TEXTS, "RP") for part in used):
        yield Skipped(name, position, "is a group of results without a text")
        return
    lines: list[str] = []
    documents: list[cda.ClinicalDocument] = []
    names = {_result_name(part) for part in used if part.name == "OBX"}
    for part in used:
        try:
            lines.append(_line(part, documents, one_of_many=len(names) > 1))
        except UnreadableError as error:
            outcome = Skipped if isinstance(error, NoTextError) and _has_text(used) else Rejected
            yield outcome(name, f"line {part.line}", str(error))
    for document in documents:
        yield from cda.known_people(document, group)
    text = plain("\n".join(lines))
    if problem := bad_characters(text):
        yield Rejected(name, position, problem)
    elif text.strip():
        key = content_id(name, *patient, text)
        yield Document(key, "", text, name, "hl7-note", group or f"record:{key}", position)
    elif not any(part.first(2).upper() in ("ED", "RP") for part in used):
        yield Rejected(name, position, "holds an empty note")


def _state(segment: Segment) -> str:
    return next((state for number in _STATES[segment.name] if (state := segment.first(number).upper()) in _NOT_USED), "")


def _has_text(parts: list[Segment]) -> bool:
    return any(part.first(2).upper() in ("TX", "FT", "ST") and part.raw(5).strip() for part in parts)


def _result_name(segment: Segment) -> str:
    code, *others = segment.components(segment.raw(3))
    return (next(iter(others), "") or code).strip()


def _line(part: Segment, documents: list[cda.ClinicalDocument], *, one_of_many: bool) -> str:
    """What a segment adds to a note: its text, or the name, value and unit of a result.

    A clinical document within it is added to ``documents``.
    """
    if part.name == "NTE":
        return "\n".join(part.text(text) for text in part.repetitions(3))
    kind = part.first(2).upper()
    if kind == "ED":
        return _encapsulated(part, documents)
    if kind == "RP":
        raise UnreadableError("holds a note only by reference, which is not followed")
    if kind in ("TX", "FT"):
        return "\n".join(part.text(text) for text in part.repetitions(5))
    values = [_value(part, kind, repetition) for repetition in part.repetitions(5)]
    value = " ".join(value for value in values if value)
    if not value or (kind == "ST" and not one_of_many):
        return value
    return " ".join(text for text in (_result_name(part), value, part.first(6)) if text)


def _value(part: Segment, kind: str, repetition: str) -> str:
    components = part.components(repetition)
    match kind:
        case "ST" | "NM":
            return part.text(repetition).strip()
        case "SN":
            return "".join(components)
        case "CE" | "CWE" | "CNE" | "CF":
            return (components[1] if len(components) > 1 and components[1] else components[0]).strip()
        case _:
            return components[0].strip()


def _encapsulated(part: Segment, documents: list[cda.ClinicalDocument]) -> str:
    """The text of encapsulated data: source, type, subtype, encoding, data."""
    raw = [*part.raw(5).split(part.separators[0], 4), *[""] * 4]
    type_, subtype, encoding = (part.text(component).strip().lower() for component in raw[1:4])
    data = raw[4]
    kind = _SUBTYPES.get(subtype, "application/octet-stream")
    if type_ in ("im", "image") or kind == "application/pdf":
        shown = "a PDF" if kind.endswith("pdf") else "a picture"
        raise NoTextError(f"holds a note that is neither text, HTML, RTF nor a clinical document ({shown})")
    data = part.text(data)  # base64 may have line breaks
    content = attached_bytes(data) if encoding == "base64" else data.encode()

    def clinical_document(xml: bytes) -> str:
        documents.append(document := cda.parsed_document(xml))
        return document.text

    return attached_text(content, kind, clinical_document)
