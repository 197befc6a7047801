"""Decontamination: which train documents overlap with evaluation documents, by 13-grams as for GPT-3 (Brown et al. 2020, appendix C)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning.corpus_index import CorpusIndex
from tasks.corpus.cleaning.passes import KEPT
from tasks.corpus.documents import EVALUATION, SPLITS

TRAIN = SPLITS.index("train")


def merge_evaluation_grams(work: Path) -> None:
    """The 13-grams of all evaluation documents: sorted with their documents, and each once for looking up."""
    pairs = np.concatenate([np.load(path) for path in sorted((work / "grams").glob("[0-9]*.npy"))])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    np.save(work / "evaluation-pairs.npy", pairs)
    np.save(work / "evaluation-grams.npy", np.unique(pairs[:, 0]))


@dataclass(frozen=True)
class Contamination:
    """How much of each train document is in one evaluation document."""

    overlap: npt.NDArray[np.float64]  # per train document, the greatest share of its 13-grams
    contaminated: npt.NDArray[np.int64]  # indices of the documents that must leave


@dataclass(frozen=True)
class _TrainGrams:
    """The T train documents that are compared, and the G of their 13-grams that evaluation has too and that count."""

    documents: npt.NDArray[np.int64]  # T indices in the corpus
    size: npt.NDArray[np.int64]  # T numbers of grams that count
    answer_size: npt.NDArray[np.int64]  # T, of the answer alone
    has_answer_grams: npt.NDArray[np.bool_]  # T, before common grams were taken out
    grams: npt.NDArray[np.uint64]  # G hashes
    row: npt.NDArray[np.int64]  # G rows of the T documents
    in_answer: npt.NDArray[np.float64]  # G, 1 where the gram is in the document's answer


def measure_contamination(
    index: CorpusIndex,
    split: npt.NDArray[np.int8],
    disposition: npt.NDArray[np.uint8],
    work: Path,
    *,
    max_docs: int,
    max_overlap: float,
) -> Contamination:
    """Overlap of train with evaluation by 13-grams, those in more than ``max_docs`` train documents not counted.

    A document leaves with more than ``max_overlap`` of its grams in one evaluation document, or with its whole answer there.
    """
    train = _read_train_grams(work, max_docs)
    overlap, whole_answer = _greatest_overlap(train, work, len(split))
    leaves = train.documents[(overlap > max_overlap) | whole_answer]
    short = train.documents[~train.has_answer_grams]
    same = short[np.isin(index.answer[short], _shared_answers(index, split, disposition, max_docs))]
    return Contamination(overlap, np.union1d(leaves, same))


def _read_train_grams(work: Path, max_docs: int) -> _TrainGrams:
    """What the pass ``train_grams`` wrote, without the grams that are in more than ``max_docs`` train documents."""
    sizes = np.concatenate([np.load(p) for p in sorted((work / "train-grams").glob("[0-9]*.sizes.npy"))]).astype(np.int64)
    shared = np.concatenate([np.load(p) for p in sorted((work / "train-grams").glob("[0-9][0-9][0-9].npy"))])
    _, inverse, counts = np.unique(shared[:, 0], return_inverse=True, return_counts=True)
    common = counts[inverse] > max_docs
    row_of = {int(document): i for i, document in enumerate(sizes[:, 0])}
    row = np.array([row_of[int(document)] for document in shared[:, 1]], np.int64)
    in_answer = shared[:, 2].astype(float)
    common_in_answer = np.bincount(row[common], weights=in_answer[common], minlength=len(sizes)).astype(np.int64)
    return _TrainGrams(
        documents=sizes[:, 0],
        size=sizes[:, 1] - np.bincount(row[common], minlength=len(sizes)),
        answer_size=sizes[:, 2] - common_in_answer,
        has_answer_grams=sizes[:, 2] > 0,
        grams=shared[~common, 0],
        row=row[~common],
        in_answer=in_answer[~common],
    )


def _greatest_overlap(train: _TrainGrams, work: Path, documents: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Per train document the greatest share of its grams in one evaluation document, and whether one has its whole answer."""
    evaluation = np.load(work / "evaluation-pairs.npy", mmap_mode="r")
    low = np.searchsorted(evaluation[:, 0], train.grams, side="left")
    high = np.searchsorted(evaluation[:, 0], train.grams, side="right")
    # One row per gram and evaluation document that has it: the range low:high of each gram, laid end to end.
    repeat = high - low
    rows = np.repeat(np.arange(len(train.grams)), repeat)
    offsets = np.arange(len(rows)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    against = np.asarray(evaluation[:, 1])[np.repeat(low, repeat) + offsets].astype(np.int64)
    # Grams per pair of a train and an evaluation document.
    key, inverse, together = np.unique(train.row[rows] * documents + against, return_inverse=True, return_counts=True)
    answers = np.bincount(inverse, weights=train.in_answer[rows], minlength=len(key))
    row = key // max(documents, 1)
    overlap, whole_answer = np.zeros(len(train.documents)), np.zeros(len(train.documents), bool)
    np.maximum.at(overlap, row, together / np.maximum(train.size[row], 1))
    np.logical_or.at(whole_answer, row, (answers >= train.answer_size[row]) & (train.answer_size[row] > 0))
    return overlap, whole_answer


def _shared_answers(
    index: CorpusIndex, split: npt.NDArray[np.int8], disposition: npt.NDArray[np.uint8], max_docs: int
) -> npt.NDArray[np.uint64]:
    """Hashes of the answers that are in evaluation and in few train documents: for answers too short for a 13-gram."""
    kept = disposition == KEPT
    evaluated = kept & np.isin(split, [SPLITS.index(s) for s in EVALUATION]) & (index.answer != 0)
    values, counts = np.unique(index.answer[kept & (split == TRAIN)], return_counts=True)
    return np.intersect1d(values[counts <= max_docs], index.answer[evaluated])
