"""The corpus behind a version as Croissant metadata: the raw files, and the documents with the place that each comes from.

Format: MLCommons Croissant 1.0, http://mlcommons.org/croissant/1.0. It holds no text of a document.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from tasks.registry.standards.bom import raw_files
from tasks.runtime.artifacts import DOCUMENTS

Json = dict[str, Any]
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {".jsonl": "application/jsonlines", ".ndjson": "application/fhir+ndjson", ".json": "application/json", ".xml": "application/xml"}
FIELDS = {
    "id": "digest of what the document says",
    "source": "raw file that it comes from",
    "position": "place in that file",
    "category": "kind of document or task",
    "question": "what is asked; empty for plain text",
    "answer": "what is answered, or the text",
}


def croissant(document: Mapping[str, Any]) -> Json:
    """The metadata, from a passport."""
    version, entries = document["version"], document["corpus"]
    documents = document["trees"].get(str(DOCUMENTS), {"files": {}})["files"]
    splits = [name for name in sorted(documents) if name.endswith(".jsonl")]
    public = bool(entries) and all(entry.get("public") for entry in entries)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{version['name']}-{version['number']}-corpus",
        "description": f"The corpus that version {version['number']} of {version['name']} was made from: raw files and cleaned documents.",
        "version": f"{version['number']}.0.0",
        "datePublished": version["made"],
        "creator": {"@type": "sc:Organization", "name": "not stated"},
        "url": f"urn:medllama:version:{version['name']}:{version['number']}",
        "license": sorted({entry["licence"] for entry in entries if entry.get("licence")}) or ["not stated"],
        "citeAs": " ".join(sorted({entry["credit"] for entry in entries if entry.get("credit")})) or "not stated",
        "isAccessibleForFree": public,
        "distribution": [
            *(_file(f"data/{path}", digest) for path, digest in raw_files(document).items()),
            *(_file(f"{DOCUMENTS}/{name}", documents[name]) for name in splits),
        ],
        "recordSet": [_records(name) for name in splits],
    }


def _file(path: str, sha256: str) -> Json:
    kind = TYPES.get(PurePosixPath(path).suffix, "text/plain")
    return {"@type": "cr:FileObject", "@id": path, "name": path, "contentUrl": path, "encodingFormat": kind, "sha256": sha256}


def _records(name: str) -> Json:
    """The records of a split, each with its place in the raw files."""
    split, file = name.removesuffix(".jsonl"), f"{DOCUMENTS}/{name}"
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{field}",
            "name": field,
            "description": description,
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": file}, "extract": {"column": field}},
        }
        for field, description in FIELDS.items()
    ]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "key": {"@id": f"{split}/id"}, "field": fields}
