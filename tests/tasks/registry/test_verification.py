"""A version is exactly the regular files that its passport lists, by content, and somebody known vouches for the passport."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.project import Project, copy_of, key_pair
from helpers.versions import NAME, artifacts_of, flip, load_from_mlflow, version_of

from tasks.registry import command
from tasks.registry.compliance.form import FORM
from tasks.registry.compliance.names import CARD, DOCUMENT, FOLDER, PAGE, SCHEMA
from tasks.registry.lineage import passport, verification
from tasks.registry.lineage.passport import Finding
from tasks.registry.lineage.signature import private_key
from tasks.registry.lineage.tree import deidentification_of
from tasks.registry.standards.files import BOM, CROISSANT, PROVENANCE
from tasks.runtime.regular_files import regular_sha256

# One file of each kind that a version holds.
KINDS = (
    *(
        f"checkpoint/{name}"
        for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    ),
    *(f"checkpoint/{name}" for name in ("README.md", "MLmodel", "pyfunc_model.py", "code/model/llama.py")),
    *(
        f"checkpoint/{name}"
        for name in (
            "code/model/generation/decode.c",
            "__pycache__",
            "code/model/__pycache__",
            "registered_model_meta",
            "passport.json",
            "model.sig",
        )
    ),
    *("evaluation/report.html", "evaluation/scores.jsonl", "gate/evaluation.json", "gate/evaluation.html"),
    *("decision-1.json", "decision-1.html", "lineage.html", "seen.txt.gz", "passport.json"),
    *(f"standards/{name}" for name in (BOM, CROISSANT, PROVENANCE)),
    *(f"{FOLDER}/{name}" for name in (DOCUMENT, SCHEMA, CARD, PAGE, FORM.name)),
    *("params.yaml", "dvc.yaml", "dvc.lock", "data.dvc", "requirements.lock"),
)


@pytest.fixture(scope="module")
def signed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose first version was signed by key.pem beside it."""
    folder = tmp_path_factory.mktemp("signed")
    private, _ = key_pair(folder)
    project = copy_of(made / "trained", folder / "project")
    project.environment["PASSPORT_KEY"] = str(private)
    project.run("dvc", "repro")
    return project


@pytest.fixture
def here(signed: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(signed.path)
    return signed


@pytest.fixture
def store(here: Project, tmp_path: Path) -> Iterator[Path]:
    """The version's artifacts, which are put back after each test."""
    folder = artifacts_of(here)
    shutil.copytree(folder, tmp_path / "whole", symlinks=True)
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "whole", folder, symlinks=True)


def differing(*, number: str = "1", key: bool = False) -> set[str]:
    public_key = Path("../key.pub") if key else None
    return {
        location(f) for f in command.findings(f"{NAME}/{number}", deployed=None, public_key=public_key) if f.state in ("differs", "absent")
    }


def location(finding: Finding) -> str:
    """The file's path in the version."""
    whole = "/".join(part for part in (finding.tree, finding.name) if part)
    return whole.removeprefix(f"{NAME}/1/")


def link(path: Path) -> None:
    """The same bytes, but by a link to somewhere else."""
    elsewhere = path.parents[len(path.parts) - 2] / "tmp" / f"linked-{os.getpid()}"
    shutil.copyfile(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


def swap(path: Path) -> None:
    """Another file of the version in its place, as somebody would who exchanges whole files."""
    other = path.with_name("README.md") if path.name != "README.md" and path.with_name("README.md").exists() else Path(__file__)
    path.write_bytes(other.read_bytes())


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def cache(path: Path) -> None:
    """A directory with compiled code where the file was."""
    path.unlink()
    path.mkdir()
    (path / "llama.cpython-311.pyc").write_bytes(b"code")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_found_changed_removed_linked_or_exchanged(store: Path, kind: str) -> None:
    whole = (store / kind).read_bytes()
    for change in (flip, Path.unlink, link, swap, pipe, cache):
        change(store / kind)
        actual = differing()
        assert any(name == kind or name.startswith(f"{kind}/") for name in actual), (kind, change.__name__, actual)
        # A passport is one file, of which the checkpoint has a copy; nothing else is blamed.
        assert all(Path(name).name == Path(kind).name or name.startswith(kind) for name in actual), (kind, change.__name__, actual)
        shutil.rmtree(store / kind) if (store / kind).is_dir() else (store / kind).unlink(missing_ok=True)
        (store / kind).write_bytes(whole)
    assert not differing(key=True)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "checkpoint", "checkpoint/code", "checkpoint/code/model", "evaluation", "gate"])
