"""What tests of every folder share: a real browser, a Prefect server, and projects that ran once and are copied."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers.browser import browser
from helpers.builders import TINY, write_tiny_checkpoint
from helpers.project import PROJECTS, ROOT, Project, commit, copy_of, free_port, make_project, projects_key, wait_for
from helpers.training import write_shards_of
from ruamel.yaml import YAML

from model.generation import compiled, graphs
from model.generation.native import Native
from tasks.base import base
from tasks.training.params import BaseParams

pytest_plugins = ["helpers.raw_files", "helpers.served"]

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
# Modules that take a minute and copy no project, one for each tier.
WITHOUT_PIPELINE = {"test_team.py", "test_nodes.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a pipeline or a server, and say what comes first.

    The modules that run pipelines come first, so that at the end no process waits long for the other. The second of all is one that
    needs no pipeline: it runs while the first makes the projects that all others copy.
    """
    slow = {item.path for item in items if "new" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)
    if items:
        first = items[0].path
        items.sort(key=lambda item: 0 if item.path == first else 1 if item.path.name in WITHOUT_PIPELINE else 2)
    for item in items:
        if HEAVY & set(getattr(item, "fixturenames", ())):
            item.add_marker("pipeline")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a context for descriptions of tools, which are some thousand tokens of a vocabulary of bytes."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("wide") / "checkpoint", replace(TINY, max_seq_len=4096))


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


@pytest.fixture(scope="session")
def new() -> Path:
    """A folder with a project that has not run, for all test processes. It is kept for the next run of the tests of this code."""
    folder = PROJECTS / projects_key()
    with FileLock(PROJECTS.with_suffix(".lock")):
        if not (folder / "ready").exists():
            shutil.rmtree(PROJECTS, ignore_errors=True)  # also those of other code
            folder.mkdir(parents=True)
            make_project(folder)
            (folder / "ready").touch()
    return folder


@pytest.fixture(scope="session")
def made(new: Path) -> Path:
    """A folder with three projects that all test processes share and copy: ``sharded``, whose data stages ran, ``trained``, whose
    checkpoint was validated too, ``finished``, whose version is registered.
    """
    with FileLock(PROJECTS.with_suffix(".lock")):
        if not (new / "made").exists():
            making = new / "making"
            shutil.rmtree(making, ignore_errors=True)
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
            (new / "made").symlink_to(making.name)
    return new / "made"


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


@pytest.fixture(params=["c", "torch", "graphs"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All ways of stepping; the C step must not be missing where there is a compiler. The GPU's is run without a recording."""
    if request.param == "graphs":
        monkeypatch.setattr(graphs, "suits", lambda device: True)
    if request.param != "c":
        monkeypatch.setattr(Native, "of", lambda model: None)
    else:
        assert not isinstance(compiled.library(), str), compiled.library()
    yield request.param
