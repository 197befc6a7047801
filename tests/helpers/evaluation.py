"""Base, tuned model, documents and shards of a private corpus."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.builders import TINY, sentences, write_cleaning_report, write_tiny_checkpoint
from tasks.corpus.documents import Document, content_id, write_documents
from tasks.corpus.extraction.definitions import Definition, NamesField, NumbersField, NumberSource, Task, question, write_tasks
from tasks.corpus.params import ShardParams
from tasks.shard import shard

SECRET = "Zebrafink Quastenflosser"


TASK = Task(
    "vitals",
    Definition(
        max_chars=10_000,
        version=1,
        instructions=("Extract as JSON.",),
        fields={
            "vital_signs": NumbersField(numbers={"heart_rate": NumberSource(stated=("HR #",))}),
            "medications": NamesField(resources=("MedicationRequest",), names=("code.text",)),
        },
    ),
)
DRUGS = ("Sertraline", "Aspirin", "Metformin")


def notes(split: str, count: int, *, first: int = 0) -> list[Document]:
    """Documents of an extraction task, two of each patient, each with numbers and drugs of its own."""
    return [_note(split, number) for number in range(first, first + count)]


def _note(split: str, number: int) -> Document:
    drug, patient = DRUGS[number % 3], f"patient-{number // 2}"
    answer = json.dumps({"vital_signs": {"heart_rate": 60 + number}, "medications": [drug]})
    text = question(TASK.definition.instructions[0], f"HR {60 + number}. {drug}.")
    return Document(content_id(split, text), text, answer, "notes.csv", TASK.category, patient, str(number), split=split, task=TASK.name)


def write_evaluation_inputs(folder: Path, *, test: int = 24, public: bool = False, with_notes: bool = False) -> Path:
    """Base, tuned, documents and shards of a private corpus: questions, text of another origin, general text; on request notes of an
    extraction task, too."""
    config = replace(TINY, max_seq_len=640) if with_notes else TINY  # examples take their room
    base = write_tiny_checkpoint(folder / "base", config)
    write_tiny_checkpoint(folder / "tuned", config, seed=1)
    splits = ["test"] * test + ["validation"] * 6 + ["train"] * 60 + ["ood"] * 8
    documents = [
        Document(content_id(q), q, f"{a} {SECRET}.", "notes.csv", "signs", str(n), str(n), split=split)
        for n, (split, (q, a)) in enumerate(zip(splits, sentences(200), strict=False))
    ]
    documents += [
        Document(content_id("g", str(n)), "", f"General text {n}. {SECRET}", "g.txt", "text", str(n), str(n), split="replay")
        for n in range(4)
    ]
    if with_notes:
        documents += [*notes("train", 12), *notes("test", 24, first=20), *notes("ood", 8, first=50)]
    write_documents(documents, folder / "documents")
    write_tasks({TASK.name: TASK} if with_notes else {}, folder / "documents")
    (folder / "variants").mkdir()
    write_cleaning_report(folder / "cleaning", public=public)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = ("documents", "cleaning", "variants", "shards", "shard-report")
        shard(base, *(folder / name for name in names), params=ShardParams(loss_on="answer", max_tokens=4096))
    return folder
