"""Whether a model may become champion: thresholds on its own scores, a paired comparison with the champion's, and both in words.

Thresholds are Great Expectations expectations over one row of measures. The champion is compared item by item: the primary metric
must be better by more than ``min_improvement``, a guardrail not worse by more than its margin (non-inferiority; Piaggio et al. 2012,
doi:10.1001/jama.2012.87802), each by the whole of its 95 % interval. A metric that should have been measured and was not lets nothing
pass. It knows nothing of models, MLflow or aliases.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.corpus.row_metrics import RowMetrics
from tasks.evaluation.metrics import METRICS, importance
from tasks.evaluation.scores import Interval, Score, change, count_groups, difference, estimate
from tasks.evaluation.table import MIN_GROUPS
from tasks.registry.params import GateParams, Guardrail, Measured, Primary, Threshold

SUITE = "evaluation"
Verdict = Literal["first", "better", "unclear", "refused"]
Judgement = Literal["better", "no worse", "worse", "unclear", "too few", "not measured"]


@dataclass(frozen=True)
class Expected:
    """What should have been measured: metrics of the extraction tasks that the corpus has, and what the champion's decision was about."""

    tasks: Sequence[str] = ()
    measured: Collection[tuple[str, str]] = ()  # (metric, split)


@dataclass(frozen=True)
class MetricRow:
    """A metric's values over the items of a split."""

    metric: str
    split: str
    items: int
    base: Interval
    tuned: Interval
    change: Interval


@dataclass(frozen=True)
class Comparison:
    """Challenger less champion on one metric, in the metric's own direction."""

    metric: str
    split: str
    items: int
    difference: Interval | None
    judgement: Judgement
    words: str


