"""Versions are signed by certificate, and count where an authority that the reader trusts vouches for the signer today."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import authority
from helpers.project import Project, copy_of, key_pair
from helpers.versions import NAME, artifacts_of, flip
from model_signing import signing
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from tasks.registry import command, model_signer
from tasks.registry.lineage import certificates, model_signature
from tasks.registry.lineage.certificates import UntrustedError, to_pem
from tasks.registry.lineage.signature import Signer, check_key, open_signer, public_key
from tasks.registry.standards.files import PROVENANCE
from tasks.registry.upkeep import certificate as erasure

ROOT, FOREIGN = authority.root(), authority.root()
MIDDLE, KEY = authority.intermediate(ROOT), authority.new_key()
LEAF = authority.certify("Release", KEY.public_key(), MIDDLE)


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    return authority.write_pem(tmp_path / "roots.pem", ROOT.certificate)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    chain = authority.write_pem(tmp_path / "chain.pem", LEAF, MIDDLE.certificate)
    return open_signer(str(authority.write_key(tmp_path / "key.pem", KEY)), chain)


def a_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for name in ("model.safetensors", "passport.json"):
        (folder / name).write_text(f"the bytes of {name}")
    return folder


def signed_by(signer: Signer, folder: Path) -> Path:
    model_signer.sign([folder], signer, folder / model_signature.FILE, ignored=[])
    return folder / model_signature.FILE


def with_chain(signer: Signer, *chain: x509.Certificate) -> Signer:
    """A signer whom no check stopped."""
    return Signer(signer.key, signer.path, chain)


def openssf(folder: Path, *roots: Path) -> subprocess.CompletedProcess[str]:
    """What the library's own command says of a signature by certificate."""
    options = ("--signature", str(folder / model_signature.FILE), *(word for path in roots for word in ("--certificate_chain", str(path))))
    arguments = [sys.executable, "-m", "model_signing", "verify", "certificate", str(folder), *options]
    return subprocess.run(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


class TestSignature:
    def test_it_carries_what_the_library_writes_by_itself(self, signer: Signer, tmp_path: Path) -> None:
        ours = json.loads(signed_by(signer, a_checkpoint(tmp_path / "checkpoint")).read_bytes())
        leaf, middle = (authority.write_pem(tmp_path / f"{n}.pem", certificate) for n, certificate in enumerate(signer.chain))
        assert signer.path
        config = signing.Config().use_certificate_signer(private_key=signer.path, signing_certificate=leaf, certificate_chain=[middle])
        config.sign(tmp_path / "checkpoint", tmp_path / "by-library.sig")
        theirs = json.loads((tmp_path / "by-library.sig").read_bytes())
        assert ours["verificationMaterial"] == theirs["verificationMaterial"] and ours.keys() == theirs.keys()

    @pytest.mark.slow
    def test_both_verifiers_accept_it_and_refuse_a_flipped_byte_or_a_foreign_root(
        self, signer: Signer, roots: Path, tmp_path: Path
    ) -> None:
        folder = a_checkpoint(tmp_path / "checkpoint")
        signature = signed_by(signer, folder)
        assert "Verification succeeded" in openssf(folder, roots).stdout
        assert set(model_signature.signed_files(signature.read_bytes(), public_key(roots))) == {"model.safetensors", "passport.json"}
        foreign = authority.write_pem(tmp_path / "foreign.pem", FOREIGN.certificate)
        assert openssf(folder, foreign).returncode
        with pytest.raises(UntrustedError, match="no chain of valid certificates leads from its own to an authority in foreign.pem"):
            model_signature.signed_files(signature.read_bytes(), public_key(foreign))
        bundle = json.loads(signature.read_bytes())
        for field in ("payload", "sig"):
            changed = json.loads(json.dumps(bundle))
            holder = changed["dsseEnvelope"] if field == "payload" else changed["dsseEnvelope"]["signatures"][0]
            content = bytearray(base64.b64decode(holder[field]))
            content[len(content) // 2] ^= 1
            holder[field] = base64.b64encode(content).decode()
            signature.write_text(json.dumps(changed))
            assert openssf(folder, roots).returncode, field
            with pytest.raises(UntrustedError, match="another key made it, or it was changed"):
                model_signature.signed_files(signature.read_bytes(), public_key(roots))

    def test_no_byte_of_what_its_certificates_say_can_be_changed(self, signer: Signer, roots: Path, tmp_path: Path) -> None:
        signature, trusted = signed_by(signer, a_checkpoint(tmp_path / "checkpoint")), public_key(roots)
        bundle = json.loads(signature.read_bytes())
        for entry in bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]:
            whole = entry["rawBytes"]
            der = base64.b64decode(whole)
            start = der.index(said := x509.load_der_x509_certificate(der).tbs_certificate_bytes)
            for index in range(start, start + len(said)):
                entry["rawBytes"] = base64.b64encode(der[:index] + bytes([der[index] ^ 1]) + der[index + 1 :]).decode()
                with pytest.raises(UntrustedError):
                    model_signature.signed_files(json.dumps(bundle).encode(), trusted)
            entry["rawBytes"] = whole
        assert model_signature.signed_files(json.dumps(bundle).encode(), trusted)

    def test_the_key_alone_verifies_it_too_and_an_authority_vouches_for_no_key_alone(
        self, signer: Signer, roots: Path, tmp_path: Path
    ) -> None:
        folder = a_checkpoint(tmp_path / "checkpoint")
        assert model_signature.signed_files(signed_by(signer, folder).read_bytes(), public_key(tmp_path / "key.pub"))
        signature = signed_by(with_chain(signer), folder)
        assert model_signature.signed_files(signature.read_bytes(), public_key(tmp_path / "key.pub"))
        with pytest.raises(UntrustedError, match="carries 0 certificates"):
            model_signature.signed_files(signature.read_bytes(), public_key(roots))


def leaf(**options: Any) -> x509.Certificate:
    return authority.certify("Release", KEY.public_key(), MIDDLE, **options)


# Certificates of the key that may not sign versions, and how the sentence ends.
UNFIT = {
    "expired": (leaf(days=(-30, -2)), "expired on"),
    "not yet": (leaf(days=(2, 30)), "is not valid before"),
    "an authority": (leaf(authority=True), "is that of an authority"),
    "of a web server": (leaf(purpose=ExtendedKeyUsageOID.SERVER_AUTH), "is for other purposes than to sign code"),
    "not for signatures": (leaf(key_usage=authority.usage(certificates=True)), "is not for signatures"),
}


class TestWhoMaySign:
    @pytest.mark.parametrize("kind", UNFIT)
    def test_an_unfit_certificate_is_refused_before_it_signs_and_where_it_signed(
        self, signer: Signer, roots: Path, tmp_path: Path, kind: str
    ) -> None:
        unfit, message = UNFIT[kind]
        chain = authority.write_pem(tmp_path / "unfit.pem", unfit, MIDDLE.certificate)
        with pytest.raises(ValueError, match=f"unfit.pem: the certificate of the key {message}"):
            open_signer(str(tmp_path / "key.pem"), chain)
        signature = signed_by(with_chain(signer, unfit, MIDDLE.certificate), a_checkpoint(tmp_path / "checkpoint"))
        with pytest.raises(UntrustedError, match=f"its certificate {message}"):
            model_signature.signed_files(signature.read_bytes(), public_key(roots))

    def test_a_chain_with_an_expired_or_unfit_issuer_or_without_one_is_refused(self, signer: Signer, roots: Path, tmp_path: Path) -> None:
        expired = authority.intermediate(ROOT, days=(-300, -2))
        # A signer who has no right to issue certificates, and issues one.
        posing = authority.Issuer(LEAF, KEY)
        other = authority.new_key()
        chains = {
            "leads from its own to an authority in roots.pem; one of them has expired": (
                authority.certify("Release", KEY.public_key(), expired),
                expired.certificate,
            ),
            "no chain of valid certificates": (LEAF,),
            "to an authority in roots.pem$": (authority.certify("Posing", other.public_key(), posing), LEAF, MIDDLE.certificate),
        }
        folder = a_checkpoint(tmp_path / "checkpoint")
        for message, chain in chains.items():
            content = signed_by(with_chain(signer, *chain), folder).read_bytes()
            with pytest.raises(UntrustedError, match=message):
                model_signature.signed_files(content, public_key(roots))

    def test_a_leaf_of_the_root_needs_no_intermediate(self, signer: Signer, roots: Path, tmp_path: Path) -> None:
        direct = authority.certify("Release", KEY.public_key(), ROOT, purpose=None)
        signer = open_signer(str(tmp_path / "key.pem"), authority.write_pem(tmp_path / "direct.pem", direct))
        folder = a_checkpoint(tmp_path / "checkpoint")
        assert model_signature.signed_files(signed_by(signer, folder).read_bytes(), public_key(roots))
        assert "Verification succeeded" in openssf(folder, roots).stdout

    def test_an_expired_root_vouches_for_nobody(self, signer: Signer, tmp_path: Path) -> None:
        old = authority.root(days=(-3000, -2))
        signature = signed_by(
            with_chain(signer, authority.certify("Release", KEY.public_key(), old)), a_checkpoint(tmp_path / "checkpoint")
        )
        with pytest.raises(UntrustedError, match="one of them has expired"):
            model_signature.signed_files(signature.read_bytes(), public_key(authority.write_pem(tmp_path / "old.pem", old.certificate)))

    def test_keys_of_other_curves_are_refused(self, roots: Path) -> None:
        key = ec.generate_private_key(ec.SECP256K1())
        certificate = authority.certify("Release", key.public_key(), MIDDLE)
        trusted = public_key(roots)
        assert isinstance(trusted, certificates.Authorities)
        with pytest.raises(UntrustedError):
            model_signature.key_of(trusted, (certificate, MIDDLE.certificate))

    def test_settings_that_do_not_fit_are_said_before_a_stage_works(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def check(key: Path, certificate: Path) -> str:
            monkeypatch.setenv("PASSPORT_KEY", str(key))
            monkeypatch.setenv("PASSPORT_CERTIFICATE", str(certificate))
            with pytest.raises(ValueError, match="certificate") as refusal:
                check_key()
            return str(refusal.value)

        key = authority.write_key(tmp_path / "key.pem", KEY)
        good = authority.write_pem(tmp_path / "good.pem", LEAF, MIDDLE.certificate)
        other = authority.write_key(tmp_path / "other.pem", authority.new_key())
        assert "the first certificate is not that of the key in PASSPORT_KEY" in check(other, good)
        (tmp_path / "ed25519").mkdir()
        assert "Ed25519 key signs without a certificate" in check(key_pair(tmp_path / "ed25519", kind="ed25519")[0], good)
        turned = authority.write_pem(tmp_path / "turned.pem", LEAF, ROOT.certificate, MIDDLE.certificate)
        assert "certificate 1 is not issued by certificate 2" in check(key, turned)
        for name, content in (("none.pem", b"text"), ("cut.pem", good.read_bytes()[:300])):
            (tmp_path / name).write_bytes(content)
            assert f"{name} holds no certificates that can be read" in check(key, tmp_path / name)
        assert "missing.pem holds no certificates" in check(key, tmp_path / "missing.pem")
        monkeypatch.setenv("PASSPORT_CERTIFICATE", str(good))
        check_key()

    def test_only_authorities_are_trusted_to_vouch(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="certificate 2 is not that of an authority"):
            public_key(authority.write_pem(tmp_path / "leaf.pem", ROOT.certificate, LEAF))


@pytest.mark.parametrize("trust", ["roots", "key"])
def test_no_byte_of_an_erasures_certificate_can_be_changed(signer: Signer, roots: Path, tmp_path: Path, trust: str) -> None:
    path = tmp_path / "certificate.json"
    erasure.write(path, {"records": ["a"], "removed": []}, signer)
    trusted = public_key(roots if trust == "roots" else tmp_path / "key.pub")
    assert erasure.verify(path, trusted)["records"] == ["a"]
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(ValueError, match="no certificate of an erasure"):
            erasure.verify(path, trusted)
    envelope = json.loads(whole)
    for other in ({}, {"cert": to_pem((LEAF,))}, {"cert": to_pem((LEAF, MIDDLE.certificate, ROOT.certificate))}):
        entry = {name: value for name, value in envelope["signatures"][0].items() if name != "cert"} | other
        path.write_text(json.dumps(envelope | {"signatures": [entry]}, separators=(",", ":")) + "\n")
        with pytest.raises(ValueError, match="no certificate of an erasure"):
            erasure.verify(path, trusted)


def test_an_erasures_certificate_says_why_it_does_not_count(signer: Signer, roots: Path, tmp_path: Path) -> None:
    path, expired = tmp_path / "certificate.json", UNFIT["expired"][0]
    erasure.write(path, {"records": ["a"], "removed": []}, with_chain(signer, expired, MIDDLE.certificate))
    with pytest.raises(ValueError, match="that counts: its certificate expired on"):
        erasure.verify(path, public_key(roots))


@pytest.fixture(scope="module")
def certified(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose first version was signed by certificate; the files of the authority are beside it."""
    folder = tmp_path_factory.mktemp("certified")
    project = copy_of(made / "trained", folder / "project")
    authority.write_pem(folder / "roots.pem", ROOT.certificate)
    authority.write_pem(folder / "foreign.pem", FOREIGN.certificate)
    project.environment["PASSPORT_KEY"] = str(authority.write_key(folder / "key.pem", KEY))
    project.environment["PASSPORT_CERTIFICATE"] = str(authority.write_pem(folder / "chain.pem", LEAF, MIDDLE.certificate))
    project.run("dvc", "repro")
    return project


@pytest.mark.slow
class TestVersion:
    def test_verify_accepts_it_by_its_authority_and_says_why_not_by_another(self, certified: Project) -> None:
        verify = (sys.executable, "-m", "tasks.registry", "verify", f"{NAME}/1", "--public-key")
        for trusted in ("../roots.pem", "../key.pub"):
            assert certified.run(*verify, trusted).returncode == 0
        result = certified.run(*verify, "../foreign.pem", check=False)
        assert result.returncode == 1
        assert "differs  model.sig  (not by one for whom foreign.pem vouches: no chain of valid certificates" in result.stdout

    def test_openssfs_own_command_accepts_it_and_no_changed_byte(self, certified: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(certified.path)
        folder, roots = artifacts_of(certified) / "checkpoint", certified.path.parent / "roots.pem"
        options = ("--signature", str(folder / "model.sig"), "--certificate_chain")
        arguments = (sys.executable, "-m", "model_signing", "verify", "certificate", str(folder), *options)
        assert "Verification succeeded" in certified.run(*arguments, str(roots)).stdout
        assert certified.run(*arguments, str(roots.with_name("foreign.pem")), check=False).returncode
        for name in ("model.safetensors", "passport.json"):
            flip(folder / name)
            assert certified.run(*arguments, str(roots), check=False).returncode, name
            assert "differs" in {f.state for f in command.findings("", deployed=folder, public_key=roots)}
            flip(folder / name)
        assert {f.state for f in command.findings("", deployed=folder, public_key=roots)} <= {"equal"}

    def test_attestations_carry_the_certificates_of_the_key_that_signed_them(self, certified: Project) -> None:
        lines = (artifacts_of(certified) / "standards" / PROVENANCE).read_text(encoding="utf-8").splitlines()
        assert len(lines) > 3
        for line in lines:
            document = json.loads(line)
            (entry,) = document["signatures"]
            chain = x509.load_pem_x509_certificates(entry["cert"].encode())
            assert chain == [LEAF, MIDDLE.certificate]
            envelope = Envelope.from_dict(document | {"signatures": [{"keyid": "k", "sig": entry["sig"]}]})
            envelope.verify([SSlibKey.from_crypto(chain[0].public_key(), "k")], 1)
            with pytest.raises(VerificationError):
                envelope.verify([SSlibKey.from_crypto(authority.new_key().public_key(), "k")], 1)
