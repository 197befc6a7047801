"""A session over real files: as a run reads and masks them, marks that stay, figures by the rules of the day."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.annotated import write_notes

from tasks.corpus.annotation import figures
from tasks.corpus.annotation.command import report
from tasks.corpus.annotation.marks import Mark, Marks, Sample
from tasks.corpus.annotation.session import WORK, Conflict, Session, Source
from tasks.corpus.cleaning.clean import clean
from tasks.corpus.deidentify import detection, recognizers
from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.records import FileOptions
from tasks.runtime.digests import dvc_digest, sha256
from tasks.runtime.params import read_section

CANARY = "Quillfeather"
NOTES = [
    ("a", f"Seen by Dr. {CANARY} on 03/14/2019.\nGlucose 95 mg/dL."),
    ("b", "He took 5 mg of lisinopril.\nCalled zqxwv at home."),
    ("c", "Telephone: 555-123-4567.\nStable."),
]


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    write_notes(tmp_path, NOTES)
    get_analyzer.cache_clear()
    yield
    get_analyzer.cache_clear()


def session(*, only_finished: bool = False, notes: int = 10, **params: object) -> Session:
    Path("annotation").mkdir(exist_ok=True)
    source = Source(Path("data"), read_section("preprocess", PreprocessParams).model_copy(update=params))
    marks = Marks(default=Sample(notes=notes, seed=1))
    return Session(source.read(marks, only_finished=only_finished), marks, source)


def index_of(opened: Session, part: str) -> int:
    return next(i for i, note in enumerate(opened.notes) if part in note.text)


def finish(opened: Session, part: str, *marks: Mark) -> None:
    index = index_of(opened, part)
    opened.change(index, opened.state(index)["revision"], marks, done=True, accept=True)


def marked(opened: Session, part: str, verdict: str, type_: str = "") -> Mark:
    start = opened.notes[index_of(opened, part)].text.index(part)
    return Mark(start=start, end=start + len(part), verdict=verdict, type=type_)  # type: ignore[arg-type]


def finish_all() -> Session:
    """All three notes: one name was missed in the second, and the telephone number of the third is called wrong."""
    opened = session()
    finish(opened, CANARY)
    finish(opened, "zqxwv", marked(opened, "zqxwv", "missed", "NAME"))
    finish(opened, "Telephone", marked(opened, "555-123-4567", "wrong"))
    return opened


def test_the_notes_are_masked_as_preprocess_masks_them() -> None:
    fhir = [
        {"resourceType": "Patient", "id": "1", "name": [{"family": "Zqxwv", "given": ["Bjjj"]}]},
        {"resourceType": "Practitioner", "id": "2", "name": [{"family": "Wxkq"}]},
        {
            "resourceType": "DocumentReference",
            "id": "3",
            "status": "current",
            "subject": {"reference": "Patient/1"},
            "content": [{"attachment": {"contentType": "text/plain", "data": "enF4d3YgY2FtZSwgYW5kIGJqamogd2FzIHNlZW4gYnkgd3hrcS4="}}],
        },
    ]
    Path("data/export.ndjson").write_text("".join(json.dumps(resource) + "\n" for resource in fhir))
    Path("data/wide.csv").write_text('Befund;Nr\n"Dr. Strangewind; 3 mg";7\n', encoding="cp1252")
    files = {"wide.csv": FileOptions(columns={"text": "Befund", "group": "Nr"})}
    opened = session(files=files)
    assert len(opened.notes) == 5
    params = read_section("preprocess", PreprocessParams).model_copy(update={"files": files})
    work = Path("work").absolute()
    work.mkdir()
    clean(Path("data").absolute(), work, params)
    lines = [json.loads(line) for path in work.glob("documents/*/*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    answers = {document["id"]: document["answer"] for document in lines}
    assert len(answers) == 5
    for note in opened.notes:
        text = note.text
        for mask in reversed(note.masks):
            text = text[: mask.start] + mask.replacement + text[mask.end :]
        assert text == answers[note.id]
    assert "[NAME] came, and [NAME] was seen by [NAME]." in answers.values()
    assert not WORK.exists()


def test_figures_are_those_that_a_person_counts_and_hold_no_text() -> None:
    measured = finish_all().report()
    by_name = {row.name: (row.total, row.count, row.notes) for row in measured.recall}
    assert by_name == {"all": (3, 2, 2), "DATE": (1, 1, 1), "NAME": (2, 1, 2)}
    assert [(row.name, row.total, row.count) for row in measured.damage] == [
        ("all", 3, 1),
        ("DATE", 1, 0),
        ("NAME", 1, 0),
        ("PHONE", 1, 1),
    ]
    assert (measured.missed.count, measured.damaged.count, measured.notes, measured.words) == (1, 1, 3, 22)
    assert measured.data == dvc_digest(Path("data")) and figures.read() == measured
    assert "recall 0.667" in "".join(figures.sentences(measured))
    ids = {note.id for note in session().notes}
    for path in Path("annotation").iterdir():
        content = path.read_text(encoding="utf-8")
        assert not re.search(f"{CANARY}|zqxwv|555|lisinopril|notes.jsonl", content), path
        assert path.name == "marks.json" or not any(id_ in content for id_ in ids)


def test_the_command_reports_what_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    params = read_section("preprocess", PreprocessParams)
    with pytest.raises(ValueError, match="no note is finished"):
        report(Path("data"), params)
    measured = finish_all().report()
    Path("annotation/figures.json").unlink()
    report(Path("data"), params)
    assert figures.read() == measured
    printed = capsys.readouterr().out
    assert "annotate: recall 0.667 (" in printed and "annotation/report.html has all figures" in printed


def test_later_rules_are_measured_without_new_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = finish_all().report()
    better = recognizers.Rule("NAME", re.compile("(?P<span>zqxwv|lisinopril)"))
    monkeypatch.setattr(detection, "GROUPS", (*detection.GROUPS, *detection.groups([better])))
    get_analyzer.cache_clear()
    again = session(only_finished=True)
    measured = again.report()
    assert (before.recall[0].count, measured.recall[0].count, measured.recall[0].total) == (2, 3, 3)
    assert (before.unjudged, measured.unjudged) == (0, 1) and measured.damage[0].total == 4
    state = again.state(index := index_of(again, "zqxwv"))
    assert sorted(state["states"]) == ["right", "unjudged"] and state["done"]
    assert again.fresh() == [i == index for i in range(3)]
    marks = [Mark(**mark) for mark in state["marks"]]
    again.change(index, state["revision"], marks, done=True)
    assert again.report().unjudged == 1, "a change of other marks says nothing of the new mask"
    again.change(index, state["revision"] + 1, marks, done=True, accept=True)
    assert again.report().unjudged == 0 and not any(again.fresh()), "finished once more, the new mask is right"


def test_other_rules_have_another_digest_and_what_only_measures_them_has_not() -> None:
    params = read_section("preprocess", PreprocessParams).model_dump(mode="json")
    deidentify = params["deidentify"]
    same = figures.rules_digest(params | {"seed": 7, "deidentify": deidentify | {"injections": 1, "min_recall": {}}})
    assert same == figures.rules_digest(params)
    for changed in ({"deidentify": deidentify | {"dates": "keep"}}, {"files": {"a": {"encoding": "cp1252"}}}):
        assert figures.rules_digest(params | changed) != same


def test_a_type_that_the_policy_keeps_is_not_asked_for() -> None:
    finish_all()
    params = read_section("preprocess", PreprocessParams)
    kept = session(deidentify=params.deidentify.model_copy(update={"dates": "keep"}))
    assert "DATE" not in kept.types and "NAME" in kept.types
    assert [row.name for row in kept.report().recall] == ["all", "NAME"]


def test_marks_of_a_text_that_changed_do_not_count_and_nothing_else_is_lost() -> None:
    finish_all()
    lines = [json.dumps({"text": text, "group": patient, "id": f"notes.jsonl{i}"}) for i, (patient, text) in enumerate(NOTES)]
    mapped = {"*": FileOptions(columns={"id": "id"})}
    opened = session(files=mapped)  # with mapped ids, all are other records
    assert opened.absent() == 3 and not any(opened.done())
    finish(opened, "Telephone")
    Path("data/notes.jsonl").write_text("\n".join(lines).replace("Stable", "Unstable"), encoding="utf-8")
    changed = session(files=mapped)
    assert changed.outdated() == 1 and not any(changed.done())
    with pytest.raises(ValueError, match="no note is finished"):
        changed.report()
    assert len(Marks(default=Sample(notes=1, seed=1)).notes) == 4, "they are kept until the note is marked again"


def test_an_older_window_does_not_undo_a_newer_one() -> None:
    opened = session()
    revision = opened.state(0)["revision"]
    opened.change(0, revision, [], done=True)
    before = opened.state(0)
    with pytest.raises(Conflict):
        opened.change(0, revision, [], done=False)
    with pytest.raises(ValueError, match="behind the text"):
        opened.change(0, revision + 1, [Mark(start=0, end=10_000, verdict="wrong")], done=True)
    assert opened.state(0) == before


def test_more_notes_can_be_asked_for_later_and_finished_ones_stay() -> None:
    opened = session(notes=1)
    assert len(opened.notes) == 1
    opened.change(0, 0, [], done=True)
    more = session(notes=1)  # the sample is that of the file
    assert [note.id for note in more.notes] == [opened.notes[0].id] and more.done() == [True]
    source = Source(Path("data"), read_section("preprocess", PreprocessParams))
    marks = Marks(default=Sample(notes=1, seed=1), notes=3)
    read = source.read(marks)
    assert read[0].id == opened.notes[0].id and len(read) == 3
    withdrawn = replace(source, params=source.params.model_copy(update={"withdrawn": (opened.notes[0].id,)}))
    assert opened.notes[0].id not in {note.id for note in withdrawn.read(marks)}


def test_raw_text_that_a_killed_process_left_is_removed() -> None:
    (WORK / "raw").mkdir(parents=True)
    (WORK / "raw" / "left").write_text(CANARY)
    session()
    assert not WORK.exists() and not list(Path("annotation").iterdir())


def test_without_notes_it_says_why() -> None:
    Path("data/notes.jsonl").write_text(json.dumps({"text": "Public.", "group": "g"}) + "\n")
    digest = sha256(Path("data/notes.jsonl"))
    manifest = {"files": [{"path": "notes.jsonl", "sha256": digest, "public": True}]}
    Path("data/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"data holds no notes to annotate \(1 raw files are marked as public in manifest.json"):
        session()
    Path("data/notes.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"data/notes\.jsonl is empty"):
        session()
    shutil.rmtree("data")
    with pytest.raises(ValueError, match="data holds no raw files"):
        session()
    assert not WORK.exists()
