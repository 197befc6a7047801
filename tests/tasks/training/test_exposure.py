"""What a model saw, counted from what its training was fed, and by whom it is asked."""

import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.training import PARAMS, in_memory

from tasks import finetune as ft
from tasks.corpus.documents import Document, write_documents
from tasks.corpus.shards.format import open_split
from tasks.registry.package import write_seen as write_seen_of
from tasks.training import loop, packing
from tasks.training.exposure import FILE, Seen, read_seen, seen_digest, write_seen
from tasks.training.packing import PackedRow, consumed, epoch_tokens, training_rows
from tasks.training.params import FinetuneParams


class KilledError(Exception):
    """In place of a signal."""


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    here = Path.cwd()
    os.chdir(folder)  # .cache stands where the run does
    try:
        yield
    finally:
        os.chdir(here)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[int, list[PackedRow]], list[int]]]:
    """The rows of each step as training takes them, and the steps before which it is killed, once each."""
    rows: dict[int, list[PackedRow]] = {}
    deadly: list[int] = []
    update: Callable[..., dict[str, float]] = loop.update

    def spy(model: Any, optimizer: Any, step: int, batch: Sequence[PackedRow], *rest: Any) -> dict[str, float]:
        if step in deadly:
            deadly.remove(step)
            raise KilledError
        rows[step] = list(batch)
        return update(model, optimizer, step, batch, *rest)

    monkeypatch.setattr(loop, "update", spy)
    yield rows, deadly


def finished(parts: tuple[Path, Path], folder: Path, params: FinetuneParams) -> dict[str, float]:
    with inside(folder):
        return ft.finetune(*parts, folder / "model", folder / "curves", params=params).metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kills"),
    [
        ({"keep": "last"}, []),
        ({"keep": "last"}, [4, 7]),
        # Ever worse after a while: the weights that are kept saw less than training did.
        ({"keep": "best", "steps": 60, "lr": 1e-1, "lr_floor": 1.0, "warmup": 0, "validate_every": 5}, [13, 14, 31]),
    ],
    ids=["last", "killed", "best"],
)
def test_what_is_counted_is_what_training_was_fed(
    parts: tuple[Path, Path],
    tmp_path: Path,
    spied: tuple[dict[int, list[PackedRow]], list[int]],
    changes: dict[str, Any],
    kills: list[int],
) -> None:
    rows, deadly = spied
    params = PARAMS.model_copy(update=changes)
    deadly += kills
    for _ in kills:
        with pytest.raises(KilledError):
            finished(parts, tmp_path / "run", params)
    metrics = finished(parts, tmp_path / "run", params)
    kept, taken = int(metrics["step_kept"]), int(metrics["steps_taken"])
    assert taken == params.steps == max(rows) and (kept < taken) == (params.keep == "best")
    split = open_split(parts[1], "train")
    of_kept = [segment for step in range(1, kept + 1) for row in rows[step] for segment in row]
    everything = {segment.document for of_step in rows.values() for row in of_step for segment in row}
    numbers = {segment.document for segment in of_kept}
    assert metrics["documents_seen"] == len(numbers) and metrics["documents_fed"] == len(everything) >= len(numbers)
    assert metrics["tokens_with_loss_seen"] == sum(int(split.document(p.document)[1][p.start + 1 : p.stop].sum()) for p in of_kept)
    assert metrics["tokens_seen"] == sum(p.stop - p.start - (p.start > 0) for p in of_kept) <= metrics["tokens_fed"]
    assert metrics["epochs_seen"] == metrics["tokens_seen"] / epoch_tokens(split, params.seq_len)
    seen = dict(read_seen(tmp_path / "run" / "curves" / FILE))
    assert {d for d, s in seen.items() if s == Seen("train", "trained")} == {seen_digest(split.entries[n].id) for n in numbers}
    used = {"selected" if params.keep == "best" else "scored"}
    assert {s.use for s in seen.values() if s.split == "validation"} == used
    assert sum(s.split == "validation" for s in seen.values()) == metrics["documents_validated"] > 0


