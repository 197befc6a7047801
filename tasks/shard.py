"""Documents to token shards: ``python -m tasks.shard``.

Partitions are tokenized apart and written in the order of the documents' ids, so the bytes do not depend on who did what when.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus import report as data_report
from tasks.corpus.documents import SPLITS, Document, read_documents
from tasks.corpus.measures import Facts, read_facts
from tasks.corpus.params import ShardParams
from tasks.corpus.shards import tokenize
from tasks.corpus.shards.format import Shard, TokenizedDocument, write_index, write_shards
from tasks.runtime.pool import in_order
from tasks.stage import Out, StageResult, run_stage

WORK = Path(".cache/shard")
COUNTS = ("documents", "tokens", "supervised")
SMALL = 2_000_000  # bytes of documents that one process tokenizes sooner than a pool starts


def shard(base: Path, documents: Path, cleaning: Path, variants: Path, shards: Out, report: Out, *, params: ShardParams) -> StageResult:
    """Tokenize every split, the variants with train; check; write, also a report on all of the data, to which ``cleaning`` is
    preprocess's part.
    """
    told = {name: json.loads((cleaning / f"{name}.json").read_bytes()) for name in ("funnel", "deidentification")}
    contents = data_report.Contents()
    tokenizer = Tokenizer.from_path(base)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    tokenize.CACHE.mkdir(parents=True, exist_ok=True)
    shards.mkdir(parents=True)
    written: dict[str, list[Shard]] = {}
    used: set[str] = set()
    for split in SPLITS:
        if split == "replay":
            continue  # augment chose from it
        # Scores are always of answers.
        all_count = params.loss_on == "all" and split in ("train", "validation")
        if not (stretches := tokenize.partitions([directory / f"{split}.jsonl" for directory in (documents, variants)])):
            continue
        with open(WORK / f"{split}.jsonl", "w", encoding="utf-8") as facts:
            names = _noted(_tokenize(base, stretches, all_count, split), used)
            written[split] = write_shards(split, _measured(names, split, facts, contents), shards, max_tokens=params.max_tokens)
        n = [sum(getattr(s, of) for s in written[split]) for of in ("documents", "tokens")]
        print(f"{split}: {n[0]:,} documents, {n[1]:,} tokens in {len(written[split])} shards", flush=True)
    write_index(shards, written, tokenizer=tokenizer.digest, vocabulary=tokenizer.n_vocab)
    _gate(report, tokenizer.n_vocab)
    shutil.rmtree(WORK)
    methods = Counter(document.method for document in read_documents(variants, "train"))
    samples = _samples(documents, variants) if told["funnel"]["public"] else []
    page = data_report.page(told["funnel"], told["deidentification"], contents, methods, samples)
    (report / "data-report.html").write_text(page, encoding="utf-8")
    for path in tokenize.CACHE.iterdir():
        if path.name not in used:
            path.unlink()
    metrics = {f"{of}_{split}": float(sum(getattr(s, of) for s in some)) for split, some in written.items() for of in COUNTS}
    return StageResult(metrics=metrics, reports=("report",))


def _samples(documents: Path, variants: Path) -> list[Document]:
    """Ten documents: as their ids are digests, the first are as good as any."""
    some = [(documents, "train", 5), (documents, "validation", 1), (documents, "test", 2), (variants, "train", 2)]
    return [document for directory, split, count in some for document in islice(read_documents(directory, split), count)]


def _tokenize(base: Path, stretches: Mapping[int, list[tokenize.Stretch]], all_count: bool, split: str) -> Iterator[str]:
    small = sum(s.end - s.start for some in stretches.values() for s in some) < SMALL
    arguments = [(base.absolute(), some, all_count, tokenize.CACHE.absolute()) for some in stretches.values()]
    # In order, so that what is done is written while the rest is tokenized.
    return in_order(tokenize.tokenize, arguments, desc=f"tokenizing {split}", here=small)


def _noted(names: Iterable[str], used: set[str]) -> Iterator[str]:
    for name in names:
        used.add(name)
        yield name


def _measured(names: Iterable[str], split: str, facts: IO[str], contents: data_report.Contents) -> Iterator[TokenizedDocument]:
    """The documents, their facts written on the way."""
    for name in names:
        for document in tokenize.load(tokenize.CACHE / name):
            facts.write(json.dumps(_facts(document, split)) + "\n")
            contents.add(document.entry.source, split, len(document.tokens))
            yield document


def _facts(document: TokenizedDocument, split: str) -> Facts:
    supervised = int(document.loss.sum())
    return {
        "id": document.entry.id,
        "split": split,
        "tokens": len(document.tokens),
        "supervised": supervised,
        "largest_token": int(document.tokens.max()),
        "bytes_per_token": round(document.entry.bytes / max(supervised, 1), 3),
    }


def _gate(report: Path, vocabulary: int) -> None:
    from tasks.corpus import expectations  # imports Great Expectations, which costs seconds

    suite = expectations.sharded_documents(vocabulary=vocabulary)
    gate = expectations.check("sharded-documents", read_facts(sorted(WORK.glob("*.jsonl"))), suite, WORK, report)
    if gate.failed:
        raise ValueError(f"the shards do not pass the gate: {'; '.join(gate.failed)}")


if __name__ == "__main__":
    run_stage(shard)
