"""Hospitals that do not exist: FHIR Bulk exports written by the simulator clinosim, out of its pinned wheel.

The same seed gives the same bytes: the simulator draws its numbers with integers and its own functions of them, so that neither the
processor nor the C library counts. Two of its files hold the time of day, which becomes the last day of the simulation, and the commit of
the repository around them, which goes.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.wheels import fetch_wheel

# MIT. What it needs (httpx, mpmath, NumPy, pydantic, PyYAML, SciPy) the environment has too.
CLINOSIM = ("clinosim==0.6.5", "e4fccbeba38a1ed93bd5c1ab3cb1a8e63fe6928760c9005a4c68613ecb5364e7")
_SURROUNDINGS = {"git", "recent_merges"}
_CLOCKS = {"transactionTime", "generated_at", "generation_timestamp"}
_NOTES = ("Composition", "DiagnosticReport", "DocumentReference", "ClinicalImpression")
# How another hospital words the same: its labels, the headings of its sections, the order of its vital signs.
_LABELS = (
    (r"\bBP (\d+/\d+)(?: mmHg)?", r"Blood pressure: \1"),
    (r"\bHR (\d+)(?: ?/min| bpm)?", r"Pulse: \1"),
    (r"\bRR (\d+)(?: ?/min)?", r"Resp rate: \1"),
    (r"\bSpO2 (\d+) ?%", r"O2 sat: \1 %"),
    (r"\bT (\d+\.\d)°C", r"Temp: \1 C"),
    (r"\bNa (\d)", r"Sodium = \1"),
    (r"\bK (\d)", r"Potassium = \1"),
    (r"\bHb (\d)", r"Hemoglobin = \1"),
    (r"\bCRP (\d)", r"C-reactive protein = \1"),
    (r"\bcreatinine (\d)", r"Creatinine = \1"),
    (r"\bContinue current medications:", "Home meds continued -"),
    (r"\bMeds administered:", "Given this shift -"),
    (r"\bToday's prescription:", "Rx today -"),
)
_TITLES = {"Subjective": "HISTORY", "Objective": "FINDINGS", "Assessment": "IMPRESSION", "Plan": "PROCEDURE FROM HERE"}


@dataclass(frozen=True)
class Hospital:
    """A simulated hospital: a year of all stays of the people around it. ``other_layout``: its notes are worded in another way."""

    folder: str
    seed: int
    population: int
    end: str = "2025-06-30"
    other_layout: bool = False


def simulate(hospitals: Sequence[Hospital], directory: Path) -> None:
    """Write the export of each hospital into a folder of the directory, as the simulator writes it, all at the same time.

    ``Unavailable`` where the wheel cannot be had, ``ValueError`` where the simulator fails.
    """
    wheel = fetch_wheel(*CLINOSIM).resolve()
    with tempfile.TemporaryDirectory(dir=directory, prefix=".simulator-") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        with ThreadPoolExecutor() as pool:  # each waits for a process of its own
            list(pool.map(lambda hospital: _simulate(hospital, Path(folder), directory), hospitals))


def _simulate(hospital: Hospital, simulator: Path, directory: Path) -> None:
    output = simulator / f"output-{hospital.folder}"
    options = f"--country US --population {hospital.population} --seed {hospital.seed} --end {hospital.end} --format fhir-r4".split()
    command = [sys.executable, "-m", "clinosim.simulator.cli", "simulate", *options, "--output", output.name]
    environment = os.environ | {"PYTHONPATH": str(simulator.resolve()), "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, env=environment, cwd=simulator, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["without a message"])[-1]
        raise ValueError(f"{CLINOSIM[0]} failed to simulate {hospital.folder}: {last}")
    export = output / "fhir_r4"
    for name in ("manifest.json", "_generator_metadata.json"):
        content = _of_itself(json.loads((export / name).read_bytes()), hospital.end)
        (export / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if hospital.other_layout:
        for kind in _NOTES:
            _reword(export / f"{kind}.ndjson")
    export.rename(directory / hospital.folder)


def _of_itself(value: Any, day: str) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in _SURROUNDINGS}
        return {key: f"{day}T00:00:00Z" if key in _CLOCKS else _of_itself(item, day) for key, item in kept.items()}
    return [_of_itself(item, day) for item in value] if isinstance(value, list) else value


def _reword(path: Path) -> None:
    """Give the texts of the resources of a file the layout of another hospital."""
    lines = [json.dumps(_reworded(json.loads(line)), ensure_ascii=False) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _reworded(resource: dict[str, Any]) -> dict[str, Any]:
    for section in resource.get("section", []):
        section["title"] = _TITLES.get(section["title"], section["title"].upper())
        section["text"]["div"] = _other_words(section["text"]["div"])
    for key in ("conclusion", "description", "summary"):
        if key in resource:
            resource[key] = _other_words(resource[key])
    attachments = [content["attachment"] for content in resource.get("content", [])] + resource.get("presentedForm", [])
    for attachment in attachments:
        text = _other_words(base64.b64decode(attachment["data"]).decode())
        attachment["data"] = base64.b64encode(text.encode()).decode()
        attachment["size"] = len(text.encode())
        attachment.pop("hash", None)
    return resource


def _other_words(text: str) -> str:
    for pattern, words in _LABELS:
        text = re.sub(pattern, words, text)
    return text
