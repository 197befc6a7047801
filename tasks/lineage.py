"""What stands behind a model version: ``python -m tasks.lineage show|verify|record [models:/medical-llm@champion]``.

It reads the version's passport, and asks MLflow for the runs and this machine for the files.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks import passport, tracking, versions
from tasks.ancestry import lines
from tasks.digests import sha256
from tasks.exposure import WORDS
from tasks.passport import Finding
from tasks.registry import CHAMPION, latest_decision, seen_by, taint_of
from tasks.seen import places
from tasks.stage import read_params

PUBLIC_KEY = "PASSPORT_PUBLIC_KEY"  # environment: the file of the key that passports must be signed with


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
    """Every file that the passport names, where it is on this machine: in the registry, and in this directory or, instead,
    in the directory that a serving host has. There no version need be told; then MLflow is not asked.
    """
    if not which and not deployed:
        which = CHAMPION
    client: Any = None
    version: Any = None
    if which:
        client = tracking.connect()
        version = find(client, which)
    document_path = deployed / passport.FILE if deployed else versions.artifact(client, version.run_id, passport.FILE)
    if not document_path.exists():
        yield Finding("differs", str(deployed), passport.FILE, "missing")
        return
    same = version is None or sha256(document_path) == version.tags["passport.sha256"]
    if version is not None:
        yield Finding("equal" if same else "differs", passport.FILE, "", "its digest on the version")
    elif not public_key:
        yield Finding("absent", passport.FILE, "", "what it must be: name the version or a public key")
    if public_key:
        if client and not deployed and version.tags.get("passport.signed"):
            versions.artifact(client, version.run_id, passport.SIGNATURE)  # from a server it comes to the same folder
        yield passport.check_signature(document_path, public_key)
    try:
        document = passport.read_passport(document_path)
    except ValueError:
        if same:
            raise
        return
    if deployed:
        yield from passport.compare_deployed(document, deployed)
        return
    yield from _in_registry(client, version, document)
    yield from _here(document)


def _in_registry(client: tracking.MlflowClient, version: Any, document: dict[str, Any]) -> Iterator[Finding]:
    called = f"{version.name}/{version.version}"
    folder = versions.artifact(client, version.run_id, "")
    yield from passport.compare_checkpoint(document, folder / "checkpoint", called=f"{called}/checkpoint")
    copy = folder / "checkpoint" / passport.FILE
    if not copy.exists() or sha256(copy) != version.tags["passport.sha256"]:
        yield Finding("differs" if copy.exists() else "absent", f"{called}/checkpoint", passport.FILE)
    yield from passport.compare(f"{called}/evaluation", document["trees"][passport.EVALUATION]["files"], folder / "evaluation")
    yield from passport.compare(called, document["files"], folder, others=None)
    for number in range(2, latest_decision(client, version)[0] + 1):
        path = folder / f"decision-{number}.json"
        if not path.exists() or sha256(path) != version.tags.get(f"decision.{number}.sha256"):
            yield Finding("differs" if path.exists() else "absent", called, path.name)
            continue
        listed = latest_decision(client, version, number)[1]["evaluation"]
        yield from passport.compare(f"{called}/evaluation-{number}", listed, folder / f"evaluation-{number}")


def _here(document: dict[str, Any]) -> Iterator[Finding]:
    """The trees in this directory. Where DVC's files say that another version of one is here, that one is absent."""
    present = _pointers(Path("dvc.lock"), Path("data.dvc"))
    for name, tree in document["trees"].items():
        if present.get(name, tree["dvc"]) != tree["dvc"] and Path(name).exists():
            yield Finding("absent", name, "", "another version of it is here, as DVC's files say")
        else:
            yield from passport.compare(name, tree["files"], Path(name))
    for name in document["unlisted"]:
        yield Finding("absent", name, "", "its files were not there when the passport was written")


def _pointers(*files: Path) -> dict[str, str]:
    """Digests by path, as DVC's files in this directory have them."""
    found: dict[str, str] = {}
    for content in (YAML(typ="safe").load(path) for path in files if path.exists()):
        stages = content.get("stages", {"": content}).values()
        found |= {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", []) if "md5" in out}
    return found


def told(findings: Iterator[Finding]) -> int:
    """Print what differs or is absent, and per tree what is equal; the count of what differs."""
    equal: dict[str, int] = {}
    differing = absent = 0
    for finding in findings:
        if finding.state == "equal":
            equal[finding.tree] = equal.get(finding.tree, 0) + 1
        else:
            differing += finding.state == "differs"
            absent += finding.state == "absent"
            print(finding)
    for tree, count in equal.items():
        print(Finding("equal", tree, "", f"{count} files" if count > 1 else ""))
    print(f"{sum(equal.values())} equal, {differing} differ, {absent} absent on this machine")
    return differing


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
    default = Path(os.environ[PUBLIC_KEY]) if os.environ.get(PUBLIC_KEY) else None
    verified.add_argument("--public-key", type=Path, default=default, help=f"demand the signature of this key ({PUBLIC_KEY} unless told)")
    recorded = verbs.add_parser("record", help="where a record is, and which versions saw it")
    recorded.add_argument("id")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "show":
            show(arguments.version)
        elif arguments.verb == "record":
            record(arguments.id)
        elif told(verify(arguments.version, deployed=arguments.deployed, public_key=arguments.public_key)):
            sys.exit(1)
    except (ValueError, OSError, tracking.MlflowException) as error:
        sys.exit(f"lineage: {error}")


if __name__ == "__main__":
    main()
