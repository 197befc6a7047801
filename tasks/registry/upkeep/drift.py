"""How new records differ from those that the champion was trained on.

New documents are those that were not in the champion's corpus. They are compared with its training documents, and with its held-out
ones, which show how much documents of the same origin differ. A measure beyond its limit is a warning and stops nothing: new data may be
why one trains again. The report holds numbers and names of files; it goes to MLflow as a run.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.cleaning.shingles import hash_text, words
from tasks.corpus.deidentify.policy import TYPES
from tasks.corpus.documents import SPLITS, Document, read_documents, share
from tasks.evaluation.scores import Interval, Score, estimate
from tasks.registry import promotion, tracking, versions
from tasks.registry.params import RegisterParams
from tasks.registry.upkeep.drift_result import DriftResult, Status
from tasks.runtime import html
from tasks.runtime.artifacts import DRIFT_PAGE, DRIFT_RESULT
from tasks.runtime.files import write_whole
from tasks.runtime.params import read_section

OWN = tuple(split for split in SPLITS if split != "replay")  # general text is not the corpus
SAMPLE, SEED = 200, 2026  # documents that the champion reads, of each sort
MIN_DOCUMENTS = 10  # fewer new documents show nothing
_MARK = re.compile(rf"\[(?:{'|'.join(TYPES)})\]")


@dataclass(frozen=True)
class Measure:
    """What was found in training, held-out and new documents; ``limit`` is of what ``excess`` says."""

    name: str
    title: str
    train: float | None
    held_out: float | None
    new: float
    excess: float
    limit: float | None

    @property
    def warns(self) -> bool:
        """Whether the new documents are beyond the limit."""
        return self.limit is not None and self.excess > self.limit


@dataclass(frozen=True)
class Corpus:
    """Documents by what the champion knows of them, each sort a fresh look at the files: a corpus may be larger than memory."""

    read: Callable[[str], Iterator[Document]]  # train, test or new

    def sample(self, sort: str) -> list[Document]:
        """At most ``SAMPLE`` documents of a sort, the same ones every time."""
        chosen = sorted((share(SEED, d.id), d.id) for d in self.read(sort))[:SAMPLE]
        ids = {key for _, key in chosen}
        return [d for d in self.read(sort) if d.id in ids]


def corpus_of(documents: Path, seen: dict[str, str]) -> Corpus:
    """``seen``: by id the split of every document of the champion's corpus, whether training came to it or not: those are of one origin."""

    def read(sort: str) -> Iterator[Document]:
        for split in OWN:
            yield from (d for d in read_documents(documents, split) if seen.get(d.id, "new") == sort)

    return Corpus(read)


def lengths(corpus: Corpus, limit: float) -> Measure:
    """The population stability index of answer lengths over the deciles of the training documents: the sum over deciles of
    (p - q) ln(p / q) (Siddiqi 2006, Credit Risk Scorecards; below 0.1 little, above 0.25 much)."""
    of = {sort: np.array([len(d.answer) for d in corpus.read(sort)], np.float64) for sort in ("train", "test", "new")}
    edges = np.quantile(of["train"], np.linspace(0.1, 0.9, 9))

    def index(sort: str) -> float:
        p, q = ((np.bincount(np.searchsorted(edges, of[s]), minlength=10) + 0.5) / (len(of[s]) + 5) for s in (sort, "train"))
        return float(((p - q) * np.log(p / q)).sum())

    new = index("new")
    return Measure("length", "stability index of answer lengths", 0.0, index("test") if len(of["test"]) else None, new, new, limit)


def vocabulary(corpus: Corpus, limit: float) -> Measure:
    """The share of words that stand in no training document, beyond that of the held-out ones."""
    train_words = {hash_text(word) for d in corpus.read("train") for text in d.texts() for word in words(text)}

    def unknown(sort: str) -> float | None:
        unknown_flags = [hash_text(word) not in train_words for d in corpus.read(sort) for text in d.texts() for word in words(text)]
        return sum(unknown_flags) / len(unknown_flags) if unknown_flags else None

    held_out, new = unknown("test"), unknown("new") or 0.0
    return Measure("vocabulary", "share of words unknown to training", 0.0, held_out, new, new - (held_out or 0.0), limit)


def sources(corpus: Corpus) -> Measure:
    """The share of documents from files that training does not know; every new file has such, so there is no limit."""
    train_sources = {d.source for d in corpus.read("train")}
    held_out, new = ([d.source not in train_sources for d in corpus.read(sort)] for sort in ("test", "new"))
    share_of = sum(new) / len(new)
    return Measure(
        "sources",
        "share of documents from unknown files",
        0.0,
        sum(held_out) / len(held_out) if held_out else None,
        share_of,
        share_of,
        None,
    )


def identifiers(corpus: Corpus, limit: float) -> Measure:
    """Marks that de-identification left, per 1,000 documents, beyond those of the training documents."""

    def marks(sort: str) -> float | None:
        counts = [sum(len(_MARK.findall(text)) for text in d.texts()) for d in corpus.read(sort)]
        return 1000 * sum(counts) / len(counts) if counts else None

    train, new = marks("train") or 0.0, marks("new") or 0.0
    return Measure("identifiers", "identifiers masked per 1,000 documents", train, marks("test"), new, new - train, limit)


