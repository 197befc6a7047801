"""Documents to shards: what stands in them, and that only what changed is tokenized again."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.builders import sentences, write_cleaning_report
from helpers.chat_templates import TEMPLATES

from model.tokenizer.tokenizer import Tokenizer
from tasks import shard as stage
from tasks.corpus.documents import Document, content_id, write_documents
from tasks.corpus.params import ShardParams
from tasks.corpus.shards import tokenize
from tasks.corpus.shards.format import open_split
from tasks.runtime.digests import dvc_digest
from tasks.shard import shard

PARAMS = ShardParams(loss_on="answer", max_tokens=2048)
TURNS = (("system", "Be short."), ("user", "Hello?"), ("assistant", "Good day."))


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    return iter([None])


def documents() -> list[Document]:
    corpus = [
        Document(content_id(q), q, a, "s", "k", q, str(n), split=("train", "train", "validation", "test")[n % 4])
        for n, (q, a) in enumerate(sentences(80))
    ]
    corpus.append(
        Document(content_id("text"), "", "A text <|im_end|> without a question.\n\nTwo paragraphs.", "s", "text", "t", "1", "train")
    )
    corpus.append(Document(content_id("chat"), "And now?", "Now you sleep.", "s", "chat", "c", "1", "train", TURNS))
    return corpus


def make(checkpoint: Path, corpus: list[Document], out: str, variants: list[Document] | None = None, *, public: bool = False) -> str:
    write_documents(corpus, Path(out, "documents"))
    write_documents(variants or [], Path(out, "variants"))
    folders = (Path(out, name) for name in ("documents", "cleaning", "variants", "shards", "report"))
    write_cleaning_report(Path(out, "cleaning"), public=public)
    shard(checkpoint, *folders, params=PARAMS)
    return dvc_digest(Path(out, "shards"))


def test_decoding_gives_back_exactly_the_documents(tiny_checkpoint: Path) -> None:
    make(tiny_checkpoint, documents(), "out")
    tokenizer = Tokenizer.from_path(tiny_checkpoint)
    decoded = {}
    for name in ("train", "validation", "test"):
        split = open_split(Path("out/shards"), name)
        for i, entry in enumerate(split.entries):
            ids, loss = split.document(i)
            decoded[entry.id] = (tokenizer.decode(ids), tokenizer.decode(ids[loss.astype(bool)]), name)
    assert len(decoded) == len(documents())
    for d in documents():
        whole, supervised, split_name = decoded[d.id]
        assert split_name == d.split
        if not d.question:
            assert whole == supervised == f"{d.answer}<|im_end|>"
            continue
        turns = [*d.before, ("user", d.question), ("assistant", d.answer)]
        assert whole.rstrip("\n") == "\n".join(f"<|im_start|>{role}\n{text}<|im_end|>" for role, text in turns)
        assert supervised == "".join(f"{text}<|im_end|>" for role, text in turns if role == "assistant")


def test_a_thought_that_the_template_would_rewrite_is_refused_by_the_documents_id(tiny_checkpoint: Path, tmp_path: Path) -> None:
    thought = Document(content_id("t"), "Why?", "<think>Hm.</think> So.", "s", "k", "t", "1", "train")
    one_turn = documents()[:-1]
    make(tiny_checkpoint, [*one_turn, thought], "plain")  # this template writes it as it is
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (copy / "chat_template.jinja").write_text(TEMPLATES["Qwen 3"])
    make(copy, one_turn, "without")
    with pytest.raises(ValueError, match=f"document {thought.id} holds </think>, which the base model's chat template rewrites") as raised:
        make(copy, [*one_turn, thought], "with")
    assert "Hm." not in str(raised.value)


@pytest.mark.slow
def test_neither_order_nor_number_of_processes_changes_a_byte(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SMALL", 0)
    monkeypatch.setattr(tokenize, "CACHE", Path("cache1"))
    shuffled = random.Random(1).sample(documents(), len(documents()))
    monkeypatch.setenv("WORKERS", "1")
    one = make(tiny_checkpoint, documents(), "one")
    monkeypatch.setattr(tokenize, "CACHE", Path("cache4"))
    monkeypatch.setenv("WORKERS", "4")
    assert make(tiny_checkpoint, shuffled, "four") == one


@pytest.mark.slow
def test_only_changed_partitions_are_tokenized_again(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make(tiny_checkpoint, documents(), "one")
    counted: list[int] = []
    real = tokenize.tokenized

    def counting(batch: list[Document], tokenizer: Tokenizer, *, loss_on_all: bool) -> object:
        counted.append(len(batch))
        return real(batch, tokenizer, loss_on_all=loss_on_all)

    monkeypatch.setattr(tokenize, "tokenized", counting)
    assert make(tiny_checkpoint, documents(), "two") == before and counted == []
    first, *rest = documents()
    changed = [replace(first, answer="Another answer."), *rest]
    after = make(tiny_checkpoint, changed, "three")
    assert after != before and len(counted) == 1
    tokenize.CACHE.rename("old")
    assert make(tiny_checkpoint, changed, "four") == after  # without the cache the bytes are the same


def test_variants_are_trained_on_and_general_text_is_not_evaluated(tiny_checkpoint: Path) -> None:
    original = documents()[0]
    copy = replace(original, id=content_id("copy"), question="Other words?", method="paraphrase", parent=original.id)
    general = replace(original, id=content_id("general"), split="replay")
    make(tiny_checkpoint, [*documents(), general], "out", [copy])
    ids = {e.id for e in open_split(Path("out/shards"), "train").entries}
    assert copy.id in ids and general.id not in ids


def test_a_documents_file_that_is_none_is_named(tiny_checkpoint: Path) -> None:
    Path("documents").mkdir()
    Path("documents/train.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="documents/train.jsonl holds a line that is no document"):
        write_cleaning_report(Path("cleaning"))
        shard(tiny_checkpoint, Path("documents"), Path("cleaning"), Path("variants"), Path("shards"), Path("report"), params=PARAMS)
