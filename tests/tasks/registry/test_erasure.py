"""A patient is erased, and a certificate says so.

Everything is searched for what it says was removed, by other means than the pipeline's.
"""

import argparse
import base64
import csv
import gzip
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.project import Project, commit, key_pair
from helpers.versions import flip
from mlflow import MlflowClient
from tokenizers import Tokenizer

from tasks.corpus.shards.format import HEADER, MAGIC
from tasks.registry import command
from tasks.registry.lineage.signature import open_signer, public_key
from tasks.registry.upkeep import certificate, report
from tasks.registry.upkeep.case import Case, read_case
from tasks.registry.upkeep.traces import Trace

PATIENT, MRN, NAME = "P-7731", "MRN0048213", "Quillfeather"
# Words that nothing else has and that de-identification keeps, one for each note of the patient.
WORDS = ("glimmerfin", "tarnwickle", "ostrevale")


def write_notes(data: Path, *, erased: bool) -> None:
    notes = [(f"P-{n}", f"Follow-up visit {n} for cough and fever, better on day {n} of treatment.", "train") for n in range(100, 130)]
    patients = [(f"P-{n}", "Ann", f"Brownlee{n}", f"MRN00{n}") for n in range(100, 130)]
    if not erased:
        notes += [(PATIENT, f"Seen for {word} of the left knee, swelling on day {n}.", "train") for n, word in enumerate(WORDS)]
        patients.append((PATIENT, "Wilhelmina", NAME, MRN))
    for name, header, rows in (("notes", ("PatID", "Note", "Part"), notes), ("patients", ("PatID", "First", "Last", "Number"), patients)):
        with open(data / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


@pytest.fixture
def hospital(project: Project) -> Project:
    """A project with a version that saw the patient, pushed to a remote, with copies that people made."""
    write_notes(project.path / "data", erased=False)
    columns = {"text": "Note", "group": "PatID", "split": "Part"}
    people = {"columns": {"group": "PatID"}, "patient": {"NAME": ["First", "Last"], "MRN": "Number"}}
    project.set_params("preprocess", files={"notes.csv": {"columns": columns}, "patients.csv": people})
    project.set_params("finetune", steps=100, warmup=5, validate_every=50, checkpoint_every=50)  # comes to all records
    project.environment["PASSPORT_KEY"] = str(key_pair(project.path.parent)[0])
    project.run("dvc", "remote", "add", "backup", str(project.path.parent / "backup"))
    project.run("dvc", "add", "--quiet", "data")
    commit(project, "With the patient")
    project.run("dvc", "repro")
    commit(project, "The first version")
    project.run("dvc", "push", "--remote", "backup")
    shutil.copytree(project.path / "artifacts" / "model", project.path / "exported")
    with zipfile.ZipFile(project.path / "documents.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(project.path / "artifacts" / "documents" / "train.jsonl", "train.jsonl")
    return project


def contents(path: Path, tokenizer: Tokenizer) -> Iterator[bytes]:
    """All that a file says: as it is, unpacked, and decoded where it has tokens."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for name, member in members.items():
            yield member
            if name.endswith(".npy") and (array := np.load(io.BytesIO(member), allow_pickle=False)).dtype.kind in "iu":
                yield tokenizer.decode([int(token) for token in array.ravel() if 0 <= token < 400]).encode()
    if len(raw) > 4 * HEADER and int.from_bytes(raw[:4], "little") == MAGIC:
        yield tokenizer.decode(np.frombuffer(raw, np.uint32, offset=4 * HEADER).tolist()).encode()


def holding(project: Project, words: tuple[str, ...]) -> set[str]:
    """Every file of the project and of its remote that holds one of the words, and git's objects."""
    tokenizer = Tokenizer.from_file(str(project.path.parent / "base-tokenizer.json"))
    needles = [word.encode() for word in words]
    files = {p for folder in (project.path, project.path.parent / "backup") for p in folder.rglob("*") if p.is_file()}
    with_words = {p for p in files if any(needle in content for content in contents(p, tokenizer) for needle in needles)}
    history = ["git", "cat-file", "--batch-all-objects", "--batch"]
    objects = subprocess.run(history, cwd=project.path, capture_output=True, check=True).stdout
    with_git = {"git"} if any(needle in objects for needle in needles) else set()
    return {p.relative_to(project.path.parent).as_posix() for p in with_words} | with_git


@pytest.mark.system
def test_a_patient_is_erased_and_the_certificate_says_what_is_so(hospital: Project) -> None:
    folder = hospital.path.parent
    shutil.copy(hospital.path / "artifacts" / "base" / "tokenizer.json", folder / "base-tokenizer.json")
    before = holding(hospital, (*WORDS, NAME, MRN))
    for kind in ("data/notes.csv", "artifacts/documents/train.jsonl", "artifacts/shards/train_00000.bin", "documents.zip"):
        assert f"project/{kind}" in before
    assert any(name.startswith("project/.cache/tokens/") for name in before)
    assert sum(name.startswith("project/.dvc/cache/") for name in before) >= 4  # both raw files, documents, shards
    assert sum(name.startswith("backup/") for name in before) >= 4

    numbers, case_file, certificate_file = folder / "numbers.txt", folder / "case.json", hospital.path / "certificate.json"
    numbers.write_text(f"{PATIENT}\n")
    output = hospital.run("python", "-m", "tasks.registry", "patient", str(numbers), str(case_file)).stdout
    assert "3 records in 2 raw files" in output and PATIENT not in output and case_file.stat().st_mode & 0o777 == 0o600
    case = read_case(case_file)
    assert set(case.numbers) == {PATIENT, MRN} and case.files == ["notes.csv", "patients.csv"] and len(case.records) == 3
    forget = ("python", "-m", "tasks.registry", "forget", "--case", str(case_file), "--certificate", "certificate.json")
    early = hospital.run(*forget, check=False)
    assert early.returncode == 1 and "run 'dvc repro' first" in early.stdout and holding(hospital, WORDS) <= before

    write_notes(hospital.path / "data", erased=True)
    hospital.run("dvc", "add", "--quiet", "data")
    tokens = shutil.copytree(hospital.path / ".cache" / "tokens", folder / "tokens")
    hospital.run("dvc", "repro")
    shutil.copytree(tokens, hospital.path / ".cache" / "tokens", dirs_exist_ok=True)  # as where shard did not tidy up
    shutil.rmtree(tokens)
    output = hospital.run(*forget, "--remote", "backup", "--by", "An officer").stdout
    assert not any(word in output for word in (*WORDS, NAME, MRN, PATIENT))

    # The text is nowhere but where the certificate says.
    said = certificate.verify(certificate_file, public_key(folder / "key.pub"))
    remaining = {name for entry in said["remains"] for name in entry["names"]}
    after = holding(hospital, (*WORDS, NAME, MRN))
    assert after == {"project/documents.zip"}
    assert case.alias("documents.zip") in remaining and case.alias("exported/model.safetensors") in remaining
    # Nor are the ids.
    named = {name.removeprefix("project/") for name in holding(hospital, tuple(case.records))}
    assert all(case.alias(name) in remaining for name in named), named
    removed = {entry["where"] for entry in said["removed"]}
    assert {"DVC's cache", "DVC's run cache", "DVC's remote backup", ".cache/train"} <= removed and removed & {".cache", ".cache/tokens"}
    assert [(v["number"], v["records"]) for v in said["versions"]] == [(1, {"trained": 3})] and said["versions"][0]["tainted"]
    assert said["by"] == "An officer" and len(said["records"]) == 3

    # It tells nothing of the patient to somebody who does not have the case.
    payload = base64.b64decode(json.loads(certificate_file.read_bytes())["payload"]).decode()
    assert not any(word in payload for word in (*WORDS, NAME, MRN, PATIENT, "notes.csv", *case.records))
    shown = hospital.run(
        "python", "-m", "tasks.registry", "certificate", "certificate.json", "--public-key", "../key.pub", "--case", str(case_file)
    ).stdout
    assert "3 records" in shown and "version  medical-llm 1: saw 3 withdrawn records" in shown and "documents.zip" not in shown
    client = MlflowClient(tracking_uri=f"sqlite:///{hospital.path / 'mlflow.db'}")
    assert '"verb": "erase"' in "".join(client.get_registered_model("medical-llm").tags.values())
    assert "each follows the one before" in hospital.run("python", "-m", "tasks.registry", "audit", "verify").stdout
    flip(certificate_file)
    shown_again = hospital.run(
        "python", "-m", "tasks.registry", "certificate", "certificate.json", "--public-key", "../key.pub", check=False
    )
    assert shown_again.returncode == 1 and "or it was changed" in shown_again.stdout
    # What the present pipeline needs is whole.
    assert hospital.ran(hospital.run("dvc", "repro").stdout) == ["register"]


def a_case() -> Case:
    records = {"0123456789abcdef01234567": ["notes.csv", "line 3"]}
    return Case(patients=[PATIENT], numbers=[PATIENT], salt="ab" * 32, records=records, files=["notes.csv"])


@pytest.mark.parametrize("kind", ["EC", "ed25519"])
def test_a_certificate_with_any_byte_flipped_or_of_another_key_is_refused(tmp_path: Path, kind: str) -> None:
    private, public = key_pair(tmp_path, kind=kind)
    path, case = tmp_path / "certificate.json", a_case()
    removed = certificate.grouped([Trace("DVC's cache", "d1"), Trace("DVC's cache", "d2"), Trace("data", "notes.csv", "raw")], case)
    assert [(entry["where"], entry["count"], entry.get("why")) for entry in removed] == [("DVC's cache", 2, None), ("data", 1, "raw")]
    certificate.write(path, {"records": [case.alias("a")], "removed": removed}, open_signer(str(private)))
    key = public_key(public)
    assert certificate.verify(path, key)["removed"] == removed
    whole = path.read_bytes()
    for index in range(len(whole)):
        for bit in (1, 32, 128):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ bit]) + whole[index + 1 :])
            with pytest.raises(ValueError, match="no certificate of an erasure"):
                certificate.verify(path, key)
    for other in (whole + b"\n", whole[:-1], whole.replace(b",", b", ", 1), b"", b"[]"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="no certificate of an erasure"):
            certificate.verify(path, key)
    path.write_bytes(whole)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="no certificate of an erasure"):
        certificate.verify(path, public_key(key_pair(tmp_path / "other", kind=kind)[1]))


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_forget_options(parser)
    return parser.parse_args(arguments)


