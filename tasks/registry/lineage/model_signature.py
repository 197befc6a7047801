"""``model.sig``: OpenSSF's signature of a model (model-signing 1.1) over a version's checkpoint directory and the passport in it.

The chain is closed: the signature covers the passport, and the passport every file. The library signs (model_signer.py); what it signed is
read here, so that a host that only serves needs no more than ``cryptography``. Layout: a Sigstore bundle with a DSSE envelope of an
in-toto statement.
"""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tasks.registry.lineage.signature import is_dsse_signature

FILE = "model.sig"  # in the checkpoint directory
PREDICATE = "https://model_signing/signature/v1.0"


def signed_files(content: bytes, key: EllipticCurvePublicKey) -> dict[str, str] | None:
    """SHA-256 of each file that a signature covers; None if it is not one by this key's owner."""
    try:
        envelope = json.loads(content)["dsseEnvelope"]
        payload, kind = base64.b64decode(envelope["payload"], validate=True), str(envelope["payloadType"])
        (entry,) = envelope["signatures"]
        signature = base64.b64decode(entry["sig"], validate=True)
        if not is_dsse_signature(signature, payload, kind, key):
            return None
        statement: dict[str, Any] = json.loads(payload)
        if statement["predicateType"] != PREDICATE:
            return None
        resources = statement["predicate"]["resources"]
        return {str(entry["name"]): str(entry["digest"]) for entry in resources if entry["algorithm"] == "sha256"}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
