"""Finds or makes the version of a checkpoint, and decides on an evaluation of it: what the stage register does.

Nothing is done twice: the identity of a version is the digest of its checkpoint directory, that of a decision the evaluation's and the
gate's params. What is decided is gate.py's matter, what the aliases do is promotion.py's.
"""

import getpass
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.corpus.annotation import figures
from tasks.evaluation import findings
from tasks.registry import audit, descriptions, unchanged
from tasks.registry.challenge import Challenge, Scored
from tasks.registry.gate import Decision
from tasks.registry.params import RegisterParams
from tasks.runtime import chain
from tasks.runtime.digests import dvc_digest, sha256
from tasks.runtime.git import code_version, is_linked_worktree
from tasks.runtime.params import PARAMS, load


@dataclass(frozen=True)
class Exposure:
    """Where it stands what the model saw."""

    variants: Path
    training: Path


@dataclass(frozen=True)
class Candidate:
    """A checkpoint with its evaluation, and what identifies both."""

    scored: Scored
    tuned: Path
    seen: Exposure
    evaluation: Path
    records: Path
    params: RegisterParams
    behind: dict[str, dict[str, Any]]  # the stages' records, by stage
    digests: dict[str, str]  # what the version carries as tags
    case: str  # the digest of what a decision is about


def registered(
    scored: Scored, tuned: Path, seen: Exposure, evaluation: Path, records: Path, params: RegisterParams
) -> tuple[dict[str, Any], bool]:
    """Find or make the version of this checkpoint and the decision on this evaluation; the content of registration.json, and whether
    there was anything to decide.

    ``ValueError`` where files here are not what the stages wrote. A dry run, of an experiment, changes nothing in the registry.
    """
    candidate = _candidate(scored, tuned, seen, evaluation, records, params)
    if _is_experiment():
        return _registered(candidate)
    key = unchanged.key_of(asdict(candidate), figures.read(), load(PARAMS))
    result = unchanged.last_result(key)
    if result:
        print(f"register: {result['name']} version {result['version']} has this checkpoint already")
        _say(result, candidate.digests)
        return result, False
    result, is_new = _registered(candidate)
    unchanged.keep(key, result)
    return result, is_new


def _registered(candidate: Candidate) -> tuple[dict[str, Any], bool]:
    """As ``registered``, by what the registry says."""
    from tasks.registry import promotion, site_annotation, tracking, versions

    params = candidate.params
    client = tracking.connect()
    run_ids = tracking.replay_all(client, list(candidate.behind.values()))
    version: Any = versions.find_version(client, params.name, "checkpoint", candidate.digests["checkpoint"])
    decided_before = bool(version and _number(version.tags, candidate.case))
    dry_run = _is_experiment() and not os.environ.get("REGISTER_VERSION")
    if not decided_before and dry_run:
        return _only_logged(client, candidate), True
    if decided_before:
        print(f"register: {params.name} version {version.version} has this checkpoint already")
    else:
        version = _decide(client, candidate, version, run_ids)
    tainted: list[str] = []
    if not dry_run:
        if decided_before and site_annotation.hand_over(client, version, site_annotation.annotation_of(candidate.behind)):
            print(f"register: version {version.version} is older than this site's annotation; MLflow has the figures, its passport has not")
        tainted = promotion.mark_tainted(client, params.name, promotion.withdrawn())
        for number in tainted:
            print(f"register: {params.name} version {number} saw withdrawn records; it is marked as tainted")
    result = _result(client, candidate, client.get_model_version(params.name, version.version), dry_run=dry_run)
    if not dry_run:
        descriptions.describe_all(client, params.name, {str(version.version), *map(str, tainted)})
        descriptions.describe_model(client, params.name)
    return result, not decided_before


def _candidate(scored: Scored, tuned: Path, seen: Exposure, evaluation: Path, records: Path, params: RegisterParams) -> Candidate:
    """``ValueError`` where no record here is of the run that made the checkpoint."""
    chain.check_records(records)
    digest = dvc_digest(tuned)
    behind = read_records(records)
    if digest not in behind.get("finetune", {}).get("outputs", {}).values():
        chain.check(records)  # says what was changed
        raise ValueError(f"{records} holds no record of the run that made {tuned}; run 'dvc repro --force finetune'")
    case = _case(dvc_digest(evaluation), params)
    return Candidate(scored, tuned, seen, evaluation, records, params, behind, _digests(behind, digest), case)