def test_what_is_missing_is_said_before_anything_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PASSPORT_KEY", raising=False)
    for arguments in (["--case", "case.json"], ["--certificate", "new"], ["--case", "case.json", "--certificate", "new", "an-id"]):
        with pytest.raises(ValueError, match="belong together"):
            report.forget(options(*arguments))
    (tmp_path / "case.json").write_text('{"patients": ["P-7731"]}')
    with pytest.raises(ValueError, match="holds no case") as refusal:
        report.forget(options("--case", "case.json", "--certificate", "new"))
    assert PATIENT not in str(refusal.value)
    (tmp_path / "case.json").write_text(a_case().model_dump_json())
    with pytest.raises(ValueError, match="set PASSPORT_KEY"):
        report.forget(options("--case", "case.json", "--certificate", "new"))
    for numbers, path, message in ((" \n", "new", "no number"), (PATIENT, "case.json", "exists")):
        (tmp_path / "numbers").write_text(numbers)
        with pytest.raises(ValueError, match=message):
            report.patient(tmp_path / "numbers", tmp_path / path)
    assert not (tmp_path / "new").exists()


def test_a_certificate_of_another_case_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = key_pair(tmp_path)
    case, other = a_case(), a_case().model_copy(update={"salt": "cd" * 32})
    said = {"issued": "2026-01-01T00:00:00+00:00", "by": "An officer", "removed": [], "remains": [], "versions": [], "not_searched": []}
    certificate.write(tmp_path / "certificate.json", said | {"records": sorted(map(case.alias, case.records))}, open_signer(str(private)))
    for name, of in (("case", case), ("other", other)):
        (tmp_path / name).write_text(of.model_dump_json())
    report.certificate(tmp_path / "certificate.json", public, tmp_path / "case")
    assert "1 records, issued 2026-01-01T00:00:00+00:00 by An officer" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is of another case"):
        report.certificate(tmp_path / "certificate.json", public, tmp_path / "other")
