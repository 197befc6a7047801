"""What a version was made from, as a tree: model ← shards ← augmented ← clean ← raw files. Read from its passport alone, so that it
is the same whatever DVC skipped and whatever the tracking store has; runs are told by who knows them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.corpus.annotation.figures import Figures, sentences
from tasks.evaluation.metrics import label
from tasks.registry.lineage.passport import CHECKPOINT, EVALUATION
from tasks.runtime.artifacts import BASE, DOCUMENTS, RAW, REPORTS, SHARDS, VARIANTS

MAX_COUNTS = 6
COUNTED = ("documents", "tokens", "records", "variants", "parameters", "best_step", "best_validation_loss")
HEADLINES = ("field_f1", "field_f1_few_shot", "hallucinated")
MEANING = {
    str(RAW): "raw files",
    str(DOCUMENTS): "clean documents",
    str(VARIANTS): "augmented documents",
    str(SHARDS): "shards",
    str(BASE): "base model",
    CHECKPOINT: "model",
    EVALUATION: "evaluation",
}


@dataclass
class Node:
    """A path with its bytes' digest, the stage that wrote it, and what that read."""

    path: str
    digest: str
    stage: str = ""  # empty for raw files
    children: list["Node"] = field(default_factory=list)


def ancestry(document: Mapping[str, Any]) -> list[Node]:
    """The model's tree and the evaluation's."""
    writer = {path: stage for stage, record in document["stages"].items() for path in record["outputs"]}

    def node(path: str, digest: str) -> Node:
        stage = writer.get(path, "")
        read = document["stages"][stage]["inputs"] if stage else {}
        return Node(path, digest, stage, [node(p, d) for p, d in read.items() if not p.startswith(f"{REPORTS}/")])

    written = {path: digest for record in document["stages"].values() for path, digest in record["outputs"].items()}
    return [node(path, written[path]) for path in (CHECKPOINT, EVALUATION) if path in written]


def counts(record: Mapping[str, Any]) -> list[str]:
    """The figures of a run that say how much there was."""
    figures = [(n, v) for n, v in (record["metrics"] or {}).items() if v and n.startswith(COUNTED) and "/" not in n and "_per_" not in n]
    return [
        f"{name.replace('_', ' ')} {value:,.0f}" if value == int(value) else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in figures
    ][:MAX_COUNTS]


def gates_of(document: Mapping[str, Any], stage: str) -> list[str]:
    """The results of a stage's expectations, in words."""
    reports = {path for path in document["stages"][stage]["outputs"] if path.startswith(f"{REPORTS}/")}
    sentences = []
    for name, gate in document["gates"].items():
        if gate["report"] in reports:
            sentences.append(
                f"{name}: {gate['passed']} met"
                + "".join(f", {gate[outcome]} {outcome}" for outcome in ("warned", "failed") if gate[outcome])
            )
    return sentences


def deidentification_of(document: Mapping[str, Any]) -> list[str]:
    """Recall and damage of the cleaning, in words; none where a passport does not have them."""
    figures = document.get("deidentification", {})
    sentences = []
    for title, rows in figures.items():
        shown = [row for row in rows if row.get("half", "all") == "all" and row.get("spans", 1)]
        if shown:
            sentences.append(f"{title.replace('_', ' ')}: " + ", ".join(f"{row['name']} {row['share']:.3f}" for row in shown))
    return sentences


def annotation_of(document: Mapping[str, Any]) -> list[str]:
    """What the site's own annotation says, in words; none where a passport is older than annotations."""
    if "annotation" not in document:
        return []
    stated = document["annotation"]
    return list(sentences(stated and Figures.model_validate(stated)))


def scores_of(document: Mapping[str, Any]) -> list[str]:
    """What was extracted rightly and what was hallucinated, base and tuned, in words; none without extraction tasks."""
    rows = [row for row in document["decision"]["table"] if row["metric"] in HEADLINES]
    return [
        f"{label(row['metric'])} ({row['split']}): base {row['base']['value']:.3f}, tuned {row['tuned']['value']:.3f} "
        f"(95 % from {row['tuned']['low']:.3f} to {row['tuned']['high']:.3f})"
        for row in rows
    ]


def lines(document: Mapping[str, Any], runs: Mapping[str, str]) -> Iterator[str]:
    """The trees as text. ``runs``: by stage what the tracking store says of its run."""
    shown: set[str] = set()

    def of(node: Node, indent: str, last: bool, top: bool) -> Iterator[str]:
        branch, rest = ("", "") if top else (("└─ ", "   ") if last else ("├─ ", "│  "))
        again = "  (as above)" if node.path in shown else ""
        yield f"{indent}{branch}{MEANING.get(node.path, node.path)}  {node.path}  {node.digest}{again}"
        indent += rest
        if again:
            return
        shown.add(node.path)
        inner = indent + ("│  " if node.children else "   ")
        for sentence in about(document, node, runs):
            yield inner + sentence
        for index, child in enumerate(node.children):
            yield from of(child, indent, index == len(node.children) - 1, False)

    for node in ancestry(document):
        yield from of(node, "  ", True, True)


def about(document: Mapping[str, Any], node: Node, runs: Mapping[str, str]) -> Iterator[str]:
    """What is to be said below a node."""
    if not node.stage:
        files = document["trees"].get(node.path, {}).get("files", {})
        yield from (f"{name}  sha256 {digest[:16]}…" for name, digest in list(files.items())[:20])
        if len(files) > 20:
            yield f"and {len(files) - 20} more"
        return
    record = document["stages"][node.stage]
    code = record["code"] or {}
    commit = f"code {str(code.get('commit'))[:12]}{' with changes' if code.get('dirty') else ''}"
    yield f"{node.stage}  {runs.get(node.stage, 'run unknown here')}"
    yield f"{record['started'][:19]}Z, {record['seconds']:,.1f} s, {commit}"
    if figures := counts(record):
        yield ", ".join(figures)
    yield from (f"gate {sentence}" for sentence in gates_of(document, node.stage))
    if node.stage == "validate":
        yield from scores_of(document)
    if node.stage == "preprocess":
        yield from deidentification_of(document)
        yield from annotation_of(document)
