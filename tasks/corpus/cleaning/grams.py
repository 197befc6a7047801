"""The passes that find the overlap of train with evaluation documents: their 13-grams, as hashes with the documents' indices."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import shingles
from tasks.corpus.cleaning.comparison import whole_text
from tasks.corpus.cleaning.passes import KEPT, decided
from tasks.corpus.cleaning.work_files import save_array
from tasks.corpus.documents import EVALUATION

GRAM = 13  # words; shorter ones are common to texts that have nothing to do with each other
_NONE = np.zeros(0, np.uint64)


def evaluation_grams(partition: int, work: Path) -> None:
    """Pass 4, a partition: the 13-grams of its evaluation documents, each with the document's index."""
    grams, indices = [], []
    for index, document, split, disposition in decided(partition, work):
        if split in EVALUATION and disposition == KEPT:
            grams.append(shingles.ngrams(whole_text(document), GRAM))
            indices.append(np.full(len(grams[-1]), index, np.uint64))
    save_array(work / "grams" / f"{partition:03d}.npy", _pairs(grams, indices))


def train_grams(partition: int, work: Path) -> None:
    """Pass 5, a partition: which 13-grams of its train documents are in evaluation documents, and how many each has.

    Rows (hash, document, whether in its answer), and of each document (index, 13-grams, those of its answer).
    """
    evaluation = np.load(work / "evaluation-grams.npy", mmap_mode="r")
    shared, in_answer, indices, sizes = [], [], [], []
    for index, document, split, disposition in decided(partition, work):
        if split != "train" or disposition != KEPT:
            continue
        grams, of_answer = shingles.ngrams(whole_text(document), GRAM), shingles.ngrams(document.answer, GRAM)
        sizes.append((index, len(grams), len(of_answer)))
        nearest = np.minimum(np.searchsorted(evaluation, grams), len(evaluation) - 1)
        grams = grams[np.isin(grams, evaluation[nearest])] if len(evaluation) else grams[:0]
        shared.append(grams)
        in_answer.append(np.isin(grams, of_answer).astype(np.uint64))
        indices.append(np.full(len(grams), index, np.uint64))
    table = np.column_stack([_pairs(shared, indices), np.concatenate([*in_answer, _NONE])])
    save_array(work / "train-grams" / f"{partition:03d}.npy", table)
    save_array(work / "train-grams" / f"{partition:03d}.sizes.npy", np.array(sizes, np.uint64).reshape(-1, 3))


def _pairs(grams: list[shingles.Hashes], indices: list[shingles.Hashes]) -> npt.NDArray[np.uint64]:
    return np.column_stack([np.concatenate([*grams, _NONE]), np.concatenate([*indices, _NONE])])
