"""PyTorch is installed by the hashes of torch.lock where the index gives a build that has no label of its own."""

import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from setup.install import TORCH_LOCK, Failed, Installer
from setup.package_index import NO_INDEX

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.findall(r'"torch==([^"]+)"', (ROOT / "pyproject.toml").read_text())[0]


def test_the_lock_has_the_builds_of_the_required_version() -> None:
    text = (ROOT / TORCH_LOCK).read_text()
    (block,) = re.findall(rf"^torch=={re.escape(VERSION)} \\\n(?:.*\\\n)*", text, flags=re.M)
    assert len(set(re.findall(r"--hash=sha256:[0-9a-f]{64}", block))) > 10
    assert "\nnvidia-cublas==" in text and "\ntriton==" in text  # of CUDA builds, as the public index's for Linux is


def test_it_agrees_with_what_is_installed_before() -> None:
    texts = ((ROOT / lock).read_text() for lock in (TORCH_LOCK, "requirements.lock"))
    torch, rest = (dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, flags=re.M)) for text in texts)
    assert {name: torch[name] for name in torch.keys() & rest.keys()} == {name: rest[name] for name in torch.keys() & rest.keys()}


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    """For an environment of its own, with an index that is one folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    installer = Installer(tmp_path / "venv" / "bin" / "python")
    (tmp_path / "wheels").mkdir()
    installer.environment = {
        **{name: value for name, value in installer.environment.items() if not name.startswith(("UV_", "PIP_"))},
        **{NO_INDEX: "1", "UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_CACHE_DIR": str(tmp_path / "cache")},
    }
    return installer


def _wheel(folder: Path, version: str) -> Path:
    """An empty package of this name."""
    info, path = f"torch-{version}.dist-info", folder / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("torch/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def _installed(installer: Installer) -> list[str]:
    return [path.name for path in installer.python.parents[1].glob("lib/*/site-packages/torch-*.dist-info")]


def test_another_file_of_that_version_is_refused(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, lock = _wheel(tmp_path / "wheels", VERSION), tmp_path / "torch.lock"
    monkeypatch.setattr("setup.install.TORCH_LOCK", lock)
    lock.write_text(f"torch=={VERSION} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Failed, match=r"[Hh]ash"):
        installer.torch("")
    assert not _installed(installer)
    lock.write_text(f"torch=={VERSION} --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    installer.torch("")
    assert _installed(installer) == [f"torch-{VERSION}.dist-info"]


def test_a_build_with_a_label_is_named(installer: Installer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _wheel(tmp_path / "wheels", f"{VERSION}+ours")
    installer.torch("")
    assert f"torch.lock has no hash of torch=={VERSION}+ours" in capfd.readouterr().out
    assert _installed(installer) == [f"torch-{VERSION}+ours.dist-info"]
    installer.torch("")
    assert "no hash" not in capfd.readouterr().out
