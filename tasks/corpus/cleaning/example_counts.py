"""How many train documents state each number of a task, partition by partition."""

from pathlib import Path

from tasks.corpus.cleaning.passes import KEPT, decided
from tasks.corpus.cleaning.rule_counts import RuleCounts
from tasks.corpus.extraction.examples import stated_numbers_of


def count_examples(partition: int, work: Path) -> RuleCounts:
    """A partition's counts, by task and ``field.number``."""
    counts = RuleCounts()
    for _, document, split, disposition in decided(partition, work):
        if document.task and split == "train" and disposition == KEPT:
            for number in stated_numbers_of(document):
                counts.add(document.task, "", number, document.id)
    return counts
