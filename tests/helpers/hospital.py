"""A hospital's FHIR Bulk export, made by a simulator out of a pinned wheel: its resources, its notes, the vital signs in both.

It reads the export with the standard library alone, to check what the project's readers and rules make of it.
"""

import base64
import contextlib
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from helpers.project import ROOT
from tasks.corpus import simulated_hospital

NOTES = ("ClinicalImpression", "Composition", "DiagnosticReport", "DocumentReference")
Json = dict[str, Any]
Place = tuple[str, int]  # file and line


def simulate(folder: Path, population: int) -> Path:
    """Simulate a year of a hospital with so many people around it; the folder of its export."""
    with contextlib.chdir(ROOT):  # where the downloads are kept
        simulated_hospital.simulate([simulated_hospital.Hospital("hospital", seed=7, population=population)], folder.resolve())
    return folder / "hospital"


def resources(export: Path, *types: str) -> Iterator[tuple[Place, Json]]:
    """All resources of these types."""
    for type_ in types:
        for path in sorted(export.glob(f"{type_}.*ndjson")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield (path.name, number), json.loads(line)


@dataclass(frozen=True)
class Note:
    """The texts of a resource, one below the other, with references to its patient and encounter."""

    text: str
    patient: str
    encounter: str


def notes(export: Path) -> dict[Place, Note]:
    """All resources of an export that hold a text."""
    result = {}
    for place, resource in resources(export, *NOTES):
        if text := "\n\n".join(part for part in _texts(resource) if part.strip()):
            encounter: Json = resource.get("encounter") or next(iter(resource.get("context", {}).get("encounter", [])), {})
            result[place] = Note(text, resource["subject"]["reference"], encounter.get("reference", ""))
    return result


def _texts(resource: Json) -> Iterator[str]:
    attachments = [*(content["attachment"] for content in resource.get("content", [])), *resource.get("presentedForm", [])]
    yield from (base64.b64decode(attachment["data"]).decode() for attachment in attachments)
    if resource["resourceType"] != "DocumentReference":
        yield from (resource.get(key, "") for key in ("conclusion", "description", "summary"))
    for section in resource.get("section", []):
        yield section["title"] + "\n" + html.unescape(re.sub(r"<[^>]*>", " ", section["text"]["div"]))


def texts_by_place(documents: Iterable[Json]) -> dict[Place, str]:
    """The texts of notes by the line of the raw file that they come from; those of the parts of a long note as one."""
    parts = defaultdict(list)
    for document in documents:
        position = re.match(r"line (\d+)", document["position"])
        assert position
        parts[Path(document["source"]).name, int(position[1])].append(document["answer"])
    return {place: "\n".join(texts) for place, texts in parts.items()}


# Labels in the notes by LOINC code of the Observation.
_VITALS = {"8867-4": "HR", "9279-1": "RR", "2708-6": "SpO2", "8310-5": "T", "29463-7": "Weight", "8302-2": "Height", "39156-5": "BMI"}
_SYSTOLIC, _DIASTOLIC = "8480-6", "8462-4"
_STATED = re.compile(rf"\b(BP \d{{2,3}}/\d{{2,3}}|(?:{'|'.join(_VITALS.values())}) \d{{1,3}}(?:\.\d+)?)(?!\d|\.\d)")


def stated_vitals(text: str) -> Counter[str]:
    """The vital signs that a text states, as it writes them: ``BP 120/80``, ``T 37.2``."""
    return Counter(match[1] for match in _STATED.finditer(text))


def observed_vitals(export: Path) -> dict[str, set[str]]:
    """The vital signs of the Observations of each encounter, as notes write them."""
    observed = defaultdict[str, set[str]](set)
    for _, resource in resources(export, "Observation"):
        values = {_code(part): part.get("valueQuantity", {}).get("value") for part in (resource, *resource.get("component", []))}
        forms = {f"{label} {form}" for code, label in _VITALS.items() for form in _written(values.get(code))}
        forms |= {f"BP {high}/{low}" for high, low in product(_written(values.get(_SYSTOLIC)), _written(values.get(_DIASTOLIC)))}
        observed[resource.get("encounter", {}).get("reference", "")] |= forms
    return observed


def _code(observation: Json) -> str:
    return str(observation["code"]["coding"][0]["code"])


def _written(value: float | None) -> set[str]:
    return set() if value is None else {f"{value}", f"{value:.0f}", f"{value:.1f}"}


def add_letters(export: Path) -> int:
    """Add to an export a letter about each patient, with all that the export knows of the patient; how many."""
    patients = [patient for _, patient in resources(export, "Patient")]
    with open(export / "DocumentReference.letters.ndjson", "w", encoding="utf-8") as file:
        for number, patient in enumerate(patients):
            attachment = {"contentType": "text/plain", "data": base64.b64encode(_letter(patient, number).encode()).decode()}
            letter: Json = {"resourceType": "DocumentReference", "id": f"letter-{number}", "status": "current"}
            letter |= {"subject": {"reference": f"Patient/{patient['id']}"}, "content": [{"attachment": attachment}]}
            file.write(json.dumps(letter) + "\n")
    return len(patients)


def _letter(patient: Json, number: int) -> str:
    given, family = patient["name"][0]["given"][0], patient["name"][0]["family"]
    address, born = patient["address"][0], date.fromisoformat(patient["birthDate"])
    contacts = [contact["name"]["text"] for contact in patient.get("contact", [])]
    lines = [
        f"Patient: {family}, {given}   MRN: {patient['identifier'][0]['value']}   DOB: {born:%m/%d/%Y}",
        f"{address['line'][0]}, {address['city']}, {address['state']} {address['postalCode']}",
        *(f"Phone: {telecom['value']}" for telecom in patient.get("telecom", [])),
        "",
        f"DEAR COLLEAGUE,\n{given} {family.upper()} (born {born:%B} {born.day}, {born.year}) was seen in clinic.",
        f"BP {110 + number % 60}/{70 + number % 10} mmHg, HR {60 + number % 40} bpm. We shall see {given} again.",
        *(f"We spoke to {contact}." for contact in contacts),
    ]
    return "\n".join(lines) + "\n"
