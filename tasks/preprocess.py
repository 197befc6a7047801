"""Raw files to clean Documents, split by group and gated by Great Expectations: ``python -m tasks.preprocess``.

It reads ``data/`` whatever is in it; what a record becomes is the readers' business, what may pass is decided here.
"""

import re
import shutil
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from tasks.documents import SPLITS, Document, Rejected, Tally, share, write_documents
from tasks.readers import EMPTY, read_corpus
from tasks.record import write_whole
from tasks.stage import Out, Params, Summary, run_stage

# C0 and C1 controls but newline and tab; zero-width and direction marks; the byte order and replacement characters.
_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]")
FAILED_GATE = Path(".cache/failed-gate")


class PreprocessParams(Params):
    seed: int
    validation_share: float = Field(gt=0, lt=0.5)
    test_share: float = Field(gt=0, lt=0.5)
    min_answer_chars: int = Field(ge=1)
    max_answer_chars: int = Field(ge=1)
    max_rejected_share: float = Field(ge=0, le=1)
    other: tuple[str, ...]  # patterns of files in data/ that are only evaluated on


def preprocess(data: Path, documents: Out, report: Out, *, params: PreprocessParams) -> Summary:
    """Read, clean, drop exact duplicates, split by group, check, write; every record not taken is counted with its reason."""
    taken, tally = clean(data, params)
    total = len(taken) + sum(tally.counts.values())
    if not taken:
        raise ValueError(f"{data}: none of {total} records could be used; {_told(tally)}")
    if 1 - len(taken) / total > params.max_rejected_share:
        raise ValueError(
            f"{data}: {total - len(taken)} of {total} records were rejected, more than preprocess.max_rejected_share of "
            f"{params.max_rejected_share} allows; {_told(tally)}"
        )
    print(f"checking {len(taken):,} documents against the gate", flush=True)
    _gate(taken, report, params)
    write_documents(taken, documents)
    by_kind_and_split = Counter((d.kind, d.split) for d in taken)
    funnel = {
        "records": total,
        "documents": len(taken),
        "rejected": tally.rows(),
        "kinds": {kind: {s: by_kind_and_split[kind, s] for s in SPLITS} for kind in sorted({d.kind for d in taken})},
    }
    write_whole(report / "funnel.json", funnel)
    print(f"{len(taken):,} documents of {total:,} records, {len({d.group for d in taken}):,} groups; {_told(tally)}")
    metrics = {"records": total, "documents": len(taken), "rejected": total - len(taken)}
    metrics |= {f"documents_{s}": sum(n for (_, split), n in by_kind_and_split.items() if split == s) for s in SPLITS}
    return Summary(metrics={k: float(v) for k, v in metrics.items()}, reports=("report",))


def clean(data: Path, params: PreprocessParams) -> tuple[list[Document], Tally]:
    """The usable documents with their splits, and the counts of the others."""
    taken: dict[tuple[str, str], Document] = {}
    tally = Tally()
    for raw in read_corpus(data, params.other):
        record = _clean_one(raw, params) if isinstance(raw, Document) else raw
        if isinstance(record, Rejected):
            tally.add(record)
        elif (pair := (record.question, record.answer)) in taken:
            tally.add(Rejected(record.source, record.position, "is an exact duplicate"))
        else:
            taken[pair] = replace(record, split=record.split or split_of(record.group, params))
    return list(taken.values()), tally


def split_of(group: str, params: PreprocessParams) -> str:
    """The split of a group, from its name and the seed alone: new data never moves old."""
    place = share(params.seed, group)
    if place < params.test_share:
        return "test"
    return "validation" if place < params.test_share + params.validation_share else "train"


def clean_text(text: str) -> str:
    """Composed Unicode (NFC), no hidden characters, single blanks, no more than one empty line in a row."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    text = _HIDDEN.sub("", text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _clean_one(document: Document, params: PreprocessParams) -> Document | Rejected:
    cleaned = replace(document, question=clean_text(document.question), answer=clean_text(document.answer))
    if cleaned.answer.lower() in EMPTY or (document.question and not cleaned.question):
        return Rejected(document.source, document.position, "has nothing left after cleaning")
    if len(cleaned.answer) < params.min_answer_chars:
        return Rejected(document.source, document.position, f"has an answer under {params.min_answer_chars} characters")
    if len(cleaned.answer) > params.max_answer_chars:
        return Rejected(document.source, document.position, f"has an answer over {params.max_answer_chars} characters")
    return cleaned


def _gate(taken: list[Document], report: Path, params: PreprocessParams) -> None:
    from tasks import expectations  # imports Great Expectations, which costs seconds that other stages need not pay

    suite = expectations.clean_documents(taken, min_answer=params.min_answer_chars, max_answer=params.max_answer_chars)
    gate = expectations.check("clean-documents", *suite, report)
    if gate.failed:
        shutil.rmtree(FAILED_GATE, ignore_errors=True)
        shutil.copytree(report, FAILED_GATE)
        raise ValueError(f"the data do not pass the gate: {'; '.join(gate.failed)}. The report stands in {FAILED_GATE}")


def _told(tally: Tally) -> str:
    rows = [f"{row['records']} in {row['source']}: {row['reason']}" for row in tally.rows()]
    return "rejected: " + ("; ".join(rows[:8]) + (" …" if len(rows) > 8 else "") if rows else "none")


if __name__ == "__main__":
    run_stage(preprocess)
