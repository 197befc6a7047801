"""Versions, deletions and retractions of PubMed's citations; old headers of phenotype.hpoa."""

import os
import zipfile
from pathlib import Path

import pytest
from helpers.readers import read as read_one

from tasks.corpus.documents import Document, Skipped
from tasks.corpus.readers.files import raw_files, read_file, record_files
from tasks.corpus.readers.records import FILE


def citation(pmid: int, text: str, *, version: int = 1, revised: str = "", kind: str = "", relation: str = "", of: int = 0) -> str:
    date = f"<DateRevised><Year>{revised[:4]}</Year><Month>{revised[4:6]}</Month><Day>{revised[6:]}</Day></DateRevised>" if revised else ""
    kinds = f"<PublicationTypeList><PublicationType>{kind}</PublicationType></PublicationTypeList>" if kind else ""
    number = f"<PMID>{of}</PMID>" if of else ""
    corrections = f'<CommentsCorrections RefType="{relation}">{number}</CommentsCorrections>' if relation else ""
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID>{date}<Article><Abstract>'
        f"<AbstractText>{text}</AbstractText></Abstract>{kinds}</Article><CommentsCorrectionsList>{corrections}</CommentsCorrectionsList></MedlineCitation></PubmedArticle>"
    )


def read(directory: Path, **files: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The texts of files of citations, and what was skipped where."""
    for name, articles in files.items():
        (directory / f"{name}.xml").write_text(f"<PubmedArticleSet>{articles}</PubmedArticleSet>")
    records = [record for name in raw_files(directory) for record in read_file(directory, name)]
    texts = [r.answer for r in records if isinstance(r, Document)]
    return texts, [(f"{r.source} {r.position}", r.reason) for r in records if isinstance(r, Skipped)]


def test_of_a_citation_the_newest_version_is_read(tmp_path: Path) -> None:
    first = citation(1, "one") + citation(2, "two, version 2", version=2) + citation(3, "three", revised="20250202")
    second = (
        citation(1, "one, again") + citation(2, "two", version=1) + citation(3, "three, older", revised="20250201") + citation(4, "four")
    )
    texts, skipped = read(tmp_path, a=first, b=second)
    assert texts == ["two, version 2", "three", "one, again", "four"]
    older = "is an older version of a citation"
    assert skipped == [("a.xml article 1", older), ("b.xml article 2", older), ("b.xml article 3", older)]


def test_deleted_and_retracted_citations_and_the_notices_of_retractions_are_out(tmp_path: Path) -> None:
    first = citation(1, "deleted later") + citation(2, "retracted", kind="Retracted Publication")
    first += (
        citation(3, "retracted too", relation="RetractionIn")
        + citation(4, "retracted by a notice")
        + citation(5, "kept", relation="ErratumIn")
    )
    second = citation(6, "a notice", kind="Retraction of Publication", relation="RetractionOf", of=4)
    second += citation(7, "a notice", kind="Retraction Notice")
    texts, skipped = read(tmp_path, a=first, b=second + "<DeleteCitation><PMID>1</PMID></DeleteCitation>")
    assert texts == ["kept"] and [reason for _, reason in skipped] == [
        "is a citation that was deleted",
        *["is a retracted article"] * 3,
        *["is the notice of a retraction"] * 2,
        "lists citations that were deleted",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "#DatabaseID\tDiseaseName\tQualifier\tHPO_ID\tReference\tEvidence\tOnset\tFrequency\tSex\tModifier\tAspect\tBiocuration\nOMIM:1\tx\n",
        "#description: HPO\n#date: 2019-01-01\n#DatabaseID\tDiseaseName\nOMIM:1\tx\n",
        "disease-db\tdisease-identifier\tdisease-name\tnegation\tHPO-ID\nOMIM\t1\tx\t\tHP:1\n",
        "OMIM\t100050\tAARSKOG\t\tHP:0000028\n",
    ],
)
def test_old_headers_of_annotations_are_named_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "hp.obo").write_text("[Term]\nid: HP:1\nname: Skin\n")
    documents, ((position, reason),) = read_one(tmp_path, "phenotype.hpoa", text)
    assert not documents and position == FILE and reason.startswith("has the header of a version before 2023; download the file again")


def test_articles_in_an_archive_and_in_a_file_of_any_name_are_read(tmp_path: Path) -> None:
    text = f"<PubmedArticleSet>{citation(1, 'one')}{citation(2, 'two')}</PubmedArticleSet>"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.xml", text)
    (tmp_path / os.fsdecode(b"b\xe9\n.xml")).write_text(text.replace(">1<", ">3<").replace(">2<", ">4<"))
    records = [record for name in record_files(tmp_path) for record in read_file(tmp_path, name)]
    assert [r.answer for r in records if isinstance(r, Document)] == ["one", "two"] * 2 and len(records) == 4