def test_anything_else_that_lies_in_a_version_differs(store: Path, tmp_path: Path, folder: str) -> None:
    def package(path: Path) -> None:
        """A linked package would be imported instead of the installed one."""
        (tmp_path / "numpy").mkdir()
        (tmp_path / "numpy" / "__init__.py").write_text("raise SystemExit('foreign code')")
        path.symlink_to(tmp_path / "numpy")

    adds: tuple[Callable[[Path], object], ...] = (Path.touch, package, os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere"))
    for add in adds:
        path = store / folder / "added"
        add(path)
        assert differing() == {f"{folder}/added".lstrip("/")}
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not differing()


def test_records_of_the_runs_behind_a_version_are_in_its_passport(here: Project) -> None:
    record = here.path / "artifacts" / "runs" / "shard.json"
    before = record.read_bytes()
    flip(record)
    assert differing() == {"artifacts/runs/shard.json"}
    record.unlink()
    record.write_bytes(before)


class TestOrigin:
    @pytest.mark.slow
    def test_who_names_nobody_learns_that_the_origin_is_unknown(self, here: Project, store: Path) -> None:
        command = (sys.executable, "-m", "tasks.registry", "verify", "--deployed", str(store / "checkpoint"))
        result = here.run(*command, check=False)
        assert result.returncode == 2 and "consistent, origin unknown" in result.stdout and "0 differ" in result.stdout
        assert here.run(*command, "--public-key", "../key.pub").returncode == 0

    def test_a_passport_that_somebody_made_for_other_files_is_no_proof(self, store: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(store / "checkpoint", tmp_path / "forged"))
        flip(folder / "tokenizer_config.json")
        document = json.loads((folder / "passport.json").read_bytes())
        document["artifacts"]["checkpoint/tokenizer_config.json"] = regular_sha256(folder / "tokenizer_config.json")
        (folder / "passport.json").write_text(json.dumps(document))
        states = {f.state for f in command.findings("", deployed=folder, public_key=None)}
        assert "unknown" in states and "differs" not in states
        for which, key in ((f"{NAME}/1", None), ("", Path("../key.pub"))):
            assert "differs" in {f.state for f in command.findings(which, deployed=folder, public_key=key)}

    def test_a_signature_of_one_version_does_not_stand_on_anothers_files(self, here: Project, store: Path) -> None:
        # All that belongs to version 1, whole and rightly signed, under the number of another version.
        version = version_of(here)
        version._version = "2"
        actual = verification.read(store, version=version, public_key=Path("../key.pub"))
        messages = [str(f) for f in actual.findings if f.state == "differs"]
        assert messages == ["differs  passport.json  (it is that of medical-llm version 1)"]

    def test_openssfs_own_command_accepts_the_signature_and_no_changed_byte(self, here: Project, store: Path) -> None:
        checkpoint, key = store / "checkpoint", here.path.parent / "key.pub"
        signature = ("--signature", str(checkpoint / "model.sig"), "--public_key", str(key))
        command = (sys.executable, "-m", "model_signing", "verify", "key", str(checkpoint), *signature)
        assert "Verification succeeded" in here.run(*command).stdout
        for name in ("model.safetensors", "passport.json", "README.md", "tokenizer.json"):
            flip(checkpoint / name)
            assert here.run(*command, check=False).returncode != 0, name
            flip(checkpoint / name)
        (checkpoint / "added").write_text("x")
        assert here.run(*command, check=False).returncode != 0

    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        private, _ = key_pair(tmp_path)
        assert private_key(private)
        private.chmod(0o640)
        with pytest.raises(ValueError, match="can be read by others"):
            private_key(private)

    @pytest.mark.slow
    def test_a_key_that_is_missing_is_told_before_a_stage_works(self, here: Project) -> None:
        before = passport.digests_of(here.path / "artifacts" / "base")
        key_path = here.environment["PASSPORT_KEY"]
        here.environment["PASSPORT_KEY"] = "nowhere.pem"
        try:
            result = here.run("dvc", "repro", "--force", "--single-item", "base", check=False)
        finally:
            here.environment["PASSPORT_KEY"] = key_path
        assert result.returncode and "nowhere.pem holds no private key that can be read" in result.stdout
        assert passport.digests_of(here.path / "artifacts" / "base") == before

    def test_a_passport_whose_stages_do_not_read_what_the_others_wrote_differs(self, store: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(store / "checkpoint", tmp_path / "broken"))
        document = json.loads((folder / "passport.json").read_bytes())
        document["stages"]["validate"]["inputs"]["artifacts/shards"] = "0" * 32 + ".dir"
        (folder / "passport.json").write_text(json.dumps(document))
        actual = verification.read(folder, version=None, public_key=None).findings
        assert [(f.state, f.tree) for f in actual if f.state != "unknown"] == [("differs", "artifacts/shards")]


class TestReading:
    """Whatever stands in a passport, the answer is one sentence."""

    @pytest.mark.parametrize(
        "content",
        [
            b"[" * 200_000 + b"]" * 200_000,
            b'{"format": 3, "trees": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
            b'{"format": 3}',
            b"3",
            b'{"format": [3]}',
            b'{"format": 1e999}',
            b"\xff\xfe",
            b'{"format": ' + b"9" * 10_000 + b"}",
        ],
    )
    def test_what_is_no_passport_is_refused_in_a_sentence(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "passport.json"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="passport|format") as messages:
            passport.read_passport(path)
        assert "\n" not in str(messages.value) and len(str(messages.value)) < 500

    @pytest.mark.parametrize("wrong", [None, 7, "text", [], {"": 1}, [[]], {"a": {"b": {}}}])
    def test_every_field_of_another_type_is_refused_or_never_used(self, store: Path, tmp_path: Path, wrong: object) -> None:
        whole = json.loads((store / "passport.json").read_bytes())
        path = tmp_path / "passport.json"
        for field in whole:
            if type(whole[field]) is type(wrong):
                continue
            path.write_text(json.dumps(whole | {field: wrong}))
            with pytest.raises(ValueError, match=r"passport|format"):
                passport.read_passport(path)

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "checkpoint/../../x"])
    def test_a_name_that_leads_out_of_the_version_is_refused(self, store: Path, tmp_path: Path, name: str) -> None:
        whole = json.loads((store / "passport.json").read_bytes())
        whole["artifacts"][name] = "0" * 64
        (tmp_path / "passport.json").write_text(json.dumps(whole))
        with pytest.raises(ValueError, match="leads out of the version"):
            passport.read_passport(tmp_path / "passport.json")

    def test_a_pipe_or_a_link_is_no_passport_and_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text("{}")
        for name in ("pipe", "link"):
            with pytest.raises(ValueError, match="is not a regular file"):
                passport.read_passport(tmp_path / name)


