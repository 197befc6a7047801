"""Notes from FHIR exports: NDJSON and Bundles, with what they need of other files of their folder from the index.

A resource that holds no note is counted as skipped; so is a note that was withdrawn, replaced, or is not the newest version.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tasks.corpus.documents import Document, KnownPerson, Record, Rejected, Skipped, content_id
from tasks.corpus.extraction.definitions import Task
from tasks.corpus.readers import cda
from tasks.corpus.readers.attachments import MAX_ATTACHMENT, attached_bytes, attached_text, content_kind
from tasks.corpus.readers.fhir_facts import Questions
from tasks.corpus.readers.fhir_index import NOTES, beside, identifiers, is_withdrawn, stamp_of
from tasks.corpus.readers.fhir_notes import RepeatedNoteError, texts
from tasks.corpus.readers.fhir_people import PATIENTS_OWN, STAFF, known_as, named_in
from tasks.corpus.readers.fhir_resources import Json, Located, folder_of, key_of, located, resource_key
from tasks.corpus.readers.records import FileOptions, UnreadableError
from tasks.corpus.readers.source_index import SourceIndex, place_of
from tasks.corpus.readers.streams import open_bytes
from tasks.runtime.errors import printable

_CONDITIONAL = re.compile(r"Patient\?identifier=(?:([^|]*)\|)?([^|&]+)")
MAX_NAMED = 100_000  # people that are remembered
_STRUCTURE = "does not have the structure of its resource type"
_BY_ENDING = {".html": "text/html", ".htm": "text/html", ".xhtml": "application/xhtml+xml", ".rtf": "text/rtf", ".xml": "text/xml"}
_BY_ENDING |= {".pdf": "application/pdf", ".txt": "text/plain", ".ccda": "text/xml", ".cda": "text/xml"}


def read_fhir(data: Path, name: str, options: FileOptions, index: SourceIndex, tasks: Mapping[str, Task]) -> Iterator[Record]:
    """The notes of the resources in a file, what tasks ask about them, and the people that they name.

    A group is a patient, named by a digest.
    """
    reader = _Reader(data, name, index, tasks)
    for item in located(data / name, options):
        yield from reader.records(item)
    yield from reader.questions.about_stays()


class _Reader:
    """Reads the resources of one file."""

    def __init__(self, data: Path, name: str, index: SourceIndex, tasks: Mapping[str, Task]):
        self._data, self._file_name, self._folder, self._index = data, name, folder_of(name), index
        self._name = printable(name)  # as records have it
        self._named: set[tuple[str, str]] = set()  # people that references named before, who need not be yielded again
        self.questions = Questions(index, self._folder, tasks)
        self._documents: list[cda.ClinicalDocument] = []  # that the resource at hand has attached

    def records(self, item: Located) -> Iterator[Record]:
        """What becomes of one resource."""
        resource, position, kind = item.resource, item.position, item.resource.get("resourceType")
        if item.problem:
            yield Rejected(self._name, position, item.problem)
        elif not resource and "entry" in position:
            yield Skipped(self._name, position, "is an entry of a Bundle without a resource")
        elif not isinstance(kind, str) or not re.fullmatch(r"[A-Za-z]{1,64}", kind):
            yield Rejected(self._name, position, "is no FHIR resource")
        else:
            try:
                yield from self._people(resource, item.full_url)
                yield from self._notes(resource, item) if kind in NOTES else (self._skipped(kind, position),)
            except (AttributeError, TypeError, KeyError):
                yield Rejected(self._name, position, _STRUCTURE)

    def _skipped(self, kind: str, position: str) -> Skipped:
        holds = "is read where a note refers to it" if kind == "Binary" else "holds no note"
        return Skipped(self._name, position, f"is a FHIR {kind}, which {holds}")

    def _people(self, resource: Json, full_url: str) -> Iterator[KnownPerson]:
        for person in (resource, *self._contained(resource)):
            kind = person.get("resourceType")
            if kind in (*PATIENTS_OWN, *STAFF) and (identifiers_ := known_as(person)):
                group = ""
                if kind in PATIENTS_OWN:
                    patient = self._patient(person, full_url) if person is resource else self._subject(resource)
                    group = _group(patient) if patient else ""
                yield KnownPerson(group, identifiers_)
        if resource["resourceType"] in (*NOTES, "Encounter", "PractitionerRole"):
            for role, person_name in named_in(resource):
                group = _group(patient) if role == "PATIENT" and (patient := self._subject(resource)) else ""
                if (group, person_name) not in self._named:
                    self._named.add((group, person_name))
                    yield KnownPerson(group, (("NAME", person_name),))
            if len(self._named) > MAX_NAMED:
                self._named.clear()

    def _notes(self, resource: Json, item: Located) -> Iterator[Record]:
        name, position, kind = self._name, item.position, resource["resourceType"]
        if reason := self._unused(resource, item):
            yield Skipped(name, position, reason)
            return
        patient, results = self._subject(resource), []
        self._documents = []
        for result in texts(resource, lambda attachment: self._attached(attachment, resource)):
            results.append(result)
            if isinstance(result, RepeatedNoteError):
                yield Skipped(name, position, str(result))
            elif isinstance(result, UnreadableError):
                yield Rejected(name, position, str(result))
            else:
                key = content_id(name, str(patient), result)
                note = Document(key, "", result, name, "fhir-note", _group(patient) if patient else f"record:{key}", position)
                yield note
                yield from self.questions.about(note, resource)
        if not results:
            state = Rejected if kind == "DocumentReference" else Skipped
            yield state(name, position, "holds no note" if kind == "DocumentReference" else f"is a FHIR {kind} without a text")
        for document in self._documents:
            yield from cda.known_people(document, _group(patient) if patient else "")

    def _unused(self, resource: Json, item: Located) -> str:
        """Why a note is not used; empty where it is."""
        if state := is_withdrawn(resource):
            return f"has the status {state}"
        key = resource_key(item)
        newest = self._index.newest(self._folder, key) if key else None
        if newest and newest[1] != place_of(self._name, item.position):
            is_older = stamp_of(resource) < newest[0]
            return "is an older version of a note" if is_older else "is a note that the export holds more than once"
        if key and (self._index.is_replaced(self._folder, key) or self._index.is_replaced(self._folder, item.full_url)):
            return "is a note that another replaces"
        return ""

    def _attached(self, attachment: Json, resource: Json) -> str:
        """The text of an attachment, wherever it is."""
        kind, content, type_ = attachment.get("contentType") or "", b"", ""
        if kind:
            content_kind(kind)
        if isinstance(data := attachment.get("data"), str) and data:
            content = attached_bytes(data)
        elif isinstance(url := attachment.get("url"), str) and url:
            content, type_ = self._by_reference(url, resource)
        else:
            raise UnreadableError("holds a note without data or address")
        return attached_text(content, kind or type_, self._clinical_document)

    def _by_reference(self, url: str, resource: Json) -> tuple[bytes, str]:
        """The bytes and the content type of what an address means: a Binary, or a file in the data folder."""
        if url.startswith("#"):
            binary = next((other for other in self._contained(resource) if other.get("id") == url[1:]), None)
            if binary is None or binary.get("resourceType") != "Binary":
                raise UnreadableError("refers to a Binary that it does not contain")
            return attached_bytes(binary.get("data", "")), str(binary.get("contentType", ""))
        kind, _, id_ = (self._index.key(self._folder, url) or key_of(url)).partition("/")
        if kind == "Binary":
            return self._binary(id_)
        return self._file(url)

    def _binary(self, id_: str) -> tuple[bytes, str]:
        row = self._index.binary(self._folder, id_)
        if row is None:
            raise UnreadableError("refers to a Binary that is not in the export")
        content_type, content = row
        if content_type.startswith("!"):
            raise UnreadableError(f"refers to a Binary that {content_type[1:]}")
        if content is None:
            content_kind(content_type)
            raise UnreadableError("refers to a Binary without data")
        return content, content_type

    def _file(self, url: str) -> tuple[bytes, str]:
        names = [name for name in (beside(self._file_name, url), beside("x", url)) if name and self._index.is_attached(name)]
        if not names:
            raise UnreadableError("holds a note only by an address that is neither a Binary of the export nor a file of the data folder")
        with open_bytes(self._data / names[0]) as file:
            content = file.read(MAX_ATTACHMENT + 1)
        if len(content) > MAX_ATTACHMENT:
            raise UnreadableError(f"refers to a file of more than {MAX_ATTACHMENT >> 20} MiB, the most that is read")
        return content, _BY_ENDING.get(PurePosixPath(names[0].lower().removesuffix(".gz")).suffix, "")

    def _clinical_document(self, content: bytes) -> str:
        document = cda.parsed_document(content)
        self._documents.append(document)
        return document.text

    def _contained(self, resource: Json) -> list[Json]:
        contained = resource.get("contained", [])
        return [other for other in contained if isinstance(other, dict)] if isinstance(contained, list) else []

    def _patient(self, person: Json, full_url: str) -> str:
        """The identity of the patient that a Patient is, or that another resource belongs to."""
        if person["resourceType"] != "Patient":
            return self._subject(person)
        id_ = person.get("id")
        id_ = id_ if isinstance(id_, str) else key_of(full_url).partition("/")[2] or full_url
        return self._identity(id_) if id_ else ""

    def _subject(self, resource: Json) -> str:
        """The identity of a resource's patient, whatever the form of the reference; empty where it has none."""
        subject = resource.get("subject") or resource.get("patient")
        if isinstance(subject, list):  # of a Composition in R5
            subject = next((item for item in subject if isinstance(item, dict)), None)
        if not isinstance(subject, dict):
            return ""
        reference = subject.get("reference")
        if isinstance(reference, str) and reference.startswith("#"):
            return self._contained_identity(resource, reference[1:])
        if isinstance(reference, str) and reference.strip():
            if condition := _CONDITIONAL.search(reference):
                return self._identified(condition[1] or "", condition[2])
            key = self._index.key(self._folder, reference) or key_of(reference)
            kind, _, id_ = key.partition("/")
            return self._identity(id_) if kind == "Patient" else key or self._identity(reference)
        return next((self._identified(*pair) for pair in identifiers(subject)), "")

    def _contained_identity(self, resource: Json, id_: str) -> str:
        patient = next((other for other in self._contained(resource) if other.get("id") == id_), {})
        pairs = list(identifiers(patient))
        known = (self._index.patient(self._folder, *pair) for pair in pairs)
        if found_id := next(filter(None, known), ""):
            return self._identity(found_id)
        return self._identified(*min(pairs)) if pairs else ""

    def _identified(self, system: str, value: str) -> str:
        id_ = self._index.patient(self._folder, system, value)
        return self._identity(id_) if id_ else f"{self._folder}\x1fidentifier\x1f{system}\x1f{value}"

    def _identity(self, id_: str) -> str:
        return f"{self._folder}\x1f{self._index.root(self._folder, id_)}"


def _group(patient: str) -> str:
    return f"patient:{content_id('patient', patient)}"
