"""What a version carries besides its checkpoint: the pyfunc's code, the model card, the passport, the records it saw, its lineage.

Everything is made in a folder, before the tracking store is asked to take any of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model.checkpoint.config import read_config
from tasks.corpus.annotation.figures import Figures
from tasks.corpus.documents import read_documents
from tasks.corpus.extraction.definitions import FILE as TASKS
from tasks.corpus.manifest import MANIFEST, read_manifest
from tasks.corpus.shards.format import Shards
from tasks.evaluation.findings import findings
from tasks.registry import model_signer, versions
from tasks.registry.base_terms import BaseTerms, base_terms
from tasks.registry.compliance import form
from tasks.registry.compliance.evidence import Compared, Evidence
from tasks.registry.compliance.export import tags_of
from tasks.registry.compliance.files import write_compliance
from tasks.registry.compliance.names import FOLDER
from tasks.registry.gate import Decision
from tasks.registry.lineage import model_signature
from tasks.registry.lineage import page as lineage_page
from tasks.registry.lineage.passport import COPY, FILE, digests_of, passport
from tasks.registry.lineage.signature import Signer, sign
from tasks.registry.lineage.signature import signer as signer_here
from tasks.registry.model_card import card
from tasks.registry.standards.files import write_standards
from tasks.registry.versions import Package
from tasks.runtime.artifacts import DATA_POINTER, DEIDENTIFICATION, DVC_LOCK, DVC_YAML, RAW, REPORTS
from tasks.runtime.digests import sha256
from tasks.runtime.files import write_whole
from tasks.runtime.params import PARAMS, load
from tasks.training.exposure import FILE as SEEN
from tasks.training.exposure import Seen, read_seen, seen_digest
from tasks.training.exposure import write_seen as write_seen_file

# What a rebuild needs besides the commit.
LOCK = Path("requirements.lock")
REPRODUCTION = (PARAMS, DVC_YAML, DVC_LOCK, DATA_POINTER, LOCK)
CODE, LIBRARY = Path(__file__).with_name("pyfunc_model.py"), Path(__file__).parents[2] / "model"
NEEDED = ("mlflow", "torch", "numpy", "pandas", "tiktoken", "tokenizers", "safetensors", "jinja2")  # by the pyfunc


@dataclass(frozen=True)
class Contents:
    """What a version is made from."""

    name: str
    tuned: Path  # the checkpoint
    evaluation: Path
    shards: Path
    variants: Path
    training: Path  # finetune's report
    gate: Path  # the folder with the gate's results
    records: dict[str, dict[str, Any]]  # by stage
    run_files: Sequence[Path]  # the records' files
    runs: Mapping[str, str]  # ids in the tracking store by stage
    code: Mapping[str, str]  # commit, and whether it was dirty
    decision: Decision
    documents: Sequence[Path]  # the decision's files
    metrics: Mapping[str, Any]  # the evaluation's table
    annotation: Figures | None  # of the site's own notes
    compared: Compared | None  # the champion that the decision is about


def make(folder: Path, contents: Contents, number: int) -> Package:
    """Make in ``folder`` what the version with this number carries besides its checkpoint and evaluation; all of it as a package."""
    added = folder / "checkpoint"  # what comes to the files of the checkpoint
    folder.mkdir(parents=True)
    packages = [f"{package}=={metadata.version(package).partition('+')[0]}" for package in NEEDED]
    versions.write_pyfunc(added, CODE, packages, LIBRARY, name=contents.name, number=number)
    corpus = read_manifest(RAW)
    terms = _terms(contents)
    (added / "README.md").write_text(_card(contents, corpus, terms), encoding="utf-8")
    _copy_tasks(_trees(contents.records).values(), added)
    write_seen(contents.shards, contents.variants, contents.training / SEEN, folder / SEEN)
    document = _passport(contents, number, corpus)
    page = folder / "lineage.html"
    runs = {stage: f"run {run}" for stage, run in contents.runs.items()}
    page.write_text(lineage_page.page(contents.name, document, runs), encoding="utf-8")
    folders = [("checkpoint", contents.tuned), ("checkpoint", added), ("evaluation", contents.evaluation), ("gate", contents.gate)]
    signer = signer_here()
    document["artifacts"] = listed(folders, [])
    write_standards(folder / "standards", document, terms, signer, lock=LOCK.read_text(encoding="utf-8") if LOCK.exists() else "")
    form_text = form.text_here()
    write_compliance(folder / FOLDER, _evidence(contents, document, terms), form_text)
    folders += [("standards", folder / "standards"), (FOLDER, folder / FOLDER)]
    files = [*(path for path in REPRODUCTION if path.exists()), folder / SEEN, page, *contents.documents]
    document["artifacts"] = listed(folders, files)
    spellings = versions.note_forms(contents.name, number)
    document["alternatives"] = {f"{COPY}{versions.NOTE}": [hashlib.sha256(form).hexdigest() for form in spellings]}
    write_whole(folder / FILE, document)
    signed, tags = _sign(folder / FILE, signer, [contents.tuned, added])
    return Package(folders, [*files, *signed], tags | tags_of(form_text))


def _evidence(contents: Contents, document: Mapping[str, Any], terms: BaseTerms) -> Evidence:
    comparisons = [asdict(comparison) for comparison in contents.decision.comparisons]
    return Evidence(document, terms, comparisons, contents.compared, load(PARAMS)["register"])


def _copy_tasks(trees: Iterable[Path], folder: Path) -> None:
    """The extraction tasks of training, for those who ask the model, where there are any."""
    for path in (tree / TASKS for tree in trees if (tree / TASKS).is_file()):
        (folder / TASKS).write_bytes(path.read_bytes())


def _terms(contents: Contents) -> BaseTerms:
    source = str(contents.records.get("base", {}).get("params", {}).get("source", ""))
    config = read_config(contents.tuned)
    return base_terms(source, family=config.family.name, vocabulary=config.vocab_size)


def _card(contents: Contents, corpus: list[dict[str, Any]], terms: BaseTerms) -> str:
    """The model card as Markdown."""
    records = contents.records
    return card(
        name=contents.name,
        terms=terms,
        corpus=corpus,
        raw=sorted(p.relative_to(RAW).as_posix() for p in RAW.rglob("*") if p.is_file() and p.name != MANIFEST),
        records=records,
        table=contents.decision.table,
        findings=findings(contents.metrics),
        annotation=contents.annotation,
        checkpoint=next(digest for path, digest in records["finetune"]["outputs"].items() if Path(path) == contents.tuned),
        code={"commit": contents.code["commit"], "dirty": contents.code["dirty"] == "true"},
    )


def _passport(contents: Contents, number: int, corpus: list[dict[str, Any]]) -> dict[str, Any]:
    """The passport without the digests of the version's own files."""
    trees, decision = _trees(contents.records), contents.decision
    return passport(
        version={"name": contents.name, "number": number, "made": datetime.now(UTC).isoformat(timespec="seconds")},
        records=contents.records,
        trees=trees,
        runs=contents.run_files,
        code=contents.code,
        gates=gates(trees),
        decision={"verdict": decision.verdict, "reasons": list(decision.reasons), "table": [asdict(row) for row in decision.table]},
        corpus=corpus,
        deidentification=deidentification(trees),
        annotation=contents.annotation,
    )


