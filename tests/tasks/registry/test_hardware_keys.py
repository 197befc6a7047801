"""A key in hardware signs versions through PKCS#11; neither it nor its PIN is ever seen."""

import base64
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from helpers import authority
from helpers.authority import PIN, SOFTHSM
from helpers.project import Project, copy_of
from helpers.versions import NAME, artifacts_of, flip

from tasks.registry import model_signer
from tasks.registry.lineage import model_signature
from tasks.registry.lineage.hardware_key import MISSING, HardwareKey
from tasks.registry.lineage.signature import HASHES, check_key, open_signer, public_key
from tasks.registry.standards.files import PROVENANCE

SECRET = "secret-pin"
has_wheel = pytest.mark.skipif(platform.machine() != "x86_64", reason="PyKCS11 has wheels for x86-64 alone")


@pytest.mark.parametrize(
    "uri",
    [
        f"pkcs11:token=t;object=o?pin-value={SECRET}",
        f"pkcs11:token=t;object=o?module-path=relative.so&pin-value={SECRET}",
        f"pkcs11:token=t?module-path={Path(__file__)}&pin-value={SECRET}",
        f"pkcs11:token=t;token=u;object=o?pin-value={SECRET}",
        f"pkcs11:colour=red?pin-value={SECRET}",
        f"pkcs11:object=o?pin-value=a&{SECRET}",
        f"PKCS11:token=t?pin-value={SECRET}",
        f"'pkcs11:token=t?pin-value={SECRET}'",
        f" pkcs11:token=t?pin-value={SECRET}",
    ],
)
def test_a_uri_that_names_no_key_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("PASSPORT_KEY", uri)
    with pytest.raises(ValueError, match="PKCS#11 URI") as refusal:
        check_key()
    assert SECRET not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_with_the_pin_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(SECRET)
    (tmp_path / "pin").chmod(0o644)
    for name, message in (("pin", "can be read by others"), ("none", "cannot be read")):
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            open_signer(f"pkcs11:object=o?module-path={Path(__file__)}&pin-source=file:{tmp_path / name}")


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyKCS11", None)
    with pytest.raises(ValueError) as refusal:
        open_signer(f"pkcs11:object=o?module-path={Path(__file__)}&pin-value={SECRET}")
    assert str(refusal.value) == MISSING and "pykcs11" in MISSING


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return authority.new_key()


