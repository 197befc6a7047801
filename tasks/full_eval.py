"""Everything scored that can be: ``make full-eval``. As ``validate``, on all held-out documents and with all choices; takes hours.

It writes beside the stage's evaluation, not in its place: no stage depends on it, and DVC does not know it.
"""

import shutil
import sys
from pathlib import Path

from tasks.finetune import keep_memory
from tasks.local import close_to_others
from tasks.params.validate import ValidateParams
from tasks.stage import read_params
from tasks.validate import validate

NAMES = ("base", "tuned", "documents", "cleaning", "shards", "evaluation")


def full(params: ValidateParams) -> ValidateParams:
    """The params without the limits that keep the stage short."""
    extraction = params.extraction.model_copy(update={"documents": max(1000, params.extraction.documents)})
    return params.model_copy(update={"max_tokens": 0, "choices": 0, "generations": max(50, params.generations), "extraction": extraction})


def main() -> None:
    if len(sys.argv) != len(NAMES) + 1:
        sys.exit(f"usage: python -m tasks.full_eval {' '.join(NAMES)}  (the Makefile has the paths)")
    base, tuned, documents, cleaning, shards, out = (Path(argument) for argument in sys.argv[1:])
    partial = out.with_name(f".{out.name}.partial")
    keep_memory()
    try:
        close_to_others()
        params = read_params()["validate"]
        assert isinstance(params, ValidateParams)
        shutil.rmtree(partial, ignore_errors=True)
        validate(base, tuned, documents, cleaning, shards, partial, params=full(params))
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    except (ValueError, OSError) as error:
        sys.exit(f"full_eval: {error}")
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
