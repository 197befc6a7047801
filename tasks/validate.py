"""The base and the tuned model on documents that training never saw: ``python -m tasks.validate``. See evaluation/run.py."""

from pathlib import Path

from tasks.evaluation.params import ValidateParams
from tasks.evaluation.run import evaluate
from tasks.evaluation.table import flat
from tasks.stage import Out, StageResult, run_stage


def validate(
    base: Path, tuned: Path, documents: Path, cleaning: Path, shards: Path, evaluation: Out, *, params: ValidateParams
) -> StageResult:
    """Score both models on the same tokens, answer the prompts with both, write scores, metrics and a report.

    ``cleaning`` is preprocess's report; its ``public`` says whether everybody may read the sources.
    """
    return StageResult(metrics=flat(evaluate(base, tuned, documents, cleaning, shards, evaluation, params)), reports=("evaluation",))


if __name__ == "__main__":
    run_stage(validate)
