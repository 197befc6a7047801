"""Which tokens of an answer are boilerplate, and which its content.

A token is boilerplate where the three tokens before it decide it: where they occur in at least a given share of the train answers of
the category, and this very token follows in at least a given part of the cases. "The mode of inheritance of" is boilerplate. The
"recessive" after "is autosomal" is content, as "dominant" may follow too; the "inheritance" after it is boilerplate again. What is
copied from the question is content, as its neighbours differ from answer to answer. This is an n-gram model of train answers, not a
grammar: in a corpus without fixed forms everything is content.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from tasks.corpus.shards.format import Split
from tasks.evaluation.params import BoilerplateParams

ORDER = 3
MAX_ANSWERS = 20_000  # per category; ids are digests, so the first documents are a sample
_PRIME = np.uint64(0x100000001B3)  # FNV-1a's
_SALT = np.uint64(0x9E3779B97F4A7C15)


class BoilerplateModel:
    """The n-grams that are boilerplate in each category of a train split."""

    def __init__(self, split: Split, params: BoilerplateParams):
        self._params = params
        self._answers: Counter[str] = Counter()
        parts: dict[str, list[npt.NDArray[np.uint64]]] = {}
        for index, entry in enumerate(split.entries):
            if self._answers[entry.category] < MAX_ANSWERS:
                self._answers[entry.category] += 1
                parts.setdefault(entry.category, []).append(_hashes(*split.document(index)))
        self._ngrams = {category: self._decided(np.concatenate(hashes), self._answers[category]) for category, hashes in parts.items()}

    def _decided(self, hashes: npt.NDArray[np.uint64], answers: int) -> npt.NDArray[np.uint64]:
        """The hashes of those (context, token) in which the context decides the token."""
        contexts, context_counts = np.unique(hashes[:, 0], return_counts=True)
        pairs, first, pair_counts = np.unique(hashes[:, 1], return_index=True, return_counts=True)
        of_context = context_counts[np.searchsorted(contexts, hashes[first, 0])]
        common = of_context >= max(2.0, self._params.share * answers)
        return pairs[common & (pair_counts >= self._params.certainty * of_context)]

    def mask(self, category: str, tokens: npt.NDArray[np.uint32], loss_mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Whether each scored token is boilerplate: [N] for N tokens in ``loss_mask``."""
        ngrams = self._ngrams.get(category)
        hashes = _hashes(tokens, loss_mask)
        positions = np.flatnonzero(loss_mask[1:]) + 1
        boilerplate = np.zeros(len(positions), bool)
        if ngrams is not None and len(ngrams):
            boilerplate[len(positions) - len(hashes) :] = np.isin(hashes[:, 1], ngrams)
        return boilerplate


def _hashes(tokens: npt.NDArray[np.uint32], loss_mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """[N, 2]: for each scored token with ORDER tokens before it, the hash of those and of those with it."""
    positions = np.flatnonzero(loss_mask[1:]) + 1
    positions = positions[positions >= ORDER]
    salted = tokens.astype(np.uint64) * _SALT
    context = np.full(len(positions), _SALT)
    for back in range(ORDER, 0, -1):
        context = (context ^ salted[positions - back]) * _PRIME
    return np.stack([context, (context ^ salted[positions]) * _PRIME], axis=1)
