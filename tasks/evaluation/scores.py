"""Per-item scores of an evaluation, and what may be concluded from them: values with intervals, paired comparisons.

A metric's value over a set of items is the sum of its scores over the sum of their weights: nats per token, the share of right
choices, the share of the values a model wrote that are right. A value over nothing is 0. Intervals come from the bootstrap over groups
of items (Efron and Tibshirani 1993, chapters 6 and 13; Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x): patients were
sampled, and what is known of one note of a patient is half known of the next. Two models that were scored on the same items are
compared item by item. It knows nothing of models or of MLflow.
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
    base_weight: float
    tuned_weight: float
    base: float
    tuned: float
    group: str = ""  # of items that were sampled together, those of a patient; empty: it was sampled by itself


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
    """A score from a line of ``scores.jsonl``, of this version or an older one, which has one weight for both models and no group."""
    fields = {RENAMED_FIELDS.get(name, name): value for name, value in record.items()}
    if "weight" in fields:
        fields["base_weight"] = fields["tuned_weight"] = fields.pop("weight")
    return Score(**fields | {"metric": current_name(fields["metric"]), "split": RENAMED_SPLITS.get(fields["split"], fields["split"])})


def count_groups(scores: Sequence[Score]) -> int:
    """How many groups these items of one metric are of: as many independent observations there are."""
    return len(set(_groups(scores)))


def estimate(scores: Sequence[Score], role: Role) -> Interval:
    """A role's value over these items of one metric. ``ValueError`` where there are none."""
    interval = _bootstrap(scores, [_column(scores, role)])
    return _widened(interval, scores, minimum=0.0, maximum=1.0)


def difference(champion: Sequence[Score], challenger: Sequence[Score]) -> Interval:
    """The tuned models' values, challenger less champion, over the items that both have; resampled in pairs.

    ``ValueError`` where they share no item.
    """
    by_item = {(s.metric, s.split, s.id): s for s in champion}
    pairs = [(by_item[key], s) for s in challenger if (key := (s.metric, s.split, s.id)) in by_item]
    of_champion, of_challenger = ([pair[index] for pair in pairs] for index in (0, 1))
    return _bootstrap(of_challenger, [_column(of_challenger, "tuned"), _column(of_champion, "tuned")])


def change(scores: Sequence[Score]) -> Interval:
    """Tuned less base over these items of one metric."""
    return _widened(_bootstrap(scores, [_column(scores, "tuned"), _column(scores, "base")]), scores, minimum=-1.0, maximum=1.0)


def _widened(interval: Interval, scores: Sequence[Score], *, minimum: float, maximum: float) -> Interval:
    """The interval of a share where all items agree, which resampling takes for certain: of what was never seen in n groups no more than
    about 3/n is to be expected (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?")."""
    if METRICS[scores[0].metric].unit != "share" or interval.low != interval.high or interval.value not in (-1.0, 0.0, 1.0):
        return interval
    unseen = 1 - 0.05 ** (1 / count_groups(scores))
    return Interval(interval.value, max(minimum, interval.value - unseen), min(maximum, interval.value + unseen))


def _column(scores: Sequence[Score], role: Role) -> npt.NDArray[np.float64]:
    """[items, 2]: a role's score and weight."""
    return np.array([(getattr(s, role), getattr(s, f"{role}_weight")) for s in scores], np.float64).reshape(-1, 2)


def _groups(scores: Sequence[Score]) -> list[int]:
    """A number for each item, the same for those of a group."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(score.group or f"\0{index}", len(numbers)) for index, score in enumerate(scores)]


def _bootstrap(scores: Sequence[Score], columns: Sequence[npt.NDArray[np.float64]]) -> Interval:
    """The value of the first column, less that of the second where there is one; groups are drawn with replacement, whole."""
    if not scores:
        raise ValueError("there are no items to estimate from")
    groups = np.array(_groups(scores))
    count = int(groups.max()) + 1
    sums = [[np.bincount(groups, weights=part, minlength=count) for part in column.T] for column in columns]
    random = np.random.default_rng(SEED)
    resamples: list[npt.NDArray[np.float64]] = []
    per_block = max(1, BLOCK // count)
    for start in range(0, RESAMPLES, per_block):
        drawn = random.integers(count, size=(min(per_block, RESAMPLES - start), count))
        resamples.append(_values([[part[drawn].sum(1) for part in column] for column in sums]))
    low, high = np.percentile(np.concatenate(resamples), [2.5, 97.5])
    (value,) = _values([[part.sum(keepdims=True) for part in column] for column in sums])
    return Interval(float(value), float(low), float(high))


def _values(sums: Sequence[Sequence[npt.NDArray[np.float64]]]) -> npt.NDArray[np.float64]:
    """Sum of scores over sum of weights, 0 over nothing; of two columns the difference."""
    values = [np.divide(score, weight, out=np.zeros_like(score), where=weight > 0) for score, weight in sums]
    return values[0] if len(values) == 1 else values[0] - values[1]
