"""The end of ``make run``: a held-out note with its extraction and what was masked, where everybody may read it."""

from io import StringIO
from pathlib import Path

import pytest
from helpers.builders import write_cleaning_report
from helpers.evaluation import notes, write_evaluation_inputs
from rich.console import Console

from tasks import example
from tasks.corpus.documents import read_documents
from tasks.corpus.extraction.definitions import note_of
from tasks.runtime.artifacts import CHANGES

CHANGED = """\
step,rule,before,after,times,documents
identifiers,DATE,2024-12-10,2024,4,a b
identifiers,DATE,2024-12-11,2024,3,a b
identifiers,NAME,Zadie Quux,[NAME],2,a
repair,quotes,``,"",1,a
"""


def shown(folder: Path) -> str:
    said = StringIO()
    example.show(Console(file=said, width=120), model=folder / "tuned", documents=folder / "documents", cleaning=folder / "cleaning")
    return said.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    CHANGES.parent.mkdir()
    CHANGES.write_text(CHANGED)
    return write_evaluation_inputs(tmp_path, public=True, with_notes=True)


def test_a_note_stands_beside_what_the_record_and_the_model_say(folder: Path) -> None:
    output = shown(folder)
    assert "masked, DATE: 2024-12-10 → 2024" in output and "masked, NAME: Zadie Quux → [NAME]" in output and "``" not in output
    assert output.index("2024-12-10") < output.index("Zadie Quux") < output.index("2024-12-11")
    (document,) = [d for d in read_documents(folder / "documents", "test") if d.task and f"holds:    {d.answer}\n" in output]
    assert document in notes("test", 24, first=20) and note_of(document) in output
    assert output.split("The model extracts:")[1].strip().startswith('{"vital_signs":{')


def test_text_of_a_corpus_that_is_not_public_is_not_shown(folder: Path) -> None:
    write_cleaning_report(folder / "cleaning", public=False)
    assert shown(folder) == "A note and its extraction are not shown: not every source is public.\n"


def test_without_a_task_there_is_nothing_to_show(folder: Path) -> None:
    (folder / "documents" / "tasks.json").unlink()
    (folder / "documents" / "test.jsonl").write_text("")
    assert shown(folder) == ""


def test_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tuned is not there: run 'dvc repro'"):
        shown(tmp_path)
