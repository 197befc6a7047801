"""Variants: other questions for the same answers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.augment import AugmentParams, augment, protected, variant
from tasks.documents import Document, content_id, read_documents, write_documents


@given(
    topic=st.from_regex(r"[A-Za-z]{2,12}( (type|no|left|right|hyper[a-z]{3}|[0-9]{1,3}))?", fullmatch=True),
    aliases=st.lists(st.from_regex(r"[A-Za-z0-9 ]{2,20}", fullmatch=True), max_size=4),
    kind=st.sampled_from(["hpo-definition", "hpo-kinds", "disease-signs", "disease-course", "icd10cm"]),
    seed=st.integers(0, 50),
)
def test_a_variant_keeps_answer_group_split_numbers_and_negations(topic: str, aliases: list[str], kind: str, seed: int) -> None:
    original = Document("id", f"What is {topic}?", "It is so.", "s", kind, "g", "1", split="train", topic=topic, aliases=tuple(aliases))
    copy = variant(original, seed)
    if copy is not None:
        assert copy.question != original.question
        assert (copy.answer, copy.group, copy.split, copy.parent) == (original.answer, "g", "train", "id")
        assert protected(copy.question) == protected(original.question)
        assert copy.method in ("paraphrase", "synonym") and copy.id != original.id


def test_only_train_documents_get_variants(tmp_path: Path) -> None:
    documents = [
        Document(content_id(split, str(n)), f"What is disease {n}?", "a", "s", "qa", f"g{n}", "1", split=split, topic="")
        for split in ("train", "validation", "test")
        for n in range(20)
    ]
    write_documents(documents, tmp_path / "documents")
    augment(tmp_path / "documents", tmp_path / "variants", params=AugmentParams(seed=1, share=1.0))
    assert {p.name for p in (tmp_path / "variants").iterdir()} == {"train.jsonl"}
    made = list(read_documents(tmp_path / "variants", "train"))
    assert {d.parent for d in made} == {content_id("train", str(n)) for n in range(20)}


@pytest.mark.parametrize(
    ("question", "variants"),
    [
        ("What are the symptoms of asthma ?", {"How does asthma present?", "What are the signs of asthma?"}),
        ("What is (are) asthma ?", {"Can you explain asthma?", "What does asthma mean?"}),
        ("What is the dose of amoxicillin?", set()),
    ],
)
def test_a_paraphrase_asks_the_same(question: str, variants: set[str]) -> None:
    document = Document("id", question, "a", "s", "qa", "g", "1", split="train")
    found = {copy.question for seed in range(40) if (copy := variant(document, seed))}
    assert found == variants
