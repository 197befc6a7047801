"""Who an HL7 v2 message names: its patient and the patient's kin, the providers, and the organizations."""

from collections.abc import Iterator

from tasks.corpus.readers.cda_people import iso_date
from tasks.corpus.readers.fhir_people import identifier_type
from tasks.corpus.readers.hl7_messages import Segment

Identifiers = tuple[tuple[str, str], ...]
_PROVIDERS = {"PV1": (7, 8, 9, 17), "ORC": (10, 11, 12), "OBR": (10, 16, 28), "OBX": (16,), "TXA": (5, 9, 10, 11, 22), "PD1": (4,)}
_READERS = (32, 33, 34, 35)  # of OBR: who read the result, with the name in subcomponents
_PATIENTS_NUMBERS = ((2, "MRN"), (3, "MRN"), (4, "MRN"), (18, "ACCOUNT"), (19, "SSN"), (20, "LICENSE"))


def patient_of(segments: tuple[Segment, ...]) -> tuple[str, ...]:
    """The assigning authority and the number of a message's patient, of several the medical record number; empty without one."""
    pid = next((segment for segment in segments if segment.name == "PID"), None)
    numbers = [_padded(pid, text) for text in pid.repetitions(3)] if pid else []
    if pid and not numbers and pid.first(2):
        numbers = [[pid.first(2), *[""] * 4]]
    numbers = [number for number in numbers if number[0].strip()]
    number = next((number for number in numbers if number[4] == "MR"), next(iter(numbers), None))
    return (number[3].strip(), number[0].strip()) if number else ()


def message_people(segments: tuple[Segment, ...]) -> Iterator[tuple[bool, Identifiers]]:
    """What each person of a message is known by, and whether to look for it in the patient's notes alone."""
    for segment in segments:
        match segment.name:
            case "PID":
                yield from _known(True, _patient(segment))
            case "NK1":
                yield from _known(True, [*_names(segment, 2), *_addresses(segment, 4), *_phones(segment, 5, 6)])
            case "PV1":
                yield from _known(True, [("OTHER", segment.first(19))])
                yield from _known(False, [("FACILITY", _padded(segment, segment.raw(3))[3])])
            case "ORC":
                yield from _known(False, [("FACILITY", segment.first(21)), *_addresses(segment, 22, 24), *_phones(segment, 14, 23)])
        for number in _PROVIDERS.get(segment.name, ()):
            for text in segment.repetitions(number):
                yield from _known(False, _provider(_padded(segment, text)))
        for number in _READERS if segment.name == "OBR" else ():
            for text in segment.repetitions(number):
                inner = [segment.text(part) for part in text.split(segment.separators[0])[0].split(segment.separators[3])]
                yield from _known(False, _provider([*inner, *[""] * 13]))


def _known(is_patients: bool, pairs: list[tuple[str, str]]) -> Iterator[tuple[bool, Identifiers]]:
    distinct = dict.fromkeys((type_, " ".join(value.split())) for type_, value in pairs)
    if identifiers := tuple(pair for pair in distinct if pair[1]):
        yield is_patients, identifiers


def _patient(pid: Segment) -> list[tuple[str, str]]:
    pairs = [*_names(pid, 5, 6, 9), ("DATE", iso_date(pid.first(7))), ("DATE", iso_date(pid.first(29)))]
    pairs += [*_addresses(pid, 11), *_phones(pid, 13, 14)]
    for field, default in _PATIENTS_NUMBERS:
        for text in pid.repetitions(field):
            number = _padded(pid, text)
            pairs.append((identifier_type(number[4], "", default), number[0]))
    return pairs


def _provider(parts: list[str]) -> list[tuple[str, str]]:
    """Of number, family name, given name, further names, …, authority, …, type."""
    is_npi = "NPI" in (parts[8].upper(), parts[12].upper())
    return [("NPI" if is_npi else "OTHER", parts[0]), ("NAME", " ".join(part for part in (parts[2], parts[3], parts[1]) if part))]


def _names(segment: Segment, *fields: int) -> Iterator[tuple[str, str]]:
    for parts in (_padded(segment, text) for field in fields for text in segment.repetitions(field)):
        yield "NAME", " ".join(part for part in (parts[1], parts[2], parts[0]) if part)


def _addresses(segment: Segment, *fields: int) -> Iterator[tuple[str, str]]:
    for parts in (_padded(segment, text) for field in fields for text in segment.repetitions(field)):
        yield from (("ADDRESS", part) for part in parts[:3])
        yield "ZIP", parts[4]


def _phones(segment: Segment, *fields: int) -> Iterator[tuple[str, str]]:
    for parts in (_padded(segment, text) for field in fields for text in segment.repetitions(field)):
        kind = "FAX" if parts[2].upper() == "FX" else "PHONE"
        yield kind, parts[0] if "@" not in parts[0] else ""
        yield kind, f"{parts[5]} {parts[6]}" if parts[6] else ""
        yield "EMAIL", parts[3] or (parts[0] if "@" in parts[0] else "")


def _padded(segment: Segment, text: str) -> list[str]:
    """The components of a repetition, at least 13 of them."""
    return [*segment.components(text), *[""] * 13]
