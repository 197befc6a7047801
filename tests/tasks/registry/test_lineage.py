"""The passport against the files, the tree of a version, rebuilding it, and what retention keeps."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from helpers.project import Project, key_pair
from mlflow import MlflowClient

from tasks.registry import command
from tasks.registry.lineage.signature import private_key, public_key, sign, signed_by
from tasks.runtime.digests import dvc_digest

CHAMPION = "models:/medical-llm@champion"


def differing(which: str = CHAMPION, *, deployed: Path | None = None, public_key: Path | None = None) -> list[str]:
    return [str(f) for f in command.findings(which, deployed=deployed, public_key=public_key) if f.state != "equal"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def standing(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project with a store of its own; tests put back what they change."""
    folder = tmp_path_factory.mktemp("standing")
    shutil.copytree(finished.path, folder / "project", ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    project = Project(folder / "project")
    project.run("dvc", "repro")
    return project


@pytest.fixture
def here(standing: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(standing.path)
    yield standing


@pytest.fixture
def artifacts(here: Project) -> Path:
    """Where the version's artifacts lie."""
    client = MlflowClient(tracking_uri=f"sqlite:///{here.path / 'mlflow.db'}")
    version = client.get_model_version_by_alias("medical-llm", "champion")
    assert version.run_id
    return Path(client.download_artifacts(version.run_id, ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("data/conditions.csv", "data/conditions.csv"),
        ("artifacts/documents/train.jsonl", "artifacts/documents/train.jsonl"),
        ("artifacts/shards/train_00000.bin", "artifacts/shards/train_00000.bin"),
        ("artifacts/base/model.safetensors", "artifacts/base/model.safetensors"),
        ("artifacts/model/model.safetensors", "artifacts/model/model.safetensors"),
        ("artifacts/model/tokenizer.json", "artifacts/model/tokenizer.json"),
        ("artifacts/evaluation/report.html", "artifacts/evaluation/report.html"),
        ("artifacts/reports/shard/sharded-documents.json", "artifacts/reports/shard/sharded-documents.json"),
        ("STORE/checkpoint/model.safetensors", "medical-llm/1/checkpoint/model.safetensors"),
        ("STORE/checkpoint/tokenizer.json", "medical-llm/1/checkpoint/tokenizer.json"),
        ("STORE/checkpoint/README.md", "medical-llm/1/checkpoint/README.md"),
        ("STORE/checkpoint/code/model/llama.py", "medical-llm/1/checkpoint/code/model/llama.py"),
        ("STORE/checkpoint/passport.json", "medical-llm/1/checkpoint/passport.json"),
        ("STORE/evaluation/report.html", "medical-llm/1/evaluation/report.html"),
        ("STORE/evaluation/scores.jsonl", "medical-llm/1/evaluation/scores.jsonl"),
        ("STORE/decision-1.json", "medical-llm/1/decision-1.json"),
        ("STORE/dvc.lock", "medical-llm/1/dvc.lock"),
        ("STORE/passport.json", "passport.json"),
    ],
)
def test_one_flipped_byte_is_found_and_named(here: Project, artifacts: Path, where: str, name: str) -> None:
    assert not differing()
    path = artifacts / where.removeprefix("STORE/") if where.startswith("STORE/") else here.path / where
    flip(path)
    try:
        result = here.run(sys.executable, "-m", "tasks.registry", "verify", CHAMPION, check=False)
        assert result.returncode == 1 and "Traceback" not in result.stdout
        assert [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("differs")] == [["differs", name]]
    finally:
        flip(path)


@pytest.mark.slow
def test_what_is_not_here_is_absent_and_no_error(here: Project, tmp_path: Path) -> None:
    shutil.move(here.path / "data", tmp_path / "data")
    try:
        assert differing() == ["absent   data"]
        result = here.run(sys.executable, "-m", "tasks.registry", "verify", CHAMPION)
        assert "0 differ, 1 absent on this machine" in result.stdout
    finally:
        shutil.move(tmp_path / "data", here.path / "data")


def test_a_file_that_was_added_differs(here: Project) -> None:
    extra = here.path / "artifacts" / "shards" / "train_00001.bin"
    extra.write_bytes(b"more")
    try:
        assert differing() == ["differs  artifacts/shards/train_00001.bin  (the passport does not list it)"]
    finally:
        extra.unlink()


class TestDeployed:
    @pytest.fixture
    def served(self, artifacts: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(artifacts / "checkpoint", tmp_path / "served"))

    def test_the_checkpoint_of_a_version_is_whole(self, served: Path) -> None:
        assert not differing(deployed=served)

    def test_without_a_version_mlflow_is_not_asked(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert [line.split()[0] for line in differing("", deployed=served)] == ["unknown"]
        flip(served / "tokenizer.json")
        assert f"differs  {served}/tokenizer.json" in differing("", deployed=served)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
    def test_what_it_must_have_is_demanded(self, served: Path, name: str) -> None:
        (served / name).unlink()
        assert f"differs  {served}/{name}  (missing)" in differing(deployed=served)

    def test_flipped_and_added_files_are_found(self, served: Path) -> None:
        flip(served / "model.safetensors")
        (served / "model-00002.safetensors").write_bytes(b"")
        assert [line.split()[1] for line in differing(deployed=served)] == [
            f"{served}/model.safetensors",
            f"{served}/model-00002.safetensors",
        ]
        (served / "passport.json").unlink()
        assert differing(deployed=served) == ["differs  passport.json  (missing)"]


def test_a_signature_is_by_the_owner_of_the_key(tmp_path: Path) -> None:
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
    (private, own), (_, other) = (key_pair(tmp_path / name, kind="ed25519") for name in ("ours", "others"))
    document = tmp_path / "passport.json"
    document.write_text("{}")
    key, ours, others = private_key(private), public_key(own), public_key(other)
    assert isinstance(key, Ed25519PrivateKey) and isinstance(ours, Ed25519PublicKey) and isinstance(others, Ed25519PublicKey)
    signature = sign(document, key).read_bytes()
    assert signed_by(b"{}", signature, ours) and not signed_by(b"{}", signature, others)
    assert not any(signed_by(*changed, ours) for changed in ((b"{ }", signature), (b"{}", b""), (b"{}", b"\xff")))
    with pytest.raises(ValueError, match="holds no private key"):
        private_key(own)


@pytest.mark.slow
def test_a_configured_ed25519_key_signs_the_passport(copied: Project) -> None:
    private, public = key_pair(copied.path.parent, kind="ed25519")
    verify = (sys.executable, "-m", "tasks.registry", "verify", "--public-key", str(public))
    assert "differs  passport.sig  (the version is not signed with a key of this kind)" in copied.run(*verify, check=False).stdout
    copied.environment["PASSPORT_KEY"] = str(private)
    copied.set_params("finetune", steps=7)
    copied.run("dvc", "repro")
    assert "equal    passport.sig" in copied.run(*verify, "models:/medical-llm/2").stdout


@pytest.mark.system
def test_after_a_second_run_the_tree_names_the_first_runs_of_what_was_skipped(copied: Project) -> None:
    records = {p.stem: json.loads(p.read_text())["record"] for p in (copied.path / "artifacts" / "runs").glob("*.json")}
    copied.set_params("finetune", steps=7)
    assert copied.ran(copied.run("dvc", "repro").stdout) == ["finetune", "validate", "register"]
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.path / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "medical-llm")
    shown = copied.run(sys.executable, "-m", "tasks.registry", "show", "medical-llm/2").stdout
    for stage in ("preprocess", "augment", "shard"):
        (run,) = client.search_runs([experiment.experiment_id], f"tags.record = '{records[stage]}'")
        assert f"{stage}  run {run.info.run_id} (imported)" in shown
    # The champion's own files are here in another version: that is no tampering.
    monkey = copied.run(sys.executable, "-m", "tasks.registry", "verify", "medical-llm/1").stdout
    assert "absent   artifacts/model  (another version of it is here, as DVC's files say)" in monkey and "0 differ" in monkey

    # What the first version needs stays when the cache is cleaned.
    first = client.get_model_version("medical-llm", "1").tags["dvc.artifacts/model"]
    cache = copied.path / ".dvc" / "cache" / "files" / "md5"
    stray = cache / "ab" / ("c" * 30)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"nobody needs this")
    cleaned = copied.run(sys.executable, "-m", "tasks.registry", "gc").stdout
    assert "kept     medical-llm version 1" in cleaned and "removed  from DVC's cache" in cleaned
    assert not stray.exists() and (cache / first[:2] / first[2:]).exists()
    copied.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    copied.run("dvc", "checkout")
    assert dvc_digest(copied.path / "artifacts" / "model") == first


@pytest.mark.system
def test_the_weights_of_a_version_can_be_made_again_in_a_clone(finished: Project, tmp_path: Path) -> None:
    finished.run("git", "clone", "--quiet", str(finished.path), str(tmp_path / "project"))
    clone = Project(tmp_path / "project")
    clone.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{finished.path / 'mlflow.db'}"
    shutil.copytree(finished.path / "data", clone.path / "data")  # it comes from nowhere else
    output = clone.run(sys.executable, "-m", "tasks.registry", "rebuild", "1").stdout
    assert "rebuild: the weights are equal bit for bit" in output
    assert clone.ran(output) == ["base", "preprocess", "augment", "shard", "finetune"]
    assert clone.run("git", "worktree", "list").stdout.count("\n") == 1


def test_the_lineage_page_is_complete_in_itself(artifacts: Path) -> None:
    page = (artifacts / "lineage.html").read_text()
    assert "<svg" in page and "gate sharded-documents" in page and "raw files" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page and "<script" not in page
