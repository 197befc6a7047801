"""Folders of FHIR resources, and what the readers make of one."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped
from tasks.corpus.readers.files import raw_files, read_file
from tasks.corpus.readers.indexing import write_index
from tasks.corpus.readers.records import FileOptions


class Export:
    """What a folder of raw files becomes, read with one index as the pipeline does."""

    def __init__(self, data: Path):
        index = data.parent / "index.sqlite"
        index.unlink(missing_ok=True)
        write_index(data, dict.fromkeys(raw_files(data), FileOptions()), index)
        self.records = [(name, record) for name in raw_files(data) for record in read_file(data, name, None, index)]
        self.documents = [r for _, r in self.records if isinstance(r, Document)]
        self.texts = [d.answer for d in self.documents]
        self.rejected = [(n, r.position, r.reason) for n, r in self.records if isinstance(r, Rejected)]
        self.skipped = [r.reason for _, r in self.records if isinstance(r, Skipped) and "holds no note" not in r.reason]
        self.people = [r for _, r in self.records if isinstance(r, KnownPerson)]

    def reasons(self) -> list[str]:
        return [reason.split(" (")[0] for _, _, reason in self.rejected]


def write(data: Path, name: str, *resources: dict[str, Any] | str) -> None:
    text = "\n".join(resource if isinstance(resource, str) else json.dumps(resource) for resource in resources)
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    (data / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def encoded(text: str | bytes, width: int = 0) -> str:
    code = base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
    return "\r\n".join(code[i : i + width] for i in range(0, len(code), width)) if width else code


def note(text: str | bytes = "Coughs.", type_: str | None = "text/plain", patient: Any = "Patient/17", **fields: Any) -> dict[str, Any]:
    attachment = {"data": encoded(text)} | ({"contentType": type_} if type_ is not None else {})
    subject = {"reference": patient} if isinstance(patient, str) else patient
    return {"resourceType": "DocumentReference", "status": "current", "subject": subject, "content": [{"attachment": attachment}]} | fields


def attached(**attachment: Any) -> dict[str, Any]:
    return note(content=[{"attachment": attachment}])


def bundle(*resources: dict[str, Any], **fields: Any) -> dict[str, Any]:
    entries = [{"fullUrl": r.pop("fullUrl"), "resource": r} if "fullUrl" in r else {"resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | fields


COMPOSITION = {
    "resourceType": "Composition",
    "status": "final",
    "title": "Discharge summary",
    "subject": {"reference": "Patient/17"},
    "section": [
        {
            "title": "Course",
            "text": {"status": "generated", "div": "<div><p>Fever.</p></div>"},
            "section": [
                {
                    "title": "Labs",
                    "text": {"div": "<div><table><tr><td>Sodium</td><td>140</td></tr></table></div>"},
                }
            ],
        },
        {"title": "Empty", "entry": [{"reference": "Composition/1"}]},
        {"code": {"text": "Plan"}, "text": {"div": "<div>Rest.</div>"}},
    ],
}
