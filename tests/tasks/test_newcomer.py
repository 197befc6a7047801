"""What somebody brings who has never seen the project: each set, and all together, become shards at the second try at the latest."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.newcomers import (
    CHATS,
    FHIR_NOTES,
    NOTES,
    QUESTIONS,
    write_chats,
    write_clinical_documents,
    write_fhir,
    write_note_table,
    write_notes,
    write_questions,
)
from helpers.pages import plain, shown_outputs
from helpers.project import ROOT
from ruamel.yaml import YAML

from tasks.augment import augment
from tasks.corpus.documents import SPLITS, Document, read_documents
from tasks.corpus.shards.format import Shards
from tasks.params import read_params
from tasks.preprocess import preprocess
from tasks.shard import shard

SETS: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "notes": (write_notes, "notes", NOTES),
    "questions": (write_questions, "fragen.csv", QUESTIONS),
    "chats": (write_chats, "chats.jsonl", CHATS),
    "fhir": (write_fhir, "export/notes.ndjson", FHIR_NOTES),
}
LINE = re.compile(r"write into params.yaml: (preprocess: \{files: \{.*?\}\}\}?\})")


@pytest.fixture(autouse=True)
def _in_a_project_with_the_default_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    yield
    assert not Path(".cache/preprocess").exists()  # raw text does not stay


def run(base: Path, out: str) -> list[Document]:
    """The documents that ``data`` becomes by the stages with the params in params.yaml; they are in shards then."""
    target, params = Path(out), read_params()
    target.mkdir()
    preprocess(Path("data"), target / "documents", target / "report", target / "rejected.jsonl", params=params["preprocess"])  # type: ignore[arg-type]
    augment(Path("data"), target / "documents", target / "variants", target / "augmented", params=params["augment"])  # type: ignore[arg-type]
    reports = (target / "report", target / "variants", target / "shards", target / "sharded")
    shard(base, target / "documents", *reports, params=params["shard"])  # type: ignore[arg-type]
    documents = [d for split in SPLITS for d in read_documents(target / "documents", split)]
    ids = {entry.id for split in SPLITS for entry in Shards(target / "shards").open(split).entries}
    assert {d.id for d in documents} <= ids
    return documents


def write_into_params(lines: list[str], **deidentify: int) -> None:
    """What a user does with lines of a message: each setting where the file has its place."""
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    for line in lines:
        params["preprocess"]["files"] |= YAML(typ="safe").load(line)["preprocess"]["files"]
    params["preprocess"]["deidentify"] |= deidentify
    yaml.dump(params, Path("params.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["all", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("notes", "questions", "chats", "fhir"))]
)
def test_a_newcomers_set_becomes_shards(name: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = SETS if name == "all" else {name: SETS[name]}
    for write, path, _ in chosen.values():
        write(Path("data") / path)
    if name == "all":
        Path("data/LICENSE").write_text("All rights reserved.")
    else:
        write_into_params([], injections=1)  # faster; the gates are those of the file
    if "questions" in chosen:
        with pytest.raises(ValueError, match="data/fragen.csv has a header with no column Question and Answer") as error:
            run(tiny_checkpoint, "first")
        lines = LINE.findall(str(error.value))
        assert lines == ['preprocess: {files: {"fragen.csv": {columns: {question: Frage, answer: Antwort, topic: Krankheit}}}}']
        write_into_params(lines)
    documents = run(tiny_checkpoint, "out")
    output = capsys.readouterr().out
    used = Counter(d.source.split("/")[0] for d in documents)
    rejected = [json.loads(line) for line in Path("out/rejected.jsonl").read_text().splitlines()]
    leaked = Counter(r["source"].split("/")[0] for r in rejected if r["reason"] == "overlaps with an evaluation document")
    for _, path, count in chosen.values():
        name = path.split("/")[0]
        assert 0.97 * count <= used[name] + leaked[name] <= count and used[name] >= 0.85 * count
    assert len(used) == len(chosen)
    assert {"train", "validation", "test"} == {d.split for d in documents}
    if "questions" in chosen:
        assert "read in cp1252, as their bytes show (preprocess.files can set another encoding): fragen.csv" in output
        questions = [d for d in documents if d.source == "fragen.csv"]
        assert any("Müdigkeit" in d.answer for d in questions)
        assert not [d for d in questions if "[" in d.question + d.answer]  # nobody is named there
    if name != "questions":
        for family in ("Whitcombe", "Abernathy", "Stephanopoulos"):
            assert not [d for d in documents if any(family in text for text in d.texts())]
    if name == "all":
        assert "left out by their names, as no data: LICENSE" in output
        funnel = json.loads(Path("out/report/funnel.json").read_text())
        rows = {(row["step"], row["source"], row["rule"]) for row in funnel["rows"]}
        assert ("encodings", "fragen.csv", "cp1252") in rows and len(funnel["notes"]) >= 3
        assert {source for step, source, _ in rows if step == "skipped"} == {"LICENSE", "export/notes.ndjson"}
    if "notes" in chosen:
        assert "each of the 30 text files of notes is a group of its own" in output and "(12 groups)" in output
    if name == "notes":
        write_into_params(LINE.findall(output))
        check_that_patients_stay_together(run(tiny_checkpoint, "again"))
        told = capsys.readouterr().out
        assert re.search(r"no record was in (test|validation): 1 group of train went there, \d of 30 documents; preprocess.\w+_share", told)
        assert re.search(r"answer_nll on test: about \d of 100.* documents, 0 of them with a question", told)
        assert "is a group of its own" not in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heading", "write", "path"),
    [("A table of notes", write_note_table, "notes.csv"), ("A folder of C-CDA documents", write_clinical_documents, "ccda")],
)
def test_the_page_of_examples_shows_what_there_is(
    heading: str, write: Callable[[Path], None], path: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("data") / path)
    write_into_params([], injections=1)
    seen = ""
    if path == "notes.csv":
        with pytest.raises(ValueError, match="has a header with no column") as error:
            run(tiny_checkpoint, "first")
        write_into_params(LINE.findall(str(error.value)))
        seen = Path("data/notes.csv").read_text() + str(error.value)
    documents = run(tiny_checkpoint, "out")
    seen = plain(" ".join([seen, capsys.readouterr().out, *(d.answer for d in documents)]))
    outputs = shown_outputs("own-data-examples.md", heading)
    assert len(outputs) >= 2 and not [part for output in outputs for part in output if part not in seen]


def check_that_patients_stay_together(documents: list[Document]) -> None:
    split_of = defaultdict(set)
    for document in documents:
        split_of[document.source[: len("notes/case-01")]].add(document.split)
    assert len(split_of) == 12 and all(len(splits) == 1 for splits in split_of.values())
