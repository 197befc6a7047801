"""The readers of the default corpus: the Human Phenotype Ontology, its annotations, ICD-10-CM."""

from pathlib import Path

import pytest

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.hpo import band, base_name, parse_obo, read_annotations, read_ontology

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


def test_an_ontology_becomes_definitions_synonyms_and_kinds(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text(OBO)
    by_category = {d.category: d for d in read_ontology(parse_obo(tmp_path / "hp.obo"), "hp.obo")}
    assert by_category["hpo-definition"].question == "What is Spotty skin?"
    assert by_category["hpo-definition"].answer == "Skin with spots. The skin of abnormal people. It is also known as spots."
    assert by_category["hpo-synonyms"].answer == "Spotty skin is also called spots and Maculae."
    assert by_category["hpo-kinds"].question == "What kinds of abnormal skin are there?"  # "abnormal" is written small elsewhere
    assert set(by_category["hpo-kinds"].answer.removesuffix(".").removeprefix("Kinds of abnormal skin are ").split(" and ")) == {
        "Dry skin",
        "Spotty skin",
    }
    # The list of a term's kinds and the kinds' own definitions stay together.
    assert by_category["hpo-kinds"].group == by_category["hpo-definition"].group == "hpo:HP:1"


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
    records = list(read_annotations(tmp_path / "phenotype.hpoa", "phenotype.hpoa", parse_obo(tmp_path / "hp.obo")))
    assert [(r.position, r.reason) for r in records if isinstance(r, Rejected)] == [
        ("OMIM:7 HP:9", "names a term that the ontology does not have")
    ]
    (signs,) = (d for d in records if isinstance(d, Document))
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
    (document,) = read_file(tmp_path, "icd.xml")
    assert isinstance(document, Document)
    assert document.answer == (
        "ICD-10-CM code L02 stands for Abscess of skin. Never coded together with it: impetigo (L01.-). "
        "Its subdivisions are Abscess of foot (L02.6)."
    )
    assert (document.group, document.position) == ("icd10cm:L02", "L02")
