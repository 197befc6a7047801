"""Variants: what they change, and that they state the same."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.augment import METHODS, MethodStats, augment, states_the_same, variants_of
from tasks.corpus.augmentation import abbreviation, lay, spelling
from tasks.corpus.augmentation.invariant import protected
from tasks.corpus.documents import Document, content_id, read_documents, write_documents
from tasks.corpus.extraction.definitions import load_tasks, note_of, question, write_tasks
from tasks.corpus.params import AugmentParams

NONE = dict.fromkeys(METHODS, 0.0)
TERMS = lay.lay_terms([("dyspnea", "difficulty breathing"), ("Fever", "hot"), ("xerosis", "dry skin"), ("tachycardia", "fast heartbeat")])
OBO = """format-version: 1.2

[Term]
id: HP:1
name: Dyspnea
synonym: "Difficulty breathing" EXACT layperson []

[Term]
id: HP:2
name: Fever
"""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return iter([None])


def params(**changes: Any) -> AugmentParams:
    return AugmentParams(**{"seed": 1, "max_copies": 1, "replay_share": 0.0, "balance": 0.0} | NONE | changes)


def qa(question: str, answer: str = "It is so.", split: str = "train", **fields: Any) -> Document:
    return Document(
        content_id(question, answer, split), question, answer, "s", fields.pop("category", "qa"), "g", "1", split=split, **fields
    )


def variants_by(document: Document, method: str, seeds: int = 40) -> list[Document]:
    stats = {name: MethodStats() for name in METHODS}
    return [copy for seed in range(seeds) for copy in variants_of(document, params(seed=seed, **{method: 1.0}), TERMS, stats)]


PARTS = st.sampled_from(
    "dyspnea xerosis tachycardia fever not no without left right increased decreased hypertension hypotension BRCA1 TP53 metformin "
    "5mg 2.5-5 mg/kg 10% days edema oedema anaemia tumor (CVP) central venous pressure CVP patients have and or with is the of . , ; "
    "atenolol ramipril chronic acute higher below HLA-B27 12 weeks diarrhoea haemoglobin".split(" ")
)


@pytest.mark.slow
@given(
    words=st.lists(PARTS, min_size=1, max_size=40),
    question=st.sampled_from(["What is {}?", "What are the symptoms of {} ?", "Is {} inherited ?", "How to prevent {} ?", "Really?", ""]),
    topic=st.from_regex(r"[A-Za-z]{2,12}( (type|no|left|right|hyper[a-z]{3}|[0-9]{1,3}))?", fullmatch=True),
    aliases=st.lists(st.from_regex(r"[A-Za-z0-9 ]{2,20}", fullmatch=True), max_size=4),
    category=st.sampled_from(["qa", "hpo-definition", "disease-signs", "icd10cm"]),
    seed=st.integers(0, 50),
)
def test_a_variant_keeps_numbers_negations_sides_directions_drugs_and_genes(
    words: list[str], question: str, topic: str, aliases: list[str], category: str, seed: int
) -> None:
    original = qa(question.format(topic), " ".join(words), category=category, topic=topic, aliases=tuple(aliases))
    stats = {name: MethodStats() for name in METHODS}
    variants = variants_of(original, params(seed=seed, max_copies=4, **dict.fromkeys(NONE, 1.0)), TERMS, stats)
    assert len(variants) <= 4
    for copy in variants:
        assert copy.texts() != original.texts()
        assert (copy.group, copy.split, copy.parent, copy.category, copy.source) == ("g", "train", original.id, category, "s")
        assert copy.method in METHODS and copy.id != original.id
        if copy.method != "abbreviation":
            assert protected("\n".join(copy.texts())) == protected("\n".join(original.texts()))
        if copy.method in ("paraphrase", "synonym", "typo"):
            assert copy.answer == original.answer
    assert len({copy.id for copy in variants}) == len(variants) == sum(s.kept for s in stats.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Take 5 mg.", "Take 50 mg."),
        ("Take 5 mg.", "Take 5 mcg."),
        ("It is not fatal.", "It is fatal."),
        ("He denies pain.", "He reports pain."),
        ("It doesn't spread.", "It does spread."),
        ("The left eye.", "The right eye."),
        ("Increased pressure.", "Decreased pressure."),
        ("Hypertension is treated.", "Hypotension is treated."),
        ("Take atenolol.", "Take ramipril."),
        ("Mutations in BRCA1.", "Mutations in BRCA2."),
        ("After 3 days.", "After 3 weeks."),
        ("More than this.", "Less than this."),
    ],
)
def test_what_states_something_else_is_told_apart(one: str, other: str) -> None:
    assert not states_the_same(qa("Q?", one), qa("Q?", other), "paraphrase")
    assert states_the_same(qa("Q?", one), qa("Other words?", one), "paraphrase")


@pytest.mark.parametrize(
    ("question", "others"),
    [
        (
            "What are the symptoms of asthma ?",
            {"How does asthma present?", "What are the signs of asthma?", "Which symptoms are seen in asthma?"},
        ),
        ("What is (are) asthma ?", {"Can you explain asthma?", "What does asthma mean?", "What do you know about asthma?"}),
        ("How many people are affected by asthma ?", {"How common is asthma?", "How often does asthma occur?"}),
        ("Who is at risk for asthma? ?", set()),
        ("What is the dose of amoxicillin?", set()),
    ],
)
def test_a_paraphrase_asks_the_same(question: str, others: set[str]) -> None:
    assert {copy.question for copy in variants_by(qa(question), "paraphrase")} == others


@pytest.mark.parametrize(
    "question",
    [
        "What is (are) {} ?", "What are the symptoms of {} ?", "What are the treatments for {} ?", "Is {} inherited ?",
        "How many people are affected by {} ?", "What are the genetic changes related to {} ?", "What causes {} ?",
        "How to diagnose {} ?", "what research (or clinical trials) is being done for {} ?", "What is the outlook for {} ?",
        "Who is at risk for {} ?", "What to do for {} ?", "How to prevent {} ?", "What are the stages of {} ?",
        "What are the complications of {} ?", "Do you have information about {}",
    ],
)  # fmt: skip
def test_each_of_medquads_sorts_of_question_has_other_wordings(question: str) -> None:
    variants = {copy.question for copy in variants_by(qa(question.format("Marfan syndrome")), "paraphrase")}
    assert len(variants) >= 2 and all("Marfan syndrome" in other for other in variants)


@pytest.mark.parametrize(
    ("answer", "glossed"),
    [
        ("Patients have dyspnea and fever.", "Patients have dyspnea (difficulty breathing) and fever."),
        ("There is no dyspnea.", "There is no dyspnea."),
        ("Paroxysmal dyspnea syndrome is rare.", "Paroxysmal dyspnea syndrome is rare."),
        ("It causes severe dyspnea.", "It causes severe dyspnea."),
        ("Signs are dyspnea, xerosis, tachycardia.", "Signs are dyspnea (difficulty breathing), xerosis (dry skin), tachycardia."),
        ("Dyspnea is difficulty breathing.", "Dyspnea is difficulty breathing."),
    ],
)
def test_lay_words_stand_beside_whole_terms_only(answer: str, glossed: str) -> None:
    assert lay.glossed(answer, TERMS) == glossed


def test_abbreviations_are_those_that_the_text_defines() -> None:
    text = "The central venous pressure (CVP) is measured. CVP is low. A high central venous pressure is rare, BP too (see Table)."
    assert abbreviation.definitions(text) == [("CVP", "central venous pressure", 33)]
    assert "measured. Central venous pressure is low" in abbreviation.expanded(text) and "BP too" in abbreviation.expanded(text)
    assert "A high CVP is rare" in abbreviation.shortened(text)
    document = qa("What is it?", text)
    assert {copy.method for copy in variants_by(document, "abbreviation", 4)} == {"abbreviation"}


def test_spelling_goes_both_ways_and_back_and_keeps_capitals() -> None:
    assert spelling.respelled("Anaemia and oedema of the foetus, ANAEMIA", spelling.TO_US) == "Anemia and edema of the fetus, ANAEMIA"
    assert len(spelling.TO_UK) == len(spelling.TO_US) >= 100 and not set(spelling.TO_UK) & set(spelling.TO_US)
    for uk, us in spelling.TO_US.items():
        assert spelling.respelled(spelling.respelled(uk, spelling.TO_US), spelling.TO_UK) == uk != us


def test_slips_are_in_the_question_alone_and_spare_its_topic() -> None:
    variants = variants_by(qa("Which treatments are there for hypertension type 2?", topic="hypertension type 2"), "typo")
    assert len({copy.question for copy in variants}) > 5
    assert all("hypertension type 2" in copy.question and copy.answer == "It is so." for copy in variants)


def run(**changes: Any) -> tuple[list[Document], dict[str, Any]]:
    shutil.rmtree("variants", ignore_errors=True)
    augment(Path("data"), Path("documents"), Path("variants"), Path("report"), params=params(**changes))
    return list(read_documents(Path("variants"), "train")), json.loads(Path("report/augment.json").read_text())


def test_only_train_documents_get_variants_and_the_report_counts_them() -> None:
    Path("data/hp.obo").write_text(OBO)
    documents = [
        qa(f"What is disease {n}?", f"It has {n} forms, and dyspnea.", split)
        for split in ("train", "validation", "test")
        for n in range(20)
    ]
    write_documents(documents, Path("documents"))
    variants, report = run(paraphrase=1.0, lay=1.0, max_copies=2)
    train = {d.id for d in documents if d.split == "train"}
    assert {p.name for p in Path("variants").iterdir()} == {"train.jsonl"} and {d.parent for d in variants} == train
    assert report["methods"]["paraphrase"]["kept"] == report["methods"]["lay"]["kept"] == 20 == report["train_documents"]
    assert all("dyspnea (difficulty breathing)." in d.answer for d in variants if d.method == "lay")
    assert json.loads(Path("report/augmented-documents.json").read_text())["success"]
    assert "disease" not in Path("report/augment.json").read_text()
    assert run(paraphrase=1.0, lay=1.0, max_copies=2)[0] == variants


def test_questions_about_notes_of_rare_kinds_are_asked_more_often_and_their_notes_stay(tmp_path: Path) -> None:
    (task,) = load_tasks(["measurements"], tmp_path).values()
    rates, drugs = {"vital_signs": {"heart_rate": 80}}, {"medications": ["Aspirin"]}

    def asked(number: int, answer: dict[str, Any], note: str) -> Document:
        text = json.dumps({"vital_signs": {}, "laboratory": {}, "medications": []} | answer)
        return qa(question(task.definition.instructions[number % 3], f"{note} {number}"), text, task=task.name)

    documents = [asked(n, rates, "HR 80") for n in range(90)] + [asked(n, drugs, "Aspirin, without") for n in range(10)]
    write_documents(documents, Path("documents"))
    write_tasks({task.name: task}, Path("documents"))
    variants, report = run(balance=0.5)
    by_id = {document.id: document for document in documents}
    assert Counter(by_id[d.parent].answer for d in variants) == {documents[-1].answer: 20}  # 3 = (90 / 10) ** 0.5 times in all
    for variant in variants:
        parent = by_id[variant.parent]
        assert note_of(variant) == note_of(parent) and variant.question != parent.question and variant.answer == parent.answer
    assert report["methods"]["balance"]["kept"] == len({d.id for d in variants}) == 20 and {d.method for d in variants} == {"balance"}
    assert {len([d for d in variants if d.parent == parent]) for parent in {d.parent for d in variants}} == {2}
    assert Counter(d.parent for d in run(balance=1.0)[0]).most_common()[0][1] == 4 and not run(balance=0.0)[0]


def test_a_share_of_training_is_general_text() -> None:
    documents = [qa(f"What is disease {n}?", "It is a disease. " * 5) for n in range(50)]
    general = [qa("", f"General text {n}. " * 5, "replay") for n in range(50)]
    write_documents([*documents, *general], Path("documents"))
    variants, report = run(replay_share=0.2)
    assert {d.method for d in variants} == {"replay"} and {d.split for d in variants} == {"train"} and report["replayed"] == len(variants)
    assert {d.id for d in variants} < {d.id for d in general}  # as the record of that id is looked for in shards and models
    size = sum(len(t) for d in variants for t in d.texts())
    assert 0.15 < size / (size + sum(len(t) for d in documents for t in d.texts())) <= 0.2
    assert not run()[0]
