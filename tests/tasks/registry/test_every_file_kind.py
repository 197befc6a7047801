"""Every kind of file behind a version, in a table: a flipped byte, another version's file, a missing and an added one are named by verify.

One version is trained in full and signed as OpenSSF does; the other has an adapter, an Ed25519 signature and two decisions.
"""

import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from helpers.project import Project, copy_of, key_pair
from helpers.versions import NAME, artifacts_of, flip

from tasks.registry import command
from tasks.registry.compliance.form import FORM
from tasks.registry.compliance.names import CARD, DOCUMENT, FOLDER, PAGE, SCHEMA
from tasks.registry.standards.files import BOM, CROISSANT, PROVENANCE

pytestmark = pytest.mark.slow

# Patterns of the files of a version; whether one version's file is the other's to the byte, or only one version has such a file.
DIFFERENT, SAME, SINGLE = "different", "same", "single"
KINDS = {
    "checkpoint/model.safetensors": DIFFERENT,
    "checkpoint/adapter/adapter_model.safetensors": SINGLE,
    "checkpoint/adapter/adapter_config.json": SINGLE,
    "checkpoint/config.json": SAME,
    "checkpoint/tokenizer.json": SAME,
    "checkpoint/tokenizer_config.json": SAME,
    "checkpoint/generation_config.json": SAME,
    "checkpoint/tasks.json": SAME,
    "checkpoint/README.md": DIFFERENT,
    "checkpoint/MLmodel": DIFFERENT,
    "checkpoint/conda.yaml": SAME,
    "checkpoint/python_env.yaml": SAME,
    "checkpoint/requirements.txt": SAME,
    "checkpoint/input_example.json": SAME,
    "checkpoint/serving_input_example.json": SAME,
    "checkpoint/registered_model_meta": DIFFERENT,
    "checkpoint/pyfunc_model.py": SAME,
    "checkpoint/*__pycache__": SAME,
    "checkpoint/code/*.py": SAME,
    "checkpoint/code/*.c": SAME,
    "checkpoint/code/*.h": SAME,
    "checkpoint/passport.json": DIFFERENT,
    "checkpoint/passport.sig": SINGLE,
    "checkpoint/model.sig": SINGLE,
    "passport.json": DIFFERENT,
    "passport.sig": SINGLE,
    "lineage.html": DIFFERENT,
    "seen.txt.gz": SAME,
    "decision-1.json": DIFFERENT,
    "decision-1.html": DIFFERENT,
    "decision-2.json": SINGLE,
    "decision-2.html": SINGLE,
    "evaluation/*": DIFFERENT,
    "evaluation-2/*": SINGLE,
    "gate/*": SAME,
    "gate-2/*": SINGLE,
    f"standards/{BOM}": DIFFERENT,
    f"standards/{CROISSANT}": DIFFERENT,
    f"standards/{PROVENANCE}": DIFFERENT,
    f"{FOLDER}/{DOCUMENT}": DIFFERENT,
    f"{FOLDER}/{CARD}": DIFFERENT,
    f"{FOLDER}/{PAGE}": DIFFERENT,
    f"{FOLDER}/{SCHEMA}": SAME,
    f"{FOLDER}/{FORM}": SAME,
    "params.yaml": DIFFERENT,
    "dvc.yaml": SAME,
    "dvc.lock": DIFFERENT,
    "data.dvc": SAME,
    "requirements.lock": SAME,
}
# What the stages behind the present version read and wrote.
TREES = (
    *("data/*.csv", "artifacts/base/*", "artifacts/documents/*", "artifacts/variants/*"),
    *("artifacts/reports/*/*", "artifacts/shards/*.bin", "artifacts/shards/*.npy", "artifacts/shards/*.jsonl", "artifacts/shards/*.json"),
    *("artifacts/model/*", "artifacts/evaluation/*", "artifacts/runs/*.json"),
)


