"""A version of the model in MLflow's registry: ``python -m tasks.register``.

The stage touches the world outside the repository, so DVC runs it every time and it does nothing twice: the identity of a version
is the digest of its checkpoint directory. It needs the tracking store and fails where that does not answer.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console

from tasks.digests import dvc_digest, sha256
from tasks.passport import passport
from tasks.record import is_linked_worktree, write_whole
from tasks.stage import PARAMS, Out, Params, Summary, run_stage
from tasks.summary import show

# What a rebuild needs besides the commit.
REPRODUCTION = (PARAMS, Path("dvc.yaml"), Path("dvc.lock"), Path("data.dvc"), Path("requirements.lock"))


LINE = 110  # characters of a line where there is no terminal to ask


class RegisterParams(Params):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    alias: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")

    @field_validator("alias")
    @classmethod
    def free_alias(cls, alias: str) -> str:
        if alias == "latest" or re.fullmatch(r"v\d+", alias):
            raise ValueError("MLflow keeps 'latest' and names like 'v1' for itself")
        return alias


def register(tuned: Path, evaluation: Path, records: Path, registration: Out, *, params: RegisterParams) -> Summary:
    """Find or make the version of this checkpoint, and write its name, number and digests."""
    from tasks import tracking

    try:
        result = _registered(tuned, evaluation, records, params)
    except tracking.MlflowException as error:
        raise ValueError(f"MLflow at {tracking.tracking_uri()} refused: {error}") from error
    write_whole(registration, result)
    show(tuned, evaluation, result, Console(width=None if sys.stdout.isatty() else LINE))
    return Summary()


def _registered(tuned: Path, evaluation: Path, records: Path, params: RegisterParams) -> dict[str, Any]:
    from tasks import tracking

    digest = dvc_digest(tuned)
    behind = read_records(records)
    if digest not in behind.get("finetune", {}).get("outputs", {}).values():
        raise ValueError(f"{records} holds no record of the run that made {tuned}; run 'dvc repro --force finetune'")
    digests = _digests(behind, digest)
    client = tracking.connect()
    run_ids = tracking.replay_all(client, list(behind.values()))
    version = tracking.find_version(client, params.name, "checkpoint", digest)
    if version is not None:
        print(f"register: {params.name} version {version.version} has this checkpoint already")
    elif _is_experiment() and not os.environ.get("REGISTER_VERSION"):
        print("register: no version is made from a DVC experiment or a linked worktree; set REGISTER_VERSION=1 to make one")
    else:
        version = _create(tuned, evaluation, behind, digests | {f"run.{s}": run for s, run in run_ids.items()}, params)
        print(f"register: {params.name} version {version.version} is new")
    if version is None:
        return {"name": params.name, "version": None, "digests": dict(sorted(digests.items()))}
    if not tracking.aliases(client, params.name):
        client.set_registered_model_alias(params.name, params.alias, version.version)
        print(f"register: it is now {params.alias}")
    if differing := [name for name, digest in digests.items() if name.startswith("dvc.") and version.tags.get(name) != digest]:
        print(f"register: that version was made with other bytes in {', '.join(n.removeprefix('dvc.') for n in differing)}")
    # A pure function of the version: what it carries, not what is here now.
    carried = {name: value for name, value in version.tags.items() if name in digests or name.startswith("dvc.")}
    return {"name": params.name, "version": int(version.version), "digests": dict(sorted(carried.items()))}


def read_records(directory: Path) -> dict[str, dict[str, Any]]:
    """The records of the stages behind the model, by stage, oldest first."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in directory.glob("[!.]*.json")]
    return {record["stage"]: record for record in sorted(records, key=lambda r: str(r["started"]))}


def _digests(records: dict[str, dict[str, Any]], checkpoint: str) -> dict[str, str]:
    """The digests that a version carries as tags: DVC's of every input and output, the code's commit, the params' file."""
    paths: dict[str, str] = {}
    for record in records.values():
        paths |= {f"dvc.{path}": digest for path, digest in (record["inputs"] | record["outputs"]).items()}
    code = records["finetune"]["code"]  # of the run that made the weights, not of today
    commit = {"code.commit": str(code.get("commit")), "code.dirty": str(code.get("dirty")).lower()}
    return {"checkpoint": checkpoint, **paths, **commit, "params.sha256": sha256(PARAMS)}


def _create(tuned: Path, evaluation: Path, records: dict[str, dict[str, Any]], tags: dict[str, str], params: RegisterParams) -> Any:
    from tasks import tracking

    files = [path for path in REPRODUCTION if path.exists()]
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "passport.json"
        write_whole(document, passport(records, files, tuned))
        return tracking.create_version(
            tracking.connect(),
            params.name,
            tags=tags | {"passport.sha256": sha256(document)},
            inputs={str(path): dvc_digest(path) for path in (tuned, evaluation)},
            metrics=records["validate"]["metrics"],
            folders={"checkpoint": tuned, "evaluation": evaluation},
            files=[*files, document],
        )


def _is_experiment() -> bool:
    """In a DVC experiment (its queue and its temporary copies set this) or in a linked git worktree."""
    return "DVC_EXP_BASELINE_REV" in os.environ or is_linked_worktree()


if __name__ == "__main__":
    run_stage(register, record=False)
