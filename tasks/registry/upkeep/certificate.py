"""The certificate of an erasure: what went, what remains and why, signed. It holds no text, no number, no name of a file of a patient.

Format: an in-toto Statement v1 (https://github.com/in-toto/attestation) in a DSSE envelope, as the attestations of a version are. What is
digested from text stands in it as a digest that is salted with the case. A file is a certificate only if it is, to the byte, what was
signed.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.registry.lineage.signature import PrivateKey, PublicKey, dsse_signature, is_dsse_signature
from tasks.registry.standards.provenance import PAYLOAD, STATEMENT
from tasks.registry.upkeep.case import Case
from tasks.registry.upkeep.traces import Trace
from tasks.runtime.files import whole

Json = dict[str, Any]
PREDICATE = "urn:medllama:erasure:v1"
NOT_SEARCHED = (
    "other directories and machines, clones, backups, and DVC remotes that were not named",
    "text that somebody copied without the record's id, such as votes on answers, and files converted from a version",
    "what a model has learned: weights were not searched for text",
)


def grouped(traces: Iterable[Trace], case: Case) -> list[Json]:
    """Traces by where they are and why they remain, with their names as digests."""
    by_place = defaultdict[tuple[str, str], list[str]](list)
    for trace in traces:
        by_place[trace.where, trace.why].append(case.alias(trace.name))
    return [
        {"where": where, "count": len(names), "names": sorted(names)} | ({"why": why} if why else {})
        for (where, why), names in sorted(by_place.items())
    ]


def write(path: Path, predicate: Json, key: PrivateKey) -> str:
    """Sign what is certified, and write the certificate; its SHA-256."""
    records = hashlib.sha256("\n".join(predicate["records"]).encode()).hexdigest()
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": "records", "digest": {"sha256": records}}],
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    content = _encoded(payload, [dsse_signature(payload, PAYLOAD, key)])
    with whole(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _encoded(payload: bytes, signatures: list[dict[str, str]]) -> bytes:
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": signatures}
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def verify(path: Path, key: PublicKey) -> Json:
    """What a certificate says; ``ValueError`` where the file is not one that the owner of this key signed, or another byte stands in it."""
    refusal = f"{path} is no certificate of an erasure that was signed with this key, or it was changed"
    content = path.read_bytes()
    try:
        envelope = json.loads(content)
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        # Whatever the signature does not cover, the key's id or white space, has one form.
        is_whole = content == _encoded(payload, [{"keyid": "", "sig": base64.b64encode(signature).decode()}])
        if not is_whole or not is_dsse_signature(signature, payload, PAYLOAD, key):
            raise ValueError(refusal)
        statement = json.loads(payload)
        if statement["predicateType"] != PREDICATE:
            raise ValueError(refusal)
        predicate: Json = statement["predicate"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise ValueError(refusal) from None
    return predicate
