"""What is known of a version, in sentences: each follows from its passport, and what was not measured says so.

No text of a record is among it: counts, shares, digests, params and the names of raw files alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.corpus.annotation.figures import Figures
from tasks.corpus.annotation.figures import sentences as annotated
from tasks.evaluation.metrics import METRICS, current_name, label
from tasks.evaluation.scores import RENAMED_SPLITS
from tasks.registry.base_terms import BaseTerms
from tasks.registry.model_card import trained_on
from tasks.registry.standards.bom import raw_files

NOT_MEASURED = "not measured"
MAX_LISTED = 20  # raw files or licences that a sentence names


@dataclass(frozen=True)
class Compared:
    """The champion that the version's first decision compared it with, and its passport where that can be read."""

    number: int
    passport: Mapping[str, Any] | None


@dataclass(frozen=True)
class Evidence:
    """All that sentences are made from. ``document``: the version's passport; ``gate``: the section ``register`` of its params."""

    document: Mapping[str, Any]
    terms: BaseTerms
    comparisons: Sequence[Mapping[str, Any]]  # of the first decision
    compared: Compared | None  # none where there was no champion
    gate: Mapping[str, Any]

    @cached_property
    def rows(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The table of the first decision by metric and split, under today's names."""
        table = self.document["decision"]["table"]
        return {(current_name(row["metric"]), RENAMED_SPLITS.get(row["split"], row["split"])): row for row in table}

    def row(self, metric: str, split: str) -> Mapping[str, Any] | None:
        """A metric on a split; none where it was not measured."""
        return self.rows.get((metric, split))

    def stage(self, name: str) -> dict[str, Any]:
        """What the passport says of a stage; empty where it has none of this name."""
        return dict(self.document["stages"].get(name) or {})

    def metrics(self, stage: str) -> dict[str, float]:
        """The figures of a stage."""
        return dict(self.stage(stage).get("metrics") or {})


Source = Callable[[Evidence], list[str]]


def scores(metric: str, *splits: str) -> Source:
    """The sentences about a metric on these splits."""

    def sentences(evidence: Evidence) -> list[str]:
        return [_score(evidence, metric, split) for split in splits]

    return sentences


def _score(evidence: Evidence, metric: str, split: str) -> str:
    row = evidence.row(metric, split)
    if row is None:
        return f"{NOT_MEASURED}: {label(metric)}, split {split}"
    tuned, show = row["tuned"], METRICS[metric].format
    return (
        f"{label(metric)}, split {split}: {show(tuned['value'])} (95 % from {show(tuned['low'])} to {show(tuned['high'])}) over "
        f"{row['items']} items; base model {show(row['base']['value'])}"
    )


def all_scores(split: str) -> Source:
    """The sentences about every metric of a split."""

    def sentences(evidence: Evidence) -> list[str]:
        measured = [_score(evidence, metric, of) for metric, of in evidence.rows if of == split and metric in METRICS]
        return measured or [f"{NOT_MEASURED}: split {split}"]

    return sentences


def identity(evidence: Evidence) -> list[str]:
    """Name, number, time and digest."""
    version, checkpoint = evidence.document["version"], evidence.document["trees"]["artifacts/model"]["dvc"]
    return [f"{version['name']} version {version['number']}, registered {version['made']}; checkpoint {checkpoint}"]


def architecture(evidence: Evidence) -> list[str]:
    """What kind of model it is."""
    parameters = evidence.metrics("base").get("parameters")
    size = f"{parameters:,.0f} parameters" if parameters else "number of parameters: not stated"
    return [f"A language model of the Llama family: a decoder-only transformer that continues text token by token; {size}"]


def output(_: Evidence) -> list[str]:
    """What comes out of it."""
    return ["Input is text, output is generated text; for an extraction task JSON under the task's schema"]


def base_model(evidence: Evidence) -> list[str]:
    """What was fine-tuned, and under which terms."""
    terms, params = evidence.terms, evidence.stage("base").get("params") or {}
    digest = f", SHA-256 {params['sha256']}" if params.get("sha256") else ""
    return [f"Base model: {terms.title}, licence: {terms.licence}{digest}"]


def software(evidence: Evidence) -> list[str]:
    """The versions that trained it."""
    versions = evidence.stage("finetune").get("versions") or {}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "not stated"
    code = evidence.document["code"]
    state = "with uncommitted changes" if str(code.get("dirty")).lower() == "true" else "as committed"
    return [
        f"Trained with {listed}; all packages with digests in requirements.lock and torch.lock",
        f"Code: commit {code.get('commit')}, {state}",
    ]


def hardware(evidence: Evidence) -> list[str]:
    """What it was trained on, and what that took."""
    stage = evidence.stage("finetune")
    machine, measured = stage.get("machine") or {}, evidence.metrics("finetune")
    sentence = f"Training took {float(stage.get('seconds') or 0):,.0f} s on {machine.get('processor', 'a processor that is not stated')}"
    if "memory_mb" in measured:
        sentence += f" and {measured['memory_mb']:,.0f} MB of memory"
    return [sentence]


def training(evidence: Evidence) -> list[str]:
    """How it was fine-tuned."""
    params = evidence.stage("finetune").get("params") or {}
    shown = ", ".join(f"{name} {params[name]}" for name in ("mode", "lr", "batch", "seq_len", "optimizer", "seed") if name in params)
    return [f"The model was {trained_on(evidence.document['stages'])}", f"Training params: {shown or 'not stated'}"]


def raw_data(evidence: Evidence) -> list[str]:
    """The raw files and what is stated of them."""
    files, entries = raw_files(evidence.document), evidence.document["corpus"]
    described = [entry for entry in entries if entry["path"] in files]
    licences = Counter(str(entry.get("licence", "not stated")) for entry in described)
    more = [f"and {len(licences) - MAX_LISTED} other licences"] if len(licences) > MAX_LISTED else []
    return [
        f"{len(files):,} raw files, each with its SHA-256 in passport.json; data/manifest.json describes {len(described):,} of them",
        *(f"Licence of {count:,}: {licence}" for licence, count in licences.most_common(MAX_LISTED)),
        *more,
    ]


def selection(evidence: Evidence) -> list[str]:
    """Which documents came into the corpus."""
    params = evidence.stage("preprocess").get("params") or {}
    shares = [
        f"of {share['files']}, category {share['category']}, a share of {share['share']:g} was kept"
        for share in params.get("shares") or []
        if isinstance(share, Mapping)
    ]
    withdrawn = len(params.get("withdrawn") or [])
    return [*shares, f"{withdrawn} records were withdrawn by their ids", *splits(evidence), *gates(evidence)]


def splits(evidence: Evidence) -> list[str]:
    """Documents and tokens by split."""
    counts = evidence.metrics("shard")
    names = [name for name in ("train", "validation", "test", "ood") if f"documents_{name}" in counts]
    if not names:
        return [f"{NOT_MEASURED}: documents by split"]
    listed = "; ".join(f"{name} {counts[f'documents_{name}']:,.0f} ({counts[f'tokens_{name}']:,.0f} tokens)" for name in names)
    return [f"Documents by split: {listed}. Groups of documents (a patient, a disease, a term) are in one split only"]


def gates(evidence: Evidence) -> list[str]:
    """How many expectations of the data were met."""
    return [
        f"Expectations {name}: {gate['passed']} met, {gate['warned']} warned, {gate['failed']} failed"
        for name, gate in sorted(evidence.document["gates"].items())
    ] or [f"{NOT_MEASURED}: expectations of the data"]


def recall(evidence: Evidence) -> list[str]:
    """The recall of the de-identification on injected identifiers."""
    rows = (evidence.document.get("deidentification") or {}).get("recall") or []
    rows = [row for row in rows if row.get("half", "held-out") == "held-out"]
    if not rows:
        return [f"{NOT_MEASURED}: recall of the de-identification"]
    return [f"Recall of injected identifiers, of templates that the rules were not written on: {_shares(rows)}"]


def least_recall(evidence: Evidence) -> list[str]:
    """Below which recall the pipeline stops."""
    deidentify = (evidence.stage("preprocess").get("params") or {}).get("deidentify") or {}
    limits = ", ".join(f"{name} {limit:g}" for name, limit in sorted((deidentify.get("min_recall") or {}).items()))
    return [f"The stage preprocess fails below a recall of: {limits}"] if limits else []


def damage(evidence: Evidence) -> list[str]:
    """The clinical text that the cleaning changes."""
    rows = (evidence.document.get("deidentification") or {}).get("damage") or []
    if not rows:
        return [f"{NOT_MEASURED}: clinical text that the cleaning changes"]
    seen = [row for row in rows if row.get("spans", 1)]
    unseen = ", ".join(row["name"] for row in rows if row not in seen)
    return [
        *([f"Clinical text that the cleaning changes, as a share: {_shares(seen)}"] if seen else []),
        *([f"{NOT_MEASURED}: changes of {unseen}, of which the corpus has none"] if unseen else []),
    ]


def max_damage(evidence: Evidence) -> list[str]:
    """Above which damage the pipeline stops."""
    params = evidence.stage("preprocess").get("params") or {}
    limits = ", ".join(f"{name} {limit:g}" for name, limit in sorted((params.get("max_damage") or {}).items()))
    return [f"The stage preprocess fails above a share of: {limits}"] if limits else []


def _shares(rows: Sequence[Mapping[str, Any]]) -> str:
    def named(row: Mapping[str, Any]) -> str:
        half = f" ({row['half']} of them)" if row["name"] == "hard_negatives" else ""
        return f"{row['name']}{half} {row['share']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

    return "; ".join(map(named, rows)) + "; intervals at 95 %"


def annotation(evidence: Evidence) -> list[str]:
    """What a person of the site marked in its own notes."""
    stated = evidence.document.get("annotation")
    if not stated:
        return [f"{NOT_MEASURED}: recall and damage on this site's own notes"]
    return [f"{sentence[0].upper()}{sentence[1:]}" for sentence in annotated(Figures.model_validate(stated))]


def fairness(_: Evidence) -> list[str]:
    """That nobody measured it."""
    return [f"{NOT_MEASURED}: performance by group of patients; the pipeline knows no groups"]


def demographics(_: Evidence) -> list[str]:
    """That nobody measured it."""
    return [f"{NOT_MEASURED}: who the people in the data are, as they stand in free text"]


def variables(_: Evidence) -> list[str]:
    """What the model gets to read."""
    return ["The model has no input features: it reads text, which may say any of these"]


def outcomes(_: Evidence) -> list[str]:
    """That nobody measured it."""
    return [f"{NOT_MEASURED}: the effect of use on outcomes of patients"]


def rating(_: Evidence) -> list[str]:
    """That nobody measured it."""
    return [f"{NOT_MEASURED}: how clinicians rate its answers"]


def external(evidence: Evidence) -> list[str]:
    """What was measured on sources that training did not see."""
    params = evidence.stage("preprocess").get("params") or {}
    patterns = params.get("ood") or []
    if not any(split == "ood" for _, split in evidence.rows):
        return [f"{NOT_MEASURED}: no documents of another source were kept aside"]
    named = ", ".join(map(str, patterns)) or "not stated"
    return [f"The split ood has documents of other files than training's ({named}); the pipeline scored them itself, no other party did"]


def decision(evidence: Evidence) -> list[str]:
    """What the gate decided when the version was registered."""
    decided = evidence.document["decision"]
    return [f"First decision: {decided['verdict']}", *decided["reasons"]]


def testing(_: Evidence) -> list[str]:
    """How figures came to be."""
    return [
        "Scored by the pipeline on documents of groups that training never saw, the same items for base model and this one",
        "Intervals are at 95 %, by the bootstrap over groups of items",
    ]


def integrity(_: Evidence) -> list[str]:
    """What keeps files from being exchanged unnoticed."""
    return ["passport.json lists every file of the version by SHA-256; python -m tasks.registry verify compares them"]


def limits(_: Evidence) -> list[str]:
    """What holds for every version."""
    return [
        "It is not a medical device: not for diagnosis, treatment, triage, advice to patients or decisions on anybody's care",
        "Answers may be invented, text may have been memorized, and bias in the sources is kept",
    ]
