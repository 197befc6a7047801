"""Readers, cleaning, splitting, gates and variants, on good and bad input."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, write_table
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tasks import expectations
from tasks.augment import AugmentParams, augment, protected, variant
from tasks.corpus import build, wanted_by
from tasks.digests import dvc_digest, sha256
from tasks.documents import Document, Rejected, read_documents, write_documents
from tasks.hpo import band, base_name, parse_obo, read_annotations, read_ontology
from tasks.icd10cm import read_tabular
from tasks.preprocess import PreprocessParams, clean, clean_text, preprocess
from tasks.readers import read_corpus
from tasks.stage import read_params

DEFAULTS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
ROWS = [(f"What is disease {n}?", f"Disease {n} is the one with {n} spots.") for n in range(60)]

OBO = """format-version: 1.2

[Term]
id: HP:1
name: Abnormal skin

[Term]
id: HP:2
name: Spotty skin
def: "Skin with spots. The skin of abnormal people." [x]
synonym: "Spots" EXACT layperson []
synonym: "Maculae" EXACT []
synonym: "Patchy skin" RELATED []
is_a: HP:1 ! Abnormal skin

[Term]
id: HP:3
name: Dry skin
alt_id: HP:33
is_a: HP:1 ! Abnormal skin

[Term]
id: HP:4
name: obsolete Wet skin
is_obsolete: true
"""
HPOA_HEADER = "database_id\tdisease_name\tqualifier\thpo_id\treference\tevidence\tonset\tfrequency\tsex\tmodifier\taspect\tbiocuration\n"


def records(data: Path) -> list[Document | Rejected]:
    return list(read_corpus(data))


def test_a_table_may_have_bom_other_case_and_newlines_in_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffQUESTION, Answer ,split\r\n"What is\r\nthis?","A ""thing"", so\nto say",Valid\r\n'.encode())
    (document,) = records(tmp_path)
    assert isinstance(document, Document)
    assert (document.question, document.answer, document.split) == ("What is\r\nthis?", 'A "thing", so\nto say', "validation")


def test_every_bad_record_is_rejected_with_its_place_and_the_rest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Question,Answer,split\nq1,a1,\nq2,nan,\nq3\nq4,a4,tset\n\nq5,a5,train\n")
    (tmp_path / "b.jsonl").write_text('{"Question": "q6", "Answer": "a6"}\n{broken\n[1]\n{"question": "q7", "answer": 7}\n')
    found = records(tmp_path)
    assert [d.question for d in found if isinstance(d, Document)] == ["q1", "q5", "q6"]
    assert [(r.source, r.position, r.reason.split(" (")[0]) for r in found if isinstance(r, Rejected)] == [
        ("a.csv", "line 3", "has no answer"),
        ("a.csv", "line 4", "has 1 cells, the header has 3"),
        ("a.csv", "line 5", "has an unknown split"),
        ("b.jsonl", "line 2", "is not JSON"),
        ("b.jsonl", "line 3", "is not a JSON object"),
        ("b.jsonl", "line 4", "has a question, answer, split or group that is not text"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"Frage,Answer\nx,y\n", "no column Question"),
        ("a.csv", b"Question,Answer,answer\nx,y,z\n", "header repeats answer"),
        ("a.csv", b"Question,Answer\nx,\xff\xfe\n", "a.csv is not UTF-8"),
        ("a.csv", b"Question,Answer\nx,y\0\n", "NUL bytes"),
        ("a.csv", b'Question,Answer\nx,"y\n', "a.csv, line 2"),
        ("a.xml", b"<ICD10CM.tabular><section>", "not well-formed XML"),
        ("a.hpoa", b"database_id\n", "needs hp.obo beside it"),
        ("a.docx", b"PK", "'.docx' are not read"),
        ("a.xml", b"<PubmedArticleSet/>", "root is <PubmedArticleSet>"),
        ("a.csv", b"Question,Answer\n", "holds no records"),
        ("a.obo", b"not an ontology", "a.obo"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        records(tmp_path)


def test_an_empty_corpus_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python -m tasks.corpus"):
        records(tmp_path)


def test_an_ontology_becomes_definitions_synonyms_and_kinds(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text(OBO)
    found = {d.kind: d for d in read_ontology(parse_obo(tmp_path / "hp.obo"), "hp.obo")}
    assert found["hpo-definition"].question == "What is Spotty skin?"
    assert found["hpo-definition"].answer == "Skin with spots. The skin of abnormal people. It is also known as spots."
    assert found["hpo-synonyms"].answer == "Spotty skin is also called spots and Maculae."
    assert found["hpo-kinds"].question == "What kinds of abnormal skin are there?"  # "abnormal" is written small elsewhere
    assert set(found["hpo-kinds"].answer.removesuffix(".").removeprefix("Kinds of abnormal skin are ").split(" and ")) == {
        "Dry skin",
        "Spotty skin",
    }
    # The list of a term's kinds and the kinds' own definitions stay together.
    assert found["hpo-kinds"].group == found["hpo-definition"].group == "hpo:HP:1"


def test_annotations_become_signs_by_frequency_without_findings_that_are_absent(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text(OBO)
    row = "OMIM:7\tLeopard disease, type 2\t{}\t{}\tr\tTAS\t\t{}\t\t\tP\tb\n"
    lines = [
        row.format("", "HP:2", "HP:0040281"),
        row.format("NOT", "HP:1", ""),
        row.format("", "HP:33", "1/50"),
        row.format("", "HP:9", ""),
    ]
    (tmp_path / "phenotype.hpoa").write_text("#version: 1\n" + HPOA_HEADER + "".join(lines))
    found = list(read_annotations(tmp_path / "phenotype.hpoa", "phenotype.hpoa", parse_obo(tmp_path / "hp.obo")))
    assert [(r.position, r.reason) for r in found if isinstance(r, Rejected)] == [
        ("OMIM:7 HP:9", "names a term that the ontology does not have")
    ]
    (signs,) = (d for d in found if isinstance(d, Document))
    assert signs.answer == "Very frequent (80 % or more of those affected): Spotty skin. Very rare (under 5 %): Dry skin."
    assert signs.group == "disease:leopard disease"


@pytest.mark.parametrize(
    ("written", "label"), [("HP:0040282", "Frequent"), ("3/10", "Frequent"), ("100%", "Always"), ("2.5%", "Very rare"), ("", "Also")]
)
def test_frequencies_fall_into_bands(written: str, label: str) -> None:
    assert band(written).startswith(label)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Ciliary dyskinesia, primary, 28", "ciliary dyskinesia"),
        ("Charcot-Marie-Tooth disease type 4B2", "charcot-marie-tooth disease"),
        ("Spastic paraplegia 11", "spastic paraplegia"),
    ],
)
def test_members_of_a_disease_family_share_a_group(name: str, family: str) -> None:
    assert base_name(name) == family


def test_codes_become_questions_in_the_group_of_their_category(tmp_path: Path) -> None:
    xml = """<ICD10CM.tabular><chapter><section><diag><name>L02</name><desc>Abscess of skin</desc>
      <excludes1><note>impetigo (L01.-)</note></excludes1>
      <diag><name>L02.6</name><desc>Abscess of foot</desc></diag></diag></section></chapter></ICD10CM.tabular>"""
    (tmp_path / "icd.xml").write_text(xml)
    (document,) = read_tabular(tmp_path / "icd.xml", "icd.xml")
    assert document.answer == (
        "ICD-10-CM code L02 stands for Abscess of skin. Never coded together with it: impetigo (L01.-). "
        "Its subdivisions are Abscess of foot (L02.6)."
    )
    assert (document.group, document.position) == ("icd10cm:L02", "L02")


def test_no_group_crosses_splits_and_new_data_moves_nothing(tmp_path: Path) -> None:
    def rows(count: int) -> list[tuple[str, str]]:
        return [(f"What about family {n % 40}, member {n}?", f"Member {n} is well.") for n in range(count)]

    def splits(count: int) -> dict[str, str]:
        lines = [f'{{"question": "{q}", "answer": "{a}", "group": "family {n % 40}"}}' for n, (q, a) in enumerate(rows(count))]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        documents, _ = clean(tmp_path, DEFAULTS.model_copy(update={"test_share": 0.2, "validation_share": 0.2}))
        found: dict[str, str] = {}
        for document in documents:
            assert found.setdefault(document.group, document.split) == document.split
        return found

    before, after = splits(150), splits(400)
    assert set(before.values()) == {"train", "validation", "test"}
    assert before == after


def test_equal_content_gives_equal_bytes_in_any_order(tmp_path: Path) -> None:
    params = DEFAULTS.model_copy(update={"test_share": 0.2, "validation_share": 0.2})
    for name, rows in (("one", ROWS), ("two", ROWS[::-1])):
        write_table(tmp_path / name / "data" / "a.csv", rows)
        documents, _ = clean(tmp_path / name / "data", params)
        write_documents([replace(d, position="") for d in documents], tmp_path / name / "documents")
    for path in (tmp_path / "one" / "documents").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "documents" / path.name).read_bytes()


def test_too_many_rejected_records_fail_the_stage(tmp_path: Path) -> None:
    write_table(tmp_path / "data" / "a.csv", [*ROWS, *[("q", "nan")] * 20])
    with pytest.raises(ValueError, match="20 of 80 records were rejected, more than preprocess.max_rejected_share"):
        preprocess(tmp_path / "data", tmp_path / "documents", tmp_path / "report", params=DEFAULTS)


def test_files_of_another_origin_are_only_evaluated_on(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ROWS)
    write_table(tmp_path / "foreign" / "b.csv", [("Why?", "Because of that.")])
    documents, _ = clean(tmp_path, DEFAULTS.model_copy(update={"other": ("foreign/*.csv",)}))
    assert {d.source for d in documents if d.split == "other"} == {"foreign/b.csv"}
    with pytest.raises(ValueError, match="preprocess.other names 'foreing"):
        clean(tmp_path, DEFAULTS.model_copy(update={"other": ("foreing/*.csv",)}))


CANARY = "CANARY-123-45-6789"


def test_a_failing_gate_tells_counts_and_no_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, (f"What about {CANARY}?", f"{CANARY} has a \x07bell")]
    documents = [
        Document(str(n), q, a, "s", "k", f"g{n}", "1", split=("train", "validation", "test")[n % 3]) for n, (q, a) in enumerate(rows)
    ]
    documents.append(Document("leak", f"{CANARY}?", f"{CANARY}.", "s", CANARY, "g0", "1", split="test"))
    gate = expectations.check(
        "clean-documents", *expectations.clean_documents(documents, min_answer=3, max_answer=1000), tmp_path / "report"
    )
    assert gate.failed == (
        "expect_column_values_to_be_between (splits_of_group): 2 records",
        "expect_column_values_to_not_match_regex (answer): 1 records",
    )
    written = "".join(p.read_text() for p in (tmp_path / "report").iterdir()) + "".join(capfd.readouterr())
    assert CANARY not in written


def test_the_gate_stops_the_stage_and_keeps_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": q, "answer": a, "split": "train", "group": str(n)}) for n, (q, a) in enumerate(ROWS)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="do not pass the gate: expect_column_distinct_values_to_contain_set"):
        preprocess(Path("data"), tmp_path / "documents", tmp_path / "report", params=DEFAULTS)
    assert (tmp_path / ".cache" / "failed-gate" / "clean-documents.html").exists()


def test_text_is_composed_and_free_of_hidden_characters() -> None:
    assert clean_text("Me\u0301nie\u0300re\u200b  \r\ndisease\x00\n\n\n\nnext\ufeff") == "Ménière\ndisease\n\nnext"


@given(st.text(max_size=100))
def test_cleaning_again_changes_nothing(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)


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
        Document(f"{split}{n}", f"What is disease {n}?", "a", "s", "qa", f"g{n}", "1", split=split, topic="")
        for split in ("train", "validation", "test")
        for n in range(20)
    ]
    write_documents(documents, tmp_path / "documents")
    augment(tmp_path / "documents", tmp_path / "variants", params=AugmentParams(seed=1, share=1.0))
    assert {p.name for p in (tmp_path / "variants").iterdir()} == {"train.jsonl"}
    made = list(read_documents(tmp_path / "variants", "train"))
    assert {d.parent for d in made} == {f"train{n}" for n in range(20)}


def test_the_default_corpus_is_what_the_committed_pointer_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the downloads are kept
    build(tmp_path / "data")
    assert YAML(typ="safe").load(ROOT / "data.dvc")["outs"][0]["md5"] == dvc_digest(tmp_path / "data")
    assert wanted_by(ROOT / "data.dvc")
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert all(f["licence"] and f["credit"] and sha256(tmp_path / "data" / f["path"]) == f["sha256"] for f in manifest["files"])
    build(tmp_path / "data")  # again: nothing to do
    (tmp_path / "data" / "mine.csv").write_text("Question,Answer\n")
    with pytest.raises(ValueError, match="holds other files than the default corpus"):
        build(tmp_path / "data")
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


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


def test_text_of_another_origin_shares_no_group_and_takes_nothing_from_training(tmp_path: Path) -> None:
    write_table(tmp_path / "own.csv", [("What is asthma?", "A disease.")])
    write_table(tmp_path / "foreign" / "b.csv", [("What is asthma?", "A disease."), ("What is asthma?", "An illness.")])
    documents, tally = clean(tmp_path, DEFAULTS.model_copy(update={"other": ("foreign/*",)}))
    assert [(d.source, d.split == "other") for d in documents] == [("own.csv", False), ("foreign/b.csv", True)]
    assert len({d.group for d in documents}) == 2 and sum(tally.counts.values()) == 1
