"""What the variants are worth: the pipeline's last stages with them and without, scored on the same documents, none of them a variant.

    python -m bench.ablate_augment [--steps N] [--seeds 1 2 3]

Both arms shard, train and validate with params.yaml's values and the same number of steps, so the arm with variants sees each original
less often; that is the question that a user with a fixed time has. Perplexities are of answers. The interval of the difference is a
paired bootstrap over documents; with several seeds of training, over documents of all of them. The last line is one JSON document.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from tasks.corpus.documents import write_documents
from tasks.corpus.params import ShardParams
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.scores import read_scores
from tasks.finetune import finetune
from tasks.params import read_params
from tasks.shard import shard
from tasks.training.params import FinetuneParams
from tasks.validate import validate

ARTIFACTS = Path("artifacts")
RESAMPLES = 2000


def train_and_score(artifacts: Path, variants: Path, seed: int, steps: int | None, folder: Path) -> dict[str, tuple[float, int]]:
    """Nats and answer tokens of every scored test document, by id."""
    sections = read_params()
    sharding, training, scoring = sections["shard"], sections["finetune"], sections["validate"]
    assert isinstance(sharding, ShardParams) and isinstance(training, FinetuneParams) and isinstance(scoring, ValidateParams)
    here = Path.cwd()
    os.chdir(folder)  # where the stages keep their caches
    try:
        base, cleaning = artifacts / "base", artifacts / "reports" / "preprocess"
        shard(base, artifacts / "documents", cleaning, variants, Path("shards"), Path("shard-report"), params=sharding)
        limits = {"steps": steps, "epochs": 0.0, "warmup": min(training.warmup, steps - 1)} if steps else {}
        finetune(base, Path("shards"), Path("model"), Path("curves"), params=training.model_copy(update={"seed": seed} | limits))
        validate(
            base,
            Path("model"),
            artifacts / "documents",
            cleaning,
            Path("shards"),
            Path("evaluation"),
            params=scoring.model_copy(update={"prompts": (), "tasks": {}, "choices": 1, "generations": 1}),
        )
        rows = read_scores(Path("evaluation"))
    finally:
        os.chdir(here)
    return {row.id: (row.tuned, int(row.tuned_weight)) for row in rows if (row.metric, row.split) == ("answer_nll", "test")}


def compare(without: list[dict[str, tuple[float, int]]], having: list[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Perplexities of both arms and their ratio, with the interval that holds 95 % of its resamples."""
    rows = np.array([[a[i][0], b[i][0], a[i][1]] for a, b in zip(without, having, strict=True) for i in sorted(a)])
    random = np.random.default_rng(1)
    ratios = []
    for _ in range(RESAMPLES):
        nll_without, nll_having, tokens = rows[random.integers(0, len(rows), len(rows))].sum(axis=0)
        ratios.append(np.exp((nll_having - nll_without) / tokens))
    nll_without, nll_having, tokens = rows.sum(axis=0)
    return {
        "documents": len(rows),
        "perplexity_without": round(float(np.exp(nll_without / tokens)), 4),
        "perplexity_with": round(float(np.exp(nll_having / tokens)), 4),
        "ratio": round(float(np.exp((nll_having - nll_without) / tokens)), 4),
        "low": round(float(np.quantile(ratios, 0.025)), 4),
        "high": round(float(np.quantile(ratios, 0.975)), 4),
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description="Train with and without variants, and compare.")
    parser.add_argument("--steps", type=int, help="of training; by default those of params.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    arms: dict[str, list[dict[str, tuple[float, int]]]] = {"without": [], "with": []}
    for seed in options.seeds:
        for arm, scores in arms.items():
            with tempfile.TemporaryDirectory() as name:
                variants = ARTIFACTS.absolute() / "variants"
                if arm == "without":
                    variants = Path(name) / "none"
                    write_documents([], variants)
                scores.append(train_and_score(ARTIFACTS.absolute(), variants, seed, options.steps, Path(name)))
    result = compare(arms["without"], arms["with"])
    print(f"without variants {result['perplexity_without']}, with {result['perplexity_with']}, on {result['documents']} documents")
    print(f"ratio {result['ratio']} ({result['low']} to {result['high']}); below 1 the variants helped")
    print(json.dumps({"seeds": options.seeds} | result))


if __name__ == "__main__":
    main()
