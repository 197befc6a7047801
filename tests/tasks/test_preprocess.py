"""Cleaning, comparing, splitting and gating, on small corpora."""

import json
import random
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import write_table
from helpers.project import ROOT
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus import expectations
from tasks.corpus.cleaning import clean, rules
from tasks.corpus.cleaning.passes import repair
from tasks.corpus.documents import SPLITS, Document, read_documents
from tasks.corpus.params import BoilerplateParams, PreprocessParams
from tasks.corpus.readers.records import FileOptions
from tasks.corpus.row_metrics import compute_metrics
from tasks.params import read_params
from tasks.preprocess import preprocess

STORED = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
DEFAULTS = STORED.model_copy(update={"deidentify": STORED.deidentify.model_copy(update={"injections": 1})})
SPLIT_MORE = {"test_share": 0.2, "validation_share": 0.2}
ROWS = [(f"What is disease {n}?", f"Disease {n} is the one with {n} spots.") for n in range(60)]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / ".cache" / "preprocess").exists()  # raw text does not stay


def run(data: Path | str = "data", out: str = "out", **params: Any) -> list[Document]:
    """The documents that a corpus becomes, of all splits."""
    target = Path(out)
    target.mkdir(exist_ok=True)
    preprocess(
        Path(data),
        target / "documents",
        target / "report",
        target / "rejected.jsonl",
        params=DEFAULTS.model_copy(update=SPLIT_MORE | params),
    )
    return [d for split in SPLITS for d in read_documents(target / "documents", split)]


def rejected(out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "rejected.jsonl").read_text().splitlines()]


