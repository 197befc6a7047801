"""Where a version comes from, as attestations: an in-toto statement with a SLSA provenance for each stage, and one for the version.

Formats: https://github.com/in-toto/attestation (Statement v1), https://slsa.dev/spec/v1.0/provenance, and DSSE envelopes, one a line
(https://github.com/secure-systems-lab/dsse). Without a key an envelope has no signature.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from tasks.registry.lineage.passport import checkpoint_files
from tasks.registry.lineage.signature import Signer, dsse_signature

Json = dict[str, Any]
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUILDER = "urn:medllama:pipeline"


def statements(document: Mapping[str, Any]) -> Iterator[Json]:
    """Of each stage behind the version, in their order, and of the version itself."""
    for name, stage in sorted(document["stages"].items(), key=lambda item: str(item[1]["started"])):
        yield _statement(
            subjects=_files(document, stage["outputs"]),
            kind=f"urn:medllama:stage:{name}:v1",
            parameters={"stage": name, "params": stage["params"]},
            materials=_files(document, stage["inputs"]) + _code(stage["code"] or {}),
            run={"invocationId": f"urn:uuid:{stage['record']}", **_times(stage)},
            environment={"versions": stage.get("versions"), "machine": stage.get("machine")},
        )
    version = document["version"]
    yield _statement(
        subjects=[
            {"name": f"checkpoint/{path}", "digest": {"sha256": digest}} for path, digest in sorted(checkpoint_files(document).items())
        ],
        kind="urn:medllama:registration:v1",
        parameters={"name": version["name"], "number": version["number"], "verdict": document["decision"]["verdict"]},
        materials=_files(document, {"artifacts/model": "", "artifacts/evaluation": ""}) + _code(document["code"]),
        run={"invocationId": f"urn:medllama:version:{version['name']}:{version['number']}", "finishedOn": _rfc3339(version["made"])},
        environment={},
    )


def _statement(*, subjects: list[Json], kind: str, parameters: Json, materials: list[Json], run: Json, environment: Json) -> Json:
    definition = {"buildType": kind, "externalParameters": parameters, "internalParameters": environment, "resolvedDependencies": materials}
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": BUILDER}, "metadata": run}},
    }


def _files(document: Mapping[str, Any], paths: Mapping[str, str]) -> list[Json]:
    """Each file below these paths with its SHA-256; a path of which the passport lists no files with DVC's digest."""
    named = []
    for path, digest in sorted(paths.items()):
        if tree := document["trees"].get(path):
            files = sorted(tree["files"].items())
            named += [{"name": f"{path}/{file}" if file else path, "digest": {"sha256": sha256}} for file, sha256 in files]
        else:
            named.append({"name": path, "digest": {"dvcMd5": digest.removesuffix(".dir")}})
    return named


def _code(code: Mapping[str, Any]) -> list[Json]:
    commit = str(code.get("commit") or "")
    state = "with uncommitted changes" if str(code.get("dirty")).lower() == "true" else "as committed"
    return [{"name": "code", "digest": {"gitCommit": commit}, "annotations": {"state": state}}] if len(commit) >= 40 else []


def _times(stage: Mapping[str, Any]) -> dict[str, str]:
    started = datetime.fromisoformat(stage["started"])
    ended = started + timedelta(seconds=float(stage["seconds"]))
    return {"startedOn": _rfc3339(started.isoformat()), "finishedOn": _rfc3339(ended.isoformat())}


def _rfc3339(stamp: str) -> str:
    return datetime.fromisoformat(stamp).isoformat(timespec="seconds").replace("+00:00", "Z")


def envelopes(document: Mapping[str, Any], signer: Signer | None) -> str:
    """The statements in DSSE envelopes, one a line."""
    return "".join(f"{json.dumps(_envelope(statement, signer), separators=(',', ':'))}\n" for statement in statements(document))


def _envelope(statement: Json, signer: Signer | None) -> Json:
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signed = [] if signer is None else [dsse_signature(payload, PAYLOAD, signer)]
    return {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": signed}
