"""Who FHIR resources name: what patients, their relatives, staff, organizations and places are known by."""

import re
from collections.abc import Iterator

from tasks.corpus.readers.fhir_resources import Json

PATIENTS_OWN = ("Patient", "RelatedPerson", "Encounter")  # sought in the notes of one patient
STAFF = ("Practitioner", "PractitionerRole", "Organization", "Location", "Person")
_BY_CODE = {
    "MR": "MRN",
    "PI": "MRN",
    "PT": "MRN",
    "SS": "SSN",
    "SB": "SSN",
    "NPI": "NPI",
    "MD": "LICENSE",
    "LN": "LICENSE",
    "DL": "LICENSE",
    "RN": "LICENSE",
    "DEA": "LICENSE",
    "MCR": "PLAN",
    "MB": "PLAN",
    "MC": "PLAN",
    "MA": "PLAN",
    "SN": "PLAN",
    "AN": "ACCOUNT",
    "BA": "ACCOUNT",
}
_BY_SYSTEM = {  # as a part of the address or the OID
    "us-ssn": "SSN",
    "2.16.840.1.113883.4.1": "SSN",
    "us-npi": "NPI",
    "2.16.840.1.113883.4.6": "NPI",
    "us-mbi": "PLAN",
    "us-medicare": "PLAN",
    "us-dea": "LICENSE",
}
_BY_TELECOM = {"phone": "PHONE", "sms": "PHONE", "pager": "PHONE", "fax": "FAX", "email": "EMAIL", "url": "URL"}
# Codes of organizations (dept, team, payers) and of places within a building.
_COMMON = frozenset("dept team pay ins wa ro bd area lvl wi co ca rd ve vi".split())
_AUTHORS = ("author", "attester", "authenticator", "performer", "resultsInterpreter", "assessor", "participant", "practitioner")
_PERSON = re.compile(r"(?:^|/)(Patient|Practitioner|RelatedPerson)(?:/|\?|$)")
Identifiers = Iterator[tuple[str, str]]


def identifier_type(code: str, system: str, otherwise: str) -> str:
    """The type of an identifier by its code in HL7's table 0203 or the address of its system."""
    if code.upper() in _BY_CODE:
        return _BY_CODE[code.upper()]
    last = system.rstrip("/").rpartition("/")[2].removeprefix("urn:oid:")
    return _BY_SYSTEM.get(last, otherwise)


def known_as(resource: Json) -> tuple[tuple[str, str], ...]:
    """What a resource's person, organization or place is known by, each pair of type and value once."""
    kind = resource["resourceType"]
    found_pairs = dict.fromkeys((type_, " ".join(value.split())) for type_, value in _known_as(resource, kind))
    return tuple((type_, value) for type_, value in found_pairs if value)


def _known_as(resource: Json, kind: str) -> Identifiers:
    if kind in ("Organization", "Location") and _is_common(resource):
        pass
    elif kind in ("Organization", "Location"):
        yield from (("FACILITY", name) for name in (_string(resource.get("name")), *_strings(resource.get("alias"))))
    else:
        yield from (("NAME", name) for human in _listed(resource.get("name")) for name in human_names(human))
    default = "MRN" if kind == "Patient" else "OTHER"
    for identifier in _listed(resource.get("identifier")):
        yield _identifier(identifier, default)
    for qualification in _listed(resource.get("qualification")):
        yield from (_identifier(identifier, "LICENSE") for identifier in _listed(qualification.get("identifier")))
    yield from _reached(resource)
    for contact in _listed(resource.get("contact")):
        yield from (("NAME", name) for human in _listed(contact.get("name")) for name in human_names(human))
        yield from _reached(contact)
    yield from (("DATE", _string(resource.get(field))[:10]) for field in ("birthDate", "deceasedDateTime"))


def named_in(resource: Json) -> Iterator[tuple[str, str]]:
    """Type and name of each person that a resource's references name: "PATIENT" for its patient, else "STAFF"."""
    for field, value in resource.items():
        if field in ("subject", "patient", *_AUTHORS):
            for reference in _referring(value, 0):
                name, target = _string(reference.get("display")), _string(reference.get("reference")) or _string(reference.get("type"))
                if name.strip() and (person := _PERSON.search(target)):
                    yield "PATIENT" if person[1] == "Patient" else "STAFF", " ".join(name.split())


def _referring(value: object, level: int) -> Iterator[Json]:
    """The references in a field, at most a few levels down."""
    for item in _listed(value):
        yield item
        if level < 2:
            for inner in item.values():
                yield from _referring(inner, level + 1)


def human_names(name: Json) -> Iterator[str]:
    """A name in full, and as it is written out."""
    family = name.get("family")
    parts = [*_strings(name.get("given")), *([family] if isinstance(family, str) else _strings(family))]
    yield " ".join(parts)
    yield _string(name.get("text"))


def _is_common(resource: Json) -> bool:
    """Whether a name is one that many hospitals share, that of a department, a payer, a ward, a room, a bed."""
    types = [*_listed(resource.get("type")), *_listed(resource.get("physicalType")), *_listed(resource.get("form"))]
    codes = {_string(coding.get("code")) for type_ in types for coding in _listed(type_.get("coding"))}
    return bool(codes & _COMMON)


def _reached(resource: Json) -> Identifiers:
    for telecom in _listed(resource.get("telecom")):
        yield _BY_TELECOM.get(_string(telecom.get("system")), "OTHER"), _string(telecom.get("value"))
    for address in _listed(resource.get("address")):
        yield from (("ADDRESS", line) for line in _strings(address.get("line")))
        yield "ADDRESS", _string(address.get("city"))
        yield "ZIP", _string(address.get("postalCode"))


def _identifier(identifier: Json, default: str) -> tuple[str, str]:
    type_ = identifier.get("type")
    codes = [_string(coding.get("code")) for coding in _listed(type_.get("coding"))] if isinstance(type_, dict) else []
    system = _string(identifier.get("system"))
    return identifier_type(next(iter(codes), ""), system, default), _string(identifier.get("value"))


def _listed(value: object) -> list[Json]:
    """The JSON objects of a list, or the one that stands in place of a list."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
