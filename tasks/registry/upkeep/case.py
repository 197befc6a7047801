"""The case of an erasure: whose it is, and what the raw files held when it was opened. It stays with who runs the erasure.

The file holds the patient's number, so its owner alone may read it. Certificates name its records by digests that are salted with the
case, so that they say nothing to anybody who does not have it.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from tasks.corpus.documents import private
from tasks.corpus.params import PreprocessParams
from tasks.corpus.patients import PatientRecords, patient_records
from tasks.runtime.artifacts import RAW
from tasks.runtime.params import Params, read_section


class Case(Params):
    """The content of the file."""

    patients: list[str]  # numbers, as they were given
    numbers: list[str]  # by which raw files know the patients, those that were given among them
    salt: str  # hexadecimal
    records: dict[str, list[str]]  # by id: the raw file and the position in it
    files: list[str]  # raw files with such records, or with a number of the patients

    def alias(self, name: str) -> str:
        """What a certificate says in place of a name: HMAC-SHA256 with the case's salt."""
        return hmac.new(bytes.fromhex(self.salt), name.encode(), hashlib.sha256).hexdigest()


def open_case(numbers: str, path: Path) -> Case:
    """Find what the raw files hold of patients, and write it to a new file that its owner alone may read.

    ``numbers``: a patient's number a line. ``ValueError`` where the raw files know none, or the file is there.
    """
    if os.path.lexists(path):
        raise ValueError(f"{path} exists; give a name that does not")
    patients = sorted({line.strip() for line in numbers.splitlines() if line.strip()})
    if not patients:
        raise ValueError("no number of a patient was given; write one a line")
    actual = present_records(patients)
    if not actual.files:
        raise ValueError("no raw file knows a patient by the number that was given; write it as the files do")
    case = Case(
        patients=patients,
        numbers=list(actual.numbers),
        salt=secrets.token_hex(32),
        records={id_: list(position) for id_, position in actual.records.items()},
        files=list(actual.files),
    )
    with open(path, "x", encoding="utf-8", opener=private) as file:
        json.dump(case.model_dump(), file, indent=1)
    return case


def read_case(path: Path) -> Case:
    """``ValueError`` where a file holds no case; the message quotes nothing of it."""
    try:
        return Case.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ValueError(f"{path} holds no case; 'python -m tasks.registry patient' writes one") from None


def present_records(patients: Collection[str]) -> PatientRecords:
    """What the raw files hold of patients now."""
    return patient_records(RAW, read_section("preprocess", PreprocessParams), patients)
