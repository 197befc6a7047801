"""Whether a model's confidence in its likeliest next token is justified: expected calibration error (Guo et al. 2017, arXiv:1706.04599).

Tokens are put into ten bins by confidence; the error is the mean distance between a bin's confidence and its share of right tokens, each
bin weighted by its tokens. Intervals come from the bootstrap over groups of documents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.evaluation.likelihood import TokenScores
from tasks.evaluation.scores import SEED, Interval

BINS, RESAMPLES = 10, 1000

Counts = npt.NDArray[np.float64]  # [groups, BINS, 3]: tokens, sum of confidence, right ones


def count_by_confidence(scores: Sequence[TokenScores], groups: Sequence[str]) -> Counts:
    """Of each group of documents the tokens, their summed confidence and the right ones, by bin of confidence.

    ``groups``: of each document; in the order of their first ones.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    counts = np.zeros((len(numbers), BINS, 3))
    for group, text in zip(groups, scores, strict=True):
        row = counts[numbers[group]]
        bins = np.minimum((text.confidence * BINS).astype(int), BINS - 1)
        for column, weights in enumerate((np.ones(len(bins)), text.confidence, text.is_greedy)):
            row[:, column] += np.bincount(bins, weights=weights, minlength=BINS)
    return counts


def error(counts: Counts) -> Interval:
    """The error over all tokens, with its interval."""
    low, high = np.percentile(_resampled(counts), [2.5, 97.5])
    return Interval(_error(counts.sum(0)), float(low), float(high))


def change(base: Counts, tuned: Counts) -> Interval:
    """Tuned less base, over the same groups."""
    low, high = np.percentile(_resampled(tuned) - _resampled(base), [2.5, 97.5])
    return Interval(_error(tuned.sum(0)) - _error(base.sum(0)), float(low), float(high))


def bins(counts: Counts) -> list[dict[str, Any]]:
    """Of each bin with tokens: ``tokens``, mean ``confidence``, and ``right``, the share of right ones."""
    rows = counts.sum(0)
    return [{"tokens": int(n), "confidence": float(sure / n), "right": float(right / n)} for n, sure, right in rows if n]


def _error(rows: npt.NDArray[np.float64]) -> float:
    return float(np.abs(rows[..., 1] - rows[..., 2]).sum() / rows[..., 0].sum())


def _resampled(counts: Counts) -> npt.NDArray[np.float64]:
    # How often each group is sampled; the same for both models, so that they are compared on the same samples.
    count = len(counts)
    times = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    rows = np.tensordot(times.astype(np.float64), counts, axes=1)
    return np.asarray(np.abs(rows[..., 1] - rows[..., 2]).sum(-1) / rows[..., 0].sum(-1))
