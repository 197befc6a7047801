"""``model.sig``: OpenSSF's signature of a model (model-signing 1.1) over a version's checkpoint directory and the passport in it.

The chain is closed: the signature covers the passport, and the passport every file. The library signs (model_signer.py); what it signed is
read here, so that a host that only serves needs no more than ``cryptography``. Layout: a Sigstore bundle with a DSSE envelope of an
in-toto statement.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from tasks.registry.lineage.certificates import Chain, UntrustedError, parse_chain
from tasks.registry.lineage.signature import Trusted, is_dsse_signature, key_of

FILE = "model.sig"  # in the checkpoint directory
PREDICATE = "https://model_signing/signature/v1.0"


def signed_files(content: bytes, trusted: Trusted) -> dict[str, str]:
    """SHA-256 of each file that a signature covers; ``UntrustedError`` if it is not one by whom the reader trusts."""
    try:
        bundle = json.loads(content)
        envelope = bundle["dsseEnvelope"]
        payload, kind = base64.b64decode(envelope["payload"], validate=True), str(envelope["payloadType"])
        (entry,) = envelope["signatures"]
        signature = base64.b64decode(entry["sig"], validate=True)
        if not is_dsse_signature(signature, payload, kind, key_of(trusted, _chain(bundle))):
            raise UntrustedError("another key made it, or it was changed")
        statement: dict[str, Any] = json.loads(payload)
        if statement["predicateType"] != PREDICATE:
            raise UntrustedError("it does not sign a model")
        resources = statement["predicate"]["resources"]
        return {str(entry["name"]): str(entry["digest"]) for entry in resources if entry["algorithm"] == "sha256"}
    except UntrustedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UntrustedError("it is not of the form of OpenSSF's model signing") from None


def _chain(bundle: Mapping[str, Any]) -> Chain:
    """The certificates that come with a signature: none with one by a key alone."""
    carried = bundle["verificationMaterial"].get("x509CertificateChain", {"certificates": []})["certificates"]
    return parse_chain(base64.b64decode(certificate["rawBytes"], validate=True) for certificate in carried)
