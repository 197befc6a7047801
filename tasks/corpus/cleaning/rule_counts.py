"""What became of records, counted by source and rule, with the ids of a few of them: never with what they say."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.runtime.files import by_folder

MAX_EXAMPLES = 5

Key = tuple[str, str, str]  # step, source, rule

REMOVING = ("read", "clean", "duplicates", "leakage", "examples", "withdrawn")  # steps that take records out


@dataclass
class RuleCounts:
    """Counts of records by (step, source, rule); those of several processes can be merged in any order."""

    counts: dict[Key, int] = field(default_factory=dict)
    examples: dict[Key, list[str]] = field(default_factory=dict)  # the smallest ids, so that order says nothing
    changes: dict[Key, int] = field(default_factory=dict)  # places that a rule changed in the texts of its records
    notes: list[str] = field(default_factory=list)  # sentences on the corpus as a whole

    def add(self, step: str, source: str, rule: str, example: str, changes: int = 0) -> None:
        """Count one record, and the places in it that the rule changed; ``example`` is its id, or its position where it has none."""
        self._add((step, source, rule), 1, [example], changes)

    def merge(self, counted: "RuleCounts") -> None:
        """Add the counts of another part of the corpus."""
        for key, count in counted.counts.items():
            self._add(key, count, counted.examples[key], counted.changes.get(key, 0))

    def total(self, *steps: str) -> int:
        """The number of records over all sources and rules of these steps."""
        return sum(n for (step, _, _), n in self.counts.items() if step in steps)

    def rows(self) -> Iterator[dict[str, str | int | list[str]]]:
        """The rows of the funnel report, sorted by step, source and rule; of a great many files, by folder."""
        names = by_folder({source for _, source, _ in self.counts})
        shown = RuleCounts()
        for (step, source, rule), count in self.counts.items():
            key = (step, source, rule)
            shown._add((step, names[source], rule), count, self.examples[key], self.changes.get(key, 0))
        for key, count in sorted(shown.counts.items()):
            step, source, rule = key
            row: dict[str, str | int | list[str]] = {"step": step, "source": source, "rule": rule, "records": count}
            yield row | ({"changes": shown.changes[key]} if key in shown.changes else {}) | {"examples": shown.examples[key]}

    def _add(self, key: Key, count: int, examples: list[str], changes: int) -> None:
        self.counts[key] = self.counts.get(key, 0) + count
        if changes:
            self.changes[key] = self.changes.get(key, 0) + changes
        self.examples[key] = sorted({*self.examples.get(key, []), *examples})[:MAX_EXAMPLES]


def summarize_removed(counted: RuleCounts) -> str:
    """One line for a log or an error: the eight most frequent reasons for which records were not taken."""
    counts = Counter({(source, rule): n for (step, source, rule), n in counted.counts.items() if step in REMOVING})
    rows = [f"{n:,} in {source}: {rule}" for (source, rule), n in counts.most_common(8)]
    return "not taken: " + ("; ".join(rows) + (" …" if len(counts) > 8 else "") if rows else "none")
