"""Verbatim extraction: whether a model continues the beginning of a training text word for word (Carlini et al. 2021, arXiv:2012.07805).

The greedy continuation equals the next tokens exactly where each of them is the likeliest given those before it, so one pass over the text
tells it and nothing needs to be generated. Fixed wording and what follows from the question are reproduced without having been
memorized: the same is asked of held-out documents, and of the base model; what training added is the difference.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.corpus.documents import share
from tasks.corpus.shards.format import Entry, Split
from tasks.evaluation.likelihood import Judged, Text
from tasks.evaluation.params import ExtractionParams
from tasks.evaluation.probes import Item, Value


class Extraction:
    """Documents of a split with enough text, in an order that the seed fixes: given their beginning, does the rest follow?"""

    def __init__(self, name: str, split: Split, params: ExtractionParams, *, seed: int):
        self._split = name
        self._entries: list[Entry] = []
        self.texts: list[Text] = []
        for number in sorted(range(len(split)), key=lambda n: share(seed, "extraction", split.entries[n].id)):
            if len(self.texts) == params.documents:
                break
            if text := _beginning(Text(*split.document(number)), params):
                self._entries.append(split.entries[number])
                self.texts.append(text)

    def values(self, judged: Sequence[Judged]) -> Iterator[Value]:
        for entry, of_text in zip(self._entries, judged, strict=True):
            yield Value("extraction", Item(entry.id, self._split, entry.category, entry.source), 1, float(of_text.likeliest.all()))


def _beginning(text: Text, params: ExtractionParams) -> Text | None:
    """The text up to the target, which alone counts: tokens of an answer after at least ``prefix`` tokens; None where it is too short."""
    places = text.counted()
    places = places[places >= params.prefix]
    if len(places) < params.target:
        return None
    start = int(places[0])
    if int(places[params.target - 1]) != start + params.target - 1:
        return None  # a turn ends before
    counts = np.zeros(start + params.target, np.uint8)
    counts[start:] = 1
    return Text(text.tokens[: len(counts)], counts)