def write_jsonl(path: Path | str, rows: list[dict[str, str]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def prose(seed: int, count: int = 40) -> str:
    """A sentence of words that no other seed gives."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(count)) + "."


@pytest.mark.slow
def test_no_group_crosses_splits_and_new_data_moves_nothing() -> None:
    def splits(count: int) -> dict[str, str]:
        rows = [
            {"question": f"What about family {n % 40}, member {n}?", "answer": f"Member {n} is well.", "group": f"family {n % 40}"}
            for n in range(count)
        ]
        write_jsonl("data/a.jsonl", rows)
        split_of_family: dict[str, str] = {}
        for document in run(out=f"out{count}"):
            family = document.question.split(",")[0]
            assert split_of_family.setdefault(family, document.split) == document.split
        return split_of_family

    before, after = splits(150), splits(400)
    assert set(before.values()) == {"train", "validation", "test"}
    assert before == after


@pytest.mark.slow
def test_neither_order_nor_number_of_processes_changes_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*ROWS, *ROWS[:5], *((f"Why {n}?", prose(n // 2)) for n in range(40))]
    for workers, seed in (("1", 0), ("3", 1)):
        random.Random(seed).shuffle(rows)
        write_table(Path(f"data{workers}/a.csv"), rows[:])
        write_table(Path(f"data{workers}/b.csv"), [(q.upper(), a) for q, a in rows])
        monkeypatch.setenv("WORKERS", workers)
        monkeypatch.setattr(clean, "SMALL", 0)
        run(f"data{workers}", f"out{workers}")
    for path in Path("out1/documents").iterdir():
        one = [json.loads(line) | {"position": ""} for line in path.read_text().splitlines()]
        other = [json.loads(line) | {"position": ""} for line in (Path("out3/documents") / path.name).read_text().splitlines()]
        assert one == other, path.name


def test_too_many_rejected_records_fail_the_stage_and_are_kept_to_look_at() -> None:
    write_table(Path("data/a.csv"), [*ROWS, *[("q", "nan")] * 20])
    with pytest.raises(ValueError, match="20 of 80 records were rejected, more than preprocess.max_rejected_share"):
        run()
    assert len(Path(".cache/failed-preprocess/rejected.jsonl").read_text().splitlines()) == 20
    assert stat.S_IMODE(Path(".cache/failed-preprocess").stat().st_mode) == 0o700


def test_files_that_cannot_be_read_are_all_named_before_anything_is_written() -> None:
    write_table(Path("data/a.csv"), ROWS)
    Path("data/b.csv").write_bytes(b"")
    Path("data/c.jsonl").write_bytes(b"PK\0\0")
    with pytest.raises(ValueError, match=r"data/b.csv is empty; data/c.jsonl is not text.*Repair or remove them"):
        run()
    assert not any(Path("out").iterdir())


@pytest.mark.slow
def test_the_name_of_a_group_goes_no_further_than_the_raw_files() -> None:
    write_jsonl("data/a.jsonl", [{"question": q, "answer": a, "patient": f"MRN 47-{n // 2}"} for n, (q, a) in enumerate(ROWS)])
    documents = run(files={"a.jsonl": FileOptions(columns={"group": "patient"})})
    assert len({d.group for d in documents}) == (len(ROWS) + 1) // 2
    assert "47-" not in "".join(path.read_text() for path in Path("out").rglob("*") if path.is_file() and "reject" not in path.name)


@pytest.mark.slow
def test_files_of_another_origin_are_only_evaluated_on() -> None:
    write_table(Path("data/a.csv"), ROWS)
    write_table(Path("data/foreign/b.csv"), [("Why?", "Because of that."), (ROWS[0][0], "An illness.")])
    documents = run(ood=("foreign/*.csv",))
    assert {d.source for d in documents if d.split == "ood"} == {"foreign/b.csv"}
    own = {d.group for d in documents if d.split != "ood"}
    assert not own & {d.group for d in documents if d.split == "ood"}
    with pytest.raises(ValueError, match="preprocess.ood names 'foreing"):
        run(ood=("foreing/*.csv",))


@pytest.mark.slow
def test_general_text_waits_in_a_split_of_its_own() -> None:
    write_table(Path("data/a.csv"), ROWS)
    write_jsonl("data/general.jsonl", [{"question": "Who wrote it?", "answer": "Nobody knows who did."}])
    assert [d.source for d in run(replay=("general.jsonl",)) if d.split == "replay"] == ["general.jsonl"]


@pytest.mark.slow
def test_a_sentence_that_many_documents_share_goes_but_not_where_it_is_all_that_is_said() -> None:
    block = "The table below shows how often each sign was seen."
    rows = [(f"What of disease {n}?", f"{prose(n, 8)} {block}") for n in range(60)]
    alone = [(f"And what of disease {n}?", block) for n in range(20)]
    write_table(Path("data/a.csv"), rows + alone)
    documents = run()
    assert [d.answer for d in documents if block in d.answer].count(block) == len([d for d in documents if block in d.answer])
    assert 0 < len([d for d in documents if d.answer == block]) <= 5 * 3  # so many per split
    kept = run(out="kept", boilerplate=BoilerplateParams(min_documents=50, min_words=6, exempt=("qa-*",)), same_answer=100)
    assert len([d for d in kept if block in d.answer]) == 80


@pytest.mark.slow
def test_of_near_duplicates_one_stays_and_other_numbers_are_other_facts() -> None:
    text = prose(1, 60)
    twins = [{"question": "What helps?", "answer": text + end, "split": "train", "group": "g"} for end in ("", " Really.", " Yes.")]
    doses = [{"question": "How much?", "answer": f"{prose(2, 60)} Take {n} mg.", "split": "train", "group": "d"} for n in (5, 50)]
    others = [{"question": q, "answer": a, "split": s} for (q, a), s in zip(ROWS, ("train", "validation", "test") * 20, strict=True)]
    write_jsonl("data/a.jsonl", twins + doses + others)
    documents = run()
    assert [d.answer.startswith(text) for d in documents].count(True) == 1
    assert len([d for d in documents if d.question == "How much?"]) == 2
    assert [r["reason"] for r in rejected()] == ["is a near-duplicate"] * 2


@pytest.mark.slow
def test_alike_documents_without_a_group_stay_in_one_split() -> None:
    rows = [
        {"question": f"What helps against it{',' * (n % 2)} {n // 2}?", "answer": prose(n // 2, 80) + " Ask." * (n % 2)} for n in range(80)
    ]
    write_jsonl("data/a.jsonl", rows)
    documents = run()
    where: dict[str, list[str]] = {}
    for d in documents:
        where.setdefault(d.question.replace(",", ""), []).append(d.split)
    assert len(where) == 40 and all(len(set(splits)) == 1 for splits in where.values())
    # In training one of two is enough; evaluation stays whole.
    assert {(splits[0], len(splits)) for splits in where.values()} == {("train", 1), ("validation", 2), ("test", 2)}
    assert len({d.group for d in documents}) == 40


@pytest.mark.slow
def test_training_loses_what_stands_in_an_evaluation_document_and_evaluation_stays_whole() -> None:
    text = prose(3, 100)
    rows = [
        {"question": "What was tested?", "answer": text, "split": "test"},
        {"question": "What is copied?", "answer": text, "split": "train"},  # the whole answer
        {"question": "What is quoted?", "answer": " ".join(text.split()[:60]) + " " + prose(4, 30), "split": "train"},
        {"question": "What is touched?", "answer": " ".join(text.split()[:20]) + " " + prose(5, 80), "split": "train"},
    ]
    common = prose(6, 30)
    rows += [{"question": f"Is it {n}?", "answer": f"{common} {prose(100 + n, 14)}", "split": "train"} for n in range(12)]
    rows += [{"question": "Is it?", "answer": f"{common} {prose(99, 14)}", "split": "validation"}]
    write_jsonl("data/a.jsonl", rows)
    documents = run(boilerplate=BoilerplateParams(min_documents=50, min_words=6, exempt=()))
    left = {d.question for d in documents}
    assert {"What was tested?", "What is touched?", "Is it?", "Is it 3?"} <= left
    assert not {"What is copied?", "What is quoted?"} & left
    funnel = json.loads(Path("out/report/funnel.json").read_text())
    assert sum(row["records"] for row in funnel["rows"] if row["step"] == "leakage") == 2
    assert sum(funnel["decontamination"]) == 15  # of train documents compared


@pytest.mark.slow
def test_withdrawn_records_are_gone_and_an_unknown_id_is_an_error() -> None:
    write_table(Path("data/a.csv"), ROWS)
    first, *rest = run(out="before")
    documents = run(out="after", withdrawn=(first.id,))
    assert [d.id for d in documents] == [d.id for d in rest]
    assert first.id in json.loads(Path("after/report/funnel.json").read_text())["rows"][-1]["examples"]
    with pytest.raises(ValueError, match=r"preprocess.withdrawn lists 0123, and no record has such an id"):
        run(withdrawn=("0123",))


CANARY = "CANARY-123-45-6789"


@pytest.mark.slow
def test_what_a_rejected_record_says_stands_in_one_private_file_alone(capfd: pytest.CaptureFixture[str]) -> None:
    bad = [(f"What about {CANARY}?", f"Take {CANARY} 100125 mg a day."), (f"{CANARY}?", f"Is it {CANARY}?"), (f"Is {CANARY} x?", "nan")]
    write_table(Path("data/a.csv"), ROWS + bad + ROWS[:1])
    run()
    path = Path("out/rejected.jsonl")
    assert path.read_text().count("CANARY") >= 4 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {r["reason"]: r["position"] for r in rejected() if r["reason"] != "is an exact duplicate"} == {
        "has numbers or units that look corrupted": "line 62",
        "has an answer that is only a question": "line 63",
        "has no answer": "line 64",
    }
    assert len(rejected()) == 4
    written = "".join(p.read_text() for p in Path("out").rglob("*") if p.is_file() and p != path) + "".join(capfd.readouterr())
    assert "CANARY" not in written


@pytest.mark.slow
def test_a_failing_gate_stops_the_stage_and_keeps_its_report() -> None:
    splits = ("train", "validation", "test")
    rows = [{"question": q, "answer": a, "split": splits[n % 3], "group": str(n // 2)} for n, (q, a) in enumerate(ROWS)]
    write_jsonl("data/a.jsonl", rows)
    with pytest.raises(ValueError, match="do not pass the gate: clean-documents: 60 records are of a group that is in more than one split"):
        run()
    assert Path(".cache/failed-preprocess/report/clean-documents.html").exists()


def test_a_gate_tells_counts_and_no_values(capfd: pytest.CaptureFixture[str]) -> None:
    documents = [Document(str(n), q, a, CANARY, "k", f"g{n}", "1", split=SPLITS[n % 3]) for n, (q, a) in enumerate(ROWS)]
    rows = [compute_metrics(d) | {"split": d.split, "content": d.id, "splits_of_group": 1 + (d.id == "7")} for d in documents]
    rows[3] |= {"hidden_characters": 1, "split": CANARY}
    gate = expectations.check("clean", rows, expectations.clean_documents(min_answer=3, max_answer=99), Path(), Path("report"))
    assert gate.failed == (
        "1 records are in a split that there is not (split)",
        "1 records are of a group that is in more than one split; look at the column split, or name a wider group (splits_of_group)",
        "1 records have characters that are not seen (hidden_characters)",
    )
    written = "".join(p.read_text() for p in Path("report").iterdir()) + "".join(capfd.readouterr())
    assert CANARY not in written


@pytest.mark.parametrize(("changed", "state"), [({}, "passed"), ({"html": 1}, "warned"), ({"hidden_characters": 1}, "failed")])
def test_pages_of_a_gate_say_warned_where_it_only_warned(changed: dict[str, int], state: str) -> None:
    documents = [Document(str(n), q, a, "a.csv", "k", f"g{n}", "1", split=SPLITS[n % 3]) for n, (q, a) in enumerate(ROWS)]
    rows = [compute_metrics(d) | {"split": d.split, "content": d.id, "splits_of_group": 1} for d in documents]
    rows[3] |= changed
    gate = expectations.check("clean", rows, expectations.clean_documents(min_answer=3, max_answer=99), Path(), Path("report"))
    counts = {"passed": gate.passed, "warned": len(gate.warned), "failed": len(gate.failed)}
    assert counts[state] and not any(counts[other] for other in ("warned", "failed") if other != state)
    page = Path("report/clean.html").read_text()
    of_suite, *rows_shown = re.findall(r'<i class="(passed|warned|failed)"', page)
    assert of_suite == state and {name: rows_shown.count(name) for name in counts} == counts
    assert "fa-" not in page.partition("<body")[2]


def test_text_is_composed_and_free_of_hidden_characters() -> None:
    document = Document("1", "", "Me\u0301nie\u0300re\u200b  \r\ndisease\x00\n\n\n\nnext\ufeff schÃ¶n &lt;5", "s", "k", "g", "1")
    cleaned, repairs = repair(document)
    assert cleaned.answer == "Ménière\ndisease\n\nnext schön <5"
    assert set(repairs) == {"unicode", "hidden-characters", "white-space"}


@given(st.text(max_size=100), st.text(max_size=100))
def test_cleaning_again_changes_nothing(question: str, answer: str) -> None:
    once, _ = repair(Document("1", question, answer, "s", "k", "g", "1"))
    assert repair(once)[0] == once


@pytest.mark.parametrize(
    ("question", "mended"),
    [("What is (are) asthma ?", "What is asthma?"), ("Who is at risk for it? ?", "Who is at risk for it?"), ("Why", "Why")],
)
def test_what_a_question_template_left_over_is_mended(question: str, mended: str) -> None:
    assert rules.repair_question(question) == mended


@pytest.mark.parametrize(
    ("answer", "mended"),
    [
        ("It occurs in many countries.1 They differ.", "It occurs in many countries. They differ."),
        ("It occurs in adults.12,13", "It occurs in adults."),
        ("Use version 2.1 of it.", "Use version 2.1 of it."),
        ("A dose of 1.5 is given, i.e.2 tablets.", "A dose of 1.5 is given, i.e.2 tablets."),
    ],
)
def test_glued_citations_go_and_numbers_stay(answer: str, mended: str) -> None:
    assert rules.remove_citations(answer) == mended


@pytest.mark.parametrize(
    ("text", "suspect"),
    [
        ("methotrexate (1525 mg once weekly)", False),
        ("a level of 100125 mg/dL", True),
        ("about 510 percent of women", False),
        ("a fever over 38.50 C", False),
        ("ferritin above 300 g/L in men", True),
        ("a potassium of 3 mol/L", True),
        ("1000 mg, 1250 mg or 2000 mg a day", False),
        ("100 percent of 500 mg in 2012 days", False),
        ("albumin of 35 g/L, 3.5 mmol/L", False),
        ("aged 15-25 years", False),
        ("0.1525 mg", False),
    ],
)
def test_numbers_that_lost_a_character_are_found(text: str, suspect: bool) -> None:
    assert rules.has_suspect_numbers(Document("1", "q", text, "s", "k", "g", "1")) is suspect


@pytest.mark.parametrize(
    ("answer", "is_list"),
    [
        ("These resources address the management of it: - Registry: Its syndrome - Encyclopedia: Its syndrome", True),
        ("See https://example.org/a and https://example.org/b", True),
        ("Treatment: - rest. - fluids. - time.", False),
        ("It is treated with rest. More at https://example.org/a", False),
    ],
)
def test_lists_of_links_are_told_from_answers(answer: str, is_list: bool) -> None:
    assert rules.is_a_list_of_links(Document("1", "q", answer, "s", "k", "g", "1")) is is_list
