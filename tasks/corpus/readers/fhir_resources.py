"""The resources of FHIR files, one at a time: NDJSON, and Bundles as a file or as a line. What they hold is not looked at."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import orjson

from tasks.corpus.readers.records import MAX_RECORD, TOO_LONG, FileOptions, UnreadableError, bad_characters
from tasks.corpus.readers.streams import numbered, open_text
from tasks.corpus.readers.tables import REFUSED, no_repeats, parse_object

Json = dict[str, Any]
MAX_NESTED = 5  # Bundles in Bundles
_HEAD = 1 << 16  # characters
_TYPE = re.compile(r'"resourceType"\s*:\s*"(\w*)"')
_ENTRIES = re.compile(r'"entry"\s*:\s*\[')
_BLANK = re.compile(r"[\s,]*")
_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]{1,63})/([^/?#|\s]{1,200})(?:/_history/[^/?#|\s]+)?/?(?:[?|][^/]*)?$")
_WITHOUT_TEXT = frozenset(
    "AllergyIntolerance Condition Coverage Device Encounter Immunization Medication MedicationAdministration MedicationDispense "
    "MedicationRequest MedicationStatement Observation Procedure ServiceRequest Specimen".split()
)
_TYPE_NAME = re.compile(r"[A-Z][A-Za-z]{1,63}")


@dataclass(frozen=True, slots=True)
class Located:
    """A resource and where it is, or what is wrong at that place."""

    position: str
    resource: Json = field(default_factory=dict)
    problem: str = ""
    full_url: str = ""


def is_fhir(path: Path, options: FileOptions) -> bool:
    """Whether one of the first lines of a file is a FHIR resource."""
    with open_text(path, options) as file:
        first = [parse_object(line) for _, line in islice(numbered(file), 10)]
    return any(isinstance(record, dict) and "resourceType" in record for record in first)


def is_fhir_json(path: Path, options: FileOptions) -> bool:
    """Whether a JSON file is a FHIR resource, such as a Bundle."""
    with open_text(path, options) as file:
        head = file.read(_HEAD).removeprefix("\ufeff").lstrip()
    return head.startswith("{") and _TYPE.search(head) is not None


def folder_of(name: str) -> str:
    """The folder within which ids of resources count; one that is named after a type of resource is a part of the folder above."""
    folder = PurePosixPath(name).parent
    while _TYPE_NAME.fullmatch(folder.name) and folder.name in SPLIT_BY_TYPE:
        folder = folder.parent
    return folder.as_posix()


def key_of(reference: str) -> str:
    """``Type/id`` of a reference of any form, relative, absolute or versioned; empty for one that has another form."""
    match = _REFERENCE.search(reference.strip())
    return f"{match[1]}/{match[2]}" if match and not reference.startswith("urn:") else ""


def resource_key(item: Located) -> str:
    """``Type/id`` of a resource, by its own id or that of its address in a Bundle; empty where it has neither."""
    kind, id_ = item.resource.get("resourceType"), item.resource.get("id")
    if not isinstance(kind, str):
        return ""
    return f"{kind}/{id_}" if isinstance(id_, str) else key_of(item.full_url) or (f"{kind}/{item.full_url}" if item.full_url else "")


def located(path: Path, options: FileOptions, types: tuple[str, ...] = ()) -> Iterator[Located]:
    """The resources of a file; those of Bundles in place of the Bundle.

    With ``types``, lines that hold no resource of these types may be left out.
    """
    if path.name.lower().removesuffix(".gz").endswith(".json") and not _has_objects_in_lines(path, options):
        yield from _of_json(path, options)
        return
    with open_text(path, options) as file:
        for i, line in numbered(file):
            if types and line is not None and not {"Bundle", *types} & {match[1] for match in _TYPE.finditer(line)}:
                continue
            yield from _unbundled(_parsed(line), f"line {i}", "", 0)


def _parsed(line: str | None) -> Json | str:
    """The resource in a line, or what is wrong with it.

    An export is mostly resources without text and people. They are parsed ten times as fast, by a parser that does not see repeated keys.
    """
    if line is not None and not bad_characters(line):
        try:
            resource = orjson.loads(line)
        except ValueError:
            return parse_object(line)
        if isinstance(resource, dict) and resource.get("resourceType") in _WITHOUT_TEXT:
            return resource
    return parse_object(line)


def _has_objects_in_lines(path: Path, options: FileOptions) -> bool:
    """Whether a JSON file is one of lines: an object on the first one, and on the next another."""
    with open_text(path, options) as file:
        lines = [(line or "").strip("\ufeff \t\r\n") for _, line in islice(numbered(file), 2)]
    return len(lines) == 2 and lines[0][:1] == lines[1][:1] == "{" and isinstance(parse_object(lines[0]), dict)


def _unbundled(resource: Json | str, position: str, full_url: str, nested: int) -> Iterator[Located]:
    if isinstance(resource, str):
        yield Located(position, problem=resource)
    elif resource.get("resourceType") != "Bundle":
        yield Located(position, resource, full_url=full_url)
    elif nested == MAX_NESTED:
        yield Located(position, problem=f"is a Bundle within more than {MAX_NESTED} others")
    elif not isinstance(entries := resource.get("entry", []), list):
        yield Located(position, problem="does not have the structure of its resource type")
    else:
        for i, entry in enumerate(entries, 1):
            yield from _entry(entry, f"{position}, entry {i}", nested + 1)


def _entry(entry: object, position: str, nested: int = 1) -> Iterator[Located]:
    if not isinstance(entry, dict):
        yield Located(position, problem="is not a JSON object")
    elif isinstance(resource := entry.get("resource", {}), dict):
        url = entry.get("fullUrl", "")
        yield from _unbundled(resource, position, url if isinstance(url, str) else "", nested)
    else:
        yield Located(position, problem="does not have the structure of its resource type")


def _of_json(path: Path, options: FileOptions) -> Iterator[Located]:
    with open_text(path, options) as file:
        head = file.read(_HEAD)
        entries, kind = _ENTRIES.search(head), _TYPE.search(head)
        is_bundle = kind is not None and (kind[1] == "Bundle" or (entries is not None and entries.start() < kind.start()))
        if is_bundle and entries:
            yield from _of_bundle(file, head[entries.end() :])
            return
        text = head + file.read(MAX_RECORD)
    yield from _unbundled(parse_object(None if len(text) > MAX_RECORD else text), "resource", "", 0)


def _of_bundle(file: IO[str], text: str) -> Iterator[Located]:
    """The entries of a Bundle as they are read; ``text`` begins behind the bracket of their list."""
    decoder, at, i = json.JSONDecoder(), 0, 0
    while True:
        while (start := _BLANK.match(text, at).end()) == len(text):  # type: ignore[union-attr]
            text, at = file.read(_HEAD), 0
            if not text:
                raise UnreadableError(f"is a Bundle that ends after entry {i}")
        if text[start] == "]":
            _end_of_bundle(file, text[start + 1 :])
            return
        i += 1
        try:
            _, at = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            more = file.read(max(_HEAD, len(text) - start))
            if not more:
                raise UnreadableError(f"is a Bundle that is not JSON from entry {i} on") from None
            if len(text) - start > MAX_RECORD:
                raise UnreadableError(f"is a Bundle of which entry {i} {TOO_LONG}, or is not JSON") from None
            text, at, i = text[start:] + more, 0, i - 1
            continue
        entry = parse_object(text[start:at])
        yield from [Located(f"entry {i}", problem=entry)] if isinstance(entry, str) else _entry(entry, f"entry {i}")
        text, at = (text[at:], 0) if at > MAX_RECORD else (text, at)


def _end_of_bundle(file: IO[str], rest: str) -> None:
    """Read what follows the entries of a Bundle; ``UnreadableError`` where the file goes on behind its end."""
    text, decoder = f'{{"entry": []{rest}', json.JSONDecoder(object_pairs_hook=no_repeats)
    while True:
        try:
            _, end = decoder.raw_decode(text)
            break
        except REFUSED as problem:
            raise UnreadableError(f"is a Bundle that {problem}") from None
        except (json.JSONDecodeError, RecursionError):
            more = file.read(max(_HEAD, len(text)))
            if not more or len(text) > MAX_RECORD:
                raise UnreadableError("is a Bundle that is not JSON behind its entries") from None
            text += more
    while not text[end:].strip("\ufeff \t\r\n"):
        text, end = file.read(_HEAD), 0
        if not text:
            return
    raise UnreadableError("goes on after the end of its Bundle, which is not JSON; several are read as lines, each on one")


# Exports that are divided into folders by type, as those of data lakes are.
SPLIT_BY_TYPE = frozenset(
    "Account AllergyIntolerance Appointment Binary Bundle CarePlan CareTeam Claim ClinicalImpression Communication Composition Condition "
    "Consent Coverage Device DiagnosticReport DocumentReference Encounter EpisodeOfCare ExplanationOfBenefit FamilyMemberHistory Goal "
    "Group ImagingStudy Immunization List Location Media Medication MedicationAdministration MedicationDispense MedicationRequest "
    "MedicationStatement Observation Organization Patient Person Practitioner PractitionerRole Procedure Provenance Questionnaire "
    "QuestionnaireResponse RelatedPerson Schedule ServiceRequest Specimen Task".split()
)
