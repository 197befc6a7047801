"""Erases a patient, and certifies it: ``python -m tasks.registry forget --case CASE --certificate FILE``.

What is removed is forget.py's matter. Then everything in the project's directory is searched once more; what is there still, and each
version that saw a record, stands in the certificate with the reason.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.registry import audit, promotion, tracking, versions
from tasks.registry.lineage.passport import FILE, read_passport
from tasks.registry.lineage.signature import KEY, signer
from tasks.registry.params import RegisterParams
from tasks.registry.upkeep import certificate
from tasks.registry.upkeep.case import Case, present_records
from tasks.registry.upkeep.forget import Purged, Subject, purge
from tasks.registry.upkeep.search import Searched, search, weights_of
from tasks.registry.upkeep.traces import Trace
from tasks.runtime.artifacts import RAW
from tasks.runtime.git import code_version
from tasks.runtime.params import read_section

# Why a file that has an id may keep it, by how its path begins. An id is a digest, no text.
REASONS = {
    "mlartifacts/": "MLflow keeps the records of runs and the evaluations of versions, which name records by their ids",
    "mlflow.db": "MLflow keeps the params of runs, which name withdrawn records by their ids",
    "params.yaml": "it names withdrawn records by their ids",
    "artifacts/": "the present pipeline names withdrawn records by their ids",
    ".cache/": "the record of a run, which waits for the tracking store",
    ".dvc/tmp/": "a copy that DVC made for an experiment: remove it with 'dvc exp remove', or by hand",
    ".dvc/cache/": "the present pipeline or a registered run names records by their ids",
    "annotation/": "marks of a person, by the ids of the notes",
    "git's history": "earlier params.yaml name withdrawn records by their ids",
}
UNKNOWN = "it was not written by the pipeline: look at it, and delete it if it is a copy"


def erase(case: Case, path: Path, *, by: str, remote_names: Collection[str], case_file: Path) -> Purged:
    """Remove what may be removed, and write the certificate to a new file.

    ``ValueError`` where there is no key to sign with, the file is there, or the present outputs still hold records: before anything is
    removed.
    """
    signs = signer()
    if signs is None:
        raise ValueError(f"a certificate is signed: set {KEY} to a private key (docs/lineage.md, Sign versions)")
    if os.path.lexists(path):
        raise ValueError(f"{path} exists; give a name that does not")
    client, name = tracking.connect(), read_section("register", RegisterParams).name
    raw = list(_present_raw(case))
    purged = purge(Subject(frozenset(case.records), tuple(case.files), tuple(case.numbers)), remote_names=remote_names)
    promotion.mark_tainted(client, name, case.records)
    seen, weights = _versions(client, name, case)
    searched = search(case.records, weights, ignored=(case_file, path))
    purged.remains += [*raw, *_remaining(searched)]
    predicate = {
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": by,
        "code": code_version(),
        "records": sorted(map(case.alias, case.records)),
        "names": "HMAC-SHA256 of ids of records, of digests and of paths, with the salt of the case",
        "removed": certificate.grouped(purged.removed, case),
        "remains": certificate.grouped(purged.remains, case),
        "versions": seen,
        "searched": {"for": "ids of the records", "files": searched.files, "with_ids": len(searched.with_ids)},
        "not_searched": list(certificate.NOT_SEARCHED),
    }
    digest = certificate.write(path, predicate, signs)
    if registered := versions.versions_of(client, name):
        number = seen[-1]["number"] if seen else registered[-1].version
        audit.append(client, name, "erase", number, who=by, why=f"{len(case.records)} records of a case", evidence=digest)
    return purged


def _present_raw(case: Case) -> Iterator[Trace]:
    """What the raw files still hold, which are not the pipeline's to change."""
    actual = present_records(case.patients)
    for source, position in actual.records.values():
        yield Trace(str(RAW), f"{source}, {position}", "a raw record: take it out of the file and run 'dvc repro'")
    for file in actual.files:
        if not any(source.startswith(file) for source, _ in actual.records.values()):
            yield Trace(str(RAW), file, "it has a number of the patient: look at it, and take it out")


def _versions(client: Any, name: str, case: Case) -> tuple[list[dict[str, Any]], set[str]]:
    """What each version that knows one of the records did with them, and the digests of the weights of those that came to one."""
    seen: list[dict[str, Any]] = []
    weights: set[str] = set()
    for version in versions.versions_of(client, name):
        exposure = promotion.seen_by(client, version, case.records) or {}
        if not exposure:
            continue
        tags = client.get_model_version(name, version.version).tags
        uses = dict(sorted(Counter(record.use for record in exposure.values()).items()))
        seen.append({"name": name, "number": int(version.version), "records": uses, "tainted": tags.get("tainted", "")})
        if any(record.taints for record in exposure.values()):
            passport = read_passport(versions.artifact(client, str(version.run_id), FILE))
            weights |= weights_of(passport["artifacts"])
    return seen, weights


def _remaining(searched: Searched) -> Iterable[Trace]:
    for path in searched.with_ids:
        beginning = next((start for start in REASONS if path.startswith(start)), "")
        yield Trace(beginning or "another file in the project's directory", path, REASONS.get(beginning, UNKNOWN))
    for path in searched.with_weights:
        yield Trace("a copy of weights", path, "exported from a version that saw the records: delete it where it is not used")
