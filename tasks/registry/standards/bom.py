"""The bill of materials of a version as CycloneDX's ML-BOM: model, base model, data sets, training, scores, packages.

Format: CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/. Facts come from the passport and the lock file.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tasks.evaluation.metrics import METRICS
from tasks.registry.base_terms import BaseTerms
from tasks.registry.lineage.passport import checkpoint_files
from tasks.runtime.artifacts import BASE

Json = dict[str, Any]
SPEC = "1.6"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
LIMITS = (
    "Answers may be invented: the rate of values that the note does not state is among the metrics.",
    "Text of the training data may have been memorized, and bias in it is kept.",
    "No clinician has rated its answers.",
)


def ml_bom(document: Mapping[str, Any], lock: str, terms: BaseTerms) -> Json:
    """The bill of materials. ``lock``: the text of requirements.lock; ``terms``: those of the base model."""
    name, number = document["version"]["name"], str(document["version"]["number"])
    data, packages = list(_data(document)), list(_packages(lock))
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "version": number,
        "description": "A language model fine-tuned on medical text. It is not a medical device.",
        "hashes": _hashes(digest for path, digest in checkpoint_files(document).items() if path.endswith(".safetensors")),
        "modelCard": _model_card(document, [component["bom-ref"] for component in data]),
        "properties": [{"name": "code.commit", "value": str(document["code"].get("commit"))}],
        "pedigree": {"ancestors": [base := _base(document, terms)]},
    }
    contents = "/".join((name, number, *sorted(checkpoint_files(document).values())))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        # The same version has the same number, whenever it is written.
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, contents).urn,
        "version": 1,
        "metadata": {"timestamp": document["version"]["made"], "component": model},
        "components": [{**base, "bom-ref": "base"}, *data, *packages],
        "dependencies": [{"ref": "model", "dependsOn": ["base", *(component["bom-ref"] for component in (*data, *packages))]}],
    }


def project_bom(lock: str) -> Json:
    """The bill of materials of the pipeline itself: the packages of its lock files, whose texts ``lock`` is."""
    packages = list(_packages(lock))
    project: Json = {"type": "application", "bom-ref": "medllama", "name": "medllama"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": project},
        "components": packages,
        "dependencies": [{"ref": "medllama", "dependsOn": [package["bom-ref"] for package in packages]}],
    }


def _model_card(document: Mapping[str, Any], data: list[str]) -> Json:
    trained = document["stages"].get("finetune", {})
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": "Llama",
            "datasets": [{"ref": ref} for ref in data],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(document))},
        "considerations": {
            "users": ["People who check what the model says"],
            "useCases": ["Research on and evaluation of fine-tuned language models on medical text"],
            "technicalLimitations": list(LIMITS),
            "ethicalConsiderations": [
                {
                    "name": "Use on patients",
                    "mitigationStrategy": "Not for diagnosis, treatment, triage, advice to patients or decisions on anybody's care.",
                }
            ],
        },
        "properties": [{"name": f"finetune.{name}", "value": str(value)} for name, value in sorted((trained.get("params") or {}).items())],
    }


def _metrics(document: Mapping[str, Any]) -> Iterator[Json]:
    """Of each metric the value of the base model, of this one, and the change, with 95 % intervals."""
    for row in document["decision"]["table"]:
        better = "higher is better" if METRICS[row["metric"]].higher_is_better else "lower is better"
        for whose in ("base", "tuned", "change"):
            of = row[whose]
            yield {
                "type": f"{row['metric']} ({better})",
                "value": str(of["value"]),
                "slice": f"{whose}, split {row['split']}, {row['items']} items",
                "confidenceInterval": {"lowerBound": str(of["low"]), "upperBound": str(of["high"])},
            }


def _base(document: Mapping[str, Any], terms: BaseTerms) -> Json:
    files = document["trees"].get(str(BASE), {"files": {}})["files"]
    return {
        "type": "machine-learning-model",
        "name": terms.title,
        "version": str((document["stages"].get("base", {}).get("params") or {}).get("sha256", "")) or "not stated",
        "licenses": [{"license": {"name": terms.licence}}],
        "hashes": _hashes(digest for path, digest in files.items() if path.endswith(".safetensors")),
        "copyright": terms.duties,
    }


def _data(document: Mapping[str, Any]) -> Iterator[Json]:
    """The raw files; what the manifest does not state of one stands there as not stated."""
    stated = {entry["path"]: entry for entry in document["corpus"]}
    for path, digest in raw_files(document).items():
        entry = stated.get(path, {})
        public = entry.get("public", False)
        yield {
            "type": "data",
            "bom-ref": f"data/{path}",
            "name": entry.get("title", PurePosixPath(path).name),
            "version": str(entry.get("version", "not stated")),
            "licenses": [{"license": {"name": entry.get("licence", "not stated")}}],
            "hashes": _hashes([digest]),
            "copyright": entry.get("credit", "not stated"),
            "data": [
                {
                    "type": "dataset",
                    "name": path,
                    "classification": "public" if public else "confidential",
                    "sensitiveData": [] if public else ["health records, whose identifiers the pipeline replaces as far as it finds them"],
                }
            ],
        }


def raw_files(document: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each raw file by its path in ``data/``."""
    return dict(sorted((document["trees"].get("data") or {"files": {}})["files"].items()))


def _packages(lock: str) -> Iterator[Json]:
    """The Python packages of lock files, each once and with the digests of all its files, one of which was installed."""
    listed = set()
    for entry in re.split(r"\n(?=\S)", lock):
        if (locked := _LOCKED.match(entry)) and locked.groups() not in listed:
            listed.add(locked.groups())
            name, version = locked.groups()
            yield {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower()}@{version}",
                "hashes": _hashes(dict.fromkeys(_HASH.findall(entry))),
            }


def _hashes(digests: Any) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest} for digest in digests]
