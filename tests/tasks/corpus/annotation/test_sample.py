"""Which notes are drawn: the same for the same seed, spread over patients and files, bounded in memory."""

import hashlib
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from tasks.corpus.annotation.sample import MAX_CHARS, SampleParams, draw, public_files
from tasks.corpus.documents import Document, PartitionWriter, content_id, partition_of, to_line


def note(number: int, source: str, group: str, *, question: str = "", text: str = "", split: str = "") -> Document:
    return Document(content_id(source, str(number)), question, text or f"Note {number} of {group}.", source, "text", group, "1", split)


def write_raw(work: Path, documents: list[Document], name: str = "0") -> None:
    with PartitionWriter(work / "raw", name) as writer:
        for document in documents:
            writer.add(partition_of(document.id), to_line(document))


# A file in which one patient has nearly all notes, one with many patients, and a small one.
DOCUMENTS = [
    *(note(i, "large.jsonl", "patient:0" if i % 20 else f"patient:{i}") for i in range(400)),
    *(note(i, "wide.jsonl", f"patient:w{i}") for i in range(300)),
    *(note(i, "small.jsonl", f"patient:s{i % 10}") for i in range(30)),
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_raw(tmp_path / "one", DOCUMENTS)
    return tmp_path / "one"


def ids(work: Path, count: int, seed: int = 1, **also: object) -> list[str]:
    return [document.id for document in draw(work, SampleParams(count, seed, **also))]  # type: ignore[arg-type]


def test_the_same_seed_draws_the_same_whatever_the_order_and_a_smaller_sample_begins_a_larger_one(work: Path, tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(DOCUMENTS, len(DOCUMENTS))
    write_raw(tmp_path / "other", shuffled[:300], "7")
    write_raw(tmp_path / "other", [*shuffled[300:], *shuffled[:9]], "3")  # some of them twice
    assert ids(work, 60) == ids(tmp_path / "other", 60) and len(set(ids(work, 60))) == 60
    assert ids(work, 60)[:20] == ids(work, 20)
    assert ids(work, 60, seed=2) != ids(work, 60)


def test_no_patient_comes_twice_before_all_came_once_and_files_take_turns(work: Path) -> None:
    drawn = draw(work, SampleParams(30, 1))
    assert len({document.group for document in drawn}) == 30
    assert Counter(document.source for document in drawn) == {"large.jsonl": 10, "wide.jsonl": 10, "small.jsonl": 10}
    patients = len({document.group for document in DOCUMENTS})
    assert max(Counter(document.group for document in draw(work, SampleParams(patients, 1))).values()) == 1
    assert len(draw(work, SampleParams(10_000, 1))) == len(DOCUMENTS)


def test_marked_notes_stay_in_the_sample_and_count_in_it(work: Path) -> None:
    last = ids(work, len(DOCUMENTS))[-1]
    drawn = ids(work, 20, marked={last, "00" * 12})
    assert last in drawn and len(drawn) == 20 and drawn[:19] == ids(work, 19)
    assert ids(work, 0, marked={last}) == [last]


def test_what_is_withdrawn_public_general_too_long_or_has_a_question_is_not_drawn(tmp_path: Path) -> None:
    good = note(0, "n.jsonl", "p")
    others = [
        note(1, "public.csv", "p"),
        note(2, "n.jsonl", "p", split="replay"),
        note(3, "n.jsonl", "p", text="x" * (MAX_CHARS + 1)),
        note(4, "n.jsonl", "p", question="What?"),
        note(5, "n.jsonl", "p"),
    ]
    write_raw(tmp_path, [good, *others])
    assert ids(tmp_path, 9, public={"public.csv"}, withdrawn={others[-1].id}) == [good.id]
    write_raw(tmp_path / "questions", others[3:4])
    assert ids(tmp_path / "questions", 9) == [others[3].id], "where there are no notes, all records are drawn from"
    (tmp_path / "nothing").mkdir()
    assert ids(tmp_path / "nothing", 9) == []


def test_only_files_that_the_manifest_marks_by_their_digest_are_public(tmp_path: Path) -> None:
    for name in ("public.csv", "changed.csv", "own.csv"):
        (tmp_path / name).write_text(name)
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("public.csv", "own.csv")} | {"changed.csv": "0" * 64}
    files = [{"path": name, "sha256": digest[name], "public": name != "own.csv"} for name in digest]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [*files, {"path": "gone.csv", "sha256": "0" * 64, "public": True}]}))
    assert public_files(tmp_path) == {"public.csv"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    for part in range(8):
        write_raw(tmp_path, [note(i, f"{part}.jsonl", f"p{i % 500}", text="word " * 2000) for i in range(500)], str(part))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl"))
    tracemalloc.start()
    assert len(draw(tmp_path, SampleParams(50, 1))) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 40e6 and peak < size / 8
