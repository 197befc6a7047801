"""The certificate of an erasure: what went, what remains and why, signed. It holds no text, no number, no name of a file of a patient.

Format: an in-toto Statement v1 (https://github.com/in-toto/attestation) in a DSSE envelope, as the attestations of a version are. What is
digested from text stands in it as a digest that is salted with the case. A file is a certificate only if it is, to the byte, what was
signed; so the digests of the signer's X.509 certificates, if there are any, are signed too.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.registry.lineage.certificates import Chain, UntrustedError, parse_pem, to_der
from tasks.registry.lineage.signature import Signer, Trusted, dsse_entry, dsse_signature, is_dsse_signature, key_of
from tasks.registry.standards.provenance import PAYLOAD, STATEMENT
from tasks.registry.upkeep.case import Case
from tasks.registry.upkeep.traces import Trace
from tasks.runtime.files import whole

Json = dict[str, Any]
PREDICATE = "urn:medllama:erasure:v1"
SIGNER = "signer_certificates"  # SHA-256 of each, of those that the envelope carries
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


def write(path: Path, predicate: Json, signer: Signer) -> str:
    """Sign what is certified, and write the certificate; its SHA-256."""
    records = hashlib.sha256("\n".join(predicate["records"]).encode()).hexdigest()
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": "records", "digest": {"sha256": records}}],
        "predicateType": PREDICATE,
        "predicate": predicate | ({SIGNER: _digests(signer.chain)} if signer.chain else {}),
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    content = _encoded(payload, [dsse_signature(payload, PAYLOAD, signer)])
    with whole(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _encoded(payload: bytes, signatures: list[dict[str, str]]) -> bytes:
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": signatures}
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def _digests(chain: Chain) -> list[str]:
    return [hashlib.sha256(der).hexdigest() for der in to_der(chain)]


def verify(path: Path, trusted: Trusted) -> Json:
    """What a certificate says; ``ValueError`` where the file is not one that somebody signed whom the reader trusts, or another byte stands
    in it.
    """
    refusal = f"{path} is no certificate of an erasure that was signed with this key, or it was changed"
    content = path.read_bytes()
    try:
        envelope = json.loads(content)
        payload = base64.b64decode(envelope["payload"], validate=True)
        entry = envelope["signatures"][0]
        signature = base64.b64decode(entry["sig"], validate=True)
        chain = parse_pem(entry["cert"]) if "cert" in entry else ()
        # Whatever the signature does not cover, the key's id or white space, has one form.
        is_whole = content == _encoded(payload, [dsse_entry(signature, chain)])
        if not is_whole or not is_dsse_signature(signature, payload, PAYLOAD, key_of(trusted, chain)):
            raise ValueError(refusal)
        statement = json.loads(payload)
        predicate: Json = statement["predicate"]
        if statement["predicateType"] != PREDICATE or predicate.get(SIGNER, []) != _digests(chain):
            raise ValueError(refusal)
    except UntrustedError as error:
        raise ValueError(f"{path} is no certificate of an erasure that counts: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ValueError(refusal) from None
    return predicate