def _only_logged(client: Any, candidate: Candidate) -> dict[str, Any]:
    """A run of the experiment in the tracking store, and no version."""
    from tasks.registry import tracking

    name = os.environ.get("DVC_EXP_NAME", "experiment")
    compared = [candidate.behind[stage] for stage in ("shard", "finetune", "validate")]
    tracking.tell_experiment(client, name, f"{candidate.digests['checkpoint']}-{candidate.case}", compared)
    print("register: no version is made from a DVC experiment or a linked worktree; set REGISTER_VERSION=1 to make one")
    return {"name": candidate.params.name, "version": None, "digests": dict(sorted(candidate.digests.items())), "decision": None}


def _decide(client: Any, candidate: Candidate, version: Any, run_ids: dict[str, str]) -> Any:
    """The version with a new decision on this evaluation: a new version where there was none."""
    from tasks.registry import challenge

    chain.check(candidate.records)  # all that the decision and the version are made from
    name, evaluation = candidate.params.name, candidate.evaluation
    with tempfile.TemporaryDirectory() as folder:
        challenged = challenge.challenge(client, candidate.scored, evaluation, candidate.params, version, Path(folder))
        if version is not None:
            _decided_again(client, version, evaluation, challenged, candidate.case, Path(folder))
            return version
        version = _create(candidate, run_ids, challenged, Path(folder))
    size = sum(p.stat().st_size for folder in (candidate.tuned, evaluation) for p in folder.rglob("*") if p.is_file())
    print(f"register: {name} version {version.version} is new; it takes {size / 1e6:,.1f} MB among MLflow's artifacts")
    return version


def _result(client: Any, candidate: Candidate, version: Any, *, dry_run: bool) -> dict[str, Any]:
    """Apply the decision on the candidate's evaluation, and say what the version carries."""
    from tasks.registry import outcomes, promotion

    name, digests = candidate.params.name, candidate.digests
    number = _number(version.tags, candidate.case)
    decision = promotion.latest_decision(client, version, number)[1]
    if dry_run:
        outcome = version.tags.get(f"decision.{number}.outcome", "")
    else:
        _keep_trail(client, candidate, version)
        demanded = {key: getattr(candidate.params, key) == "required" for key in ("sign_off", "compliance")}
        outcome = outcomes.apply_decision(client, name, version.version, number, decision, **demanded)
    # A pure function of the version: what it carries, not what is here now.
    carried = {tag: value for tag, value in version.tags.items() if tag in digests or tag.startswith("dvc.")}
    stated = {"number": number, "outcome": outcome} | {key: decision[key] for key in ("verdict", "reasons", "champion", "comparisons")}
    result = {"name": name, "version": int(version.version), "digests": dict(sorted(carried.items())), "decision": stated}
    _say(result, digests)
    return result


def _keep_trail(client: Any, candidate: Candidate, version: Any) -> None:
    """The audit trail's entries on a version's registration, and on params of the gate that are others than before."""
    name, who, happened = candidate.params.name, getpass.getuser(), audit.events(client, candidate.params.name)
    if str(version.version) not in [str(event["version"]) for event in happened if event["verb"] == "register"]:
        registered_at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
        evidence = version.tags.get("passport.sha256", "")
        audit.append(client, name, "register", version.version, who=who, why=f"registered at {registered_at}", evidence=evidence)
    digest = hashlib.sha256(candidate.params.model_dump_json().encode()).hexdigest()
    noted = [event["evidence"] for event in happened if event["verb"] == "configure"]
    if noted[-1:] != [digest]:
        why = "params.yaml: register is another than before" if noted else "params.yaml: register"
        audit.append(client, name, "configure", version.version, who=who, why=why, evidence=digest)


def _say(result: dict[str, Any], digests: dict[str, str]) -> None:
    decision, version = result["decision"], result["version"]
    print(f"register: decision {decision['number']} on version {version}: {decision['verdict']}, {decision['outcome']}")
    if differing := [name for name, digest in digests.items() if name.startswith("dvc.") and result["digests"].get(name) != digest]:
        print(f"register: that version was made with other bytes in {', '.join(n.removeprefix('dvc.') for n in differing)}")


def read_records(directory: Path) -> dict[str, dict[str, Any]]:
    """The records of the stages behind the model, by stage, oldest first."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in record_files(directory)]
    return {record["stage"]: record for record in sorted(records, key=lambda r: str(r["started"]))}


def record_files(directory: Path) -> list[Path]:
    """The files of the stages' records, sorted by name."""
    return sorted(directory.glob("[!.]*.json"))


