"""Notes from FHIR bulk exports: DocumentReference and DiagnosticReport resources in NDJSON.

Read as plain JSON, not through a model of FHIR: exports differ in version and profile, and nothing but notes is wanted of them.
"""

import base64
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.corpus.documents import Document, Rejected, content_id
from tasks.corpus.readers.html_notes import html_text
from tasks.corpus.readers.records import FileOptions, UnreadableError, bad_characters
from tasks.corpus.readers.streams import numbered, open_text, text_encoding
from tasks.corpus.readers.tables import parse_object

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
READ = ("DocumentReference", "DiagnosticReport")


def is_fhir(path: Path, options: FileOptions) -> bool:
    """Whether one of the first lines of a file is a FHIR resource."""
    with open_text(path, options) as file:
        first = [parse_object(line) for _, line in islice(numbered(file), 10)]
    return any(isinstance(record, dict) and "resourceType" in record for record in first)


def read_fhir(path: Path, name: str, options: FileOptions) -> Iterator[Document | Rejected]:
    """The notes of the resources in a file; a group is a patient, named by a digest."""
    with open_text(path, options) as file:
        for i, line in numbered(file):
            position = f"line {i}"
            resource = parse_object(line)
            if isinstance(resource, str):
                yield Rejected(name, position, resource)
            elif resource.get("resourceType") not in READ:
                yield Rejected(name, position, f"is a FHIR resource of a type that is not read ({' and '.join(READ)} are)")
            else:
                try:
                    yield from _notes(resource, name, position)
                except (AttributeError, TypeError, KeyError):
                    yield Rejected(name, position, "does not have the structure of its resource type")


def _notes(resource: dict[str, Any], name: str, position: str) -> Iterator[Document | Rejected]:
    if resource["resourceType"] == "DocumentReference":
        attachments = [content["attachment"] for content in resource.get("content", [])]
    else:
        attachments = list(resource.get("presentedForm", []))
    texts = [_attached(attachment) for attachment in attachments]
    if conclusion := resource.get("conclusion"):
        texts.append(conclusion if isinstance(conclusion, str) else ValueError("has a conclusion that is not text"))
    if not texts:
        yield Rejected(name, position, "holds no note")
    patient = (resource.get("subject") or {}).get("reference")
    for text in texts:
        problem = str(text) if isinstance(text, ValueError) else bad_characters(text) or ("" if text.strip() else "holds an empty note")
        if problem:
            yield Rejected(name, position, problem)
            continue
        key = content_id(name, str(patient), str(text))
        group = f"patient:{content_id('patient', str(patient))}" if patient else f"record:{key}"
        yield Document(key, "", str(text).strip(), name, "fhir-note", group, position)


def _attached(attachment: dict[str, Any]) -> str | ValueError:
    """The text of an attachment, or what keeps it from being read."""
    kind, _, settings = str(attachment.get("contentType", "text/plain")).partition(";")
    if kind.strip().lower() not in ("text/plain", "text/html"):
        return ValueError("holds a note that is neither plain text nor HTML")
    if not isinstance(attachment.get("data"), str):
        return ValueError("holds a note only by reference, which is not followed")
    charset = _CHARSET.search(settings)
    try:
        encoding = text_encoding(charset[1]) if charset else "utf-8"
        text = base64.b64decode(attachment["data"], validate=True).decode(encoding)
        return html_text(text) if kind.strip().lower() == "text/html" else text
    except UnreadableError as problem:
        return problem
    except ValueError:
        return ValueError("holds a note that is not base64 of text in its encoding")
