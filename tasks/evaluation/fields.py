"""The table of extracted fields: precision, recall, F1 and invented values of each property, for each model."""

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.notes import Fields
from tasks.evaluation.structured import Counts

FieldTable = dict[str, dict[str, dict[str, dict[str, Any]]]]  # split → task → path of the property → role
TOTAL = "all"  # beside the paths


def field_table(base: Fields, few_shot: Fields, tuned: Fields) -> FieldTable:
    """Per split and task a row for each property that the truth or a model has, then ``all``; in each ``base``, ``base_few_shot`` and
    ``tuned`` with their shares. ``values``: how many the truth has.
    """
    by_role = {"base": base, "base_few_shot": few_shot, "tuned": tuned}
    return {split: {task: _rows(by_role, split, task) for task in by_task} for split, by_task in tuned.items()}


def _rows(by_role: Mapping[str, Fields], split: str, task: str) -> dict[str, dict[str, Any]]:
    counts = {role: fields.get(split, {}).get(task, {}) for role, fields in by_role.items()}
    paths = sorted({path for of_role in counts.values() for path in of_role})
    rows = {path: _row({role: of_role.get(path, Counts()) for role, of_role in counts.items()}) for path in paths}
    return rows | {TOTAL: _row({role: _sum(of_role) for role, of_role in counts.items()})}


def _sum(of_role: Mapping[str, Counts]) -> Counts:
    total = Counts()
    for counts in of_role.values():
        total = total.plus(counts)
    return total


def _row(counts: Mapping[str, Counts]) -> dict[str, Any]:
    return {"values": max(c.true for c in counts.values())} | {role: _shares(of_role) for role, of_role in counts.items()}


def _shares(counts: Counts) -> dict[str, float]:
    return {
        "precision": _ratio(counts.right, counts.predicted),
        "recall": _ratio(counts.right, counts.true),
        "f1": _ratio(2 * counts.right, counts.true + counts.predicted),
        "hallucinated": _ratio(counts.unstated, counts.checked),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