def _digests(records: dict[str, dict[str, Any]], checkpoint: str) -> dict[str, str]:
    """The digests that a version carries as tags: DVC's of every input and output, the code's commit, the params' file."""
    paths: dict[str, str] = {}
    for record in records.values():
        paths |= {f"dvc.{path}": digest for path, digest in (record["inputs"] | record["outputs"]).items()}
    # Today's commit, not those of the runs: DVC has compared every stage's code with what it ran on before it came here, and the
    # version's params are today's.
    code = code_version()
    commit = {"code.commit": str(code.get("commit")), "code.dirty": str(code.get("dirty")).lower()}
    return {"checkpoint": checkpoint, **paths, **commit, "params.sha256": sha256(PARAMS)}


def _case(evaluation: str, params: RegisterParams) -> str:
    """What a decision is about; params that only say who promotes are no part of it."""
    gate = params.model_dump_json(exclude={"sign_off", "compliance", "name"})
    return hashlib.sha256(f"{evaluation}\n{gate}".encode()).hexdigest()


def _number(tags: dict[str, str], case: str) -> int:
    """The number of the decision on a case, 0 where there is none."""
    matching = [tag for tag, value in tags.items() if tag.startswith("decision.") and tag.endswith(".case") and value == case]
    return int(matching[0].split(".")[1]) if matching else 0


def _decision_tags(number: int, decision: Decision, document: Path, case: str) -> dict[str, str]:
    tags = {"verdict": decision.verdict, "reason": decision.reasons[0][:4000], "sha256": sha256(document), "case": case}
    return {f"decision.{number}.{name}": value for name, value in tags.items()}


def _create(candidate: Candidate, run_ids: dict[str, str], challenged: Challenge, folder: Path) -> Any:
    """A new version, with its first decision."""
    from tasks.registry import challenge, package, site_annotation, tracking, versions
    from tasks.registry.compliance.export import compared_with

    client = tracking.connect()
    metrics, annotation = _metrics(candidate.evaluation), site_annotation.annotation_of(candidate.behind)
    document = challenge.write_decision(folder, 1, challenged, candidate.evaluation)
    contents = package.Contents(
        name=candidate.params.name,
        tuned=candidate.tuned,
        evaluation=candidate.evaluation,
        shards=candidate.scored.shards,
        variants=candidate.seen.variants,
        training=candidate.seen.training,
        gate=folder / "gate",
        records=candidate.behind,
        run_files=record_files(candidate.records),
        runs=run_ids,
        code={"commit": candidate.digests["code.commit"], "dirty": candidate.digests["code.dirty"]},
        decision=challenged.decision,
        documents=[document, document.with_suffix(".html")],
        metrics=metrics,
        annotation=annotation,
        compared=compared_with(client, candidate.params.name, challenged.champion),
    )
    tags = site_annotation.tags(annotation) | candidate.digests | {f"run.{stage}": run for stage, run in run_ids.items()}
    return versions.create_version(
        client,
        candidate.params.name,
        lambda number: package.make(folder / f"package-{number}", contents, number),
        tags=tags | findings.tags(metrics) | _decision_tags(1, challenged.decision, document, candidate.case),
        inputs={str(path): dvc_digest(path) for path in (candidate.tuned, candidate.evaluation)},
        metrics=figures.metrics(annotation) if annotation else {},
    )


def _decided_again(client: Any, version: Any, evaluation: Path, challenged: Challenge, case: str, folder: Path) -> None:
    """A further numbered record on a version that is there."""
    from tasks.registry import challenge

    number = 1 + sum(tag.startswith("decision.") and tag.endswith(".case") for tag in version.tags)
    document = challenge.write_decision(folder, number, challenged, evaluation)
    client.log_artifacts(version.run_id, str(evaluation), f"evaluation-{number}")
    client.log_artifacts(version.run_id, str(folder / "gate"), f"gate-{number}")
    for path in (document.with_suffix(".html"), document):
        client.log_artifact(version.run_id, str(path))
    tags = findings.tags(_metrics(evaluation)) | _decision_tags(number, challenged.decision, document, case)
    # The case last: without it the record does not count, and a re-run writes it again.
    for name, value in sorted(tags.items(), key=lambda tag: tag[0].endswith(".case")):
        client.set_model_version_tag(version.name, version.version, name, value)


def _metrics(evaluation: Path) -> dict[str, Any]:
    """The evaluation's table."""
    metrics: dict[str, Any] = json.loads((evaluation / "metrics.json").read_bytes())
    return metrics


def _is_experiment() -> bool:
    """In a DVC experiment (its queue and its temporary copies set this) or in a linked git worktree."""
    return "DVC_EXP_BASELINE_REV" in os.environ or is_linked_worktree()
