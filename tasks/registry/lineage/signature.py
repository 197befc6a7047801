"""Signatures of passports: Ed25519 (RFC 8032), by a private key in a PEM file that its owner alone can read.

A passport says of which version it is and when it was made, so that no signature can stand on another version.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

SIGNATURE = "passport.sig"  # beside the passport
KEY, PUBLIC_KEY = "PASSPORT_KEY", "PASSPORT_PUBLIC_KEY"  # environment: the key that signs; the one that passports must be signed with


def private_key(path: Path) -> Ed25519PrivateKey:
    """``ValueError`` where a file holds no key that can sign, or one that others than its owner can read."""
    try:
        status = path.stat()
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{path} holds no private key that can be read; make one with: openssl genpkey -algorithm ed25519") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds a key of another kind than Ed25519")
    if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path} can be read by others, who could sign with it; make a new key and close it: chmod 600 {path}")
    return key


def check_key() -> None:
    """``ValueError`` where the environment names a key that cannot sign: better now than after a model was trained."""
    if path := os.environ.get(KEY):
        private_key(Path(path))


def sign(document: Path, key: Path) -> Path:
    """Write the signature of a passport beside it."""
    path = document.with_name(SIGNATURE)
    path.write_text(private_key(key).sign(document.read_bytes()).hex() + "\n", encoding="ascii")
    return path


def signed_by(document: bytes, signature: bytes, public_key: Path) -> bool:
    """Whether a passport's signature is that of this key's owner."""
    try:
        public = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"{public_key} holds no public key that can be read (PEM)") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError(f"{public_key} holds a key of another kind than Ed25519")
    try:
        public.verify(bytes.fromhex(signature.decode("ascii")), document)
    except (InvalidSignature, ValueError):
        return False
    return True
