"""A hospital's FHIR Bulk export as it is: all notes are read, nobody is named in what becomes of them, and no value is lost."""

import contextlib
import gzip
import json
import shutil
import sqlite3
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hospital import Note, Place, add_letters, notes, observed_vitals, simulate, stated_vitals, texts_by_place
from helpers.identifiers import Identifiers
from helpers.pages import plain, shown_outputs
from helpers.pipeline import FLOW
from helpers.project import ROOT, Project

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.default_corpus import HOSPITALS, build
from tasks.corpus.documents import SPLITS
from tasks.corpus.shards.format import Shards
from tasks.params import read_params

PRIVATE = ("rejected.jsonl", "changes.csv")  # hold text of records by design, and stay on the machine
# A vocabulary of ordinary names from elsewhere; numbers; pixels; tokens, of which the shards are made; versions like dates.
NO_TEXT = ("tokenizer.json", ".safetensors", ".png", ".npz", "requirements.lock")
# Names of the default corpus that are words of other texts: a release's month, an author in a formula's source, Prefect's robot.
OF_OTHERS = frozenset({"april", "zhang", "marvin"})


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def put_into(project: Project, export: Path) -> None:
    """The export alone, in place of the corpus of the project."""
    shutil.rmtree(project.path / "data")
    shutil.copytree(export, project.path / "data" / export.name)
    project.set_params("preprocess", ood=[], shares=[])  # those of the default corpus would take a part of the notes


def documents_of(project: Project) -> list[dict[str, str]]:
    return [document for split in SPLITS for document in lines(project.path / "artifacts" / "documents" / f"{split}.jsonl")]


def notes_of(project: Project) -> list[dict[str, str]]:
    return [document for document in documents_of(project) if not document["task"]]


def questions_of(project: Project, folder: str = "hospital") -> list[dict[str, str]]:
    return [document for document in documents_of(project) if document["task"] and document["source"].startswith(f"{folder}/")]


def place_of(document: dict[str, str]) -> Place:
    return Path(document["source"]).name, int(document["position"].removeprefix("line "))


def check_that_all_is_read_once(project: Project, raw: dict[Place, Note]) -> None:
    """Each note is one document, or one duplicate of another; those of a patient are of one split."""
    rejected = [r for r in lines(project.path / "artifacts" / "rejected.jsonl") if not r["record"]["task"]]  # type: ignore[index]
    assert not [r for r in rejected if "duplicate" not in r["reason"] and r["reason"] != "overlaps with an evaluation document"]
    documents = notes_of(project)
    places = Counter(map(place_of, [*documents, *rejected]))
    assert places == dict.fromkeys(raw, 1)
    split_of = defaultdict(set)
    for document in documents_of(project):
        split_of[raw[place_of(document)].patient].add(document["split"])
    assert len(split_of) > 10 and all(len(splits) == 1 for splits in split_of.values())


def check_that_vital_signs_stay(project: Project, raw: dict[Place, Note], export: Path) -> None:
    """What a note states of the Observations of its encounter is in what became of it, as often."""
    rejected = [row["record"] | row for row in lines(project.path / "artifacts" / "rejected.jsonl")]  # type: ignore[operator]
    rejected = [record for record in rejected if not record["task"]]
    texts, observed, count = texts_by_place([*notes_of(project), *rejected]), observed_vitals(export), 0
    for place, note in raw.items():
        stated = stated_vitals(note.text)
        assert not stated - stated_vitals(texts[place]), place
        count += sum(n for vital, n in stated.items() if vital in observed.get(note.encounter, ()))
    assert count > 500
    for document in questions_of(project):
        assert not stated_vitals(raw[place_of(document)].text) - stated_vitals(document["question"]), document["position"]


