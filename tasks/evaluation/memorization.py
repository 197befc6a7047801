"""Verbatim extraction: whether a model continues the beginning of a training text word for word (Carlini et al. 2021, arXiv:2012.07805).

The greedy continuation equals the next tokens exactly where each of them is the likeliest given those before it, so one pass over the text
is enough and nothing needs to be generated. Boilerplate and what follows from the question are reproduced without having been
memorized: held-out documents and the base model are measured too, and the difference is what training added.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tasks.corpus.documents import share
from tasks.corpus.shards.format import Entry, Split
from tasks.evaluation.likelihood import Text, TokenScores
from tasks.evaluation.params import ExtractionParams
from tasks.evaluation.probes import Item, Value


class Extraction:
    """Probe: documents of a split with enough text, in an order that the seed fixes. Given a prefix, does the model write the target?"""

    def __init__(self, name: str, split: Split, params: ExtractionParams, *, seed: int, without: Collection[str] = ()):
        """``without``: categories that are left out."""
        self._split = name
        self.entries: list[Entry] = []
        self.texts: list[Text] = []
        for index in sorted(range(len(split)), key=lambda n: share(seed, "extraction", split.entries[n].id)):
            if len(self.texts) == params.documents:
                break
            if split.entries[index].category in without:
                continue
            if text := _prefix_and_target(Text(*split.document(index)), params):
                self.entries.append(split.entries[index])
                self.texts.append(text)

    def values(self, scores: Sequence[TokenScores]) -> Iterator[Value]:
        """1 for each text whose target is greedy decoding's, token by token, else 0."""
        for entry, of_text in zip(self.entries, scores, strict=True):
            yield Value("extraction", Item(entry.id, self._split, entry.category, entry.source), 1, float(of_text.is_greedy.all()))


def _prefix_and_target(text: Text, params: ExtractionParams) -> Text | None:
    """The text up to the target, which alone is scored: answer tokens after at least ``prefix`` tokens; None where it is too short."""
    positions = text.scored_positions()
    positions = positions[positions >= params.prefix]
    if len(positions) < params.target:
        return None
    start = int(positions[0])
    if int(positions[params.target - 1]) != start + params.target - 1:
        return None  # a turn ends before
    loss_mask = np.zeros(start + params.target, np.uint8)
    loss_mask[start:] = 1
    return Text(text.tokens[: len(loss_mask)], loss_mask)
