"""Which records a patient's number leads to, whatever the format of the raw files."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import fhir
from helpers.project import ROOT

from tasks.corpus import byte_search
from tasks.corpus.params import PreprocessParams
from tasks.corpus.patients import PatientRecords, patient_records
from tasks.runtime.params import read_section

HL7 = (
    "MSH|^~\\&|LAB|HOSP|EHR|HOSP|20260101||ORU^R01|1|P|2.5\rPID|1||{0}^^^A^MR||Doe{0}^Jane\rOBR|1\r"
    "OBX|1|TX|R^Report||Coughs since day {0}.||||||F\r"
)


def find(data: Path, monkeypatch: pytest.MonkeyPatch, *numbers: str, **files: object) -> PatientRecords:
    monkeypatch.chdir(data.parent)
    section = read_section("preprocess", PreprocessParams, ROOT / "params.yaml").model_dump(mode="json")
    section |= {"files": files, "ood": ("other/*",) if (data / "other").exists() else (), "tasks": (), "shares": ()}
    params = PreprocessParams.model_validate_json(json.dumps(section))
    result = patient_records(data, params, numbers)
    assert not (data.parent / ".cache" / "patient").exists()
    return result


def write_table(path: Path, *rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["group,text", *rows]) + "\n")


def test_a_group_of_a_table_is_a_patient_in_each_split_of_files(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(data / "notes.csv", "17,Coughs at night.", "170,Sneezes all day.", "17,Fever on Monday.")
    write_table(data / "other" / "notes.csv", "17,Walks with a cane.")
    write_table(data / "more.csv", "5,Nothing to see.")
    actual = find(data, monkeypatch, "17")
    places = [("notes.csv", "line 2"), ("notes.csv", "line 4"), ("other/notes.csv", "line 2")]
    assert sorted(actual.records.values()) == places and actual.files == ("notes.csv", "other/notes.csv")
    assert actual.numbers == ("17",)
    assert not find(data, monkeypatch, "18").files


def test_a_number_in_a_table_of_people_leads_to_notes_of_their_group(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(data / "notes.csv", "17,Coughs at night.", "18,Sneezes all day.")
    (data / "patients.csv").write_text("PatID,Number\n17,MRN0048213\n18,MRN0048214\n")
    people = {"columns": {"group": "PatID"}, "patient": {"MRN": "Number"}}
    actual = find(data, monkeypatch, "MRN0048213", **{"patients.csv": people})
    assert list(actual.records.values()) == [("notes.csv", "line 2")]
    # notes.csv as it has a record; patients.csv as it has the number.
    assert actual.files == ("notes.csv", "patients.csv")


def test_fhir_and_hl7_know_a_patient_by_id_and_by_number(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def patient(id_: str) -> dict[str, object]:
        type_ = {"coding": [{"code": "MR"}]}
        return {"resourceType": "Patient", "id": id_, "identifier": [{"type": type_, "system": "urn:x", "value": f"MRN-{id_}"}]}

    fhir.write(data, "site/Patient.ndjson", patient("pat-1"), patient("pat-2"))
    fhir.write(data, "site/Notes.ndjson.gz", fhir.note("Coughs.", patient="Patient/pat-1"), fhir.note("Sneezes.", patient="Patient/pat-2"))
    observation = {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/pat-1"}}
    fhir.write(data, "site/Observation.ndjson", observation)
    for number in ("7001", "7002"):
        (data / f"{number}.hl7").write_text(HL7.format(number))
    for given in ("pat-1", "MRN-pat-1"):
        actual = find(data, monkeypatch, given)
        assert [source for source, _ in actual.records.values()] == ["site/Notes.ndjson.gz"]
        assert {"site/Notes.ndjson.gz", "site/Patient.ndjson"} <= set(actual.files)
    assert "site/Observation.ndjson" in find(data, monkeypatch, "pat-1").files  # no note, and yet the patient's
    actual = find(data, monkeypatch, "7001")
    assert [source for source, _ in actual.records.values()] == ["7001.hl7"] and actual.files == ("7001.hl7",)


class TestByteSearch:
    ID = "0123456789abcdef01234567"

    @pytest.mark.parametrize("kind", ["plain", "gzip", "zip", "tar", "parquet", "UTF-16"])
    def test_words_are_read_in_packed_files_too(self, tmp_path: Path, kind: str) -> None:
        def written(text: str) -> Path:
            path = tmp_path / kind
            path.unlink(missing_ok=True)
            content = (" " * 5_000_000 + text).encode()
            match kind:
                case "gzip":
                    path.write_bytes(gzip.compress(content))
                case "zip":
                    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                        archive.writestr("member", content)
                case "tar":
                    with tarfile.open(path, "w:xz") as packed:
                        entry = tarfile.TarInfo("member")
                        entry.size = len(content)
                        packed.addfile(entry, io.BytesIO(content))
                case "parquet":
                    pyarrow.parquet.write_table(pa.table({"a": [text, "b"]}), path, compression="zstd")
                case "UTF-16":
                    path.write_bytes(text.encode("utf-16"))
                case _:
                    path.write_bytes(content)
            return path

        matches = byte_search.of_words(["MRN-17", "x.y"])
        assert byte_search.holds(written("of MRN-17, seen"), matches)
        assert not byte_search.holds(written("of MRN_17, seen by xzy"), matches)
        if kind != "UTF-16":  # where a number within another one counts
            assert not byte_search.holds(written("of MRN-170, seen"), matches)
            assert byte_search.holds(written(f'"{self.ID}"'), byte_search.of_ids([self.ID]))
            assert not byte_search.holds(written(f"{self.ID}89"), byte_search.of_ids([self.ID]))

    @pytest.mark.parametrize("cut", [0, 3, 60, 200])
    def test_a_damaged_archive_is_searched_as_far_as_it_can_be_read(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "damaged"
        path.write_bytes(gzip.compress(b"MRN-17" + bytes(range(256)) * 40)[:cut])
        assert not byte_search.holds(path, byte_search.of_words(["absent"]))

    def test_a_word_on_the_border_of_two_blocks_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "long"
        path.write_bytes(b" " * (byte_search.BLOCK - 3) + b"MRN-17 ")
        assert byte_search.holds(path, byte_search.of_words(["MRN-17"]))

    def test_of_nothing_nothing_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("text")
        assert not byte_search.holds(tmp_path / "a", byte_search.of_words([""]))
        assert not byte_search.holds(tmp_path / "a", byte_search.of_ids([]))