def listed(folders: Iterable[tuple[str, Path]], files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by its path in the version."""
    digests = {f"{name}/{path}": digest for name, folder in folders for path, digest in digests_of(folder).items()}
    return dict(sorted((digests | {path.name: sha256(path) for path in files}).items()))


def _sign(document: Path, signer: Signer | None, checkpoint: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Put the passport into the last folder of the checkpoint, signed where there is a key. The files beside the passport, itself among
    them, and the version's tags with their digests."""
    added = checkpoint[-1]
    (added / FILE).write_bytes(document.read_bytes())
    tags = {"passport.sha256": sha256(document)}
    if signer is None:
        return [document], tags
    if not isinstance(signer.key, Ed25519PrivateKey):
        path = added / model_signature.FILE
        model_signer.sign(checkpoint, signer, path, ignored=[versions.NOTE])
        return [document], tags | {"model.signature": sha256(path)}
    path = sign(document, signer.key)
    (added / path.name).write_bytes(path.read_bytes())
    return [document, path], tags | {"passport.signature": sha256(path)}


def _trees(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """Every path that the stages behind the model read or wrote and that is here."""
    named = {path for record in records.values() for path in record["inputs"] | record["outputs"]}
    return {name: Path(name) for name in sorted(named) if Path(name).exists()}


def gates(trees: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Of each suite of expectations that the stages' reports hold: how many were met, and how many were not."""
    results: dict[str, dict[str, Any]] = {}
    reports = [(name, path) for name, tree in trees.items() if name.startswith(f"{REPORTS}/") for path in sorted(tree.rglob("*.json"))]
    for name, path in reports:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("results"), list) and "success" in content:
            missed = [r["expectation_config"].get("severity") for r in content["results"] if not r["success"]]
            failed = sum(severity == "critical" for severity in missed)
            results[path.stem] = {
                "report": name,
                "passed": len(content["results"]) - len(missed),
                "warned": len(missed) - failed,
                "failed": failed,
            }
    return results


def deidentification(trees: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Recall and damage of the cleaning by type, with intervals and what they count; empty for a run that did not measure them.

    Of a run with an entity model also its recall by itself, and what its marks alone change.
    """
    path = next((tree / DEIDENTIFICATION for tree in trees.values() if (tree / DEIDENTIFICATION).is_file()), None)
    report = json.loads(path.read_text(encoding="utf-8")) if path else {}
    damage = [*report.get("damage", {}).get("by_type", []), *report.get("all_hard_negatives", [])]
    kept = ("name", "half", "templates", "documents", "spans", "changed", "share", "low", "high")

    def figures(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{name: row[name] for name in kept if name in row} for row in rows]

    tables = {"recall": figures(report.get("recall", [])), "damage": figures(damage)}
    if of_model := report.get("entity_model"):
        tables["entity_model_recall"] = figures(of_model["recall"]["model"])
        tables["entity_model_damage"] = figures([*of_model["damage"]["by_type"], *of_model["hard_negatives"]])
    return tables


def write_seen(shards: Path, variants: Path, trained: Path, path: Path) -> None:
    """A line for each record of the shards: a digest of its id, its split, and what training did with it, as ``trained`` says; a record
    of which training saw a copy was seen. What was scored, the evaluations say that a version carries. The same input gives the same
    bytes.
    """
    used = dict(read_seen(trained))
    opened = Shards(shards)
    listed = [(seen_digest(entry.id), Seen(split, "unused")) for split in opened.splits for entry in opened.open(split).entries]
    copies = ((seen_digest(copy.parent), used.get(seen_digest(copy.id))) for copy in read_documents(variants, "train") if copy.parent)
    write_seen_file([*listed, *used.items(), *((digest, seen) for digest, seen in copies if seen)], path)
