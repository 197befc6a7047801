"""uv gets the index that pip is configured for, and what fails says what may be in the way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from setup.package_index import configuration, reason, uv_environment

ROOT = Path(__file__).resolve().parents[2]


def test_pips_settings_reach_uv(tmp_path: Path) -> None:
    cert, file = tmp_path / "a certificate.pem", tmp_path / "pip.conf"
    file.write_text(
        f"[global]\nindex-url = http://mirror.example/simple\nextra-index-url = file:///one file:///two\nfind-links = {tmp_path}\n"
        f"cert = {cert}\nproxy = http://proxy.example:3128\ntrusted-host = mirror.example\n"
    )
    pip = [sys.executable, "-m", "pip", "config", "list"] if _has_pip() else [shutil.which("pip") or "pip", "config", "list"]
    environment = {"PIP_CONFIG_FILE": str(file), "PIP_TIMEOUT": "20", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    listing = subprocess.run(pip, env=environment, capture_output=True, text=True, check=True).stdout
    settings = uv_environment(configuration(listing), {"UV_INSECURE_HOST": "mine.example"})
    assert settings["UV_DEFAULT_INDEX"] == "http://mirror.example/simple"
    assert settings["UV_INDEX"] == "file:///one file:///two" and settings["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert settings["UV_FIND_LINKS"] == str(tmp_path) and settings["SSL_CERT_FILE"] == str(cert)
    assert settings["ALL_PROXY"] == "http://proxy.example:3128" and settings["UV_HTTP_TIMEOUT"] == "20"
    assert settings["UV_INSECURE_HOST"] == "mine.example"  # what uv is told itself counts more


def _has_pip() -> bool:
    return subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def test_of_a_failure_the_reason_is_shown_without_credentials() -> None:
    output = (
        "Looking in indexes\nERROR: Could not fetch http://user:secret@mirror.example/simple/uv/\nmore\nERROR: No matching distribution\n"
    )
    assert reason(output) == "    ERROR: Could not fetch http://mirror.example/simple/uv/\n    ERROR: No matching distribution"
    assert reason("one\ntwo\n") == "    one\n    two"


@pytest.mark.slow
def test_an_index_that_refuses_is_met_before_anything_else_is_fetched(tmp_path: Path) -> None:
    project = tmp_path / "with blanks"
    shutil.copytree(ROOT / "setup", project / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml", "dvc.yaml"):
        shutil.copy(ROOT / name, project)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "--quiet"], ["add", "dvc.yaml"], ["commit", "--quiet", "-mx"]):
        subprocess.run([*git, *arguments], cwd=project, check=True)
    # A port of this machine at which nothing answers.
    environment = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    python = getattr(sys, "_base_executable", sys.executable)
    result = subprocess.run(
        [python, "-m", "setup.install", "run"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "No matching distribution" in result.stderr and "export HTTPS_PROXY=http://HOST:PORT" in result.stderr
    assert max(map(len, after_remedy(result.stderr))) <= 80


def after_remedy(text: str) -> list[str]:
    return text[text.index("remedy") :].splitlines()
