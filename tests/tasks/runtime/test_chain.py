"""DVC restores what its cache holds without a look. What a stage reads, and what a version is made from, is what the stages wrote."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers.pipeline import FLOW, store
from helpers.project import Project
from ruamel.yaml import YAML

from tasks.runtime.chain import broken_links, check_inputs
from tasks.runtime.digests import dvc_digest

CHAIN = (sys.executable, "-m", "tasks.registry", "chain")
STAGE_OF = {
    "artifacts/base": "base",
    "artifacts/documents": "preprocess",
    "artifacts/reports/preprocess": "preprocess",
    "artifacts/variants": "augment",
    "artifacts/reports/augment": "augment",
    "artifacts/shards": "shard",
    "artifacts/reports/shard": "shard",
    "artifacts/model": "finetune",
    "artifacts/reports/finetune": "finetune",
    "artifacts/evaluation": "validate",
    **{f"artifacts/runs/{stage}.json": stage for stage in ("base", "preprocess", "augment", "shard", "finetune", "validate")},
}


def locked(project: Project, out: str) -> str:
    entry = YAML(typ="safe").load(project.path / "dvc.lock")["stages"][STAGE_OF[out]]
    return next(str(o["md5"]) for o in entry["outs"] if o["path"] == out)


def object_of(project: Project, digest: str) -> Path:
    return project.path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def a_file_of(project: Project, out: str) -> tuple[str, Path]:
    """The largest file of an output, and the object of DVC's cache that holds its bytes."""
    digest = locked(project, out)
    if not digest.endswith(".dir"):
        return out, object_of(project, digest)
    entries = json.loads(object_of(project, digest).read_text())
    largest = max(entries, key=lambda entry: (project.path / out / entry["relpath"]).stat().st_size)
    return f"{out}/{largest['relpath']}", object_of(project, largest["md5"])


def flip(path: Path) -> None:
    """Another byte in the middle of a file, as a bad disk would have it: DVC looks only at objects that may be written."""
    content, mode = bytearray(path.read_bytes()), path.stat().st_mode
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def poison(project: Project, out: str) -> tuple[str, Path]:
    """Flip a byte in DVC's cache and have DVC restore it."""
    name, held = a_file_of(project, out)
    flip(held)
    remove(project.path / out)
    project.run("dvc", "checkout", out)
    assert dvc_digest(project.path / name) != f"{held.parent.name}{held.name}", "DVC restored it without a look"
    return name, held


def message(project: Project, out: str, name: str, held: Path) -> str:
    """What is said of an output whose object in DVC's cache was poisoned."""
    which = f" ({name})" if name != out else ""
    where = held.relative_to(project.path)
    return f"{out} is not what the stage {STAGE_OF[out]} wrote{which}: the object {where} in DVC's cache has other bytes than its name says"


def no_version(project: Project) -> bool:
    return not (project.path / "mlflow.db").exists() or not store(project).search_model_versions("name = 'medical-llm'")


@pytest.mark.slow
@pytest.mark.parametrize("records", [False, True], ids=["outputs", "records"])
def test_poisoned_objects_of_every_output_are_found_before_a_version_is_made(trained: Project, records: bool) -> None:
    poisoned_outs = {out: poison(trained, out) for out in STAGE_OF if out.endswith(".json") == records}
    for command in (("dvc", "repro"), CHAIN):
        result = trained.run(*command, check=False)
        assert result.returncode != 0 and "Traceback" not in result.stdout
        for out, (name, held) in poisoned_outs.items():
            assert message(trained, out, name, held) in result.stdout, result.stdout
    assert no_version(trained)


@pytest.mark.system
def test_no_model_is_trained_on_poisoned_shards_and_what_the_message_says_helps(trained: Project) -> None:
    name, held = poison(trained, "artifacts/shards")
    before = {
        out: dvc_digest(trained.path / out) for out in ("artifacts/model", "artifacts/reports/finetune", "artifacts/runs/finetune.json")
    }
    trained.set_params("finetune", steps=5)
    result = trained.run("dvc", "repro", check=False)
    assert f"finetune: {message(trained, 'artifacts/shards', name, held)}" in result.stdout, result.stdout
    assert "Remove it and artifacts/shards, then run 'dvc repro --force --single-item shard'" in result.stdout
    # DVC had removed them before it started the stage.
    assert before == {out: dvc_digest(trained.path / out) for out in before}
    remove(held)
    remove(trained.path / "artifacts/shards")
    trained.run("dvc", "repro", "--force", "--single-item", "shard")
    assert "medical-llm version 1" in trained.run("dvc", "repro").stdout


@pytest.mark.slow
def test_a_poisoned_record_that_fits_the_poisoned_shards_does_not_fit_the_lock_file(trained: Project) -> None:
    poison(trained, "artifacts/shards")
    record, digest = trained.path / "artifacts/runs/shard.json", locked(trained, "artifacts/runs/shard.json")
    content = json.loads(record.read_text())
    content["outputs"]["artifacts/shards"] = dvc_digest(trained.path / "artifacts/shards")
    held = object_of(trained, digest)
    held.chmod(0o600)
    held.write_text(json.dumps(content))
    held.chmod(0o444)
    remove(record)
    trained.run("dvc", "checkout", str(record))
    trained.set_params("finetune", steps=5)
    result = trained.run("dvc", "repro", check=False)
    assert f"finetune: {message(trained, 'artifacts/runs/shard.json', 'artifacts/runs/shard.json', held)}" in result.stdout, result.stdout


