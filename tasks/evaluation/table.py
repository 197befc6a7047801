"""The table of an evaluation: every metric per split, category and source, base and tuned side by side, with 95 % intervals."""

from collections.abc import Iterator, Sequence
from typing import Any

from tasks.evaluation.metrics import PER_TOKEN, importance
from tasks.evaluation.scores import Interval, Score, change, count_groups, estimate

MIN_GROUPS = 10  # of items; with fewer there is no interval: resampling so few says little

Table = dict[str, dict[str, Any]]  # split → "all" | "category" → name | "source" → name → metric → row


def table(scores: Sequence[Score]) -> Table:
    """Splits in the order of the scores; in each ``all`` together, then by ``category`` and by ``source``."""
    rows: Table = {}
    for split in dict.fromkeys(s.split for s in scores):
        members = [s for s in scores if s.split == split]
        rows[split] = {"all": _rows(members)} | {
            part: {name: _rows([s for s in members if getattr(s, part) == name]) for name in sorted({getattr(s, part) for s in members})}
            for part in ("category", "source")
        }
    return rows


def _rows(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    metrics: dict[str, list[Score]] = {}
    for score in scores:
        metrics.setdefault(score.metric, []).append(score)
    return {metric: _row(metric, metrics[metric]) for metric in sorted(metrics, key=importance)}


def _row(metric: str, scores: Sequence[Score]) -> dict[str, Any]:
    groups = count_groups(scores)
    values = {"base": estimate(scores, "base"), "tuned": estimate(scores, "tuned"), "change": change(scores)}
    row: dict[str, Any] = {"items": len(scores), "groups": groups, "weight": sum(s.tuned_weight for s in scores)}
    row |= {name: cell(interval, enough=groups >= MIN_GROUPS) for name, interval in values.items()}
    if metric in PER_TOKEN:
        from model.loss import perplexity  # which imports torch; the gate of register needs none

        row["perplexity"] = {role: perplexity(values[role].value) for role in ("base", "tuned")}
    return row


def cell(interval: Interval, *, enough: bool = True) -> dict[str, float]:
    """A value with its interval, or alone where there are too few items for one."""
    return {"value": interval.value} | ({"low": interval.low, "high": interval.high} if enough else {})


def flat(metrics: Table) -> dict[str, float]:
    """The values as single numbers, ``test/category/icd10cm/answer_nll/tuned``; with intervals those of all of a split."""
    return dict(_flat(metrics))


def _flat(metrics: Table) -> Iterator[tuple[str, float]]:
    for split, parts in metrics.items():
        for metric, row in parts.get("all", {}).items():
            for name in ("base", "tuned", "change"):
                yield from ((f"{split}/{metric}/{name}{'' if n == 'value' else f'_{n}'}", v) for n, v in row[name].items())
        for category, rows in parts.get("category", {}).items():
            yield from (
                (f"{split}/category/{category}/{m}/{name}", row[name]["value"]) for m, row in rows.items() for name in ("base", "tuned")
            )
