"""X.509 certificates of those who sign, and whether the authorities that a reader trusts vouch for them (RFC 5280).

A certificate that signs versions names no host. It must be for signatures and, if it says what for, for code: so the certificate of a web
server, which the same authority may have issued, signs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

Chain = tuple[x509.Certificate, ...]  # the signer's own first, each issued by the next one
BEGIN = b"-----BEGIN CERTIFICATE-----"
MAX_CHAIN = 8
# What a certificate raises that cannot be read.
MALFORMED = (ValueError, TypeError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class UntrustedError(ValueError):
    """Why a signature does not count."""


@dataclass(frozen=True)
class Authorities:
    """The certificates that a reader trusts, of roots or of intermediates, and the name of their file."""

    name: str
    certificates: Chain

    def vouched_key(self, chain: Chain) -> CertificatePublicKeyTypes:
        """The public key of the chain's first certificate; ``UntrustedError`` unless an authority vouches for it today."""
        if not 0 < len(chain) <= MAX_CHAIN:
            raise UntrustedError(f"it carries {len(chain)} certificates, not 1 to {MAX_CHAIN}")
        now = datetime.now(UTC)
        try:
            reason, key = objection(chain[0], now), chain[0].public_key()
        except MALFORMED:
            raise UntrustedError("its certificate cannot be read") from None
        if reason:
            raise UntrustedError(f"its certificate {reason}")
        # Its own certificate was looked at above; the library's rules for it are those of TLS, which demand a name of a host.
        builder = PolicyBuilder().store(Store(list(self.certificates))).time(now).max_chain_depth(MAX_CHAIN)
        builder = builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=ExtensionPolicy.permit_all())
        try:
            builder.build_client_verifier().verify(chain[0], list(chain[1:]))
        except VerificationError:
            expired = any(certificate.not_valid_after_utc < now for certificate in (*chain[1:], *self.certificates))
            reason = f"no chain of valid certificates leads from its own to an authority in {self.name}"
            raise UntrustedError(reason + ("; one of them has expired" if expired else "")) from None
        return key


def objection(certificate: x509.Certificate, now: datetime) -> str:
    """Why a certificate may not sign at a time, as the end of a sentence; empty where it may. Raises ``MALFORMED``."""
    usage = _extension(certificate, x509.KeyUsage)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    constraints = _extension(certificate, x509.BasicConstraints)
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if constraints is not None and constraints.ca:
        return "is that of an authority, which issues certificates and signs no versions"
    if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        return "is for other purposes than to sign code (extended key usage)"
    if not usage.digital_signature if usage is not None else purposes is None:
        return "is not for signatures (key usage: digital signature)"
    return ""


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _issues(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not an authority")


def _signs_certificates(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("not for signing certificates")


_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _issues)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
)


def read_chain(path: Path) -> Chain:
    """The certificates of a PEM file, in their order; ``ValueError`` where there is none, or one is not issued by the next."""
    chain = _read(path)
    if len(chain) > MAX_CHAIN:
        raise ValueError(f"{path} holds {len(chain)} certificates; at most {MAX_CHAIN} make a chain")
    for number, (certificate, issuer) in enumerate(pairwise(chain), start=1):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (*MALFORMED, InvalidSignature):
            message = f"{path}: certificate {number} is not issued by certificate {number + 1}; put that of the key first, then its issuers"
            raise ValueError(message) from None
    return chain


def authorities(path: Path) -> Authorities:
    """The authorities that a PEM file names; ``ValueError`` where one of its certificates is not that of an authority."""
    certificates = _read(path)
    for number, certificate in enumerate(certificates, start=1):
        constraints = _extension(certificate, x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            raise ValueError(f"{path}: certificate {number} is not that of an authority; name the root, or a public key")
    return Authorities(path.name, certificates)


def _read(path: Path) -> Chain:
    try:
        loaded = x509.load_pem_x509_certificates(path.read_bytes())
        # Extensions and keys are parsed when they are first looked at; here, so that nothing raises later.
        parsed = [(certificate, certificate.extensions, certificate.public_key()) for certificate in loaded]
    except (OSError, *MALFORMED):
        raise ValueError(f"{path} holds no certificates that can be read (PEM)") from None
    return tuple(certificate for certificate, *_ in parsed)


def parse_chain(certificates: Iterable[bytes]) -> Chain:
    """A chain from the DER of its certificates; ``UntrustedError`` where one cannot be read."""
    try:
        return tuple(map(x509.load_der_x509_certificate, certificates))
    except MALFORMED:
        raise UntrustedError("its certificates cannot be read") from None


def parse_pem(text: str) -> Chain:
    """A chain from one PEM text; ``UntrustedError`` where it cannot be read."""
    try:
        return tuple(x509.load_pem_x509_certificates(text.encode()))
    except MALFORMED:
        raise UntrustedError("its certificates cannot be read") from None


def to_der(chain: Chain) -> list[bytes]:
    """The certificates of a chain as DER."""
    return [certificate.public_bytes(Encoding.DER) for certificate in chain]


def to_pem(chain: Chain) -> str:
    """A chain as one PEM text."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain).decode()
