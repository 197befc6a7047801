"""What stands behind a model version: ``python -m tasks.registry show|record [models:/medical-llm@champion]``.

It reads the version's passport, and asks MLflow for the runs and this machine for the files.
"""

from typing import Any

from tasks.corpus.locate import locations
from tasks.registry import tracking, versions
from tasks.registry.lineage import passport
from tasks.registry.lineage.tree import lines
from tasks.registry.params import RegisterParams
from tasks.registry.promotion import latest_decision, seen_by, taint_of
from tasks.runtime.params import read_section
from tasks.training.exposure import WORDS


def show(which: str) -> None:
    """Print a version: its aliases, commit, newest decision and the tree of what it was made from."""
    client = tracking.connect()
    version = versions.find(client, which)
    document = passport.read_passport(versions.artifact(client, str(version.run_id), passport.FILE))
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
    runs = {}
    for stage, record in document["stages"].items():
        if run := tracking.run_of_record(client, record["record"]):
            imported = " (imported)" if run.data.tags.get("imported") else ""
            runs[stage] = f"run {run.info.run_id}{imported}"
        else:
            runs[stage] = f"run {version.tags.get(f'run.{stage}')} (not in this store)"
    return runs


def record(record_id: str) -> None:
    """Where a record is, and which versions saw it."""
    located = False
    for sentence in locations(record_id):
        located = True
        print(sentence)
    client = tracking.connect()
    name = read_section("register", RegisterParams).name
    for version in versions.versions_of(client, name):
        exposure = seen_by(client, version, [record_id])
        if exposure is None:
            print(f"{name} version {version.version} does not say which records it saw")
        elif exposure:
            located = True
            seen = exposure[record_id]
            tainted = "; the version is tainted" if version.tags.get("tainted") else ""
            print(f"{name} version {version.version} {WORDS[seen.use]} (split {seen.split}){tainted}")
    if not located:
        raise ValueError(f"no record {record_id} is known here, and no version says that it saw it")
