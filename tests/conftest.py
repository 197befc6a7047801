"""What tests of every folder share: a real browser, a Prefect server, and projects that ran once and are copied."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers.browser import browser
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT, Project, commit, copy_of, free_port, make_project, wait_for
from helpers.training import write_shards_of
from ruamel.yaml import YAML

from tasks.base import base
from tasks.training.params import BaseParams

# Two test processes share two cores, and tiny models gain nothing from threads.
torch.set_num_threads(1)
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "WORKERS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


# What these start takes seconds.
HEAVY = {"new", "prefect_api", "devtools", "smollm2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a pipeline or a server. The modules that run pipelines come first: at the end no process waits long for the other."""
    slow = {item.path for item in items if "new" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if HEAVY & set(getattr(item, "fixturenames", ())):
            item.add_marker("pipeline")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model and shards of made-up documents, one of them longer than a row."""
    folder = tmp_path_factory.mktemp("parts")
    base = write_tiny_checkpoint(folder / "base")
    return base, write_shards_of(folder, base, 60, lengthy=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real default base model, converted once and kept in .cache."""
    directory = ROOT / ".cache" / "tests" / "smollm2"
    if not (directory / "config.json").exists():
        params = YAML(typ="safe").load(ROOT / "params.yaml")["base"]
        partial = directory.with_name(f"smollm2.{os.getpid()}")
        here = Path.cwd()
        os.chdir(ROOT)
        try:
            base(partial, params=BaseParams(**params))
        finally:
            os.chdir(here)
        try:
            partial.rename(directory)
        except OSError:  # another test process was first
            shutil.rmtree(partial)
    return directory


@pytest.fixture
def project(new: Path, tmp_path: Path) -> Project:
    """One that has not run yet."""
    return copy_of(new / "project", tmp_path / "project")


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all test processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project that has not run, for all test processes."""
    folder = shared(tmp_path_factory)
    with FileLock(folder / "new.lock"):
        if not (folder / "new").exists():
            making = folder / "making-new"
            making.mkdir()
            make_project(making)
            (folder / "new").symlink_to(making)
    return folder / "new"


@pytest.fixture(scope="session")
def made(new: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three projects that all test processes share and copy: ``sharded``, whose data stages ran, ``trained``, whose
    checkpoint was validated too, ``finished``, whose version is registered.
    """
    folder = shared(tmp_path_factory)
    with FileLock(folder / "made.lock"):
        if not (folder / "made").exists():
            making = folder / "making"
            making.mkdir()
            project = copy_of(new / "project", making / "project")
            project.run("dvc", "repro", "shard")
            commit(project, "The data stages")
            project.path.rename(making / "sharded")
            trained = copy_of(making / "sharded", making / "trained")
            assert trained.ran(trained.run("dvc", "repro", "validate").stdout) == ["finetune", "validate"]
            finished = copy_of(making / "trained", making / "finished")
            assert finished.ran(finished.run("dvc", "repro").stdout) == ["register"]
            commit(finished, "The first run")
            (folder / "made").symlink_to(making)
    return folder / "made"


@pytest.fixture
def sharded(made: Path, tmp_path: Path) -> Project:
    """One whose data stages ran, to train in; it has no tracking store yet."""
    return copy_of(made / "sharded", tmp_path / "project")


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Project:
    """One that ran up to validate; it has no tracking store yet."""
    return copy_of(made / "trained", tmp_path / "project")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Project:
    """A finished project to change, with a tracking store of its own."""
    return copy_of(made / "finished", tmp_path / "project", store=True)


@pytest.fixture(scope="session")
def finished(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """As ``copied``, for all tests of a process; not to be changed."""
    return copy_of(made / "finished", tmp_path_factory.mktemp("finished") / "project", store=True)


@pytest.fixture(scope="session", autouse=True)
def _orphans() -> None:
    """What outlives a process that a test killed becomes ours, so that its end can be collected, as an init would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real browser; the port of its DevTools."""
    with browser(tmp_path_factory.mktemp("chromium")) as port:
        yield port


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on loopback, with a database of its own."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(120)
