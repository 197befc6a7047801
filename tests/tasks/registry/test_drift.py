"""Each measure of drift stays small for documents of the same origin, and grows for what it is there to see."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.builders import SIGNS
from helpers.project import Project

from tasks.corpus.documents import Document, content_id, share, write_documents
from tasks.registry.__main__ import LIMITS
from tasks.registry.upkeep.drift import Corpus, identifiers, lengths, likelihood, sources, vocabulary
from tasks.runtime.digests import dvc_digest


def document(number: int, *, words: int, text: str = "", source: str = "letters.csv") -> Document:
    answer = text or " ".join(SIGNS[int(8 * share(number, n))] for n in range(words))
    return Document(f"{number:024x}", "What is seen?", answer, source, "qa", "", str(number))


def corpus(new: list[Document]) -> Corpus:
    of = {
        "train": [document(n, words=5 + n % 20) for n in range(300)],
        "test": [document(n, words=5 + n % 20) for n in range(1000, 1060)],
        "new": new,
    }

    def read(sort: str) -> Iterator[Document]:
        return iter(of[sort])

    return Corpus(read)


def test_documents_of_the_same_origin_do_not_warn() -> None:
    same = corpus([document(n, words=5 + n % 20) for n in range(2000, 2060)])
    for measure in (lengths(same, LIMITS["length"]), vocabulary(same, LIMITS["vocabulary"]), identifiers(same, LIMITS["identifiers"])):
        assert not measure.warns, measure
    assert sources(same).new == 0.0


def test_longer_documents_shift_the_lengths() -> None:
    assert lengths(corpus([document(n, words=60) for n in range(2000, 2060)]), LIMITS["length"]).warns


def test_other_words_are_unknown() -> None:
    measure = vocabulary(corpus([document(2000, words=0, text="fever Lungenentzündung Herzinsuffizienz cough")]), LIMITS["vocabulary"])
    # The question's words are known as well: 2 of 7.
    assert measure.warns and measure.new == pytest.approx(2 / 7)


def test_marks_of_identifiers_and_unknown_files_are_counted() -> None:
    letters = [
        document(n, words=0, text=f"[NAME] came on day {n} to [ADDRESS], with [redness].", source="new.csv") for n in range(2000, 2010)
    ]
    assert identifiers(corpus(letters), LIMITS["identifiers"]).new == 2000.0
    assert sources(corpus(letters)).new == 1.0 and not sources(corpus(letters)).warns


def test_text_that_a_model_finds_unlikely_raises_its_nats(tiny_checkpoint: Path) -> None:
    same = likelihood(corpus([document(n, words=5 + n % 20) for n in range(2000, 2060)]), tiny_checkpoint, LIMITS["nats"])
    assert not same.warns and same.held_out and same.new == pytest.approx(same.held_out, rel=0.1)


@pytest.mark.slow
def test_the_command_says_what_it_compared_and_changes_no_output(copied: Project) -> None:
    others = [replace(document(n, words=9), id=content_id(str(n)), split="train" if n % 3 else "replay") for n in range(60)]
    write_documents(others, copied.path / "others")
    output = copied.run("python", "-m", "tasks.registry", "drift", "others", "artifacts/drift").stdout
    assert "was trained on no document of this corpus; there is nothing to compare 40 new ones with" in output

    before = dvc_digest(copied.path / "artifacts" / "documents")
    output = copied.run("python", "-m", "tasks.registry", "drift", "artifacts/documents", "artifacts/drift").stdout
    assert "drift: 0 new documents; fewer than 10 show nothing" in output
    assert dvc_digest(copied.path / "artifacts" / "documents") == before
