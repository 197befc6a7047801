"""What stands behind a model version: ``python -m tasks.lineage show [medical-llm@champion | medical-llm/3]``.

It walks MLflow from the version's run along the digests of what each run read, down to the raw corpus.
"""

import argparse
import sys
from typing import Any

from tasks import tracking


def chain(client: tracking.MlflowClient, name: str, which: str) -> tuple[Any, list[Any]]:
    """A version, by alias or number, and every run behind it, each before the runs that it read from."""
    try:
        version = client.get_model_version(name, which) if which.isdigit() else client.get_model_version_by_alias(name, which)
    except tracking.MlflowException as error:
        raise ValueError(f"there is no {name} {which} in {tracking.tracking_uri()} ({error.error_code})") from None
    assert version.run_id
    runs, waiting = {}, [version.run_id]
    while waiting:
        run = client.get_run(waiting.pop(0))
        if run.info.run_id not in runs:
            runs[run.info.run_id] = run
            waiting += [value for tag, value in sorted(run.data.tags.items()) if tag.startswith("upstream.") and value]
    return version, sorted(runs.values(), key=lambda run: -run.info.start_time)


def show(name: str, which: str) -> None:
    version, runs = chain(tracking.connect(), name, which)
    print(f"{name} version {version.version}")
    for run in runs:
        tags = run.data.tags
        imported = " (imported)" if tags.get("imported") else ""
        print(f"\n  {tags['stage']}  run {run.info.run_id}{imported}")
        for tag, value in sorted(tags.items()):
            if tag.startswith("dvc.in."):
                print(f"    read   {tag.removeprefix('dvc.in.'):32} {value}")
        for tag, value in sorted(tags.items()):
            if tag.startswith("dvc.out."):
                print(f"    wrote  {tag.removeprefix('dvc.out.'):32} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.lineage", description="What stands behind a model version.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    shown = verbs.add_parser("show", help="the runs behind a version, down to the raw corpus")
    shown.add_argument("version", nargs="?", default="medical-llm@champion", help="NAME@ALIAS or NAME/NUMBER")
    name, _, which = parser.parse_args().version.removeprefix("models:/").replace("@", "/").partition("/")
    try:
        show(name, which)
    except (ValueError, tracking.MlflowException) as error:
        sys.exit(f"lineage: {error}")


if __name__ == "__main__":
    main()
