"""Base, tuned model, documents and shards of a private corpus."""

from pathlib import Path

import pytest
from helpers.builders import sentences, write_cleaning_report, write_tiny_checkpoint

from tasks.corpus.documents import Document, content_id, write_documents
from tasks.corpus.params import ShardParams
from tasks.shard import shard

SECRET = "Zebrafink Quastenflosser"


def evaluated(folder: Path, *, test: int = 24, public: bool = False) -> Path:
    """Base, tuned, documents and shards of a private corpus: questions, text of another origin, general text."""
    base = write_tiny_checkpoint(folder / "base")
    write_tiny_checkpoint(folder / "tuned", seed=1)
    splits = ["test"] * test + ["validation"] * 6 + ["train"] * 60 + ["other"] * 8
    documents = [
        Document(content_id(q), q, f"{a} {SECRET}.", "notes.csv", "signs", str(n), str(n), split=split)
        for n, (split, (q, a)) in enumerate(zip(splits, sentences(200), strict=False))
    ]
    documents += [
        Document(content_id("g", str(n)), "", f"General text {n}. {SECRET}", "g.txt", "text", str(n), str(n), split="replay")
        for n in range(4)
    ]
    write_documents(documents, folder / "documents")
    (folder / "variants").mkdir()
    write_cleaning_report(folder / "cleaning", public=public)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = ("documents", "cleaning", "variants", "shards", "shard-report")
        shard(base, *(folder / name for name in names), params=ShardParams(loss_on="answer", max_tokens=4096))
    return folder
