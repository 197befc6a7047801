"""The result of a comparison for drift, for the command that makes it and the flow that reads it. It imports nothing heavy."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What a comparison showed. The value is ``status`` in drift.json."""

    LIKE = "like"  # no measure is beyond its limit
    DIFFERENT = "different"
    NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class DriftResult:
    """The status of a comparison, and a sentence for a person."""

    status: Status
    message: str
