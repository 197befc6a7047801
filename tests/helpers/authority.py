"""A certificate authority as a hospital has one, a root and an intermediate, and what they certify; and a token that is software."""

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "48151623"
DAY = timedelta(days=1)


def usage(*, signatures: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signatures,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issuer:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def certify(
    name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: Issuer | ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    days: tuple[int, int] = (-30, 300),
    key_usage: x509.KeyUsage | None = None,
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
) -> x509.Certificate:
    """A certificate by an issuer, or by its own key; ``days``: from when until when, counted from today."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing, by = (issuer.key, issuer.certificate.subject) if isinstance(issuer, Issuer) else (issuer, subject)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    builder = builder.add_extension(key_usage or usage(signatures=not authority, certificates=authority), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    if purpose and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(signing, hashes.SHA256())


def root(name: str = "Hospital root", *, days: tuple[int, int] = (-3000, 3000)) -> Issuer:
    key = new_key()
    return Issuer(certify(name, key.public_key(), key, authority=True, days=days), key)


def intermediate(issuer: Issuer, name: str = "Hospital signing", *, days: tuple[int, int] = (-1000, 1000)) -> Issuer:
    key = new_key()
    return Issuer(certify(name, key.public_key(), issuer, authority=True, days=days), key)


def write_pem(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
    return path


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    """The private key, closed to others, and the public one beside it as ``.pub``."""
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def token(folder: Path, key: ec.EllipticCurvePrivateKey) -> tuple[dict[str, str], str]:
    """A token of SoftHSM, in a folder, that holds a key under the label "release": what the environment needs to see it, and the key's URI,
    without the PIN."""
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(config)}
    pem = write_key(folder / "imported.pem", key)

    def softhsm(*arguments: str) -> None:
        subprocess.run(["softhsm2-util", *arguments], env=os.environ | environment, check=True, capture_output=True)

    softhsm("--init-token", "--free", "--label", "hospital", "--so-pin", "12345678", "--pin", PIN)
    softhsm("--import", str(pem), "--token", "hospital", "--label", "release", "--id", "a1", "--pin", PIN)
    pem.unlink()
    return environment, f"pkcs11:token=hospital;object=release;id=%A1?module-path={SOFTHSM}"
