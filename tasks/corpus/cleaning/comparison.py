"""What documents are compared by: as numbers, so that the comparison needs no text."""

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import shingles
from tasks.corpus.documents import SPLITS, Document

KEYS = ("subject", "group", "inferred_group", "kind", "pair", "answer", "split")
BANDS = 16  # of 8 values each: pairs from a similarity of about 0.7 on share one
# By the prefix of a group's name; a reader made up the first two, where no record says what belongs together.
GROUP_KINDS = ("record", "question", "topic", "group")
INFERRED_GROUPS = ("record:", "question:")


def comparison_keys(document: Document, boilerplate_words: int) -> dict[str, int]:
    """Of a document, by KEYS: hashes and flags."""
    question = " ".join(shingles.words(document.question))
    answer = " ".join(shingles.words(document.answer))
    # Of other subjects, or with other numbers, the same sentences state other facts.
    subject = f"{document.topic.lower() or question}\x1f{sorted(shingles.numbers_and_negations(document.answer))}"
    return {
        "subject": shingles.hash_text(subject),
        "group": shingles.hash_text(document.group),
        "inferred_group": int(document.group.startswith(INFERRED_GROUPS)),
        "kind": GROUP_KINDS.index(prefix) if (prefix := document.group.partition(":")[0]) in GROUP_KINDS else GROUP_KINDS.index("group"),
        "pair": shingles.hash_text("\x1f".join([*(t for _, t in document.before), question, answer])),
        "answer": shingles.hash_text(answer) if question and not document.task and answer.count(" ") >= boilerplate_words - 1 else 0,
        "split": (SPLITS.index(document.split) + 1) if document.split else 0,
    }


def document_shingles(document: Document) -> shingles.Hashes:
    """Hashes of all its 5-word shingles; of a shorter one, of its words."""
    grams = shingles.ngrams(whole_text(document), 5)
    return grams if len(grams) else np.array([shingles.hash_text(" ".join(shingles.words(whole_text(document))))], np.uint64)


def band_keys(signatures: npt.NDArray[np.uint32], subjects: shingles.Hashes) -> npt.NDArray[np.uint64]:
    """Keys (BANDS, N) of N signatures: documents with an equal key of one band are compared."""
    keys = np.zeros((BANDS, len(signatures)), np.uint64)
    width = shingles.PERMUTATIONS // BANDS
    for band in range(BANDS):
        keys[band] = subjects + np.uint64(band)
        for column in range(band * width, (band + 1) * width):
            keys[band] = keys[band] * shingles.BASE + signatures[:, column]
    return keys


def whole_text(document: Document) -> str:
    """Everything in a document that is text."""
    return "\n".join(document.texts())
