"""What the raw files hold of a patient: ids and places of the records, and the files that name the patient; never text.

A patient is known by a number: that of the column ``group``, of a FHIR Patient or its identifiers, of HL7's PID-3, of a clinical document.
"""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.corpus.byte_search import holds, of_words
from tasks.corpus.cleaning.clean import read_corpus
from tasks.corpus.cleaning.known_people import read_known
from tasks.corpus.documents import SPLITS, content_id, read_lines
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.fhir_resources import folder_of
from tasks.corpus.readers.files import raw_files
from tasks.corpus.readers.source_index import FILE_NAME, SourceIndex

WORK = Path(".cache/patient")  # holds raw text and names of people, so it goes when the records are known
NUMBERS = frozenset({"MRN", "SSN", "PLAN", "ACCOUNT", "OTHER"})  # types of identifiers that are one patient's
NOT_PATIENTS = ("topic", "question", "record")  # kinds of groups


@dataclass(frozen=True)
class PatientRecords:
    """What the raw files hold of some patients."""

    records: dict[str, tuple[str, str]]  # by id: the raw file and the position in it
    files: tuple[str, ...]  # raw files with such records, or with a number of the patient
    numbers: tuple[str, ...]  # by which the files know the patient, those that were given among them


def patient_records(data: Path, params: PreprocessParams, patients: Collection[str]) -> PatientRecords:
    """Read the raw files as preprocess does, and look for the patients with these numbers. ``ValueError`` as a run refuses to read."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True, mode=0o700)
    try:
        read_corpus(data.absolute(), WORK.absolute(), params)
        return _records(data, set(patients))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


def _records(data: Path, patients: set[str]) -> PatientRecords:
    names = raw_files(data)
    groups = set(_fhir_groups(names, patients))
    groups |= {p.group for p in read_known(WORK) if p.group and any(t in NUMBERS and v in patients for t, v in p.identifiers)}
    numbers, records = set(patients), dict[str, tuple[str, str]]()
    for person in read_known(WORK):
        if _is_of(person.group, groups, patients):
            numbers |= {value for type_, value in person.identifiers if type_ in NUMBERS}
    for path in sorted((WORK / "raw").glob("*/*.jsonl")):
        records |= {d.id: (d.source, d.position) for d in read_lines(path) if _is_of(d.group, groups, patients)}
    matches, sources = of_words(numbers), {source for source, _ in records.values()}
    files = [name for name in names if any(_is_in(source, name) for source in sources) or holds(data / name, matches)]
    return PatientRecords(records, tuple(files), tuple(sorted(numbers)))


def _is_in(source: str, name: str) -> bool:
    """Whether a record comes from a raw file, or from a file in it."""
    return source == name or source.startswith(f"{name}/")


def _is_of(group: str, groups: set[str], patients: set[str]) -> bool:
    """Whether a group is a patient's; groups of files with a split of their own begin with it."""
    role, _, rest = group.partition(":")
    group = rest if role in SPLITS and rest else group
    kind, _, number = group.partition(":")
    return group in groups or group in patients or (kind not in NOT_PATIENTS and number in patients)


def _fhir_groups(names: list[str], patients: set[str]) -> Iterator[str]:
    """The groups of FHIR's patients with these ids, whatever folder of ``data`` they are in."""
    folders = {folder_of(name) for name in names} | {str(PurePosixPath(name).parent) for name in names}
    with SourceIndex(WORK / FILE_NAME) as index:
        for folder in sorted(folders):
            yield from (f"patient:{content_id('patient', f'{folder}{chr(31)}{index.root(folder, id_)}')}" for id_ in sorted(patients))
