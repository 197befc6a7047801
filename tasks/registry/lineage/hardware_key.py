"""A key in hardware, a smart card or an HSM, through its PKCS#11 module, which a URI names (RFC 7512).

It signs as an elliptic curve's key of ``cryptography`` does. A session lasts for one call, so that OpenSSF's library, which logs in by
itself, may sign in between. No message quotes the URI, which may hold the PIN.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

SCHEME = "pkcs11:"
MISSING = "a key in hardware (PKCS#11) needs PyKCS11, which is not installed: pip install 'pykcs11>=1.5,<2'"
# Attributes of a URI's path, by the field of the token's description that must be the same; and all others that are read.
TOKEN = {"token": "label", "serial": "serialNumber", "manufacturer": "manufacturerID", "model": "model"}
KEY = ("id", "object")
READ = {*TOKEN, *KEY, "slot-id", "type", "module-path", "pin-value", "pin-source"}
# The object identifiers of curves, as DER.
CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}


def is_uri(key: str) -> bool:
    """Whether a setting names a key in hardware, also where the URI is mistyped: it is never taken for a path, which messages quote."""
    return SCHEME in key.lower()


@dataclass(frozen=True)
class HardwareKey:
    """A private key that does not leave its token."""

    module: str
    slot: int
    attributes: Mapping[str, str]  # those of KEY that the URI has, percent-encoded
    _pin: str = field(repr=False)
    _public: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve of the key."""
        return self._public.curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half, as the token states it."""
        return self._public

    def sign(self, data: bytes, algorithm: ec.ECDSA) -> bytes:
        """An ECDSA signature as DER. ``ValueError`` where the token refuses."""
        assert isinstance(algorithm.algorithm, hashes.HashAlgorithm)
        digest = hashes.Hash(algorithm.algorithm)
        digest.update(data)
        with token_errors():
            import PyKCS11

            with _session(self.module, self.slot, self._pin) as session:
                private = _object(session, PyKCS11.CKO_PRIVATE_KEY, self.attributes)
                signed = bytes(session.sign(private, digest.finalize(), PyKCS11.Mechanism(PyKCS11.CKM_ECDSA, None)))
        half = len(signed) // 2
        return encode_dss_signature(int.from_bytes(signed[:half], "big"), int.from_bytes(signed[half:], "big"))

    def uri(self) -> str:
        """The key for OpenSSF's library, which reads less of a URI: the slot that was found, and the PIN itself. A secret."""
        path = ";".join((f"slot-id={self.slot}", *(f"{name}={value}" for name, value in self.attributes.items())))
        pin = f"&pin-value={quote(self._pin, safe='')}" if self._pin else ""
        return f"{SCHEME}{path}?module-path={quote(self.module)}{pin}"


def open_hardware_key(uri: str) -> HardwareKey:
    """Log in to the token that a URI names, and look for the key. ``ValueError`` where one of them is not there, without the URI."""
    given = _parse(uri)
    module, pin = given.get("module-path", ""), _pin(given)
    attributes = {name: given[name] for name in KEY if name in given}
    if not Path(module).is_absolute() or not Path(module).is_file():
        raise ValueError("the PKCS#11 URI of the key names no module: add ?module-path= with the absolute path of the token's library")
    if not attributes:
        raise ValueError("the PKCS#11 URI names no key: add its label (object=) or its id (id=)")
    with token_errors():
        import PyKCS11

        slot = _slot(module, given)
        with _session(module, slot, pin) as session:
            _object(session, PyKCS11.CKO_PRIVATE_KEY, attributes)
            public = _object(session, PyKCS11.CKO_PUBLIC_KEY, attributes)
            kind, encoded, point = session.getAttributeValue(public, [PyKCS11.CKA_KEY_TYPE, PyKCS11.CKA_EC_PARAMS, PyKCS11.CKA_EC_POINT])
    curve = CURVES.get(bytes(encoded or b"")) if kind == PyKCS11.CKK_EC else None
    if curve is None:
        raise ValueError("the key of the PKCS#11 URI is not of the curve P-256, P-384 or P-521")
    # Without the header of the octet string that the point is in.
    length = 1 + 2 * ((curve.key_size + 7) // 8)
    return HardwareKey(module, slot, attributes, pin, ec.EllipticCurvePublicKey.from_encoded_point(curve, bytes(point)[-length:]))


def _parse(uri: str) -> dict[str, str]:
    """Attributes by name, decoded but for the key's, which are percent-encoded. ``ValueError`` for one that nothing here reads."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    pairs = [part.partition("=") for part in (*path.split(";"), *(query.split("&") if query else ()))]
    names = [name for name, _, _ in pairs]
    if not uri.startswith(SCHEME) or len(set(names)) < len(names) or not READ.issuperset(names) or not all(value for *_, value in pairs):
        raise ValueError(f"the key is no PKCS#11 URI (RFC 7512) of these attributes, each once: {', '.join(sorted(READ))}")
    return {name: quote(unquote_to_bytes(value), safe="") if name in KEY else unquote(value) for name, _, value in pairs}


def _pin(given: Mapping[str, str]) -> str:
    """The PIN, of the URI or of the file that it names, which others may not read; empty where the token needs none."""
    if "pin-source" not in given:
        return given.get("pin-value", "")
    path = Path(urlsplit(given["pin-source"]).path)
    try:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} holds the PIN of a key and can be read by others: chmod 600 {path}")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path}, which the PKCS#11 URI names for the PIN, cannot be read") from None


def _slot(module: str, given: Mapping[str, str]) -> int:
    library = _library(module)
    for slot in library.getSlotList(tokenPresent=True):
        token = library.getTokenInfo(slot)
        fields = {name: str(getattr(token, attribute)).strip(" \0") for name, attribute in TOKEN.items()}
        if all(given.get(name, value) == value for name, value in fields.items()) and given.get("slot-id", str(slot)) == str(slot):
            return int(slot)
    raise ValueError("no token is there that fits the PKCS#11 URI of the key; is it plugged in?")


def _library(module: str) -> Any:
    import PyKCS11

    library = PyKCS11.PyKCS11Lib()
    library.load(module)
    return library


@contextmanager
def _session(module: str, slot: int, pin: str) -> Iterator[Any]:
    library = _library(module)  # which ends with its last reference, and its sessions with it
    session = library.openSession(slot)
    try:
        if pin:
            session.login(pin)
        yield session
    finally:
        session.closeSession()  # the only one: the token logs out


def _object(session: Any, kind: int, attributes: Mapping[str, str]) -> Any:
    import PyKCS11

    template: list[tuple[int, Any]] = [(PyKCS11.CKA_CLASS, kind)]
    if "id" in attributes:
        template.append((PyKCS11.CKA_ID, tuple(unquote_to_bytes(attributes["id"]))))
    if "object" in attributes:
        template.append((PyKCS11.CKA_LABEL, unquote(attributes["object"])))
    objects = session.findObjects(template)
    if len(objects) != 1:
        half = "private" if kind == PyKCS11.CKO_PRIVATE_KEY else "public"
        raise ValueError(f"the token has {len(objects)} {half} keys that fit the PKCS#11 URI, not one; does the URI have the PIN?")
    return objects[0]


@contextmanager
def token_errors() -> Iterator[None]:
    """Errors of a token, and that nothing here speaks to tokens, as ``ValueError`` in one sentence."""
    try:
        from PyKCS11 import PyKCS11Error
    except ImportError:
        raise ValueError(MISSING) from None
    try:
        yield
    except PyKCS11Error as error:
        raise ValueError(f"the token of the PKCS#11 key answered: {error}") from None
