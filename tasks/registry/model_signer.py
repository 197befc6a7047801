"""Signs a version's checkpoint with OpenSSF's model-signing; lineage/model_signature.py verifies without the library."""

import base64
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tasks.registry.lineage.certificates import Chain, to_der
from tasks.registry.lineage.hardware_key import HardwareKey, token_errors
from tasks.registry.lineage.model_signature import FILE
from tasks.registry.lineage.signature import Signer


def sign(folders: Iterable[Path], signer: Signer, path: Path, *, ignored: Iterable[str]) -> None:
    """Write the signature of a checkpoint that lies in several folders. ``ignored``: files that loaders rewrite. ``ValueError`` where a
    token refuses.
    """
    from model_signing import hashing, signing  # imports much

    with tempfile.TemporaryDirectory() as view:
        for folder in folders:
            for file in (file for file in folder.rglob("*") if file.is_file()):
                link = Path(view) / file.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
        config = hashing.Config().set_allow_symlinks(True).set_ignored_paths(paths=[*ignored, FILE])
        if isinstance(signer.key, HardwareKey):
            with token_errors():
                signing.Config().use_pkcs11_signer(pkcs11_uri=signer.key.uri()).set_hashing_config(config).sign(view, path)
        else:
            assert signer.path is not None
            signing.Config().use_elliptic_key_signer(private_key=signer.path).set_hashing_config(config).sign(view, path)
    if signer.chain:
        _add_certificates(path, signer.chain)


def _add_certificates(path: Path, chain: Chain) -> None:
    """Put certificates where the library names the key; what is signed stays. Its own signers with certificates (1.1) do not take a
    certificate without intermediates, and for a key in hardware they write certificates that its verifier cannot read.
    """
    bundle = json.loads(path.read_bytes())
    certificates = [{"rawBytes": base64.b64encode(der).decode()} for der in to_der(chain)]
    bundle["verificationMaterial"] = {"x509CertificateChain": {"certificates": certificates}, "tlogEntries": []}
    path.write_text(json.dumps(bundle), encoding="utf-8")
