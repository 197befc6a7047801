"""Raw files of several formats, and what the readers make of one."""

import json
from pathlib import Path
from typing import Any

from tasks.corpus.documents import Document, KnownPerson, Rejected
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FileOptions


def read(directory: Path, name: str, content: bytes | str, **options: Any) -> tuple[list[Document], list[tuple[str, str]]]:
    """What a file becomes: its documents, and the places and reasons of what is rejected."""
    (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
    records = list(read_file(directory, name, FileOptions(**options)))
    assert all(r.source == name for r in records if not isinstance(r, KnownPerson))
    rejected = [(r.position, r.reason.split(" (")[0]) for r in records if isinstance(r, Rejected)]
    return [r for r in records if isinstance(r, Document)], rejected


MEDQUAD = """<?xml version="1.0"?>
<Document id="0000001" source="CDC"><Focus>Asthma</Focus><FocusAnnotations><Synonyms><Synonym>Wheeze</Synonym></Synonyms></FocusAnnotations>
<QAPairs><QAPair pid="1"><Question qid="1-1" qtype="symptoms">What are its signs?</Question><Answer>Cough.</Answer></QAPair>
<QAPair pid="2"><Question qid="1-2" qtype="treatment">How is it treated?</Question><Answer></Answer></QAPair></QAPairs></Document>"""


PUBMED = """<?xml version="1.0"?><!DOCTYPE PubmedArticleSet SYSTEM "pubmed.dtd">
<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>On <i>E. coli</i></ArticleTitle>
<Abstract><AbstractText Label="AIM">To see CO<sub>2</sub>.</AbstractText><AbstractText>It was seen.</AbstractText></Abstract>
</Article></MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><PMID>2</PMID><Article><ArticleTitle>None</ArticleTitle></Article></MedlineCitation></PubmedArticle>
<DeleteCitation><PMID>3</PMID></DeleteCitation></PubmedArticleSet>"""


def fhir_note(**resource: Any) -> str:
    return json.dumps({"resourceType": "DocumentReference", "subject": {"reference": "Patient/17"}} | resource)
