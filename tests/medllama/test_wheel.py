"""The wheel, built and installed into an empty environment: what it holds, and its command outside of the checkout."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT, free_port, wait_for

from tasks.params import STAGES
from tasks.runtime.digests import sha256

pytestmark = pytest.mark.slow
UV = Path(sys.executable).with_name("uv")
OPTIONS = ("--prompt", "Fever and", "--max-tokens", "12", "--seed", "1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def medllama(wheel: Path) -> Path:
    """The command, in an environment that holds nothing but what the wheel asks for."""
    environment = wheel.with_name("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    # Where pip is configured with a folder of local wheels, it holds the build of torch that fits this machine.
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], check=False, capture_output=True, text=True
    )
    folders = [option for folder in configured.stdout.split() for option in ("--find-links", folder)]
    subprocess.run([UV, "pip", "install", "--quiet", "--python", environment, *folders, wheel], check=True, timeout=600)
    return environment / "bin" / "medllama"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


def run(medllama: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW", "PASSPORT"))}
    command = [str(medllama), *arguments]
    return subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False, timeout=300)


def sources(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}


def imported(source: str) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def test_another_checkout_at_another_time_builds_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
        os.utime(checkout / name, (1_000_000_000, 1_000_000_000))
        (checkout / name).chmod(0o600)
    command = [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(checkout)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name and sha256(again) == sha256(wheel)
    # Another byte in what it holds is another digest.
    (checkout / "model" / "llama.py").write_text((checkout / "model" / "llama.py").read_text() + "# changed\n")
    subprocess.run(command, check=True, timeout=300)
    assert sha256(again) != sha256(wheel)


def test_all_of_it_is_below_one_name_and_imports_what_is_there(wheel: Path) -> None:
    modules = sources(wheel)
    assert {name.split("/")[0] for name in modules} == {"medllama"}
    packaged = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules}
    for name, source in modules.items():
        for module, _ in imported(source):
            assert module.split(".")[0] not in ("model", "serve", "tasks", "flows"), f"{name} imports {module}"
            assert module in packaged or not module.startswith("medllama"), f"{name} imports {module}"


def test_no_stage_and_no_reader_is_in_it(wheel: Path) -> None:
    names = set(sources(wheel))
    assert not names & {f"medllama/tasks/{stage}.py" for stage in STAGES}
    inside = {name.removeprefix("medllama/tasks/") for name in names if name.startswith("medllama/tasks/")}
    assert not [name for name in inside if name.startswith(("corpus/cleaning", "corpus/readers/f", "registry/upkeep"))]


def test_what_it_imports_is_declared_for_it(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # bitsandbytes is for training, which the wheel does not do, in a module that also counts the memory of 4-bit weights.
    declared = [*project["dependencies"], *extras["registry"], *extras["openlineage"], *extras["pkcs11"], "bitsandbytes"]
    allowed = {re.split(r"[\[<>=~! ;]", name)[0].lower().replace("_", "-") for name in declared}
    distributions = packages_distributions()
    for name, source in sources(wheel).items():
        for module, _ in imported(source):
            top = module.split(".")[0]
            if top != "medllama" and top not in sys.stdlib_module_names:
                found_in = {distribution.lower().replace("_", "-") for distribution in distributions.get(top, [top])}
                assert found_in & allowed, f"{name} imports {top}"


def test_it_generates_what_the_checkout_generates(medllama: Path, checkpoint: Path) -> None:
    here = checkpoint.parent
    installed = run(medllama, "generate", "tiny", *OPTIONS, cwd=here)
    assert installed.returncode == 0, installed.stderr
    assert "slower" not in installed.stderr  # the decoding step in C is in the wheel
    command = [sys.executable, "-m", "model", "generate", str(checkpoint), *OPTIONS]
    assert installed.stdout == subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    chat = run(medllama, "generate", "tiny", "--chat", *OPTIONS, cwd=here)
    assert chat.returncode == 0 and chat.stdout.strip(), chat.stderr


def test_it_converts_plans_and_verifies(medllama: Path, checkpoint: Path) -> None:
    here = checkpoint.parent
    assert run(medllama, "convert", "tiny", "tiny.gguf", "--format", "gguf", cwd=here).returncode == 0
    assert "31,392 parameters" in run(medllama, "inspect", "tiny.gguf", cwd=here).stdout
    planned = run(medllama, "plan", "--size", "llama-3.1-8b", "--mode", "lora", "--seq", "2048", "--shards", "absent", cwd=here).stdout
    assert "this machine" in planned and "MI300X" in planned and "absent is not there" in planned
    verified = run(medllama, "verify", "--deployed", "tiny", cwd=here)
    assert verified.returncode == 1 and "passport.json  (missing)" in verified.stdout
    assert {path.name for path in here.iterdir()} == {"tiny", "tiny.gguf"}  # nothing was left behind


def test_a_registered_version_needs_a_store_and_mlflow(medllama: Path, tmp_path: Path) -> None:
    for command in ("verify", "serve"):
        assert "set MLFLOW_TRACKING_URI" in run(medllama, command, "models:/medical-llm@champion", cwd=tmp_path).stderr
        refused = run(medllama, command, "models:/medical-llm@champion", cwd=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:1")
        assert refused.returncode == 1 and refused.stderr.endswith("pip install 'medllama[registry]'\n")
    assert not list(tmp_path.iterdir())


def test_it_serves(medllama: Path, checkpoint: Path) -> None:
    port = free_port()
    command = [str(medllama), "serve", "tiny", "--unverified", "--port", str(port)]
    server = subprocess.Popen(command, cwd=checkpoint.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/readyz", server)
        assert b"<!doctype html>" in urlopen(address, timeout=60).read()
        body = json.dumps({"model": "tiny", "prompt": "Fever and", "max_tokens": 4, "temperature": 0}).encode()
        request = Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            assert json.load(response)["usage"]["completion_tokens"] == 4
    finally:
        server.terminate()
    assert server.wait(60) == 0
