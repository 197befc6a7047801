"""Damage to what is clinical: measured by rule and type, gated, and its texts on this machine alone."""

import csv
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT
from pydantic import ValidationError

from tasks.corpus.cleaning.changes import text_changes
from tasks.corpus.cleaning.rules import REPAIRS
from tasks.corpus.deidentify import damage, detection, recognizers
from tasks.corpus.deidentify.analyzer import get_analyzer
from tasks.corpus.deidentify.damage import MeasuredDamage, measure_damage, measure_document
from tasks.corpus.deidentify.recall import Share
from tasks.corpus.documents import Document, PartitionWriter, content_id, partition_of, to_line
from tasks.corpus.explain import explain
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.records import FileOptions
from tasks.params import read_params
from tasks.preprocess import preprocess
from tasks.registry.package import deidentification

DEFAULTS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
PARAMS = DEFAULTS.deidentify.model_dump_json()
CANARY = "Quillfeather"
NOTE = f"LABS\nGlucose 95 mg/dL and potassium 4.1 today.\nSeen by Dr. {CANARY} on 03/14/2019.\nMEDICATIONS\nLisinopril 10 mg daily."


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    get_analyzer.cache_clear()
    yield
    get_analyzer.cache_clear()


def document(answer: str, question: str = "") -> Document:
    return Document(content_id(answer, question), question, answer, "s", "k", "g", "1")


def bad_repair(monkeypatch: pytest.MonkeyPatch, pattern: str, replacement: str) -> None:
    """A repair that does harm, under the name ``bad``."""
    monkeypatch.setitem(REPAIRS, "bad", lambda d: replace(d, answer=re.sub(pattern, replacement, d.answer)))


def bad_recognizer(monkeypatch: pytest.MonkeyPatch, type_: str, pattern: str) -> None:
    """A recognizer that takes something clinical for an identifier."""
    rule = recognizers.Rule(type_, re.compile(f"(?P<span>{pattern})"))
    monkeypatch.setattr(detection, "GROUPS", (*detection.GROUPS, *detection.groups([rule])))


def lost(text: str, drugs: frozenset[str] = frozenset()) -> dict[tuple[str, str], int]:
    """Clinical spans that were lost, by rule and type."""
    return {(rule, type_): n for ((_, rule), type_), n in measure_document(document(text), PARAMS, drugs).lost.items()}


def test_a_clean_text_has_no_damage_and_a_true_identifier_is_none() -> None:
    assert not measure_document(document("LABS\nGlucose 95 mg/dL\nBP 120/80"), PARAMS).changes
    measured = measure_document(document(NOTE), PARAMS)
    assert {rule for _, rule in measured.changes} == {"NAME", "DATE"} and not measured.lost
    assert (measured.spans["lab"], measured.spans["dose"], measured.spans["heading"]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("pattern", "replacement", "text", "types"),
    [
        (r"(?<=Glucose,)\d+", "", "Glucose,95\nCalcium,9", ["lab"]),
        (" +", " ", "Hb      10.8      L\nand  so on", ["columns"]),
        ("\n", " ", "He is well\nMEDICATIONS\nnone", ["heading"]),
        (r"\|", "", "Name | 140 | 135-145", ["row"]),
        (r"\n(?=\|)", "", "Na | 140\n| 3 | 4", ["row"]),
        ("4/5", "", "strength of 4/5 and of 5/5", ["score"]),
        ("x", "y", "x 40 mg x", []),
        (r"\t", "  ", "Na\t140\tL", []),
        (r"(?<=mass)  ", " ", "mass  of 40 mg", []),
    ],
)
def test_what_a_repair_harms_is_counted_for_it(
    monkeypatch: pytest.MonkeyPatch, pattern: str, replacement: str, text: str, types: list[str]
) -> None:
    for name in list(REPAIRS):
        monkeypatch.delitem(REPAIRS, name)
    bad_repair(monkeypatch, pattern, replacement)
    assert {type_ for rule, type_ in lost(text) if rule == "bad"} == set(types)


@pytest.mark.parametrize(
    ("type_", "pattern", "text", "types"),
    [
        ("PHONE", r"7\.38", "a pH 7.38 of blood", ["ph"]),
        ("DATE", "8/9", "Apgars of 8/9 then", ["score"]),
        ("NAME", "[Ll]isinopril", "took lisinopril again", ["drug"]),
        ("NAME", "Chest Pain", "a sharp Chest Pain came", ["anatomy"]),
        ("NAME", "MEDICATIONS", "MEDICATIONS\nnone", ["heading"]),
        ("NAME", "Babinski", "the Babinski was negative", ["eponym"]),
        ("OTHER", "AB-12.5-77", "sticker AB-12.5-77 there", []),
        ("MRN", "2740 g of X99", "a mass of 2740 g of X99", []),  # a weak value in a longer code
    ],
)
def test_what_a_mask_harms_is_counted_for_its_type(
    monkeypatch: pytest.MonkeyPatch, type_: str, pattern: str, text: str, types: list[str]
) -> None:
    bad_recognizer(monkeypatch, type_, pattern)
    assert {(type_, name) for name in types} == set(lost(text, frozenset({"lisinopril"})))


