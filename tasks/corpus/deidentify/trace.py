"""What each rule changes in a document, one rule after the other, as the pass over the corpus applies them."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.corpus.cleaning.changes import Change, repair_steps, text_changes
from tasks.corpus.deidentify.document import replaced_identifiers
from tasks.corpus.deidentify.known import NOBODY, KnownPeople
from tasks.corpus.documents import Document

REPAIRS, IDENTIFIERS = "repairs", "identifiers"  # the steps, as the counts by rule name them


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """What one rule changed in one text of a document."""

    step: str
    rule: str  # a repair, or a type of identifier
    text: str  # before the rule
    changes: list[Change]  # in their order; none overlaps another


def trace(document: Document, params: str, known: KnownPeople = NOBODY) -> Iterator[RuleChanges]:
    """The changes of every repair, then of de-identification by type, with its params as JSON; a rule that changes nothing is left out."""
    repaired = document
    for rule, before, repaired in repair_steps(document):
        for text, other in zip(before.texts(), repaired.texts(), strict=True):
            if changes := text_changes(text, other):
                yield RuleChanges(REPAIRS, rule, text, changes)
    yield from trace_identifiers(repaired, params, known)


def trace_identifiers(document: Document, params: str, known: KnownPeople = NOBODY) -> Iterator[RuleChanges]:
    """The changes of de-identification in the joined texts of a document that is repaired, by type."""
    whole, identifiers = replaced_identifiers(document, params, known)
    by_type: dict[str, list[Change]] = {}
    for identifier in identifiers:
        value = whole[identifier.start : identifier.end]
        if value != identifier.replacement:
            change = Change(identifier.start, identifier.end, value, identifier.replacement)
            by_type.setdefault(identifier.type, []).append(change)
    for type_, changes in sorted(by_type.items()):
        yield RuleChanges(IDENTIFIERS, type_, whole, changes)
