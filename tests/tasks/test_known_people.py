"""People whom columns name in params.yaml are masked in their notes, and the report says what the rules alone would have found."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

from tasks.corpus.documents import SPLITS, read_documents
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.records import FileOptions
from tasks.corpus.report import ShardStats, page
from tasks.params import read_params
from tasks.preprocess import preprocess

PARAMS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
# Names that are also words, as nothing near them gives away.
FIRST = "Grace Hope Rose Dawn Faith Violet Ivy Pearl Olive Hazel".split()
LAST = "Green Field Banks Waters Stone Hill Rivers Wood Frost Snow".split()


def write_export(count: int) -> list[tuple[str, str]]:
    """Notes of patients and a table of these patients; the names are returned."""
    names = [(FIRST[n % 10], LAST[(n * 3 + n // 10) % 10]) for n in range(count)]
    notes, people = ["PatID;Arzt;Note"], ["PatID,Given,Family,MRN,Born"]
    for n, (first, last) in enumerate(names):
        text = (
            f"Visit {n}: today we saw {last}, and {first} says the cough of day {n} is better. Sodium 14{n % 10} mmol/L, T 37.{n % 10} C."
        )
        notes.append(f"{n};Ivor Banerjee-Quill;{text} File hx{4000 + n}-k. Read by banerjee-quill.")
        people.append(f"{n},{first},{last},HX{4000 + n}K,1950-0{n % 9 + 1}-12")
    Path("data").mkdir()
    Path("data/notes.csv").write_text("\n".join(notes) + "\n")
    Path("data/patients.csv").write_text("\n".join(people) + "\n")
    return names


@pytest.mark.slow
def test_people_of_columns_are_masked_and_the_report_says_what_the_rules_alone_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = write_export(60)
    files = {
        "notes.csv": FileOptions(columns={"text": "Note", "group": "PatID"}, staff={"NAME": "Arzt"}),
        "patients.csv": FileOptions(columns={"group": "PatID"}, patient={"NAME": ("Given", "Family"), "MRN": "MRN", "DATE": "Born"}),
    }
    options: dict[str, Any] = {"files": files, "validation_share": 0.2, "test_share": 0.2, "near_duplicate": 1.0}
    preprocess(Path("data"), Path("documents"), Path("report"), Path("rejected.jsonl"), params=PARAMS.model_copy(update=options))
    documents = [d for split in SPLITS for d in read_documents(Path("documents"), split)]
    assert len(documents) == len(names)
    for document in documents:
        number = int(document.answer.split(":")[0].removeprefix("Visit "))
        first, last = names[number]
        words = document.answer.replace(",", " ").replace(";", " ").split()
        assert first not in words and last not in words and "anerjee" not in document.answer
        assert "[MRN]" in document.answer and f"{4000 + number}" not in document.answer
        assert f"Sodium 14{number % 10} mmol/L" in document.answer and f"T 37.{number % 10} C" in document.answer
    report = json.loads(Path("report/deidentification.json").read_text())
    alone = {row["name"]: row for row in report["without_known"]["recall"]}
    assert alone["NAME"]["documents"] == 60 and alone["NAME"]["spans"] >= 180 and alone["NAME"]["share"] < 0.9
    assert {row["name"]: row["spans"] for row in report["without_known"]["damage"]}["lab"] >= 60
    of_rules, of_known = ({row["name"]: row["share"] for row in report[key] if row["half"] == "all"} for key in ("recall", "known"))
    assert of_known["NAME"] > 0.98 and not [type_ for type_, share in of_known.items() if share < of_rules[type_]]
    rows = json.loads(Path("report/funnel.json").read_text())["rows"]
    assert {row["rule"]: row["records"] for row in rows if row["step"] == "skipped"} == {"names people and holds no text": 60}
    reports = "".join(path.read_text() for path in Path("report").rglob("*") if path.is_file()) + "".join(capfd.readouterr())
    assert "anerjee" not in reports and "HX4" not in reports
    stats = ShardStats(Counter({("a", "train"): 1}), Counter({("a", "train"): 1}), {"train": Counter({16: 1})})
    shown = page({"rows": [], "decontamination": [0] * 10}, report, stats, {}, [])
    assert "found by the rules alone" in shown and "without known people" in shown and "where the data names the person" in shown