def test_changes_of_a_text_are_found_where_they_are() -> None:
    assert not text_changes("a b", "a b")
    blank, entity, end = text_changes("a  b &amp; c d ", "a b & c d")
    assert blank.is_blank() and (entity.before, entity.after) == ("amp;", "") and (end.start, end.before) == (14, " ")
    (composed,) = text_changes("Me\u0301nie\u0300re 5 mg", "Ménière 5 mg")
    assert composed.is_composed()
    long = " ".join(str(n) for n in range(5000))
    changed = long.replace(" 700 ", " ").replace(" 4200 ", " x y ")
    assert [c.before for c in text_changes(long, changed)] == ["700 ", "4200"]


def write_raw(documents: list[Document], work: Path, name: str = "0") -> None:
    with PartitionWriter(work / "raw", name) as writer:
        for each in documents:
            writer.add(partition_of(each.id), to_line(each))


def test_the_sample_is_the_same_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [document(f"{NOTE} Day {n}: hemoglobin {n % 9 + 8}.2.") for n in range(40)]
    write_raw(documents, Path("one"))
    write_raw([*documents[::-1], *documents[:5]], Path("other"), "9")
    monkeypatch.setattr(damage, "MAX_DOCUMENTS", 15)
    first, second = (measure_damage(Path(work), PARAMS) for work in ("one", "other"))
    assert first.report() == second.report() and first.report()["sample"]["documents"] == 15
    assert [d.id for d in first.documents] == sorted(d.id for d in documents)[:15]
    withdrawn = first.documents[0].id
    assert withdrawn not in {d.id for d in measure_damage(Path("one"), PARAMS, {withdrawn}).documents}


@pytest.mark.slow
def test_processes_measure_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw([document(f"{NOTE} Day {n}:  hemoglobin {n % 9 + 8}.2.") for n in range(12)], Path("work"))
    alone = measure_damage(Path("work"), PARAMS)
    assert next(row for row in alone.by_type if row.name == "drug").spans == 12
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setattr(damage, "SMALL", 0)
    monkeypatch.setattr(damage, "PART", 5)
    assert measure_damage(Path("work"), PARAMS) == alone


def test_a_small_file_is_in_the_sample_beside_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = [document(f"Note {n}.") for n in range(8)]
    write_raw([document(f"Text {n}.") for n in range(400)], Path("work"), "0")
    write_raw(notes, Path("work"), "1")
    monkeypatch.setattr(damage, "MAX_DOCUMENTS", 16)
    ids = {d.id for d in damage.sample(Path("work"))}
    assert len(ids) == 16 and {d.id for d in notes} <= ids
    monkeypatch.setattr(damage, "MAX_CHARS", 20)
    assert len(damage.sample(Path("work"))) <= 3


def measured_damage(monkeypatch: pytest.MonkeyPatch) -> MeasuredDamage:
    bad_recognizer(monkeypatch, "PHONE", r"4\.1")
    documents = [document(f"{NOTE} Day {n}.") for n in range(10)] + [document(f"Day {n}: hemoglobin 8.2") for n in range(10)]
    write_raw(documents, Path("work"))
    return measure_damage(Path("work"), PARAMS)


def test_limits_name_what_is_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measured_damage(monkeypatch)
    rows = {row.name: row for row in measured.by_type}
    assert (rows["notes"].documents, rows["notes"].changed, rows["notes"].share) == (20, 10, 0.5)
    assert (rows["lab"].spans, rows["lab"].changed, rows["lab"].share) == (30, 10, 0.3333) and rows["dose"].changed == 0
    assert (rows["value"].spans, rows["value"].changed) == (40, 10) and rows["value"].low < 0.25 < rows["value"].high
    hard = [Share("hard_negatives", half, 100, 400, 0.2, 0.1, 0.3) for half in ("all", "held-out")]
    assert not damage.above(measured, hard, {"dose": 0.0, "notes": 0.4, "hard_negatives": 0.2})  # few documents show little
    messages = damage.above(measured, hard, {"value": 0.005, "notes": 0.02, "hard_negatives": 0.1})
    assert [re.sub(r" [\d.]+ \(.*\)", "", m) for m in messages] == ["value > 0.005", "notes > 0.02", "hard_negatives 0.2000 > 0.1"]
    (phone,) = (row for row in measured.by_rule if row.rule == "PHONE")
    assert (phone.documents, phone.changes, phone.step) == (10, 10, "identifiers")
    assert [(row.name, row.changed) for row in phone.clinical] == [("lab", 10)]
    assert damage.metrics_of(measured, hard)["damage_lab"] == 0.3333