@dataclass(frozen=True)
class Decision:
    """What the gate decided, why, and the numbers behind it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    table: tuple[MetricRow, ...]
    comparisons: tuple[Comparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        return asdict(self)


def decide(
    challenger: Sequence[Score],
    champion: Sequence[Score] | None,
    params: GateParams,
    report: Path,
    *,
    expected: Expected = Expected(),
    unknown: str = "",
) -> Decision:
    """``champion``: its scores of the same items; none where there is no champion, or, with ``unknown``, where the reason that it says
    keeps it from being scored. The thresholds' results are written into ``report``.
    """
    rows = table(challenger)
    primary, passed_over = _primary(challenger, params)
    if primary is None:
        return Decision("refused", (f"No primary metric was measured: {', '.join(p.name for p in params.primary)}.",), rows)
    failed, unsure, notes = _thresholds(challenger, params, primary, report)
    unsure = [*_missing(challenger, params, expected), *unsure]
    notes = [*passed_over, *notes]
    if failed:
        return Decision("refused", (*failed, *unsure, *notes), rows)
    if unknown:
        return Decision("unclear", (f"The champion cannot be compared with: {unknown}. It stays champion.", *unsure, *notes), rows)
    if champion is None and unsure:
        return Decision("unclear", (*unsure, *notes), rows)
    if champion is None:
        return Decision("first", ("There is no champion, and every threshold is met.", *notes), rows)
    first = _comparison(challenger, champion, primary)
    others = [_comparison(challenger, champion, guardrail) for guardrail in params.guardrails if guardrail.applies(challenger)]
    if any(c.judgement == "worse" for c in (first, *others)):
        verdict: Verdict = "refused"
    elif not unsure and first.judgement == "better" and all(c.judgement in ("no worse", "not measured") for c in others):
        verdict = "better"
    else:
        verdict = "unclear"
    # What stands in the way comes first.
    decisive = [c.words for c in (first, *others) if (c.judgement in ("better", "no worse")) is (verdict == "better")]
    rest = [c.words for c in (first, *others) if c.words not in decisive]
    if verdict == "unclear":
        decisive = [*unsure, *decisive]
    return Decision(verdict, (*decisive, *rest, *notes), rows, (first, *others))


def _primary(scores: Sequence[Score], params: GateParams) -> tuple[Primary | None, list[str]]:
    """The first primary metric that was measured, and a sentence about each before it."""
    for index, primary in enumerate(params.primary):
        if primary.of(scores):
            return primary, [f"{_unmeasured(passed)}, so {primary.name} is the primary metric." for passed in params.primary[:index]]
    return None, []


def _missing(scores: Sequence[Score], params: GateParams, expected: Expected) -> Iterator[str]:
    """A sentence about each entry of the gate that should have been measured and was not, so that none is passed by losing its metric."""
    for rule in params.rules:
        if rule.of(scores) or (isinstance(rule, Guardrail) and not rule.applies(scores)):
            continue
        if rule.of_tasks and expected.tasks and rule.split in ("", "test"):
            tasks = ", ".join(expected.tasks)
            yield f"{rule.name} was not measured, though the corpus has the tasks {tasks}."
        elif any(metric == rule.metric and rule.split in ("", split) for metric, split in expected.measured):
            yield f"{rule.name} was not measured, though it was when the champion was decided on."


def _unmeasured(rule: Measured) -> str:
    reason = ": no document has a task" if rule.of_tasks else ""
    return f"{rule.name} was not measured{reason}"


def table(scores: Sequence[Score]) -> tuple[MetricRow, ...]:
    """Every metric of every split, with 95 % intervals; what matters most comes first."""
    rows = []
    for metric, split in sorted({(s.metric, s.split) for s in scores}, key=lambda pair: (importance(pair[0]), *pair)):
        members = [s for s in scores if (s.metric, s.split) == (metric, split)]
        rows.append(MetricRow(metric, split, len(members), estimate(members, "base"), estimate(members, "tuned"), change(members)))
    return tuple(rows)


def _thresholds(scores: Sequence[Score], params: GateParams, primary: Primary, report: Path) -> tuple[list[str], list[str], list[str]]:
    """Which are not met, which are not shown to be met, and what else is to be said of them."""
    from tasks.corpus import expectations  # imports Great Expectations, which costs seconds

    between = expectations.gxe.ExpectColumnValuesToBeBetween
    measures: dict[str, str | int | float | None] = {"items": len(primary.of(scores))}
    suite = [between(column="items", min_value=primary.items, severity=expectations.FAIL)]
    words = {"items": f"{primary.name} was measured on {measures['items']} items; fewer than {primary.items} show nothing."}
    notes = []
    for index, threshold in enumerate(params.thresholds):
        if not (members := threshold.of(scores)):
            notes.append(f"{_unmeasured(threshold)}, so its threshold says nothing.")
            continue
        column = f"{threshold.metric}_{threshold.split or 'all'}_{threshold.figure}_{index}"
        figure = threshold.of_figure(members)
        shown = _enough(threshold, members)
        for name, (value, minimum, maximum, decides) in _checks(threshold, figure, shown=shown).items():
            measures[column + name] = value
            severity = expectations.FAIL if decides else expectations.WARN
            suite.append(between(column=column + name, min_value=minimum, max_value=maximum, severity=severity))
            words[column + name] = _sentence(threshold, figure, members)
    row: list[RowMetrics] = [measures]
    report.mkdir(parents=True, exist_ok=True)
    gate = expectations.check(SUITE, row, suite, report, report)
    failed, warned = (
        [sentence for column, sentence in words.items() if any(f"({column})" in result for result in results)]
        for results in (gate.failed, gate.warned)
    )
    return list(dict.fromkeys(failed)), [sentence for sentence in dict.fromkeys(warned) if sentence not in failed], notes


def _enough(rule: Threshold | Primary | Guardrail, members: Sequence[Score]) -> bool:
    """Whether so many items, of so many groups, show anything by an interval."""
    return rule.items is None or (len(members) >= rule.items and count_groups(members) >= min(MIN_GROUPS, rule.items))


def _few(rule: Threshold | Primary | Guardrail, members: Sequence[Score]) -> str:
    """``4 items; fewer than 40``, or the same of groups."""
    assert rule.items is not None
    if len(members) < rule.items:
        return f"{len(members)} items; fewer than {rule.items}"
    return f"{len(members)} items of {count_groups(members)} groups; fewer than {min(MIN_GROUPS, rule.items)} groups"


def _checks(threshold: Threshold, figure: Interval, *, shown: bool) -> dict[str, tuple[float, float | None, float | None, bool]]:
    """What is compared, by a name of its own: a value, its minimum, its maximum, and whether missing it refuses or leaves in doubt.

    ``shown``: there are enough items to show anything.
    """
    if threshold.items is None:
        return {"": (figure.value, threshold.min, threshold.max, True)}
    checks: dict[str, tuple[float, float | None, float | None, bool]] = {"_items": (float(shown), 1, None, False)}
    if threshold.max is not None:
        checks |= {"_low": (figure.low, None, threshold.max, shown), "_max": (figure.high, None, threshold.max, False)}
    if threshold.min is not None:
        checks |= {"_high": (figure.high, threshold.min, None, shown), "_min": (figure.low, threshold.min, None, False)}
    return checks


def _sentence(threshold: Threshold, figure: Interval, members: Sequence[Score]) -> str:
    verb = "is" if threshold.figure == "tuned" else "less the base model's is"
    if threshold.items is None:
        return f"{threshold.name} {verb} {figure.value:.4g}, and must be {threshold.limits}."
    if not _enough(threshold, members):
        return f"{threshold.name} was measured on {_few(threshold, members)} do not show that it is {threshold.limits}."
    spread = f"{figure.value:.4g} (95 % from {figure.low:.4g} to {figure.high:.4g}) over {len(members)} items"
    return f"{threshold.name} {verb} {spread}, and must be {threshold.limits} by the whole interval."


def _comparison(challenger: Sequence[Score], champion: Sequence[Score], params: Primary | Guardrail) -> Comparison:
    compared = _compared(params.of(challenger), params.of(champion))
    if compared is None:
        return Comparison(params.metric, params.split, 0, None, "not measured", f"{params.name} was not measured on items that both share.")
    interval, worse, shared = compared
    items = len(shared)
    if not _enough(params, shared):
        few = f"{params.name}: {_difference(interval)} over {_few(params, shared)} show nothing."
        return Comparison(params.metric, params.split, items, interval, "too few", few)
    stated = f"{params.name}: {_difference(interval)} over {items} items"
    judgement, words = _better(worse, params.min_improvement) if isinstance(params, Primary) else _no_worse(worse, params.margin)
    return Comparison(params.metric, params.split, items, interval, judgement, f"{stated}: {words}.")


def _better(worse: Interval, min_improvement: float) -> tuple[Judgement, str]:
    if worse.high < -min_improvement:
        return "better", f"better than the champion by more than {min_improvement:g}"
    if worse.low > 0 and worse.value > min_improvement:
        return "worse", "worse than the champion"
    return "unclear", f"not shown to be better than the champion by more than {min_improvement:g}"


def _no_worse(worse: Interval, margin: float) -> tuple[Judgement, str]:
    if worse.high <= margin:
        return "no worse", f"no worse than the champion by the margin of {margin:g}"
    if worse.low > 0 and worse.value > margin:
        return "worse", f"worse than the champion by more than the margin of {margin:g}"
    return "unclear", f"may be worse than the champion by more than the margin of {margin:g}"


def _compared(challenger: Sequence[Score], champion: Sequence[Score]) -> tuple[Interval, Interval, list[Score]] | None:
    """Challenger minus champion, the same with the sign that makes more of it worse, and the challenger's scores of shared items."""
    keys = {(s.metric, s.split, s.id) for s in champion}
    shared = [s for s in challenger if (s.metric, s.split, s.id) in keys]
    if not shared:
        return None
    raw = difference(champion, challenger)
    higher = METRICS[challenger[0].metric].higher_is_better
    worse = Interval(-raw.value, -raw.high, -raw.low) if higher else raw
    return raw, worse, shared


def _difference(interval: Interval) -> str:
    return f"{interval.value:+.4f} (95 % from {interval.low:+.4f} to {interval.high:+.4f})"
