"""Where a record is in the files of this directory: its raw file and position, the documents, the shards. Ids and places, never text."""

import json
from collections.abc import Iterator
from pathlib import Path

from tasks.corpus.documents import SPLITS
from tasks.corpus.shards.format import open_split, read_index
from tasks.runtime.artifacts import DOCUMENTS, SHARDS, VARIANTS


def places(record_id: str) -> Iterator[str]:
    """A sentence for each place, raw file first."""
    for directory in (DOCUMENTS, VARIANTS):
        for split in SPLITS:
            path = directory / f"{split}.jsonl"
            yield from _in_documents(path, record_id) if path.exists() else ()
    if not (SHARDS / "index.json").exists():
        return
    for split, shards in read_index(SHARDS)["splits"].items():
        opened = open_split(SHARDS, split)
        for number in (n for n, entry in enumerate(opened.entries) if entry.id == record_id):
            shard = int(opened.first.searchsorted(number, side="right")) - 1
            starts, at = opened.starts[shard], number - int(opened.first[shard])
            tokens = int(starts[at + 1] - starts[at])
            name = f"{shards[shard]['name']}.bin"
            yield f"shard {SHARDS / name}: {tokens} tokens from token {int(starts[at])}, byte {4 * (256 + int(starts[at]))}"


def _in_documents(path: Path, record_id: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if record_id in line:
                found = json.loads(line)
                if found["id"] == record_id and not found["parent"]:
                    yield f"raw file data/{found['source']}, {found['position']}"
                    yield f"document {path}, line {number} (split {found['split']}, group {found['group']})"
                elif record_id in (found["id"], found["parent"]):
                    yield f"variant {path}, line {number}: {found['id']} by {found['method']}, of {found['parent']}"