def test_strings_are_in_the_private_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measured_damage(monkeypatch)
    assert CANARY not in json.dumps(measured.report())
    damage.write_strings(Path("changes.csv"), measured.documents)
    assert stat.S_IMODE(Path("changes.csv").stat().st_mode) == 0o600
    with open("changes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rule"] == "NAME"]
    assert [(row["before"], row["after"], row["times"]) for row in rows] == [(CANARY, "[NAME]", "10")]
    assert len(rows[0]["documents"].split()) == 5


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"valeu": 0.1}, "'valeu' is no kind of damage; did you mean 'value'"), ({"value": 1.5}, "value: 1.5 is no share")],
)
def test_limits_that_mean_nothing_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PreprocessParams.model_validate(DEFAULTS.model_dump() | {"max_damage": limits})


def run(**params: Any) -> None:
    """Notes with a value that a recognizer takes for a phone number, through the stage."""
    rows = [{"text": f"{NOTE} Day {n}: she is well."} for n in range(60)]
    Path("data").mkdir(exist_ok=True)
    Path("data/notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loose = DEFAULTS.deidentify.model_copy(update={"min_recall": {}, "injections": 1})
    options = {"validation_share": 0.2, "test_share": 0.2, "near_duplicate": 1.0, "same_answer": 99, "deidentify": loose} | params
    out = Path("out")
    out.mkdir(exist_ok=True)
    paths = (out / name for name in ("documents", "report", "rejected.jsonl"))
    preprocess(Path("data"), *paths, params=DEFAULTS.model_copy(update=options))


@pytest.mark.slow
def test_the_stage_fails_above_a_limit_and_says_where_to_look(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    bad_recognizer(monkeypatch, "PHONE", r"4\.1")
    with pytest.raises(ValueError, match=r"clinical: value 0\.\d+ \(0\.\d+ to 0\.\d+\) > 0.005; notes 1.0000 .* > 0.02 \(pre") as error:
        run(max_damage={"value": 0.005, "notes": 0.02})
    failed = Path(".cache/failed-preprocess")
    assert str(failed) in str(error.value) and not Path("out/documents").exists()
    report = (failed / "report/deidentification.json").read_text()
    assert [row["name"] for row in json.loads(report)["damage"]["by_type"]][:2] == ["value", "notes"]
    assert stat.S_IMODE((failed / "changes.csv").stat().st_mode) == 0o600 and CANARY in (failed / "changes.csv").read_text()
    assert CANARY not in report + str(error.value) + "".join(capfd.readouterr())


@pytest.mark.slow
def test_the_stage_reports_damage_and_keeps_its_texts_on_this_machine(capfd: pytest.CaptureFixture[str]) -> None:
    run(max_damage={})
    assert stat.S_IMODE(Path("out/changes.csv").stat().st_mode) == 0o600 and CANARY in Path("out/changes.csv").read_text()
    files = [path for path in Path("out").rglob("*") if path.is_file() and path.name not in ("changes.csv", "rejected.jsonl")]
    assert not [path for path in files if CANARY in path.read_text()] and CANARY not in "".join(capfd.readouterr())
    rows = json.loads(Path("out/report/funnel.json").read_text())["rows"]
    assert {row["rule"]: row["changes"] for row in rows if row["step"] == "identifiers"}["NAME"] == 60
    figures = deidentification({"artifacts/reports/preprocess": Path("out/report")})
    assert {row["name"] for row in figures["damage"]} >= {"value", "notes", "lab", "hard_negatives"} and len(figures["recall"]) > 20


def test_each_change_of_a_file_is_listed_for_its_owner_alone() -> None:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    rows = [{"text": NOTE}, {"text": ""}]
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "tasks.corpus", "explain", "notes.jsonl"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert CANARY not in done.stdout + done.stderr and "NAME" in done.stdout and "not read" in done.stdout
    target = Path(".cache/explain/notes.jsonl.jsonl")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    name = next(row for row in map(json.loads, target.read_text().splitlines()) if row["rule"] == "NAME")
    assert (name["before"], name["after"], name["line"]) == (CANARY, "[NAME]", 3)
    assert name["left"].endswith("Seen by Dr. ") and name["right"].startswith(" on ") and name["clinical"] == []
    Path("empty.txt").write_text("")
    command[-1] = "empty.txt"
    failed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert failed.returncode and failed.stderr.startswith("explain: empty.txt: no record could be read")


def test_what_is_not_read_are_records_and_not_people(tmp_path: Path) -> None:
    message = "MSH|^~\\&|LAB|HOSP|EHR|HOSP|20260101||ORU^R01|1|P|2.5\rPID|1||7^^^A^MR||Doe^Jane\r"
    (tmp_path / "a.hl7").write_text(message)
    with pytest.raises(ValueError, match="no record could be read: is a message without results or a document$"):
        explain(tmp_path / "a.hl7", tmp_path, tmp_path / "out.jsonl", DEFAULTS)


def test_people_of_a_files_columns_are_looked_for_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("Note,Seen by\nThen Hope came in.,Hope Field\n")
    files = {"notes.csv": FileOptions(columns={"text": "Note"}, staff={"NAME": "Seen by"})}
    params = DEFAULTS.model_copy(update={"files": files})
    assert explain(tmp_path / "notes.csv", tmp_path, tmp_path / "out.jsonl", params) == {("identifiers", "NAME"): 1}
