"""Who signs versions and whom a reader trusts; the signatures of passports and attestations.

A key is of an elliptic curve (P-256, P-384, P-521), with which versions are signed as OpenSSF's model signing does (model_signature.py), or
Ed25519 (RFC 8032), with which a passport alone is signed. It is in a PEM file that its owner alone can read or, of an elliptic curve, in
hardware (hardware_key.py). One of an elliptic curve may have a certificate (certificates.py). A passport says of which version it is and
when it was made, so that no signature can stand on another version.
"""

import base64
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from tasks.registry.lineage import certificates
from tasks.registry.lineage.certificates import Authorities, Chain, UntrustedError
from tasks.registry.lineage.hardware_key import HardwareKey, is_uri, open_hardware_key

SIGNATURE = "passport.sig"  # beside the passport, of an Ed25519 key
# Environment: the key that signs, its certificate, and the key that versions must be signed with or who must vouch for it.
KEY, CERTIFICATE, PUBLIC_KEY = "PASSPORT_KEY", "PASSPORT_CERTIFICATE", "PASSPORT_PUBLIC_KEY"
HASHES: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | HardwareKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
Trusted = PublicKey | Authorities  # by a reader


@dataclass(frozen=True)
class Signer:
    """A key, with its certificate and those of its issuers where it has one; ``path`` is the key's file, if it is in one."""

    key: PrivateKey = field(repr=False)
    path: Path | None
    chain: Chain = ()


def signer() -> Signer | None:
    """Who signs here, as the environment says; ``ValueError`` as of ``open_signer``."""
    certificate = os.environ.get(CERTIFICATE)
    return open_signer(key, Path(certificate) if certificate else None) if (key := os.environ.get(KEY)) else None


def open_signer(key: str, certificate: Path | None = None) -> Signer:
    """A key by the path of its PEM file or its PKCS#11 URI. ``ValueError`` where it cannot sign, or its certificate does not fit it or
    may not sign today; without the URI, which may hold a PIN.
    """
    path = None if is_uri(key) else Path(key)
    opened = private_key(path) if path else open_hardware_key(key)
    chain = certificates.read_chain(certificate) if certificate else ()
    if chain:
        if isinstance(opened, Ed25519PrivateKey):
            raise ValueError(f"{CERTIFICATE}: an Ed25519 key signs without a certificate; take one of an elliptic curve (P-256)")
        if chain[0].public_key() != opened.public_key():
            raise ValueError(f"{certificate}: the first certificate is not that of the key in {KEY}")
        if reason := certificates.objection(chain[0], datetime.now(UTC)):
            raise ValueError(f"{certificate}: the certificate of the key {reason}")
    return Signer(opened, path, chain)


def private_key(path: Path) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
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


def public_key(path: Path) -> Trusted:
    """Whom a file names: the owner of a public key or, where it holds certificates, authorities. ``ValueError`` where it holds neither, or
    a key that signs no versions.
    """
    try:
        content = path.read_bytes()
        key = load_pem_public_key(content) if certificates.BEGIN not in content else None
    except (OSError, ValueError):
        raise ValueError(f"{path} holds no public key that can be read (PEM)") from None
    if key is None:
        return certificates.authorities(path)
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
    signer()


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


def dsse_signature(payload: bytes, kind: str, signer: Signer) -> dict[str, str]:
    """The entry of an envelope's ``signatures`` (DSSE 1.0), with the certificates of the key, if any, as in-toto carries them."""
    encoded, key = pre_authentication_encoding(payload, kind), signer.key
    signed = key.sign(encoded) if isinstance(key, Ed25519PrivateKey) else key.sign(encoded, ec.ECDSA(HASHES[key.curve.name]))
    return dsse_entry(signed, signer.chain)


def dsse_entry(signature: bytes, chain: Chain) -> dict[str, str]:
    """The one form of an entry that is written here."""
    entry = {"keyid": "", "sig": base64.b64encode(signature).decode()}
    return entry | ({"cert": certificates.to_pem(chain)} if chain else {})


def key_of(trusted: Trusted, chain: Chain) -> PublicKey:
    """The key that a signature must verify with; ``UntrustedError`` where authorities are trusted and none vouches for this chain."""
    if not isinstance(trusted, Authorities):
        return trusted
    key = trusted.vouched_key(chain)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in HASHES:
        raise UntrustedError(f"the key of its certificate is of another kind than {', '.join(HASHES)}")
    return key


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
