"""Who the header of a clinical document names: its patient and the patient's people, and staff and organizations."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from tasks.corpus.readers.fhir_people import identifier_type

_PATIENTS = ("recordTarget", "participant")  # whose people are sought in the notes of the patient alone
_SCHEMES = {"tel": "PHONE", "fax": "FAX", "mailto": "EMAIL", "http": "URL", "https": "URL"}
_DATES = ("birthTime", "deceasedTime")
Identifiers = tuple[tuple[str, str], ...]


def local(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def header_people(root: Element) -> Iterator[tuple[bool, Identifiers]]:
    """What each part of a header names, and whether it is sought in the patient's notes alone."""
    for part in root:
        kind = local(part)
        if kind == "recordTarget":
            for organization in part.iterfind(".//{*}providerOrganization"):
                yield from _known(False, organization, "OTHER")
            yield from _known(True, part, "MRN")
        elif kind == "componentOf":
            for number in part.iterfind("{*}encompassingEncounter/{*}id"):
                yield from _known(True, number, "OTHER")
            yield from _known(False, part, "OTHER")
        elif kind not in ("component", "id", "setId", "code", "title", "templateId", "relatedDocument"):
            is_relative = kind in _PATIENTS or part.find("{*}relatedEntity") is not None
            yield from _known(is_relative, part, "OTHER")


def _known(is_patients: bool, element: Element, default: str) -> Iterator[tuple[bool, Identifiers]]:
    pairs = dict.fromkeys((type_, " ".join(value.split())) for type_, value in _identifiers(element, default, is_person=True))
    if identifiers := tuple((type_, value) for type_, value in pairs if value):
        yield is_patients, identifiers


def _identifiers(element: Element, default: str, *, is_person: bool) -> Iterator[tuple[str, str]]:
    kind = local(element)
    if kind == "id":
        yield identifier_type("", element.get("root", ""), default), element.get("extension", "")
    elif kind == "name":
        yield from (("NAME" if is_person else "FACILITY", name) for name in _names(element))
    elif kind == "telecom":
        scheme, colon, number = element.get("value", "").partition(":")
        yield (_SCHEMES.get(scheme.lower(), "OTHER"), number.strip("/")) if colon else ("PHONE", scheme)
    elif kind == "addr":
        yield from _address(element)
    elif kind in _DATES:
        yield "DATE", iso_date(element.get("value", ""))
    elif kind == "providerOrganization" and default == "MRN":
        return  # not the patient's
    else:
        is_place = kind.endswith(("Organization", "Custodian", "Facility", "location", "Place"))
        is_person = kind.endswith(("Person", "patient")) or (is_person and not is_place)
        for child in element:
            yield from _identifiers(child, "OTHER" if is_place else default, is_person=is_person)


def iso_date(value: str) -> str:
    """The day of an HL7 time stamp, ``19501219…``, as ``1950-12-19``; empty where it has none."""
    day = value[:8]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 and day.isdecimal() else ""


def _names(name: Element) -> Iterator[str]:
    given = [_text(part) for part in name if local(part) == "given"]
    family = [_text(part) for part in name if local(part) == "family"]
    yield " ".join([*given, *family]) if given or family else _text(name)


def _address(address: Element) -> Iterator[tuple[str, str]]:
    if not len(address):
        yield "ADDRESS", _text(address)
    for part in address:
        if local(part) in ("streetAddressLine", "city", "streetName"):
            yield "ADDRESS", _text(part)
        elif local(part) == "postalCode":
            yield "ZIP", _text(part)


def _text(element: Element) -> str:
    return "".join(element.itertext())
