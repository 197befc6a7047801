"""Per-item scores of an evaluation, and what may be concluded from them: values with intervals, paired comparisons.

A metric's value over a set of items is the sum of its scores over the sum of their weights: nats per token, the share of right
choices. Intervals come from the bootstrap over items (Efron and Tibshirani 1993, chapters 6 and 13), which are the unit that was
sampled; two models that were scored on the same items are compared item by item. It knows nothing of models or of MLflow.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.evaluation.metrics import METRICS, current_name

FILE = "scores.jsonl"
# What registered versions carry from before: a field and a split under their older names.
RENAMED_FIELDS, RENAMED_SPLITS = {"kind": "category"}, {"other": "ood"}
Role = Literal["base", "tuned"]
RESAMPLES, SEED = 2000, 2026
BLOCK = 1 << 22  # resampled indices in memory at a time


@dataclass(frozen=True, slots=True)
class Score:
    """One item under both models."""

    metric: str
    id: str
    split: str
    category: str
    source: str
    weight: float
    base: float
    tuned: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def write_scores(scores: Iterable[Score], directory: Path) -> None:
    """One JSON line per score, into ``scores.jsonl``."""
    with open(directory / FILE, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(score)) + "\n" for score in scores)


def read_scores(directory: Path) -> list[Score]:
    """The scores of an evaluation, under today's names of the metrics. ``ValueError`` names the line that is no score."""
    path, scores = directory / FILE, []
    try:
        with open(path, encoding="utf-8") as file:
            for line_number, line in enumerate(file, 1):
                try:
                    scores.append(_score(json.loads(line)))
                except (ValueError, TypeError, LookupError, AttributeError):
                    raise ValueError(f"{path}, line {line_number}: not a score; run 'dvc repro --force validate'") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; run 'dvc repro validate'") from None
    return scores


def _score(record: dict[str, Any]) -> Score:
    """A score from a line of ``scores.jsonl``, of this version or an older one."""
    fields = {RENAMED_FIELDS.get(name, name): value for name, value in record.items()}
    return Score(**fields | {"metric": current_name(fields["metric"]), "split": RENAMED_SPLITS.get(fields["split"], fields["split"])})


def estimate(scores: Sequence[Score], role: Role) -> Interval:
    """A role's value over these items of one metric. ``ValueError`` where there are none."""
    interval = _bootstrap([getattr(s, role) for s in scores], [s.weight for s in scores])
    return _widened(interval, scores, minimum=0.0, maximum=1.0)


def difference(champion: Sequence[Score], challenger: Sequence[Score]) -> Interval:
    """The tuned models' values, challenger less champion, over the items that both have; resampled in pairs.

    ``ValueError`` where they share no item.
    """
    by_item = {(s.metric, s.split, s.id): s for s in champion}
    pairs = [(by_item[key], s) for s in challenger if (key := (s.metric, s.split, s.id)) in by_item]
    return _bootstrap([b.tuned - a.tuned for a, b in pairs], [b.weight for _, b in pairs])


def change(scores: Sequence[Score]) -> Interval:
    """Tuned less base over these items of one metric."""
    return _widened(_bootstrap([s.tuned - s.base for s in scores], [s.weight for s in scores]), scores, minimum=-1.0, maximum=1.0)


def _widened(interval: Interval, scores: Sequence[Score], *, minimum: float, maximum: float) -> Interval:
    """The interval of a share where all items agree, which resampling takes for certain: of what was never seen in n items no more than
    about 3/n is to be expected (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?")."""
    if METRICS[scores[0].metric].unit != "share" or interval.low != interval.high or interval.value not in (0.0, 1.0):
        return interval
    unseen = 1 - 0.05 ** (1 / len(scores))
    return Interval(interval.value, max(minimum, interval.value - unseen), min(maximum, interval.value + unseen))


def _bootstrap(values: Sequence[float], weights: Sequence[float]) -> Interval:
    if not values:
        raise ValueError("there are no items to estimate from")
    value, weight = np.array(values, np.float64), np.array(weights, np.float64)
    random, count = np.random.default_rng(SEED), len(values)
    resamples: list[npt.NDArray[np.float64]] = []
    per_block = max(1, BLOCK // count)
    for start in range(0, RESAMPLES, per_block):
        indices = random.integers(count, size=(min(per_block, RESAMPLES - start), count))
        resamples.append(value[indices].sum(1) / weight[indices].sum(1))
    low, high = np.percentile(np.concatenate(resamples), [2.5, 97.5])
    return Interval(float(value.sum() / weight.sum()), float(low), float(high))
