"""The files of a version that speak standards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.registry.base_terms import BaseTerms
from tasks.registry.lineage.signature import Signer
from tasks.registry.standards.bom import ml_bom
from tasks.registry.standards.croissant import croissant
from tasks.registry.standards.provenance import envelopes
from tasks.runtime.files import write_whole

BOM, CROISSANT, PROVENANCE = "ml-bom.cdx.json", "croissant.json", "provenance.intoto.jsonl"


def write_standards(folder: Path, document: Mapping[str, Any], terms: BaseTerms, signer: Signer | None, *, lock: str) -> None:
    """Write CycloneDX's bill of materials, Croissant's metadata and the attestations, signed where there is a signer.

    ``document``: a passport, with the digests of the checkpoint; ``terms``: those of the base model; ``lock``: the text of
    requirements.lock.
    """
    folder.mkdir(parents=True)
    write_whole(folder / BOM, ml_bom(document, lock, terms))
    write_whole(folder / CROISSANT, croissant(document))
    (folder / PROVENANCE).write_text(envelopes(document, signer), encoding="utf-8")
