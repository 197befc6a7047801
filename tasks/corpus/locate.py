"""Where a record is in the files of this directory: its raw file and position, the documents, the shards. Ids and positions, never text."""

import json
from collections.abc import Iterator
from pathlib import Path

from tasks.corpus.documents import SPLITS
from tasks.corpus.shards.format import HEADER, Shards
from tasks.runtime.artifacts import DOCUMENTS, SHARDS, VARIANTS


def locations(record_id: str) -> Iterator[str]:
    """A line for each location, raw file first."""
    for directory in (DOCUMENTS, VARIANTS):
        for split in SPLITS:
            path = directory / f"{split}.jsonl"
            yield from _in_documents(path, record_id) if path.exists() else ()
    if not (SHARDS / "index.json").exists():
        return
    shards = Shards(SHARDS)
    for name, files in shards.splits.items():
        opened = shards.open(name)
        for index in (i for i, entry in enumerate(opened.entries) if entry.id == record_id):
            shard, row = opened.locate(index)
            start, end = (int(token) for token in opened.starts[shard][row : row + 2])
            path = SHARDS / f"{files[shard]['name']}.bin"
            yield f"shard {path}: {end - start} tokens from token {start}, byte {4 * (HEADER + start)}"


def _in_documents(path: Path, record_id: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        for i, line in enumerate(file, 1):
            if record_id in line:
                document = json.loads(line)
                if document["id"] == record_id and not document["parent"]:
                    yield f"raw file data/{document['source']}, {document['position']}"
                    yield f"document {path}, line {i} (split {document['split']}, group {document['group']})"
                elif record_id in (document["id"], document["parent"]):
                    yield f"variant {path}, line {i}: {document['id']} by {document['method']}, of {document['parent']}"