@pytest.fixture
def uri(key: ec.EllipticCurvePrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a key in a token of SoftHSM, without the PIN."""
    environment, uri = authority.token(tmp_path, key)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return uri


def a_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "passport.json").write_text("{}")
    return folder


def openssf(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "model_signing", "verify", options[0], str(folder), "--signature", str(folder / "model.sig")]
    return subprocess.run([*arguments, *options[1:]], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


@has_wheel
@pytest.mark.system
class TestToken:
    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
    def test_it_signs_as_the_same_key_in_a_file_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curve: ec.EllipticCurve
    ) -> None:
        key = ec.generate_private_key(curve)
        environment, uri = authority.token(tmp_path, key)
        monkeypatch.setenv("SOFTHSM2_CONF", environment["SOFTHSM2_CONF"])
        (tmp_path / "pin").write_text(f"{PIN}\n")
        (tmp_path / "pin").chmod(0o600)
        algorithm = ec.ECDSA(HASHES[curve.name])
        for given in (f"{uri}&pin-value={PIN}", f"{uri}&pin-source=file:{tmp_path / 'pin'}"):
            opened = open_signer(given).key
            assert isinstance(opened, HardwareKey) and opened.public_key() == key.public_key() and opened.curve.name == curve.name
            assert PIN not in repr(opened)
            for _ in range(20):  # r and s are at times shorter
                key.public_key().verify(opened.sign(b"a passport", algorithm), b"a passport", algorithm)

    def test_openssfs_own_command_accepts_its_signature_and_no_changed_byte(
        self, uri: str, key: ec.EllipticCurvePrivateKey, tmp_path: Path
    ) -> None:
        folder, trusted = a_checkpoint(tmp_path / "checkpoint"), authority.write_key(tmp_path / "key.pem", key).with_suffix(".pub")
        signer = open_signer(f"{uri}&pin-value={PIN}")
        model_signer.sign([folder], signer, folder / "model.sig", ignored=[])
        assert "Verification succeeded" in openssf(folder, "key", "--public_key", str(trusted)).stdout
        content = (folder / "model.sig").read_bytes()
        assert set(model_signature.signed_files(content, public_key(trusted))) == {"passport.json"} and PIN.encode() not in content
        flip(folder / "passport.json")
        assert openssf(folder, "key", "--public_key", str(trusted)).returncode

    def test_what_is_not_there_or_does_not_open_is_said_in_a_sentence(self, uri: str, tmp_path: Path) -> None:
        wrong = {
            f"{uri}&pin-value=99999": "CKR_PIN_INCORRECT",
            uri: "does the URI have the PIN",
            f"{uri.replace('hospital', 'clinic')}&pin-value={PIN}": "no token is there that fits",
            f"{uri.replace('release', 'other')}&pin-value={PIN}": "0 private keys that fit",
            f"{uri.replace(str(SOFTHSM), str(tmp_path / 'softhsm2.conf'))}&pin-value={PIN}": "the token of the PKCS#11 key answered",
        }
        for given, message in wrong.items():
            with pytest.raises(ValueError, match=message) as refusal:
                open_signer(given)
            assert not any(secret in str(refusal.value) for secret in (PIN, "99999", "pkcs11:"))
        assert open_signer(f"{uri}&pin-value={PIN}").chain == ()


@has_wheel
@pytest.mark.system
def test_a_version_is_signed_by_a_key_in_hardware_with_a_certificate(
    made: Path, uri: str, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    root = authority.root()
    middle = authority.intermediate(root)
    leaf = authority.certify("Release", key.public_key(), middle)
    roots = authority.write_pem(tmp_path / "roots.pem", root.certificate)
    foreign = authority.write_pem(tmp_path / "foreign.pem", authority.root().certificate)
    project = copy_of(made / "trained", tmp_path / "project")
    project.environment["PASSPORT_KEY"] = f"{uri}&pin-value={PIN}"
    project.environment["PASSPORT_CERTIFICATE"] = str(authority.write_pem(tmp_path / "chain.pem", leaf, middle.certificate))
    output = project.run("dvc", "repro").stdout
    verify = (sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1", "--public-key")
    assert project.run(*verify, str(roots)).returncode == 0
    assert project.run(*verify, str(foreign), check=False).returncode == 1
    folder = artifacts_of(project)
    checkpoint = folder / "checkpoint"
    assert "Verification succeeded" in openssf(checkpoint, "certificate", "--certificate_chain", str(roots)).stdout
    assert openssf(checkpoint, "certificate", "--certificate_chain", str(foreign)).returncode
    for line in (folder / "standards" / PROVENANCE).read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        (entry,) = document["signatures"]
        payload = base64.b64decode(document["payload"])
        encoded = b"DSSEv1 %d %b %d %b" % (len(document["payloadType"]), document["payloadType"].encode(), len(payload), payload)
        leaf_key = x509.load_pem_x509_certificates(entry["cert"].encode())[0].public_key()
        assert isinstance(leaf_key, ec.EllipticCurvePublicKey)
        leaf_key.verify(base64.b64decode(entry["sig"]), encoded, ec.ECDSA(hashes.SHA256()))
    assert PIN not in output and not holding_pin(project)


def holding_pin(project: Project) -> list[Path]:
    """Files of the project with the PIN: its outputs, its records, the registry, DVC's cache."""
    return [path for path in project.path.rglob("*") if path.is_file() and f"pin-value={PIN}".encode() in path.read_bytes()]