def likelihood(corpus: Corpus, checkpoint: Path, limit: float) -> Measure:
    """The champion's nats per answer token, beyond those on held-out documents by what is certain at 95 %."""
    from model.generation.completion import Llama
    from tasks.evaluation.likelihood import ScoringConfig, score_tokens
    from tasks.evaluation.probes import as_text

    llama = Llama.build(ckpt_dir=str(checkpoint), max_seq_len=1024, max_batch_size=1)

    def nats(sort: str) -> Interval | None:
        documents = corpus.sample(sort)
        texts = [as_text(document, llama.tokenizer) for document in documents]
        scored = score_tokens(llama, texts, ScoringConfig(4096, "auto"), label=f"drift, {sort}")
        scores = [
            Score("answer_nll", str(n), sort, "", "", len(j.nll), len(j.nll), 0.0, float(j.nll.sum()), document.group)
            for n, (document, j) in enumerate(zip(documents, scored, strict=True))
            if len(j.nll)
        ]
        return estimate(scores, "tuned") if scores else None

    held_out, new = nats("test"), nats("new")
    measured = new or Interval(0.0, 0.0, 0.0)
    excess = measured.low - (held_out.high if held_out else measured.low)
    return Measure(
        "nats", "the champion's nats per answer token", None, held_out.value if held_out else None, measured.value, max(excess, 0.0), limit
    )


def drift(documents: Path, report: Path, *, limits: dict[str, float]) -> DriftResult:
    """Write ``drift.json`` and ``drift.html`` into ``report`` and a run into MLflow; where nothing can be compared, ``drift.json`` alone.

    ``limits``: by measure, beyond which it warns.
    """
    client, name = tracking.connect(), read_section("register", RegisterParams).name
    try:
        champion = versions.version_of(client, name, promotion.CHAMPION)
    except ValueError:
        return _not_compared(report, "there is no champion yet to compare with")
    ids = [d.id for split in OWN for d in read_documents(documents, split)]
    if (exposure := promotion.seen_by(client, champion, ids)) is None:
        return _not_compared(report, f"version {champion.version} does not say which records it saw")
    seen = {key: record.split for key, record in exposure.items() if record.split in SPLITS}
    new = len(ids) - len(seen)
    if new < MIN_DOCUMENTS:
        return _not_compared(report, f"{new} new documents; fewer than {MIN_DOCUMENTS} show nothing")
    if "train" not in seen.values():
        reason = f"version {champion.version} was trained on no document of this corpus; there is nothing to compare {new} new ones with"
        return _not_compared(report, reason)
    corpus = corpus_of(documents, seen)
    measures = [
        lengths(corpus, limits["length"]),
        vocabulary(corpus, limits["vocabulary"]),
        sources(corpus),
        identifiers(corpus, limits["identifiers"]),
        likelihood(corpus, versions.artifact(client, str(champion.run_id), "checkpoint"), limits["nats"]),
    ]
    comparison = {"champion": f"{name} version {champion.version}", "new": new, "seen": len(seen)}
    result = _result(measures, new)
    _write(report, measures, comparison, result)
    _log(client, report, measures, comparison)
    return result


def _result(measures: Sequence[Measure], new: int) -> DriftResult:
    warnings = [f"{m.title} {m.new:.3g}, {m.excess:.3g} beyond what is usual (limit {m.limit:g})" for m in measures if m.warns]
    if warnings:
        return DriftResult(Status.DIFFERENT, f"{new} new documents differ from the training corpus: {'; '.join(warnings)}")
    return DriftResult(Status.LIKE, f"{new} new documents are like the training corpus")


def _not_compared(report: Path, reason: str) -> DriftResult:
    """An earlier comparison's page goes: it is of other documents."""
    report.mkdir(parents=True, exist_ok=True)
    (report / DRIFT_PAGE).unlink(missing_ok=True)
    write_whole(report / DRIFT_RESULT, {"status": Status.NOT_COMPARED, "message": reason, "measures": []})
    return DriftResult(Status.NOT_COMPARED, reason)


def _write(report: Path, measures: Sequence[Measure], comparison: dict[str, Any], result: DriftResult) -> None:
    report.mkdir(parents=True, exist_ok=True)
    write_whole(report / DRIFT_RESULT, asdict(result) | comparison | {"measures": [asdict(m) | {"warns": m.warns} for m in measures]})
    (report / DRIFT_PAGE).write_text(_PAGE.render(measures=measures, comparison=comparison), encoding="utf-8")


def _log(client: tracking.MlflowClient, report: Path, measures: Sequence[Measure], comparison: dict[str, Any]) -> None:
    tags = {"stage": "drift", "champion": str(comparison["champion"]), "warns": ", ".join(m.name for m in measures if m.warns)}
    run = client.create_run(tracking.experiment_of(client), run_name="drift", tags=tags).info.run_id
    for measure in measures:
        client.log_metric(run, measure.name, measure.new)
        client.log_metric(run, f"{measure.name}_excess", measure.excess)
    client.log_artifacts(run, str(report), "drift")
    client.set_terminated(run)


_PAGE = html.page(
    "Drift",
    """<h1>New records beside the training corpus</h1>
<p>{{ comparison.new }} documents that were not in the corpus of {{ comparison.champion }}, beside {{ comparison.seen }} that were.
Held-out documents were not trained on and come from the same corpus: what they differ by is usual.</p>
<table><tr><th>measure<th>training<th>held-out<th>new<th>beyond what is usual<th>limit
{% for m in measures %}
<tr{% if m.warns %} class="warns"{% endif %}><td>{{ m.title }}
{% for value in (m.train, m.held_out, m.new, m.excess, m.limit) %}
<td class="n">{{ "" if value is none else "%.3g" % value }}
{% endfor %}
{% endfor %}
</table>
""",
)