def test_an_epoch_is_one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW", 5)
    split = in_memory([10, 200, 30, 40, 150, 60, 64, 65], without_loss=[2, 4])  # two without loss, some in segments
    rows = [state.epoch for _, state in zip(range(40), (p for _, p in training_rows(split, 64, seed=3)), strict=False)]
    (once,) = consumed(split, 64, seed=3, rows=[rows.count(0)])
    assert once.tokens == epoch_tokens(split, 64) == 10 + 200 + 40 + 60 + 64 + 65
    assert once.documents == {0, 1, 3, 5, 6, 7}
    assert consumed(split, 64, seed=3, rows=[0, 3]) == [
        packing.Consumed(frozenset(), 0, 0, packing.LoaderState()),
        *consumed(split, 64, seed=3, rows=[3]),
    ]


def test_the_first_piece_of_a_document_is_enough_to_have_seen_it() -> None:
    split = in_memory([500])
    (first,) = consumed(split, 64, seed=0, rows=[1])
    assert first.documents == {0} and first.tokens < 500


def test_a_record_of_which_training_saw_a_copy_was_seen(parts: tuple[Path, Path], tmp_path: Path) -> None:
    names = {split: [entry.id for entry in open_split(parts[1], split).entries] for split in ("train", "validation", "test")}
    original, copy, fed_one, held_out = *names["train"][:3], names["validation"][0]
    variant = Document(copy, "What?", "That.", "s", "qa", "g", "1", split="train", method="typo", parent=original)
    write_documents([variant], tmp_path / "variants")
    trained = {copy: Seen("train", "trained"), fed_one: Seen("train", "trained"), held_out: Seen("validation", "selected")}
    write_seen(((seen_digest(key), seen) for key, seen in trained.items()), tmp_path / "trained.gz")
    for name in ("one", "two"):
        write_seen_of(parts[1], tmp_path / "variants", tmp_path / "trained.gz", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    seen_records = dict(read_seen(tmp_path / "one"))
    assert seen_records.keys() == {seen_digest(key) for of_split in names.values() for key in of_split}
    assert {key for key in names["train"] if seen_records[seen_digest(key)].use == "trained"} == {original, copy, fed_one}
    assert seen_records[seen_digest(held_out)] == Seen("validation", "selected")
    assert {seen_records[seen_digest(key)] for key in names["validation"][1:]} == {Seen("validation", "unused")}
    assert not any(key in gzip.decompress((tmp_path / "one").read_bytes()).decode() for of_split in names.values() for key in of_split)


def test_an_older_version_says_only_in_which_split_a_record_was(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(gzip.compress(f"{seen_digest('a')} train\n{seen_digest('b')} other\n".encode()))
    assert dict(read_seen(path)) == {seen_digest("a"): Seen("train", "unknown"), seen_digest("b"): Seen("ood", "unknown")}
    assert all(seen.taints for _, seen in read_seen(path))
    assert not Seen("train", "unused").taints


@pytest.mark.parametrize("content", [b"abc train trained more\n", b"abc\n", b"abc train eaten\n", b"\xff\xfe train trained\n"])
def test_what_is_no_list_of_records_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=FILE):
        list(read_seen(path))
    path.write_bytes(gzip.compress(b"abc train trained\n")[:-6])
    with pytest.raises(ValueError, match=FILE):
        list(read_seen(path))


@pytest.mark.slow
def test_rows_that_are_not_those_of_the_run_are_refused(
    parts: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The count rests on packing the rows once more: where that does not end where training did, it is no count."""
    count = ft.consumed
    monkeypatch.setattr(ft, "consumed", lambda *a, **k: [replace(f, loader=packing.LoaderState(7)) for f in count(*a, **k)])
    with pytest.raises(ValueError, match="other rows than the run was trained on"):
        finished(parts, tmp_path / "run", PARAMS)