@pytest.fixture(scope="module")
def project(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with both versions; the second one is what is here."""
    folder = tmp_path_factory.mktemp("kinds")
    project = copy_of(made / "trained", folder / "project")
    for kind in ("EC", "ed25519"):
        (folder / kind).mkdir()
        project.environment["PASSPORT_KEY"] = str(key_pair(folder / kind, kind=kind)[0])
        project.run("dvc", "repro")
        project.set_params("finetune", mode="lora", lr=0.01)
    threshold = {"metric": "answer_nll", "split": "test", "figure": "change", "max": 0.1}
    project.set_params("register", thresholds=[threshold])
    project.run("dvc", "repro")
    return project


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.path)
    return project


def files_of(here: Project, number: str) -> dict[str, Path]:
    folder = artifacts_of(here, number)
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def named(number: str) -> set[str]:
    """The files that verify names, by their path in the version, or in the project."""
    findings = command.findings(f"{NAME}/{number}", deployed=None, public_key=None)
    paths = {"/".join(part for part in (f.tree, f.name) if part) for f in findings if f.state in ("differs", "absent")}
    return {path.removeprefix(f"{NAME}/{number}/") for path in paths}


def pattern_of(name: str, patterns: tuple[str, ...]) -> str:
    """The first pattern is the file's kind."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), "")


def representatives(names: dict[str, Path], patterns: tuple[str, ...]) -> dict[str, str]:
    """One file of each kind that is here: the last one in the order of their names."""
    return {pattern_of(name, patterns): name for name in names}


class Kept:
    """Copies of files that a test changes."""

    def __init__(self, folder: Path):
        self._folder, self._copies = folder, dict[Path, Path]()

    def keep(self, path: Path) -> None:
        self._copies[path] = Path(shutil.copy2(path, self._folder / f"copy-{len(self._copies)}"))

    def restore(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        shutil.copy2(self._copies[path], path)

    def restore_all(self) -> None:
        for path in self._copies:
            self.restore(path)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """All are put back at the end."""
    (tmp_path / "kept").mkdir()
    kept = Kept(tmp_path / "kept")
    yield kept
    kept.restore_all()


def test_the_table_has_every_file_of_both_versions(here: Project) -> None:
    first, second = files_of(here, "1"), files_of(here, "2")
    patterns = tuple(KINDS)
    assert [name for name in first | second if not pattern_of(name, patterns)] == []
    used = {pattern_of(name, patterns) for name in first | second}
    assert set(KINDS) - used == set()
    for kind, expected in KINDS.items():
        ones, others = ({n: f for n, f in files.items() if pattern_of(n, patterns) == kind} for files in (first, second))
        if expected == SINGLE:
            assert bool(ones) != bool(others), kind
        else:
            equal = all(ones[name].read_bytes() == others[name].read_bytes() for name in ones.keys() & others.keys())
            assert ones.keys() & others.keys() and equal == (expected == SAME), kind
    assert not named("2")


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_flipped_byte_and_a_missing_file_are_named(here: Project, number: str, kept: Kept) -> None:
    before, files = named(number), files_of(here, number)
    for kind, name in representatives(files, tuple(KINDS)).items():
        kept.keep(files[name])
        for change in (flip, Path.unlink):
            change(files[name])
            assert name in named(number) - before, (kind, name, change.__name__)
            kept.restore(files[name])
    assert named(number) == before


def test_another_versions_file_in_its_place_is_named(here: Project, kept: Kept) -> None:
    first, second = files_of(here, "1"), files_of(here, "2")
    for name in [n for n in representatives(first, tuple(KINDS)).values() if n in second]:
        if first[name].read_bytes() != second[name].read_bytes():
            kept.keep(second[name])
            shutil.copyfile(first[name], second[name])
            assert name in named("2"), name
            kept.restore(second[name])
    assert not named("2")


def test_an_added_file_is_named_in_every_folder(here: Project) -> None:
    folder = artifacts_of(here, "2")
    folders = {folder, *(path for path in folder.rglob("*") if path.is_dir())}
    assert {folder / name for name in ("checkpoint", "checkpoint/adapter", "gate-2", "evaluation-2", "standards")} <= folders
    for path in sorted(folders):
        added = path / "added.json"
        added.write_text("{}")
        assert named("2") == {added.relative_to(folder).as_posix()}
        added.unlink()


@pytest.mark.usefixtures("here")
def test_what_the_stages_read_and_wrote_is_named_too(kept: Kept) -> None:
    files = {path.as_posix(): path for path in sorted(Path().glob("*/**/*")) if pattern_of(path.as_posix(), TREES) and path.is_file()}
    chosen = representatives(files, TREES)
    assert set(chosen) == set(TREES)
    for kind, name in chosen.items():
        kept.keep(files[name])
        neighbour = next((other for other in files if other != name and pattern_of(other, TREES) == kind), "dvc.yaml")
        swapped = Path(neighbour).read_bytes()
        for change in (flip, lambda path, content=swapped: path.write_bytes(content), Path.unlink):
            files[name].chmod(0o600)
            change(files[name])
            assert name in named("2"), (kind, name)
            kept.restore(files[name])
        if kind not in ("artifacts/runs/*.json"):  # files, of which the passport lists each by itself
            added = files[name].with_name("added.json")
            added.write_text("{}")
            assert named("2") == {added.as_posix()}, kind
            added.unlink()
    assert not named("2")