def written(project: Project) -> Iterator[tuple[str, str]]:
    """All that the stages wrote anywhere, as text: files, shards, and the rows of databases."""
    for split in SPLITS:
        shards = Shards(project.path / "artifacts" / "shards").open(split)
        tokenizer = Tokenizer.from_path(project.path / "artifacts" / "base")
        for i in range(len(shards)):
            yield f"shards of {split}", tokenizer.decode(shards.document(i)[0])
    lists = {project.path / ".cache" / name for name in ("lexicon", "patterns")}  # of words and names from elsewhere
    folders = [project.path / name for name in ("artifacts", ".cache", "mlartifacts", "mlruns")] + [project.path.parent / "prefect"]
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file() and lists.isdisjoint(path.parents)):
        if path.name in PRIVATE:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        elif path.name.endswith(NO_TEXT):
            continue
        elif path.suffix == ".db":
            yield path.name, dump(path)
        elif path.suffix == ".gz":
            yield str(path), gzip.decompress(path.read_bytes()).decode()
        else:
            yield str(path), path.read_text(encoding="utf-8", errors="replace")
    yield "mlflow.db", dump(project.path / "mlflow.db")


def dump(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return "\n".join(connection.iterdump())


def check_that_nobody_is_named(project: Project, raw: dict[Place, Note], identifiers: Identifiers, output: str) -> None:
    hits = {name: kinds for name, text in (("log", output), *written(project)) if (kinds := identifiers.find(text))}
    assert not hits
    for place, text in texts_by_place(notes_of(project)).items():
        assert not identifiers.ordinary_names(text) - identifiers.ordinary_names(raw[place].text), place
    assert questions_of(project)
    for document in questions_of(project):
        text = document["question"] + document["answer"]
        assert not identifiers.ordinary_names(text) - identifiers.ordinary_names(raw[place_of(document)].text), document["position"]


@pytest.mark.system
def test_a_hospital_with_letters_about_its_patients(project: Project, tmp_path: Path) -> None:
    export = simulate(tmp_path, 40)
    count = add_letters(export)
    put_into(project, export)
    output = project.run("dvc", "repro", "shard").stdout
    raw, identifiers = notes(export), Identifiers(export)
    in_raw = sum((identifiers.find(note.text) for note in raw.values()), Counter[str]())
    assert min(in_raw[kind] for kind in ("full name", "name", "identifier", "address", "city and ZIP code", "birth date")) >= count
    assert in_raw["phone"] >= count / 2
    check_that_all_is_read_once(project, raw)
    check_that_vital_signs_stay(project, raw, export)
    check_that_nobody_is_named(project, raw, identifiers, output)


@pytest.mark.campaign
def test_a_hospital_of_three_hundred_through_the_whole_pipeline(project: Project, tmp_path: Path) -> None:
    export = simulate(tmp_path, 300)
    put_into(project, export)
    preprocess = read_params(ROOT / "params.yaml")["preprocess"].model_dump(mode="json")
    project.set_params("preprocess", **{name: preprocess[name] for name in ("tasks", "validation_share", "test_share", "deidentify")})
    output = project.run(*FLOW).stdout
    seen = plain(" ".join([output, *(document["answer"] for document in documents_of(project))]))
    shown = [part for output in shown_outputs("own-data-examples.md", "A FHIR Bulk export") for part in output]
    assert not [part for part in shown if part not in seen]
    raw, identifiers = notes(export), Identifiers(export)
    check_that_all_is_read_once(project, raw)
    check_that_vital_signs_stay(project, raw, export)
    check_that_nobody_is_named(project, raw, identifiers, output)


@pytest.mark.campaign
def test_nobody_of_the_default_corpus_is_named(project: Project) -> None:
    shutil.rmtree(project.path / "data")
    with contextlib.chdir(ROOT):  # where the downloads are kept
        build(project.path / "data")
    preprocess = read_params(ROOT / "params.yaml")["preprocess"].model_dump(mode="json")
    project.set_params("preprocess", **{name: preprocess[name] for name in ("ood", "tasks", "shares", "test_share", "deidentify")})
    output = project.run(*FLOW).stdout
    texts = [("log", output), *written(project)]
    for hospital in HOSPITALS:
        identifiers = Identifiers(project.path / "data" / hospital.folder)
        assert not {name: kinds for name, text in texts if (kinds := identifiers.find(text, but=OF_OTHERS))}
        raw, questions = notes(project.path / "data" / hospital.folder), questions_of(project, hospital.folder)
        assert len(questions) > 200
        for document in questions:
            text = document["question"] + document["answer"]
            assert not identifiers.ordinary_names(text) - identifiers.ordinary_names(raw[place_of(document)].text), document["position"]
            assert not stated_vitals(raw[place_of(document)].text) - stated_vitals(document["question"]), document["position"]
