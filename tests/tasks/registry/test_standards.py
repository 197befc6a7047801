"""What a version says in the formats of others, checked by those formats' own tools."""

import base64
import json
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from helpers.project import ROOT, Project, key_pair
from helpers.versions import artifacts_of
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from tasks.registry.lineage.signature import private_key
from tasks.registry.standards.bom import project_bom
from tasks.registry.standards.files import BOM, CROISSANT, PROVENANCE
from tasks.runtime.digests import sha256

pytestmark = pytest.mark.slow
Json = dict[str, Any]


@pytest.fixture(scope="module")
def version(finished: Project) -> Path:
    return artifacts_of(finished)


def read(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


class TestBillOfMaterials:
    def test_cyclonedx_accepts_it_and_no_broken_one(self, version: Path) -> None:
        validator = JsonStrictValidator(SchemaVersion.V1_6)
        text = (version / "standards" / BOM).read_text(encoding="utf-8")
        assert validator.validate_str(text) is None
        assert validator.validate_str(text.replace('"machine-learning-model"', '"machine-learning-modem"', 1))

    def test_that_of_the_project_lists_its_lock_files(self) -> None:
        lock, torch = ((ROOT / f"{name}.lock").read_text(encoding="utf-8") for name in ("requirements", "torch"))
        whole = {component["name"] for component in project_bom(f"{lock}\n{torch}")["components"]}
        bom = project_bom(lock)
        assert whole - {component["name"] for component in bom["components"]} >= {"torch", "triton"}
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
        assert len(bom["components"]) == len(re.findall(r"^[A-Za-z0-9]", lock, re.M)) > 200
        assert sum(len(component["hashes"]) for component in bom["components"]) == lock.count("--hash=")

    def test_it_names_what_the_version_is_made_of(self, version: Path) -> None:
        bom, passport = read(version / "standards" / BOM), read(version / "passport.json")
        model = bom["metadata"]["component"]
        assert [entry["content"] for entry in model["hashes"]] == [sha256(version / "checkpoint" / "model.safetensors")]
        by_kind = {kind: [c for c in bom["components"] if c["type"] == kind] for kind in ("data", "library", "machine-learning-model")}
        raw = passport["trees"]["data"]["files"]
        assert {c["data"][0]["name"]: c["hashes"][0]["content"] for c in by_kind["data"]} == raw and raw
        torch = next(c for c in by_kind["library"] if c["name"] == "numpy")
        assert f"numpy=={torch['version']}" in (version / "requirements.lock").read_text() and torch["hashes"]
        (base,) = by_kind["machine-learning-model"]
        assert base["hashes"][0]["content"] == passport["trees"]["artifacts/base"]["files"]["model.safetensors"]
        metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        rows = passport["decision"]["table"]
        assert len(metrics) == 3 * len(rows) > 0
        assert metrics[1]["value"] == str(rows[0]["tuned"]["value"])
        assert metrics[1]["confidenceInterval"] == {"lowerBound": str(rows[0]["tuned"]["low"]), "upperBound": str(rows[0]["tuned"]["high"])}


class TestProvenance:
    def statements(self, path: Path) -> list[Json]:
        envelopes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [json.loads(base64.b64decode(envelope["payload"])) for envelope in envelopes]

    def test_in_toto_accepts_every_statement(self, version: Path) -> None:
        statements = self.statements(version / "standards" / PROVENANCE)
        assert [s["predicate"]["buildDefinition"]["buildType"].split(":")[3] for s in statements[:-1]] == list(
            dict(sorted(read(version / "passport.json")["stages"].items(), key=lambda item: str(item[1]["started"])))
        )
        for statement in statements:
            parsed = Statement([], "", {})
            json_format.ParseDict(statement, parsed.pb)
            parsed.validate()
            json_format.ParseDict(statement["predicate"], Provenance())  # refuses fields that SLSA does not have

    def test_what_a_stage_made_is_what_the_next_one_took(self, version: Path) -> None:
        statements = self.statements(version / "standards" / PROVENANCE)
        subjects = {(s["name"], s["digest"].get("sha256")) for statement in statements for s in statement["subject"]}
        materials = {
            (m["name"], m["digest"].get("sha256"))
            for statement in statements
            for m in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        }
        made = {entry for entry in materials if entry[0].startswith("artifacts/")}
        assert made and made <= subjects
        assert ("data/conditions.csv", read(version / "passport.json")["trees"]["data"]["files"]["conditions.csv"]) in materials
        assert ("checkpoint/model.safetensors", sha256(version / "checkpoint" / "model.safetensors")) in subjects

    @pytest.mark.parametrize("kind", ["EC", "ed25519"])
    def test_signed_envelopes_are_verified_by_another_library(self, finished: Project, tmp_path: Path, kind: str) -> None:
        private, public = key_pair(tmp_path, kind=kind)
        (tmp_path / "other").mkdir()
        ours, theirs = (load_pem_public_key(path.read_bytes()) for path in (public, key_pair(tmp_path / "other", kind=kind)[1]))
        command = ("env", f"PASSPORT_KEY={private}", sys.executable, "-m", "tasks.registry", "standards", "champion", str(tmp_path / "out"))
        finished.run(*command)
        assert read(tmp_path / "out" / BOM) == read(artifacts_of(finished) / "standards" / BOM)
        for line in (tmp_path / "out" / PROVENANCE).read_text(encoding="utf-8").splitlines():
            envelope = Envelope.from_dict(json.loads(line) | {"signatures": [json.loads(line)["signatures"][0] | {"keyid": "k"}]})
            envelope.verify([SSlibKey.from_crypto(ours, "k")], 1)
            with pytest.raises(VerificationError):
                envelope.verify([SSlibKey.from_crypto(theirs, "k")], 1)
            envelope.payload = envelope.payload.replace(b"artifacts", b"artifactz", 1)
            with pytest.raises(VerificationError):
                envelope.verify([SSlibKey.from_crypto(ours, "k")], 1)
        assert private_key(private)


class TestCroissant:
    def test_mlcroissant_accepts_it_and_reads_the_documents_with_their_places(self, finished: Project, tmp_path: Path) -> None:
        project = Path(shutil.copytree(finished.path, tmp_path / "project", symlinks=False))
        metadata = project / CROISSANT
        shutil.copyfile(artifacts_of(finished) / "standards" / CROISSANT, metadata)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlcroissant  # its dependencies warn of themselves
        dataset = mlcroissant.Dataset(str(metadata))
        assert not dataset.metadata.issues.errors
        documents = [json.loads(line) for line in (project / "artifacts/documents/test.jsonl").read_text().splitlines()]
        records = [{name.split("/")[1]: value.decode() for name, value in r.items()} for r in dataset.records("test")]
        assert records == [{name: document[name] for name in records[0]} for document in documents] and records
        assert {"source", "position"} <= records[0].keys()
        broken = read(metadata)
        broken["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "nowhere"
        metadata.write_text(json.dumps(broken))
        with pytest.raises(mlcroissant.ValidationError):
            mlcroissant.Dataset(str(metadata))

    def test_it_has_the_digest_of_every_file(self, finished: Project) -> None:
        files = read(artifacts_of(finished) / "standards" / CROISSANT)["distribution"]
        assert {"data/conditions.csv", "artifacts/documents/train.jsonl"} <= {file["@id"] for file in files}
        for file in files:
            assert file["sha256"] == sha256(finished.path / file["contentUrl"])


def test_no_standard_says_what_a_record_says(finished: Project, version: Path) -> None:
    documents = [json.loads(line) for line in (finished.path / "artifacts/documents/train.jsonl").read_text().splitlines()]
    texts = [(version / "standards" / name).read_text(encoding="utf-8") for name in (BOM, CROISSANT)]
    texts += [json.dumps(s) for s in TestProvenance().statements(version / "standards" / PROVENANCE)]
    assert not [document["id"] for document in documents if any(document["answer"] in text for text in texts)]