class TestBytesThatChangedHere:
    """DVC's cache is whole; what a stage would read was changed or removed."""

    def failing(self, project: Project) -> str:
        """What training says to it, by hand: DVC sees a part of these by itself."""
        command = YAML(typ="safe").load(project.path / "dvc.yaml")["stages"]["finetune"]["cmd"].split()[2:]
        result = project.run(sys.executable, *command, check=False)
        assert result.returncode == 1 and "Traceback" not in result.stdout, result.stdout
        return result.stdout

    @pytest.mark.slow
    def test_a_file(self, trained: Project) -> None:
        flip(trained.path / "artifacts/shards/train_00000.bin")
        (trained.path / "artifacts/shards/more.bin").write_text("")
        said = self.failing(trained)
        assert "artifacts/shards/more.bin, artifacts/shards/train_00000.bin is not what the stage shard wrote: it was changed later" in said
        assert "remove artifacts/shards and run 'dvc checkout artifacts/shards'" in said
        remove(trained.path / "artifacts/shards")
        trained.run("dvc", "checkout", "artifacts/shards")
        assert "what they wrote" in trained.run(*CHAIN).stdout

    @pytest.mark.slow
    def test_a_file_whose_bytes_are_nowhere_else(self, trained: Project) -> None:
        flip(trained.path / "artifacts/shards/train_00000.bin")
        remove(object_of(trained, locked(trained, "artifacts/shards")))
        assert "which DVC's cache does not hold; run 'dvc repro --force --single-item shard'" in self.failing(trained)

    @pytest.mark.slow
    def test_a_record_that_is_missing(self, trained: Project) -> None:
        remove(trained.path / "artifacts/runs/shard.json")
        said = self.failing(trained)
        assert "artifacts/runs/shard.json, the record of what the stage shard wrote, is missing; run 'dvc repro shard'" in said
        trained.run("dvc", "repro", "shard")
        assert "what they wrote" in trained.run(*CHAIN).stdout

    @pytest.mark.slow
    def test_a_stage_that_was_run_by_hand(self, trained: Project) -> None:
        record = trained.path / "artifacts/runs/shard.json"
        content = json.loads(record.read_text())
        record.chmod(0o600)
        record.write_text(json.dumps(content | {"seconds": 1.0}))
        assert "artifacts/runs/shard.json is not what the stage shard wrote: it was changed later" in self.failing(trained)
        trained.run("dvc", "commit", "--force", "shard")
        assert "what they wrote" in trained.run(*CHAIN).stdout

    @pytest.mark.slow
    def test_raw_files(self, trained: Project) -> None:
        table = trained.path / "data/conditions.csv"
        table.chmod(0o600)
        table.write_text(table.read_text() + "What is more?,A thing that came later.\n")
        result = trained.run("dvc", "repro", "--single-item", "augment", check=False)
        assert "augment: data is not what data.dvc says; run 'dvc repro' without --single-item" in result.stdout, result.stdout


def test_paths_that_no_stage_writes_are_not_looked_at(tmp_path: Path) -> None:
    check_inputs({str(tmp_path / "shards"): "0" * 32, "elsewhere/shards": "1" * 32}, tmp_path)


def test_a_broken_link_is_named() -> None:
    records = {
        "preprocess": {"inputs": {"data": "1"}, "outputs": {"documents": "2"}},
        "augment": {"inputs": {"data": "3", "documents": "2"}, "outputs": {"variants": "4"}},
        "shard": {"inputs": {"documents": "2", "variants": "5"}, "outputs": {"shards": "6"}},
    }
    assert list(broken_links(records)) == [
        ("data", "the stage augment read other bytes than the stage preprocess read"),
        ("variants", "the stage shard read other bytes than the stage augment wrote"),
    ]


@pytest.mark.slow
def test_what_the_flow_has_dvc_restore_is_looked_at(copied: Project, prefect_api: str) -> None:
    copied.environment["PREFECT_API_URL"] = prefect_api
    name, held = a_file_of(copied, "artifacts/model")
    copied.set_params("finetune", steps=5)
    copied.run("dvc", "repro", "finetune")
    flip(held)
    copied.set_params("finetune", steps=6)  # whose model DVC has
    result = copied.run(*FLOW, check=False)
    assert result.returncode != 0
    assert f"what DVC restored of finetune is not what it was: {message(copied, 'artifacts/model', name, held)}" in result.stdout, (
        result.stdout
    )


@pytest.mark.slow
def test_a_remote_is_taken_at_its_word_unless_it_is_verified(trained: Project, tmp_path: Path) -> None:
    name, held = a_file_of(trained, "artifacts/shards")
    trained.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    trained.run("dvc", "push", "artifacts/shards")
    flip(tmp_path / "store/files/md5" / held.relative_to(trained.path / ".dvc/cache/files/md5"))
    for verify in (False, True):
        remove(trained.path / "artifacts/shards")
        remove(held)
        trained.run("dvc", "remote", "modify", "store", "verify", str(verify).lower())
        pulled = trained.run("dvc", "pull", "artifacts/shards", check=False)
        if verify:
            assert pulled.returncode != 0
        else:
            assert pulled.returncode == 0
            assert message(trained, "artifacts/shards", name, held) in trained.run(*CHAIN, "shard", check=False).stdout
