"""The keys that sign versions, and the signatures of passports and attestations.

A key in a PEM file that its owner alone can read: of an elliptic curve (P-256, P-384, P-521), with which versions are signed as OpenSSF's
model signing does (model_signature.py), or Ed25519 (RFC 8032), with which a passport alone is signed. A passport says of which version it
is and when it was made, so that no signature can stand on another version.
"""

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

SIGNATURE = "passport.sig"  # beside the passport, of an Ed25519 key
KEY, PUBLIC_KEY = "PASSPORT_KEY", "PASSPORT_PUBLIC_KEY"  # environment: the key that signs; the one that versions must be signed with
HASHES: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey


def private_key(path: Path) -> PrivateKey:
    """``ValueError`` where a file holds no key that can sign, or one that others than its owner can read."""
    try:
        status = path.stat()
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        make = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        raise ValueError(f"{path} holds no private key that can be read; make one with: {make}") from None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        _check_curve(key.curve, path)
    elif not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds a key of another kind than of an elliptic curve (P-256) or Ed25519")
    if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path} can be read by others, who could sign with it; make a new key and close it: chmod 600 {path}")
    return key


def public_key(path: Path) -> PublicKey:
    """``ValueError`` where a file holds no public key of a kind that signs versions."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"{path} holds no public key that can be read (PEM)") from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        _check_curve(key.curve, path)
    elif not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds a key of another kind than of an elliptic curve (P-256) or Ed25519")
    return key


def _check_curve(curve: ec.EllipticCurve, path: Path) -> None:
    if curve.name not in HASHES:
        raise ValueError(f"{path} holds a key of the curve {curve.name}; known are {', '.join(HASHES)}")


def check_key() -> None:
    """``ValueError`` where the environment names a key that cannot sign: better now than after a model was trained."""
    if path := os.environ.get(KEY):
        private_key(Path(path))


def sign(document: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a passport beside it."""
    path = document.with_name(SIGNATURE)
    path.write_text(key.sign(document.read_bytes()).hex() + "\n", encoding="ascii")
    return path


def signed_by(document: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Whether a passport's signature is that of this key's owner."""
    try:
        key.verify(bytes.fromhex(signature.decode("ascii")), document)
    except (InvalidSignature, ValueError):
        return False
    return True


def dsse_signature(payload: bytes, kind: str, key: PrivateKey) -> dict[str, str]:
    """The entry of an envelope's ``signatures`` (DSSE 1.0)."""
    encoded = pre_authentication_encoding(payload, kind)
    signed = key.sign(encoded) if isinstance(key, Ed25519PrivateKey) else key.sign(encoded, ec.ECDSA(HASHES[key.curve.name]))
    return {"keyid": "", "sig": base64.b64encode(signed).decode()}


def is_dsse_signature(signature: bytes, payload: bytes, kind: str, key: PublicKey) -> bool:
    """Whether the bytes sign this payload with this key."""
    encoded = pre_authentication_encoding(payload, kind)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, encoded)
        else:
            key.verify(signature, encoded, ec.ECDSA(HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def pre_authentication_encoding(payload: bytes, kind: str) -> bytes:
    """What DSSE signs (secure-systems-lab/dsse, protocol.md)."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
