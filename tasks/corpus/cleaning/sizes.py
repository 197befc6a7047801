"""Whether the evaluation splits hold as many items as later gates ask for, told while it costs nothing yet.

It estimates what validate chooses, from the sizes of texts, and knows the sections validate and register as plain values alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.corpus.documents import Document, read_documents, share

CHARS_PER_TOKEN = 4
MAX_CHOICE_CHARS = 400  # of an answer in a four-choice item (tasks/evaluation/choice.py)
CHOICES = 4  # answers of an item, each of another group
GENERATED = ("stop", "empty", "repetition")
SCORED = ("answer_nll", "answer_content_nll", "bits_per_byte")
OF_TASKS = ("field_f1", "field_f1_few_shot", "hallucinated", "parsed", "exact")  # of documents of extraction tasks


def short_of_items(documents: Path, validate: Mapping[str, Any], register: Mapping[str, Any]) -> str:
    """A warning that names each metric of the gate with fewer items than it needs; empty where there are enough.

    ``documents`` is a documents directory; what no document of the user's decides, such as the general texts, is left out.
    """
    held_out = {split: list(read_documents(documents, split)) for split in ("test", "ood")}
    if any(document.task for of_split in held_out.values() for document in of_split):
        rest = validate["structured"]["rest"]
        validate = dict(validate) | {name: round(rest * validate[name]) for name in ("max_tokens", "generations")}
    counted = dict(_counts(held_out, validate))
    short: dict[str, str] = {}
    for metric, split, needed in _needs(register, counted):
        items = counted.get((metric, split))
        if items is not None and items < needed and not (split == "ood" and not held_out["ood"]):
            name = f"{metric} on {split}" if split else metric
            short.setdefault(name, f"{name}: about {items:,} of {needed:,}")
    if not short:
        return ""
    asked = sum(bool(document.question) for document in held_out["test"])
    return (
        f"warning: validate will measure fewer items than the gate of register asks for ({'; '.join(short.values())}). The test split has "
        f"{len(held_out['test']):,} documents, {asked:,} of them with a question; {', '.join((*GENERATED, 'choice'))} need one. A model "
        "can be trained, and no figure of it will show that it is better. Add data, or change in params.yaml preprocess.test_share, "
        "validate.max_tokens, choices and generations (0: all), or the items in register"
    )


def _needs(register: Mapping[str, Any], counted: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, str, int]]:
    """Metric, split and items of each entry of the gate; of the primary metrics, the first that can be measured counts."""
    primary = next((entry for entry in register["primary"] if (entry["metric"], entry["split"]) in counted), register["primary"][-1])
    measured = {metric for metric, _ in counted}
    for entry in (primary, *register["thresholds"], *register["guardrails"]):
        if entry.get("items") and entry.get("unless") not in measured:
            yield entry["metric"], entry["split"], entry["items"]


def _counts(held_out: Mapping[str, list[Document]], validate: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], int]]:
    """About how many items of a metric and split there will be."""
    for split, documents in held_out.items():
        items = _scored(documents, validate["seed"], validate["max_tokens"])
        yield from (((metric, split), items) for metric in SCORED)
        if notes := _notes(documents, validate["structured"]["notes"]):
            yield from (((metric, split), notes) for metric in OF_TASKS)
    asked = [document for document in held_out["test"] if document.question and not document.task]
    notes = sum(_notes(documents, validate["structured"]["notes"]) for documents in held_out.values())
    yield from (((metric, ""), min(len(asked), validate["generations"]) + notes) for metric in GENERATED)
    short = [document for document in asked if len(document.answer) <= MAX_CHOICE_CHARS]
    groups = Counter(category for category, _ in {(d.category, d.group) for d in short})
    by_category = Counter(d.category for d in short if groups[d.category] >= CHOICES)
    limit = validate["choices"] or len(short)
    yield ("choice", ""), sum(min(count, limit) for count in by_category.values())


def _notes(documents: Iterable[Document], limit: int) -> int:
    """Documents of extraction tasks whose answers are compared with the truth."""
    of_tasks = Counter(document.task for document in documents if document.task)
    return sum(min(count, limit or count) for count in of_tasks.values())


def _scored(documents: Iterable[Document], seed: int, max_tokens: int) -> int:
    """Answers that are scored: of each category until they have ``max_tokens``, as tasks/evaluation/answers.py chooses them."""
    tokens, items = Counter[str](), 0
    for document in sorted(documents, key=lambda d: share(seed, d.id)):
        if not max_tokens or tokens[document.category] < max_tokens:
            text = document.question + document.answer if document.task else document.answer
            tokens[document.category] += max(len(text) // CHARS_PER_TOKEN, 1)
            items += 1
    return items
