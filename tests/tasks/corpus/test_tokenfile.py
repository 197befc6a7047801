from pathlib import Path

import numpy as np
import pytest

from tasks.corpus.shards.format import Entry, TokenizedDocument, open_split, read_tokens, write_index, write_shards


def documents() -> list[TokenizedDocument]:
    generator = np.random.default_rng(0)
    encoded = []
    for n, size in enumerate((5, 700, 1, 900, 1500, 30)):
        tokens = generator.integers(0, 2**20, size, dtype=np.uint32)
        encoded.append(TokenizedDocument(Entry(f"d{n}", "category", "source", size), tokens, (tokens % 2).astype(np.uint8)))
    return encoded


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_index(tmp_path, {"train": write_shards("train", documents(), tmp_path, max_tokens=1024)}, tokenizer="t", vocabulary=2**20)
    return tmp_path


def test_reading_gives_back_every_document_with_its_mask(shards: Path) -> None:
    split = open_split(shards, "train")
    assert len(list(shards.glob("train_*.bin"))) == 4
    for i, document in enumerate(documents()):
        tokens, loss = split.document(i)
        assert np.array_equal(tokens, document.tokens) and np.array_equal(loss, document.loss)
        assert split.entries[i] == document.entry
    assert split.lengths().tolist() == [5, 700, 1, 900, 1500, 30]


def test_the_header_is_the_published_one(shards: Path) -> None:
    header = np.fromfile(shards / "train_00000.bin", dtype="<i4", count=256)
    assert header[:3].tolist() == [20240801, 7, 706]
    assert not header[3:].any()


@pytest.mark.parametrize(("index", "value"), [(0, 1), (1, 8), (2, 707), (2, -5), (2, 2**31 - 1)])
def test_a_lying_header_is_refused(shards: Path, index: int, value: int) -> None:
    path = shards / "train_00000.bin"
    words = np.fromfile(path, dtype="<i4")
    words[index] = value
    words.tofile(path)
    with pytest.raises(ValueError, match="train_00000.bin"):
        read_tokens(path)


@pytest.mark.parametrize(
    "name", ["train_00001.bin", "train_00001.loss.npy", "train_00001.starts.npy", "train_00001.documents.jsonl", "index.json"]
)
def test_a_truncated_file_is_named(shards: Path, name: str) -> None:
    path = shards / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=name.split(".", maxsplit=1)[0]):
        open_split(shards, "train")


def test_shards_of_an_older_format_say_what_to_run(shards: Path) -> None:
    path = shards / "train_00000.documents.jsonl"
    path.write_text(path.read_text().replace('"category"', '"kind"'))
    with pytest.raises(ValueError, match="of another version of this format; run 'dvc repro shard'"):
        open_split(shards, "train")


def test_a_split_without_documents_is_empty(shards: Path) -> None:
    assert len(open_split(shards, "test")) == 0
