"""The section ``register`` of params.yaml."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from tasks.evaluation.metrics import METRICS, SCORED
from tasks.evaluation.scores import Interval, Score, change, estimate
from tasks.runtime.params import Params


class Measured(Params):
    """A metric, over the items of one split or, where none is said, all of them."""

    metric: str
    split: str = Field("", pattern="^[a-z_]*$")

    @field_validator("metric")
    @classmethod
    def metric_exists(cls, metric: str) -> str:
        """``ValueError`` where no metric has this name."""
        if metric not in SCORED:
            raise ValueError(f"there is no metric {metric!r}; the metrics: {', '.join(SCORED)}")
        return metric

    @property
    def name(self) -> str:
        """The metric and, where one is given, its split."""
        return f"{self.metric}, {self.split}" if self.split else self.metric

    @property
    def of_tasks(self) -> bool:
        """Whether it is measured on documents of extraction tasks alone."""
        return METRICS[self.metric].of_tasks

    def of(self, scores: Sequence[Score]) -> list[Score]:
        """The scores that this entry is about."""
        return [s for s in scores if s.metric == self.metric and self.split in ("", s.split)]


class Primary(Measured):
    """The metric on which a challenger must be better than the champion."""

    min_improvement: float = Field(ge=0)  # by which the challenger must be better
    items: int = Field(ge=1)  # fewer show nothing


class Threshold(Measured):
    """A limit. With ``items`` the whole 95 % interval must keep it, and fewer items show nothing: so that none is met by chance."""

    figure: Literal["tuned", "change"]  # the tuned model's value, or that less the base model's
    max: float | None = None
    min: float | None = None
    items: int | None = Field(None, ge=1)

    def of_figure(self, members: Sequence[Score]) -> Interval:
        """The figure of the threshold with its 95 % interval, over these scores."""
        return estimate(members, "tuned") if self.figure == "tuned" else change(members)

    @property
    def limits(self) -> str:
        """The limits in words."""
        limits = [f"at {of} {limit:g}" for of, limit in (("least", self.min), ("most", self.max)) if limit is not None]
        return " and ".join(limits)


class Guardrail(Measured):
    """A metric on which a challenger must not be worse than the champion by more than a margin."""

    margin: float = Field(ge=0)  # by which the challenger may be worse
    items: int = Field(ge=1)
    unless: str = ""  # the guardrail does not count where this metric was measured, which says more

    @field_validator("unless")
    @classmethod
    def unless_exists(cls, metric: str) -> str:
        """``ValueError`` where no metric has this name."""
        return cls.metric_exists(metric) if metric else metric

    def applies(self, scores: Sequence[Score]) -> bool:
        """Whether it counts for these scores."""
        return not any(s.metric == self.unless for s in scores)


class GateParams(Params):
    """What decides whether a version may become champion."""

    primary: tuple[Primary, ...] = Field(min_length=1)  # the first that was measured counts
    thresholds: tuple[Threshold, ...]
    guardrails: tuple[Guardrail, ...]

    @property
    def rules(self) -> tuple[Measured, ...]:
        """All entries."""
        return (*self.primary, *self.thresholds, *self.guardrails)


class RegisterParams(GateParams):
    """The section ``register``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    sign_off: Literal["none", "required"]
    # Left out of the section's digest where it is the default, as params from before it have none.
    compliance: Literal["none", "required"] = Field("none", exclude_if=lambda value: value == "none")
