"""A version of the model in MLflow's registry, with a decision: ``python -m tasks.register``.

The stage touches the world outside the repository, so DVC runs it every time and it does nothing twice: the identity of a version
is the digest of its checkpoint directory, that of a decision the evaluation's and the gate's params. It needs the tracking store and
fails where that does not answer. What is decided is gate.py's, what the aliases do is promotion.py's.
"""

import sys
from pathlib import Path

from rich.console import Console

from tasks.corpus.annotation.figures import sentences
from tasks.registry.challenge import Scored
from tasks.registry.model_card import trained_on
from tasks.registry.params import RegisterParams
from tasks.registry.registration import Exposure, read_records, registered
from tasks.registry.site_annotation import annotation_of
from tasks.registry.summary import show
from tasks.runtime.errors import Unavailable
from tasks.runtime.files import write_whole
from tasks.stage import Out, StageResult, run_stage

LINE = 110  # characters of a line where there is no terminal to ask


def register(
    base: Path,
    documents: Path,
    cleaning: Path,
    variants: Path,
    shards: Path,
    tuned: Path,
    training: Path,
    evaluation: Path,
    records: Path,
    registration: Out,
    *,
    params: RegisterParams,
) -> StageResult:
    """Find or make the version of this checkpoint, decide on this evaluation of it, and write name, number, digests and decision.

    ``training`` is finetune's report, which knows what the model saw; ``variants`` tells whose copies those are.
    """
    try:
        scored = Scored(base, documents, cleaning, shards)
        result, is_new = registered(scored, tuned, Exposure(variants, training), evaluation, records, params)
    except Exception as error:
        from tasks.registry.tracking import MlflowException, tracking_uri  # mlflow costs seconds, which a run without news does not pay

        if not isinstance(error, MlflowException):
            raise
        raise Unavailable(f"MLflow at {tracking_uri()} refused: {error}; run it again when MLflow is well") from error
    write_whole(registration, result)
    behind = read_records(records)
    annotation = sentences(annotation_of(behind))
    show(evaluation, result, trained_on(behind), annotation, Console(width=None if sys.stdout.isatty() else LINE))
    return StageResult(partly=not is_new)


if __name__ == "__main__":
    run_stage(register, record=False)
