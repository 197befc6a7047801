"""``python -m tasks.evaluation``: the stage validate on all held-out documents and with all choices.

It takes hours. It writes next to the stage's evaluation, not in its place: no stage depends on it, and DVC does not know it.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.evaluation.params import ValidateParams


def full(params: "ValidateParams") -> "ValidateParams":
    """The params without the limits that keep the stage short."""
    extraction = params.extraction.model_copy(update={"documents": max(1000, params.extraction.documents)})
    structured = params.structured.model_copy(update={"notes": 0, "rest": 1.0})
    sizes = {"max_tokens": 0, "choices": 0, "generations": max(50, params.generations)}
    return params.model_copy(update=sizes | {"extraction": extraction, "structured": structured})


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    parser = argparse.ArgumentParser(prog="python -m tasks.evaluation", description="Score all held-out documents and all choices (long).")
    for name in ("base", "tuned", "documents", "cleaning", "shards", "evaluation"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    from tasks.evaluation.params import ValidateParams
    from tasks.evaluation.run import evaluate
    from tasks.runtime.files import whole
    from tasks.runtime.params import read_section
    from tasks.runtime.permissions import close_to_others
    from tasks.runtime.processes import tune_malloc

    out = options.evaluation
    tune_malloc()
    try:
        close_to_others()
        params = full(read_section("validate", ValidateParams))
        with whole(out) as partial:
            evaluate(options.base, options.tuned, options.documents, options.cleaning, options.shards, partial, params)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluation: {error}")
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
