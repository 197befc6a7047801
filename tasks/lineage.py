"""What stands behind a model version: ``python -m tasks.lineage show|verify|record [models:/medical-llm@champion]``.

It reads the version's passport, and asks MLflow for the runs and this machine for the files.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks import passport, tracking, verification, versions
from tasks.ancestry import lines
from tasks.exposure import WORDS
from tasks.local import close_project
from tasks.passport import Finding
from tasks.registry import CHAMPION, latest_decision, seen_by, taint_of
from tasks.seen import places
from tasks.signature import PUBLIC_KEY
from tasks.stage import read_params


def find(client: tracking.MlflowClient, version: str) -> Any:
    """A version by NAME@ALIAS or NAME/NUMBER, with or without ``models:/``; of the model of params.yaml also by ALIAS or NUMBER."""
    name, _, which = version.removeprefix("models:/").replace("@", "/").rpartition("/")
    return versions.version_of(client, name or read_params()["register"].model_dump()["name"], which)


def show(which: str) -> None:
    client = tracking.connect()
    version = find(client, which)
    document = passport.read_passport(versions.artifact(client, version.run_id, passport.FILE))
    roles = [alias for alias, number in versions.aliases(client, version.name).items() if number == str(version.version)]
    dirty = "" if version.tags.get("code.dirty") == "false" else ", with uncommitted changes"
    print(f"{version.name} version {version.version}" + (f"  ({', '.join(sorted(roles))})" if roles else ""))
    print(f"  run {version.run_id}, code {version.tags.get('code.commit')}{dirty}")
    if taint := taint_of(version):
        print(f"  {taint}")
    number, decision = latest_decision(client, version)
    print(f"  decision {number}: {decision['verdict']}. {decision['reasons'][0]}\n")
    for line in lines(document, _runs(client, version, document)):
        print(line)


def _runs(client: tracking.MlflowClient, version: Any, document: dict[str, Any]) -> dict[str, str]:
    """What the store says of each stage's run. A version may have come from a store that knew it under another id."""
    found = {}
    for stage, record in document["stages"].items():
        if run := tracking.run_of_record(client, record["record"]):
            imported = " (imported)" if run.data.tags.get("imported") else ""
            found[stage] = f"run {run.info.run_id}{imported}"
        else:
            found[stage] = f"run {version.tags.get(f'run.{stage}')} (not in this store)"
    return found


def verify(which: str, *, deployed: Path | None, public_key: Path | None) -> Iterator[Finding]:
    """What verification says of a version, of the champion where none is named, or of a directory; MLflow is asked for a version alone."""
    named = which or ("" if deployed else CHAMPION)
    version = find(tracking.connect(), named) if named else None
    return verification.verify(version, deployed=deployed, public_key=public_key)


def told(findings: Iterator[Finding]) -> int:
    """Print all but what is equal, of which only the count per tree. The exit status: 1 where a file differs, 2 where all are as the
    passport says and nobody vouches for the passport."""
    equal: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for finding in findings:
        states[finding.state] += 1
        if finding.state == "equal":
            equal[finding.tree] += 1
        else:
            print(finding)
    for tree, count in equal.items():
        print(Finding("equal", tree, "", f"{count} files" if count > 1 else ""))
    counts = f"{states['equal']} equal, {states['differs']} differ, {states['absent']} absent on this machine"
    print(counts + (f", {states['unstated']} that its older passport does not state" if states["unstated"] else ""))
    return 1 if states["differs"] else 2 if states["unknown"] else 0


def record(record_id: str) -> None:
    """Where a record is, and which versions saw it."""
    known = False
    for place in places(record_id):
        known = True
        print(place)
    client = tracking.connect()
    name = read_params()["register"].model_dump()["name"]
    for version in versions.versions_of(client, name):
        found = seen_by(client, version, [record_id])
        if found is None:
            print(f"{name} version {version.version} does not say which records it saw")
        elif found:
            known = True
            seen = found[record_id]
            tainted = "; the version is tainted" if version.tags.get("tainted") else ""
            print(f"{name} version {version.version} {WORDS[seen.use]} (split {seen.split}){tainted}")
    if not known:
        raise ValueError(f"no record {record_id} is known here, and no version says that it saw it")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.lineage", description="What stands behind a model version.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    shown = verbs.add_parser("show", help="what the version was made from, down to the raw files")
    verified = verbs.add_parser("verify", help="compare every file with the passport")
    shown.add_argument(
        "version", nargs="?", default=CHAMPION, help=f"[models:/]NAME@ALIAS, NAME/NUMBER, ALIAS or NUMBER; {CHAMPION} unless told"
    )
    verified.add_argument("version", nargs="?", default="", help="the same; with --deployed it may be left out")
    verified.add_argument("--deployed", type=Path, metavar="DIR", help="the directory that a serving host has, instead of what is here")
    verified.add_argument(
        "--public-key", type=Path, default=verification.public_key(), help=f"demand the signature of this key ({PUBLIC_KEY} unless told)"
    )
    recorded = verbs.add_parser("record", help="where a record is, and which versions saw it")
    recorded.add_argument("id")
    arguments = parser.parse_args()
    try:
        close_project()
        if arguments.verb == "show":
            show(arguments.version)
        elif arguments.verb == "record":
            record(arguments.id)
        else:
            sys.exit(told(verify(arguments.version, deployed=arguments.deployed, public_key=arguments.public_key)))
    except (ValueError, OSError, tracking.MlflowException) as error:
        sys.exit(f"lineage: {error}")


if __name__ == "__main__":
    main()
