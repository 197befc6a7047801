"""What this site's annotation says of the rules behind a version, on the version: figures alone, beside what the run measured itself.

An annotation may come after the version. The passport of a version never changes, so its newer figures then stand in MLflow alone.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.corpus.annotation import figures
from tasks.corpus.annotation.figures import Figures
from tasks.runtime.artifacts import RAW

if TYPE_CHECKING:
    from tasks.registry.tracking import MlflowClient

TAG = "annotation.sha256"  # of the figures that the version has


def annotation_of(records: Mapping[str, Mapping[str, Any]]) -> Figures | None:
    """The site's figures, compared with the run behind a version, by the stages' records; None where nobody annotated.

    DVC has compared the code here with what the stages ran on. ``ValueError`` for a file of figures that holds something else.
    """
    measured, preprocess = figures.read(), records.get("preprocess")
    if measured is None or preprocess is None:
        return measured
    rules, data = figures.rules_digest(preprocess["params"]), preprocess["inputs"].get(str(RAW))
    return measured.model_copy(update={"same_rules": measured.rules == rules, "same_data": measured.data == data})


def tags(measured: Figures | None) -> dict[str, str]:
    """What a version is tagged with, so that the same figures are not handed over twice."""
    return {TAG: hashlib.sha256(measured.model_dump_json().encode()).hexdigest()} if measured else {}


def hand_over(client: "MlflowClient", version: Any, measured: Figures | None) -> bool:
    """Give a version that exists the figures that are newer than its own; whether there were any."""
    changed = {tag: value for tag, value in tags(measured).items() if version.tags.get(tag) != value}
    if measured is None or not changed:
        return False
    from tasks.registry import tracking  # imports mlflow, which costs seconds

    now = int(time.time() * 1000)
    client.log_batch(version.run_id, metrics=[tracking.metric(name, value, now) for name, value in figures.metrics(measured).items()])
    for tag, value in changed.items():
        client.set_model_version_tag(version.name, version.version, tag, value)
    return True
