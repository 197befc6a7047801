"""The index of a folder of FHIR files: what a note needs of other resources, wherever they are."""

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

from tasks.corpus.extraction.definitions import Task
from tasks.corpus.extraction.facts import facts_of, resource_types, values_at
from tasks.corpus.readers.attachments import NoTextError, attached_bytes, content_kind
from tasks.corpus.readers.fhir_resources import Json, Located, folder_of, key_of, located, resource_key
from tasks.corpus.readers.records import FileOptions, UnreadableError
from tasks.corpus.readers.source_index import IndexWriter, place_of

NOTES = ("DocumentReference", "DiagnosticReport", "Composition", "ClinicalImpression")
_INDEXED = (*NOTES, "Binary", "Patient")
NOT_USED = frozenset("entered-in-error superseded cancelled deprecated replaced retracted".split())
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|/")


def index_files(data: Path, names: Mapping[str, FileOptions], writer: IndexWriter, tasks: Mapping[str, Task]) -> None:
    """Add the resources of FHIR files to an index. What cannot be read is left to the reader, which says so."""
    types = (*_INDEXED, *resource_types(tasks))
    for name, options in names.items():
        folder = folder_of(name)
        writer.add("seen", folder)
        try:
            for item in located(data / name, options, types):
                with suppress(TypeError, AttributeError, KeyError, ArithmeticError):  # of one resource
                    _add(item, name, folder, writer)
                    _add_facts(item.resource, folder, tasks, writer)
        except (EOFError, OSError, ValueError, zlib.error, RecursionError):
            continue


def stamp_of(resource: Json) -> str:
    """When a version of a resource was made, as text that sorts: newer versions last."""
    meta = resource.get("meta") if isinstance(resource.get("meta"), dict) else {}
    updated, version = str((meta or {}).get("lastUpdated", "")), str((meta or {}).get("versionId", ""))
    return f"{_utc(updated)}|{version.zfill(20)}"


def _utc(time: str) -> str:
    """A time as text that sorts; empty where it is none."""
    try:
        parsed = datetime.fromisoformat(time)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return ""


def is_withdrawn(resource: Json) -> str:
    """The state for which a resource is not used; empty where it is in none."""
    states = (resource.get(name) for name in ("status", "docStatus"))
    return next((state for state in states if isinstance(state, str) and state in NOT_USED), "")


def beside(name: str, url: str) -> str:
    """The raw file that a relative address means, seen from a file; empty for an address that leads elsewhere."""
    path = unquote(re.split("[#?]", url, maxsplit=1)[0])
    if not path or _SCHEME.match(path) or "\\" in path or "\0" in path:
        return ""
    target = normpath((PurePosixPath(name).parent / path).as_posix())
    return "" if target.startswith("..") or target == "." else target


def _add(item: Located, name: str, folder: str, writer: IndexWriter) -> None:
    resource, kind, key = item.resource, item.resource.get("resourceType"), resource_key(item)
    if key and item.full_url and key_of(item.full_url) != key:
        writer.add("url", folder, item.full_url, key)
    if kind == "Binary" and key:
        writer.add("binary", folder, key.partition("/")[2], *_content(resource))
    elif kind == "Patient" and key:
        patient = key.partition("/")[2]
        for system, value in identifiers(resource):
            writer.add("identifier", folder, system, value, patient)
        for other in _linked(resource):
            writer.add("link", folder, patient, other)
    elif kind in NOTES:
        if key:
            writer.add("note", folder, key, stamp_of(resource), place_of(name, item.position))
        for target in _replaces(resource) if key and not is_withdrawn(resource) else ():
            writer.add("replaced", folder, target, key)
        for url in _addresses(resource):
            for file in {beside(name, url), beside("x", url)} - {""}:
                writer.add("attached", file)


def _add_facts(resource: Json, folder: str, tasks: Mapping[str, Task], writer: IndexWriter) -> None:
    for fact in facts_of(resource, tasks):
        writer.add("fact", folder, subject_of(resource), encounter_of(resource), *fact)


def subject_of(resource: Json) -> str:
    """The reference to the patient of a resource, as ``Patient/id`` where it has that form."""
    reference = _reference(resource.get("subject") or resource.get("patient"))
    return key_of(reference) or reference


def encounter_of(resource: Json) -> str:
    """The reference to the encounter of a resource, as ``Encounter/id`` where it has that form; of an Encounter, itself."""
    if resource.get("resourceType") == "Encounter":
        return f"Encounter/{resource.get('id')}"
    context = resource.get("context")  # of a DocumentReference in R4, and of a MedicationAdministration
    listed = context.get("encounter") if isinstance(context, dict) and "reference" not in context else [context]
    encounters = [resource.get("encounter"), *(listed if isinstance(listed, list) else [listed])]
    reference = next(filter(None, map(_reference, encounters)), "")
    return key_of(reference) or reference


def written_at(resource: Json) -> str:
    """When a note was written, as text that sorts; empty where its resource does not say."""
    times = (resource.get(key) for key in ("date", "effectiveDateTime", "issued"))
    return next(filter(None, (_utc(time) for time in times if isinstance(time, str))), "")


def note_types(resource: Json) -> frozenset[str]:
    """The codes of a note's type, such as LOINC's 11506-3 for a progress note."""
    codes = (code for path in ("type.coding.code", "code.coding.code") for code in values_at(resource, path))
    return frozenset(code for code in codes if isinstance(code, str))


def _content(binary: Json) -> tuple[str, bytes | None]:
    """The content type and the bytes of a Binary; none of a type that is not read, and of what is no base64."""
    type_, data = binary.get("contentType"), binary.get("data", binary.get("content"))
    type_ = type_ if isinstance(type_, str) else ""
    try:
        content_kind(type_)
    except NoTextError:
        return type_, None
    try:
        return type_, attached_bytes(data if isinstance(data, str) else "")
    except UnreadableError as problem:
        return f"!{problem}", None


def identifiers(resource: Json) -> Iterator[tuple[str, str]]:
    """System and value of each identifier of a resource."""
    listed = resource.get("identifier")
    for identifier in listed if isinstance(listed, list) else [listed]:
        if isinstance(identifier, dict) and isinstance(value := identifier.get("value"), str) and value.strip():
            system = identifier.get("system")
            yield system if isinstance(system, str) else "", value.strip()


def _linked(patient: Json) -> Iterator[str]:
    """The ids of the patients that a patient's links name, whatever they say of them."""
    for link in _dicts(patient.get("link")):
        kind, _, id_ = key_of(_reference(link.get("other"))).partition("/")
        if kind == "Patient":
            yield id_


def _replaces(resource: Json) -> Iterator[str]:
    for relation in _dicts(resource.get("relatesTo")):
        code = relation.get("code", relation.get("type"))
        if isinstance(code, dict):
            code = next((coding.get("code") for coding in _dicts(code.get("coding"))), "")
        target = relation.get("target", relation.get("targetReference", relation.get("resourceReference")))
        if code == "replaces" and (key := key_of(_reference(target)) or _reference(target)):
            yield key


def _addresses(resource: Json) -> Iterator[str]:
    attachments = [content.get("attachment") for content in _dicts(resource.get("content"))]
    attachments += _dicts(resource.get("presentedForm"))
    urls = (attachment.get("url") for attachment in _dicts(attachments))
    yield from (url for url in urls if isinstance(url, str) and not key_of(url).startswith("Binary/"))


def _reference(value: object) -> str:
    reference = value.get("reference") if isinstance(value, dict) else ""
    return reference if isinstance(reference, str) else ""


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
