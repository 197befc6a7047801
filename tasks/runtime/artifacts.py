"""Where the pipeline's files lie: one table of what dvc.yaml gives its stages, for code that is no stage.

A stage takes its paths from dvc.yaml. These names are also keys of records and passports, so registered versions carry them.
"""

from pathlib import Path

RAW = Path("data")
ARTIFACTS = Path("artifacts")
BASE = ARTIFACTS / "base"
DOCUMENTS = ARTIFACTS / "documents"
VARIANTS = ARTIFACTS / "variants"
SHARDS = ARTIFACTS / "shards"
MODEL = ARTIFACTS / "model"
EVALUATION = ARTIFACTS / "evaluation"
REPORTS = ARTIFACTS / "reports"
RECORDS = ARTIFACTS / "runs"
REJECTED = ARTIFACTS / "rejected.jsonl"  # of no DVC output: it holds the text of rejected records
CHANGES = ARTIFACTS / "changes.csv"  # beside it and no output either: what rules changed most often, with text
ANNOTATION = Path("annotation")  # of no DVC output and no cache: what a person marked in the site's own notes is the work of hours
REGISTRATION = ARTIFACTS / "registration.json"
DRIFT = ARTIFACTS / "drift"

# Files in the folder of an evaluation.
METRICS, SCORES, SCORER, ANSWERS, EVALUATION_REPORT = "metrics.json", "scores.jsonl", "scorer.json", "answers.json", "report.html"
FUNNEL, DEIDENTIFICATION = "funnel.json", "deidentification.json"  # in the report of preprocess
DRIFT_RESULT, DRIFT_PAGE = "drift.json", "drift.html"
DVC_YAML, DVC_LOCK, DATA_POINTER = Path("dvc.yaml"), Path("dvc.lock"), Path("data.dvc")