def test_a_passport_carries_recall_and_damage_and_older_ones_have_neither() -> None:
    digest = "0" * 64
    figures = {"recall": [{"name": "NAME", "half": "all", "share": 0.98, "low": 0.9, "high": 1.0}]}
    figures["damage"] = [{"name": "value", "spans": 9, "share": 0.002, "low": 0.0, "high": 0.01}]
    figures["entity_model_damage"] = [{"name": "drug", "spans": 9, "share": 0.003, "low": 0.0, "high": 0.01}]
    document = passport.passport(
        version={"name": "m", "number": 1, "made": "now"},
        records={},
        trees={},
        runs=[],
        code={},
        gates={},
        decision={"verdict": "first", "reasons": [], "table": []},
        corpus=[],
        deidentification=figures,
        annotation=None,
    ) | {"artifacts": {"params.yaml": digest}, "alternatives": {}}
    document["trees"] = {tree: {"dvc": "", "files": {"": digest}} for tree in (passport.CHECKPOINT, passport.EVALUATION)}
    read = passport.parse_passport(json.dumps(document).encode(), "a passport")
    assert deidentification_of(read) == ["recall: NAME 0.980", "damage: value 0.002", "entity model damage: drug 0.003"]
    older = {name: value for name, value in document.items() if name != "deidentification"}
    assert deidentification_of(passport.parse_passport(json.dumps(older).encode(), "an older one")) == []
    document["deidentification"] = {"recall": [{"name": "NAME", "share": "high"}]}
    with pytest.raises(ValueError, match=r"deidentification\.recall\.0\.share"):
        passport.parse_passport(json.dumps(document).encode(), "a passport")


class TestPyfunc:
    """What MLflow loads from a version."""

    @pytest.mark.slow
    def test_loading_writes_nothing_into_a_version(self, here: Project, store: Path) -> None:
        before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
        for which in (f"models:/{NAME}/1", f"models:/{NAME}@champion"):
            assert load_from_mlflow(here, which).returncode == 0
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
        assert not differing()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["code/model/llama.py", "tokenizer.json", "model.safetensors"])
    def test_what_was_changed_is_not_loaded(self, here: Project, store: Path, name: str) -> None:
        flip(store / "checkpoint" / name)
        result = load_from_mlflow(here)
        assert result.returncode and name.rpartition("/")[2] in result.stderr

    @pytest.mark.slow
    def test_compiled_code_that_was_put_there_does_not_run(self, here: Project, store: Path, tmp_path: Path) -> None:
        import py_compile

        source, ran = tmp_path / "llama.py", tmp_path / "ran"
        source.write_text(f"open({str(ran)!r}, 'w')\n" + (store / "checkpoint/code/model/llama.py").read_text())
        pycache = store / "checkpoint/code/model/__pycache__"
        pycache.unlink()
        # Compiled code that says it need not be compared with its source.
        py_compile.compile(
            str(source), cfile=str(pycache / "llama.cpython-311.pyc"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        result = load_from_mlflow(here)
        assert result.returncode and "__pycache__" in result.stderr and not ran.exists()
