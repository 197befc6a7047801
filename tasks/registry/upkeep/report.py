"""The commands that erase, and what they print: places and counts, never text of a record."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tasks.registry.lineage.signature import public_key
from tasks.registry.promotion import withdrawn
from tasks.registry.upkeep import certificate as certificates
from tasks.registry.upkeep import erasure
from tasks.registry.upkeep.case import open_case, read_case
from tasks.registry.upkeep.forget import Purged, Subject, purge


def patient(numbers: Path, path: Path) -> None:
    """Open a case, and say where the raw files have the patient's records."""
    text = sys.stdin.read() if str(numbers) == "-" else numbers.read_text(encoding="utf-8")
    case = open_case(text, path)
    for id_, (source, position) in case.records.items():
        print(f"{id_}  data/{source}, {position}")
    for file in case.files:
        print(f"file     data/{file}")
    print(f"patient: {len(case.records)} records in {len(case.files)} raw files; {path} has the patient's number, for you alone")
    print("Take the patient out of these files, or list the ids in preprocess.withdrawn; then 'dvc repro', then forget --case.")


def forget(options: argparse.Namespace) -> None:
    """Remove copies of records; ``ValueError`` where there are none to remove, or options contradict each other."""
    if bool(options.case) != bool(options.certificate) or (options.case and options.ids):
        raise ValueError("--case and --certificate belong together, without ids")
    if options.case:
        case = read_case(options.case)
        purged = erasure.erase(case, options.certificate, by=options.by, remote_names=options.remote, case_file=options.case)
    elif ids := set(options.ids) or set(withdrawn()):
        purged = purge(Subject(frozenset(ids)), remote_names=options.remote)
    else:
        raise ValueError("params.yaml: preprocess.withdrawn lists no records, and no ids were given")
    _say(purged)


def _say(purged: Purged) -> None:
    for trace in purged.removed:
        print(f"removed  {trace}")
    if not purged.removed:
        print("removed  nothing: no copy was found")
    for trace in purged.remains:
        print(f"remains  {trace}")
    print("Copies outside of this directory, backups and clones for instance, are not known here.")


def certificate(path: Path, key: Path, case_path: Path | None) -> None:
    """Verify a certificate and print what it says; ``ValueError`` where it is not what was signed, or is of another case."""
    said = certificates.verify(path, public_key(key))
    if case_path:
        case = read_case(case_path)
        if said["records"] != sorted(map(case.alias, case.records)):
            raise ValueError(f"{path} is of another case than {case_path}")
    print(f"certificate: {len(said['records'])} records, issued {said['issued']} by {said['by']}")
    for state in ("removed", "remains"):
        counts = Counter[str]()
        for entry in said[state]:
            counts[entry["where"] + (f", {entry['why']}" if entry.get("why") else "")] += entry["count"]
        for where, count in counts.items():
            print(f"{state:8} {where}: {count}")
    for version in said["versions"]:
        print(f"version  {version['name']} {version['number']}: {version['tainted'] or 'did not come to the records'}")
    for sentence in said["not_searched"]:
        print(f"not searched: {sentence}")
