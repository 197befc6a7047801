"""The bundle for a machine without a network: what gets into it, and that nothing else is needed, in a network namespace of its own."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from setup import bundle
from setup.bundle import Target
from tasks.corpus.default_corpus import SOURCES
from tasks.runtime.wheels import DOWNLOADS

ROOT = Path(__file__).resolve().parents[2]
# What PyTorch's CPU build needs, so that a bundle of these alone can be set up, and a package without a wheel.
SMALL = (
    "antlr4-python3-runtime",
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "setuptools",
    "sympy",
    "typing-extensions",
)
# Of the environment of the tests nothing that leads to an index, and no cache of packages.
KEPT = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON", "GIT_", "DVC_"))}


def test_every_wheel_that_the_code_fetches_is_found_in_it() -> None:
    pinned = bundle.pins(ROOT / "tasks")
    assert {(source.package, source.wheel_sha256) for source in SOURCES} <= set(pinned.items())
    for path in (ROOT / "tasks").rglob("*.py"):
        tree = ast.parse(path.read_text())
        strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        digests = {text for text in strings if len(text) == 64 and set(text) <= set("0123456789abcdef")}
        if {"fetch_wheel"} & {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}:
            files = {source.sha256 for source in SOURCES}
            assert digests - files <= set(pinned.values()), path


def test_the_lock_is_read_for_the_other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hashes = " \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb"
    heads = (
        "anywhere==1",
        "windows==1 ; sys_platform == 'win32'",
        "old==1 ; python_full_version < '3.12'",
        "arm==1 ; platform_machine == 'aarch64'",
    )
    Path("requirements.lock").write_text("\n".join(head + hashes for head in heads))
    Path("requirements-dev.lock").write_text(f"pytest==8{hashes}\nuv==0.13{hashes}\n")
    for target, expected in (
        (Target("x86_64", "3.11"), ["anywhere==1", "old==1", "uv==0.13"]),
        (Target("aarch64", "3.13"), ["anywhere==1", "arm==1", "uv==0.13"]),
    ):
        assert [block.split(" \\\n")[0] for block in bundle.requirements(target)] == expected
        assert all(block.endswith(hashes) for block in bundle.requirements(target))
    assert "manylinux_2_28_aarch64" in target.options


def repository(folder: Path) -> Path:
    """A repository of the files as they are here, with a lock that is small enough to be downloaded in a test."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, tracked):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    lock = folder / "requirements.lock"
    blocks = [block for block in bundle.blocks(lock) if block.split("==")[0].lower() in SMALL]
    assert len(blocks) == len(SMALL)
    lock.write_text("\n".join(blocks) + "\n")
    git = ["git", "-c", "user.name=A tester", "-c", "user.email=tester@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "A small lock"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def without_network(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell says in a namespace that has no network but its own loopback, which is down."""
    shell = ["unshare", "--map-root-user", "--net", "bash", "-c", f"set -e; {command}"]
    return subprocess.run(shell, cwd=folder, env=KEPT | environment, capture_output=True, text=True, check=False, timeout=1200)


@pytest.mark.system
def test_it_is_verified_set_up_and_used_without_a_network(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    cached = project / DOWNLOADS
    cached.mkdir(parents=True)
    for digest in (bundle.pins(ROOT / "tasks") | bundle.base_wheel()).values():
        if (ROOT / DOWNLOADS / digest).exists():
            os.link(ROOT / DOWNLOADS / digest, cached / digest)
    made = subprocess.run(
        [sys.executable, "-m", "setup.bundle", "--out", tmp_path / "out"], cwd=project, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (tar,) = (tmp_path / "out").iterdir()
    elsewhere = tmp_path / "other-machine"
    elsewhere.mkdir()
    with tarfile.open(tar) as archive:
        archive.extractall(elsewhere, filter="data")
    folder = elsewhere / tar.stem

    damaged = next((folder / "wheels").glob("sympy-*"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused = without_network(f"'{folder}/unpack' project", elsewhere)
    assert refused.returncode == 1 and "nothing was written" in refused.stderr and not (elsewhere / "project").exists()
    damaged.write_bytes(content)
    (folder / "wheels" / "added.whl").touch()
    assert "SHA256SUMS lists" in without_network(f"'{folder}/unpack' project", elsewhere).stderr
    (folder / "wheels" / "added.whl").unlink()

    environment = {"HOME": str(tmp_path / "home"), "PYTHON": sys.executable}
    script = f"""'{folder}/unpack' project; cd project; make setup PYTHON="$PYTHON"
        .venv/bin/python -c 'import torch; print(torch.__version__)'
        git log --format=%s; "$PYTHON" - <<'END'
from pathlib import Path
from setup.bundle import base_wheel, pins
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.runtime.wheels import fetch_wheel
for requirement, digest in (pins(Path("tasks")) | base_wheel()).items():
    fetch_wheel(requirement, digest)
assert lexicon()
END
"""
    used = without_network(script, elsewhere, **environment)
    assert used.returncode == 0, used.stdout[-2000:] + used.stderr[-2000:]
    assert "2.13.0" in used.stdout and "A small lock" in used.stdout and "downloading" not in used.stdout


@pytest.mark.campaign
def test_the_default_run_needs_no_network(tmp_path: Path) -> None:
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    subprocess.run([sys.executable, "-m", "setup.bundle", "--out", tmp_path / "out"], cwd=project, check=True)
    (tar,) = (tmp_path / "out").iterdir()
    script = f"tar -xf '{tar}'; {tar.stem}/unpack other; cd other; make run PYTHON='{sys.executable}'; test -e artifacts/registration.json"
    ran = without_network(script, tmp_path, HOME=str(tmp_path / "home"))
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
