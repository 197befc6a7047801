"""Which tokens of an answer are fixed wording, and which its content.

A token is wording where the three tokens before it decide it: where they stand in at least a given share of the train answers of the
category, and are followed there by this very token in at least a given part of the cases. "The mode of inheritance of" is wording; the
"recessive" after "is autosomal" is content, as "dominant" may stand there, and the "inheritance" after it is wording again. What is
copied from the question is content, as its neighbours differ from answer to answer. It is an n-gram model of train answers, not a
grammar: in a corpus without fixed forms everything is content.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from tasks.corpus.shards.format import Split
from tasks.evaluation.params import WordingParams

ORDER = 3
MOST_ANSWERS = 20_000  # per category; ids are digests, so the first documents are a sample
_PRIME = np.uint64(0x100000001B3)  # FNV-1a's
_SALT = np.uint64(0x9E3779B97F4A7C15)


class Wording:
    """The wording of the categories in a train split."""

    def __init__(self, split: Split, params: WordingParams):
        self._params = params
        self._taken: Counter[str] = Counter()
        parts: dict[str, list[npt.NDArray[np.uint64]]] = {}
        for number, entry in enumerate(split.entries):
            if self._taken[entry.category] < MOST_ANSWERS:
                self._taken[entry.category] += 1
                parts.setdefault(entry.category, []).append(_hashes(*split.document(number)))
        self._known = {category: self._decided(np.concatenate(found), self._taken[category]) for category, found in parts.items()}

    def _decided(self, hashes: npt.NDArray[np.uint64], answers: int) -> npt.NDArray[np.uint64]:
        """The hashes of those (context, token) in which the context decides the token."""
        contexts, context_counts = np.unique(hashes[:, 0], return_counts=True)
        pairs, first, pair_counts = np.unique(hashes[:, 1], return_index=True, return_counts=True)
        of_context = context_counts[np.searchsorted(contexts, hashes[first, 0])]
        common = of_context >= max(2.0, self._params.share * answers)
        return pairs[common & (pair_counts >= self._params.certainty * of_context)]

    def mask(self, category: str, tokens: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Of each token that counts, whether it is wording."""
        known = self._known.get(category)
        hashes = _hashes(tokens, counts)
        places = np.flatnonzero(counts[1:]) + 1
        found = np.zeros(len(places), bool)
        if known is not None and len(known):
            found[len(places) - len(hashes) :] = np.isin(hashes[:, 1], known)
        return found


def _hashes(tokens: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """[N, 2]: of each token that counts and has ORDER tokens before it, the hash of those and of those with it."""
    places = np.flatnonzero(counts[1:]) + 1
    places = places[places >= ORDER]
    wide = tokens.astype(np.uint64) * _SALT
    context = np.full(len(places), _SALT)
    for back in range(ORDER, 0, -1):
        context = (context ^ wide[places - back]) * _PRIME
    return np.stack([context, (context ^ wide[places]) * _PRIME], axis=1)
