"""What users bring: sets that need a line in params.yaml, splits that are not there, one group, notes; and what they are told."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import write_table
from helpers.project import ROOT

from tasks.corpus.cleaning.sizes import short_of_items
from tasks.corpus.documents import SPLITS, Document, read_documents
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.records import FileOptions
from tasks.params import read_params
from tasks.preprocess import preprocess
from tasks.runtime import files

PARAMS = read_params(ROOT / "params.yaml")
STORED = PreprocessParams.model_validate(PARAMS["preprocess"].model_dump())
DEFAULTS = STORED.model_copy(update={"deidentify": STORED.deidentify.model_copy(update={"injections": 1})})
WORDS = (
    "fever cough rash pain visit ward morning blood pressure stable tablets water rest sleep walking diet weight skin knee chest".split()
)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / ".cache" / "preprocess").exists()  # raw text does not stay


def run(out: str = "out", **params: Any) -> list[Document]:
    """The documents that ``data`` becomes, of all splits."""
    target = Path(out)
    target.mkdir(exist_ok=True)
    given = DEFAULTS.model_copy(update=params)
    preprocess(Path("data"), target / "documents", target / "report", target / "rejected.jsonl", params=given)
    return [d for split in SPLITS for d in read_documents(target / "documents", split)]


def sentence(rng: random.Random, count: int = 14) -> str:
    return " ".join(rng.choices(WORDS, k=count)).capitalize() + "."


def write(path: str, text: str, encoding: str = "utf-8") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode(encoding))


def write_jsonl(path: str, rows: list[dict[str, Any]]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_a_read_me_file_alone_is_no_data() -> None:
    write("data/README.md", "This will hold the notes.")
    with pytest.raises(ValueError, match="data: holds nothing to train on; README.md is left out"):
        run()


@pytest.mark.slow
def test_a_split_that_no_record_names_is_taken_from_train_by_groups(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    rows = "".join(f"What is sign {n}?,{sentence(rng)} {n}.,{'test' if n % 5 == 0 else 'train'}\n" for n in range(40))
    write("data/a.csv", "Question,Answer,split\n" + rows)
    documents = run()
    by_split = Counter(d.split for d in documents)
    assert by_split["test"] == 8 and by_split["validation"] >= 1 and sum(by_split.values()) == 40
    assert "no record was in validation" in capsys.readouterr().out
    assert any("no record was in validation" in note for note in json.loads(Path("out/report/funnel.json").read_text())["notes"])
    assert [d.split for d in run("again")] == [d.split for d in documents]


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 12])
def test_no_split_is_empty_by_the_luck_of_hashes(count: int) -> None:
    rng = random.Random(count)
    write_table(Path("data/a.csv"), [(f"What is {sentence(rng)} {n}?", f"{sentence(rng)} {n}.") for n in range(count)])
    documents = run(test_share=0.05)
    assert Counter(d.split for d in documents) == {"test": 1, "validation": 1, "train": count - 2}


ONE_GROUP = {
    "a patient": ([{"text": f"note {n} says this", "group": "p1"} for n in range(30)], "by the column group, a patient"),
    "a question": ([{"question": "What helps?", "answer": f"number {n} does"} for n in range(30)], "of records with one question"),
    "a topic": ([{"question": f"q {n}?", "answer": f"number {n} does", "topic": "Flu"} for n in range(30)], "by the column topic"),
}


@pytest.mark.parametrize("name", ONE_GROUP)
def test_a_set_of_one_group_is_told_as_that(name: str) -> None:
    rows, words = ONE_GROUP[name]
    write_jsonl("data/a.jsonl", rows)
    with pytest.raises(ValueError, match="everything is one group") as error:
        run()
    assert "there is nothing for test and validation" in str(error.value) and f"30 documents are of 1 group (1 {words}" in str(error.value)
    assert "column split" in str(error.value)


@pytest.mark.slow
def test_one_large_group_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    rows = [{"text": f"{sentence(rng)} {n}", "group": "p1" if n < 30 else f"p{n}"} for n in range(40)]
    write_jsonl("data/a.jsonl", rows)
    run()
    assert "30 of 40 documents are one group (by the column group, a patient" in capsys.readouterr().out


def chat(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]}


@pytest.mark.slow
def test_a_conversation_is_of_the_group_of_its_opening_and_not_of_its_last_question() -> None:
    rng = random.Random(1)
    opening = "I have had a headache for three days now"
    rows = [chat(f"Hello, {sentence(rng)}", sentence(rng), "What now?", f"{sentence(rng)} {n}.") for n in range(30)]
    rows += [chat(opening, "Rest."), chat(opening, "Rest.", sentence(rng), "Sleep.", "And then?", f"{sentence(rng)} Then call.")]
    rows += [chat("Hello", "Hello!", f"About {sentence(rng)}", f"{sentence(rng)}") for _ in range(5)]
    write_jsonl("data/a.jsonl", rows)
    documents = run(test_share=0.2, validation_share=0.2)
    assert len(documents) == 37
    assert len({d.group for d in documents if d.question == "What now?"}) == 30
    assert len({d.group for d in documents if opening in d.texts()}) == 1
    assert len({d.group for d in documents if "Hello" in d.texts()}) == 5


@pytest.mark.slow
def test_sizes_are_told_early(capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    rng = random.Random(1)
    write_table(Path("data/a.csv"), [(f"What is sign {n}?", f"{sentence(rng)} {n}.") for n in range(60)])
    documents = run()
    tested = sum(d.split == "test" for d in documents)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning: validate will measure" in line]
    assert (
        f"answer_nll on test: about {tested} of 100" in line and f"stop: about {tested} of 24" in line and "preprocess.test_share" in line
    )
    assert "ood" not in line


def test_enough_items_give_no_warning(tmp_path: Path) -> None:
    from tasks.corpus.documents import write_documents

    documents = [
        Document(f"{n:024x}", f"q{n}?", "answer", "s", f"kind-{n % 6}", f"g{n}", "1", split="test", topic=f"t{n}") for n in range(200)
    ]
    write_documents(documents, tmp_path / "documents")
    values = [PARAMS[name].model_dump() for name in ("validate", "register")]
    assert short_of_items(tmp_path / "documents", *values) == ""


@pytest.mark.slow
def test_reports_with_other_values_stay_and_copies_go() -> None:
    rng = random.Random(1)
    form = " ".join(sentence(rng) for _ in range(8))
    rows = [{"text": f"{form} Sodium {120 + n} mmol/L.", "group": f"p{n}", "split": "train"} for n in range(6)]
    rows += [{"text": f"{form} Sodium 120 mmol/L!", "group": "p9", "split": "train"}]
    rows += [{"text": f"{sentence(rng)} {n}", "group": f"o{n}"} for n in range(60)]
    write_jsonl("data/a.jsonl", rows)
    documents = run()
    assert sorted(re.findall(r"Sodium (\d+)", " ".join(d.answer for d in documents))) == [str(120 + n) for n in range(6)]


@pytest.mark.slow
def test_copied_paragraphs_are_counted_and_capped() -> None:
    rng = random.Random(1)
    copied = sentence(rng, 20)
    rows = [{"text": f"{sentence(rng)} Day {n}.\n\n{copied}\n\n{sentence(rng)}", "group": "p1" if n < 6 else f"p{n}"} for n in range(30)]
    write_jsonl("data/a.jsonl", rows)
    for cap, left in ((0, 30), (2, 26)):
        documents = run(f"out{cap}", copy_forward=cap)
        assert sum(copied in d.answer for d in documents) == left and len(documents) == 30
        rows_of_report = json.loads(Path(f"out{cap}/report/funnel.json").read_text())["rows"]
        assert [r["records"] for r in rows_of_report if r["step"] == "copy-forward"] == [6]
        assert [r["records"] for r in rows_of_report if (r["step"], r["rule"]) == ("repairs", "copy-forward")] == ([4] if cap else [])


@pytest.mark.slow
def test_a_long_note_of_a_table_is_several_documents_of_one_group() -> None:
    rng = random.Random(1)
    long = "".join(f"SECTION {chr(65 + n % 26)}:\n{' '.join(sentence(rng) for _ in range(20))}\n" for n in range(60))
    rows = [{"text": long, "patient": 0}] + [{"text": f"{sentence(rng)} {n}", "patient": n} for n in range(1, 40)]
    write_jsonl("data/a.jsonl", rows)
    documents = run(files={"a.jsonl": FileOptions(columns={"group": "patient"})})
    parts = [d for d in documents if d.position.startswith("line 1 ")]
    assert len(parts) > 2 and len({d.group for d in parts}) == 1 and all(len(d.answer) <= 30_000 for d in parts)
    assert all(d.answer.startswith("SECTION") for d in parts)


@pytest.mark.slow
def test_a_name_with_a_line_break_breaks_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    write_table(Path("data/ward\n1.csv"), [(f"What is sign {n}?", f"{sentence(rng)} {n}.") for n in range(40)] + [("Why?", "nan")])
    assert {d.source for d in run()} == {"ward\\n1.csv"}
    assert "1 in ward\\n1.csv: has no answer" in capsys.readouterr().out
    write("data/ward\n2.csv", "")
    with pytest.raises(ValueError, match=r"data/ward\\n2.csv is empty"):
        run("again")


@pytest.mark.slow
def test_very_many_small_files_are_read_together_and_listed_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LISTED", 20)
    rng = random.Random(1)
    for n in range(60):
        write(f"data/ward{n % 2}/{n}.txt", f"{sentence(rng)} {n}.")
    assert len(run()) == 60
    rows = json.loads(Path("out/report/funnel.json").read_text())["rows"]
    assert {r["source"]: r["records"] for r in rows if r["step"] == "records"} == {"ward0/*.txt": 30, "ward1/*.txt": 30}
