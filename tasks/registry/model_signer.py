"""Signs a version's checkpoint with OpenSSF's model-signing; lineage/model_signature.py verifies without the library."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tasks.registry.lineage.model_signature import FILE


def sign(folders: Iterable[Path], key: Path, path: Path, *, ignored: Iterable[str]) -> None:
    """Write the signature of a checkpoint that lies in several folders. ``ignored``: files that loaders rewrite."""
    from model_signing import hashing, signing  # imports much

    with tempfile.TemporaryDirectory() as view:
        for folder in folders:
            for file in (file for file in folder.rglob("*") if file.is_file()):
                link = Path(view) / file.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
        config = hashing.Config().set_allow_symlinks(True).set_ignored_paths(paths=[*ignored, FILE])
        signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config).sign(view, path)
