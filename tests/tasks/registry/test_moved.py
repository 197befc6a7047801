"""A project that was moved, copied or restored elsewhere keeps its versions, and has nothing to do with where it came from."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from helpers.project import Project, commit
from helpers.serving import COMPLETION, run_server
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from tasks.registry import relocation, tracking
from tasks.runtime.errors import Unavailable

CHAMPION = "models:/medical-llm@champion"
NAMES = ("plain", "with spaces", '100% ünï\'cödé "quoted"', "a+b#c;d")


def moved(project: Project, target: Path) -> None:
    project.path.rename(target)


def copied_and_altered(project: Project, target: Path) -> None:
    """The original stays, with other files: whoever reads those would see it."""
    shutil.copytree(project.path, target, symlinks=True)
    for path in (project.path / "mlartifacts").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"not this one")


def restored(project: Project, target: Path) -> None:
    archive = target.with_suffix(".tar")
    subprocess.run(["tar", "--create", "--file", archive, "--directory", project.path, "."], check=True)
    shutil.rmtree(project.path)
    target.mkdir()
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", target], check=True)


def everything_works(project: Project, monkeypatch: pytest.MonkeyPatch, former: Path) -> None:
    output = project.run(sys.executable, "-m", "tasks.registry", "show", CHAMPION).stdout
    assert f"tracking: mlflow.db came from {former}; its paths are those of {project.path} now" in output
    output = project.run(sys.executable, "-m", "tasks.registry", "verify", CHAMPION).stdout
    assert " 0 differ" in output and "came from" not in output
    output = project.run(sys.executable, "-m", "tasks.registry", "gc").stdout
    assert "removed  from MLflow: deleted runs" in output
    monkeypatch.chdir(project.path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with run_server({"medical-llm": CHAMPION}, unverified=False) as server:
        answer = server.client.post("/v1/completions", json=COMPLETION)
        assert answer.is_success and answer.json()["choices"][0]["text"]
    script = f"from mlflow.pyfunc import load_model; print('SAYS', load_model({CHAMPION!r}).predict(['What is it?']))"
    project.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.path / 'mlflow.db'}"  # MLflow by itself
    assert "SAYS ['" in project.run(sys.executable, "-c", script).stdout
    del project.environment["MLFLOW_TRACKING_URI"]


def registers_and_rolls_back(project: Project) -> None:
    project.set_params("finetune", steps=7)
    commit(project, "Another length")
    output = project.run("dvc", "repro").stdout
    assert "register: medical-llm version 2 is new" in output
    # A version that lies where the project is now, and a decision either way.
    client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")
    version = client.get_model_version("medical-llm", "2")
    assert str(client.get_run(str(version.run_id)).info.artifact_uri).startswith(project.path.as_uri() + "/mlartifacts/")
    assert (project.path / "mlartifacts" / str(version.run_id) / "artifacts" / "checkpoint").is_dir()
    by = ("--by", "A. Person", "--why", "to see whether it can")
    project.run(sys.executable, "-m", "tasks.registry", "promote", "2", *by)
    assert "version 1 is champion again" in project.run(sys.executable, "-m", "tasks.registry", "rollback", *by).stdout


@pytest.mark.system
@pytest.mark.parametrize("how", [moved, copied_and_altered, restored])
def test_its_versions_are_shown_verified_served_and_kept(
    copied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[Project, Path], None]
) -> None:
    former, target = copied.path, tmp_path / NAMES[1] / NAMES[2]
    target.parent.mkdir()
    how(copied, target)
    there = {path: path.stat() for path in former.rglob("*")} if former.exists() else {}
    project = Project(target)
    everything_works(project, monkeypatch, former)
    if how is moved:
        registers_and_rolls_back(project)
    assert {path: path.stat().st_mtime_ns for path in there} == {path: was.st_mtime_ns for path, was in there.items()}
    assert set(former.rglob("*")) == set(there)


@pytest.mark.slow
def test_a_copy_without_its_artifacts_is_told_so(copied: Project, tmp_path: Path) -> None:
    shutil.copytree(copied.path, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("mlartifacts"))
    result = Project(tmp_path / "copy").run(sys.executable, "-m", "tasks.registry", "show", CHAMPION, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert f"mlflow.db came from {copied.path} without mlartifacts/" in result.stdout


@pytest.mark.slow
def test_a_linked_worktree_uses_the_main_ones_store_and_changes_nothing(copied: Project, tmp_path: Path) -> None:
    copied.run("git", "worktree", "add", "--quiet", str(tmp_path / "linked"))
    before = (copied.path / "mlflow.db").read_bytes()
    output = Project(tmp_path / "linked").run(sys.executable, "-m", "tasks.registry", "show", CHAMPION).stdout
    assert "medical-llm version 1" in output and "came from" not in output
    assert (copied.path / "mlflow.db").read_bytes() == before and not (tmp_path / "linked" / "mlflow.db").exists()


class TestPaths:
    """In a real store's tables, the paths of the project and no others."""

    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A store that MLflow made, with all that holds paths: a run, versions, a logged model."""
        return self.filled(tmp_path_factory.mktemp("made") / "proj")

    @pytest.fixture
    def store(self, made: Path, tmp_path: Path) -> Path:
        return self.brought(made.parent, tmp_path / "proj")

    def brought(self, project: Path, target: Path) -> Path:
        """A copy that has followed its project."""
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(project, target)
        relocation.follow(target / "mlflow.db", tracking.EXPERIMENT)
        return target / "mlflow.db"

    def filled(self, folder: Path) -> Path:
        folder.mkdir()
        database = folder / "mlflow.db"
        client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        experiment = client.create_experiment(tracking.EXPERIMENT, artifact_location=(folder / "mlartifacts").as_uri())
        run = client.create_run(experiment)
        source = folder / "file"
        source.write_text("x")
        client.log_artifact(run.info.run_id, str(source), "checkpoint")
        client.create_registered_model("m")
        client.create_model_version("m", f"runs:/{run.info.run_id}/checkpoint", run.info.run_id)
        client.create_model_version("m", str(folder / "mlartifacts" / run.info.run_id / "artifacts" / "checkpoint"))
        client.create_logged_model(experiment, name="logged")
        return database

    def texts(self, database: Path) -> list[str]:
        """Everything that a store says, as text."""
        with closing(sqlite3.connect(database)) as store:
            tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [str(value) for table in tables for row in store.execute(f'SELECT * FROM "{table}"') for value in row]

    @pytest.mark.parametrize("to", NAMES)
    def test_every_one_is_rewritten(self, made: Path, tmp_path: Path, to: str) -> None:
        former = made.parent
        for target in (tmp_path / to, tmp_path / "back" / "proj"):  # into a name, and out of it
            database = self.brought(former, target)
            assert not [text for text in self.texts(database) if str(former) in text or former.as_uri() in text]
            client = MlflowClient(tracking_uri=f"sqlite:///{database}")
            (target / "mlartifacts" / client.search_runs(["1"])[0].info.run_id / "artifacts" / "checkpoint" / "file").write_text(to)
            for number in "12":
                location = client.get_model_version_download_uri("m", number)
                assert Path(download_artifacts(artifact_uri=location, tracking_uri=client.tracking_uri), "file").read_text() == to
            before = database.read_bytes()
            relocation.follow(database, tracking.EXPERIMENT)
            assert database.read_bytes() == before
            former = target

    @pytest.mark.parametrize("beside", ["proj2", "proj-old", "Proj", "proj.d", "pro"])
    def test_one_that_only_begins_alike_stays(self, store: Path, tmp_path: Path, beside: str) -> None:
        client = MlflowClient(tracking_uri=f"sqlite:///{store}")
        for number, location in enumerate((tmp_path / beside, tmp_path / beside / "proj", tmp_path)):
            client.create_experiment(f"another-{number}", artifact_location=(location / "mlartifacts").as_uri())
        (tmp_path / "proj").rename(tmp_path / "new")
        relocation.follow(tmp_path / "new" / "mlflow.db", tracking.EXPERIMENT)
        locations = {e.name: e.artifact_location for e in client_of(tmp_path / "new").search_experiments()}
        assert locations["medical-llm"] == (tmp_path / "new" / "mlartifacts").as_uri()
        assert [locations[f"another-{n}"] for n in range(3)] == [
            (location / "mlartifacts").as_uri() for location in (tmp_path / beside, tmp_path / beside / "proj", tmp_path)
        ]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "location", ["s3://bucket/mlartifacts", "mlflow-artifacts:/x/mlartifacts", "ELSEWHERE/mlartifacts", "ELSEWHERE/kept"]
    )
    def test_artifacts_that_somebody_keeps_elsewhere_stay_there(self, tmp_path: Path, location: str) -> None:
        (tmp_path / "disk" / Path(location).name).mkdir(parents=True)
        (tmp_path / "proj").mkdir()
        location = location.replace("ELSEWHERE", (tmp_path / "disk").as_uri())
        client = client_of(tmp_path / "proj")
        client.create_experiment(tracking.EXPERIMENT, artifact_location=location)
        relocation.follow(tmp_path / "proj" / "mlflow.db", tracking.EXPERIMENT)
        (experiment,) = (e for e in client.search_experiments() if e.name == tracking.EXPERIMENT)
        assert experiment.artifact_location == location

    def test_a_store_that_may_not_be_written_says_what_to_do(self, store: Path, tmp_path: Path) -> None:
        store.parent.rename(tmp_path / "new")
        database = tmp_path / "new" / "mlflow.db"
        database.chmod(0o444)
        database.parent.chmod(0o555)
        for folder in (database.parents[1], *database.parents[1].parents[:2]):
            folder.chmod(0o755)  # root writes anything; another account only reads
        output = self.followed_by_another(database)
        assert output.startswith("ValueError") and "let this account write it" in output and str(database) in output

    def followed_by_another(self, database: Path) -> str:
        read, write = os.pipe()
        if not (child := os.fork()):
            try:
                if os.geteuid() == 0:
                    os.setegid(61001)
                    os.seteuid(61001)
                relocation.follow(database, tracking.EXPERIMENT)
                os.write(write, b"followed")
            except BaseException as error:
                os.write(write, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return os.read(read, 10000).decode()

    def test_a_store_in_use_says_so_and_is_whole(self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relocation, "SECONDS", 0.1)
        store.parent.rename(tmp_path / "new")
        database = tmp_path / "new" / "mlflow.db"
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = self.texts(database)
            with pytest.raises(Unavailable, match="another process is writing it"):
                relocation.follow(database, tracking.EXPERIMENT)
            other.execute("ROLLBACK")
        assert self.texts(database) == before
        relocation.follow(database, tracking.EXPERIMENT)
        assert self.texts(database) != before


def client_of(project: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
