"""Documents to token shards: ``python -m tasks.shard``.

Partitions are tokenized separately and written in the order of the documents' ids, so the bytes do not depend on the number of processes.
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
from tasks.corpus.gates import CheckFiles, started_gates
from tasks.corpus.params import ShardParams
from tasks.corpus.row_metrics import RowMetrics
from tasks.corpus.shards import tokenize
from tasks.corpus.shards.format import Shard, TokenizedDocument, write_index, write_shards
from tasks.runtime.pool import in_order
from tasks.stage import Out, StageResult, run_stage

WORK = Path(".cache/shard")
COUNTS = ("documents", "tokens", "supervised")
SMALL = 2_000_000  # bytes of documents that one process tokenizes sooner than a pool starts


def shard(base: Path, documents: Path, cleaning: Path, variants: Path, shards: Out, report: Out, *, params: ShardParams) -> StageResult:
    """Tokenize every split, the variants with train; check; write the shards and the data report, of which ``cleaning`` is
    preprocess's part.
    """
    funnel, deidentification = (json.loads((cleaning / f"{name}.json").read_bytes()) for name in ("funnel", "deidentification"))
    stats = data_report.ShardStats()
    tokenizer = Tokenizer.from_path(base)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    tokenize.CACHE.mkdir(parents=True, exist_ok=True)
    shards.mkdir(parents=True)
    with started_gates() as check_files:
        written: dict[str, list[Shard]] = {}
        used: set[str] = set()
        for split in (name for name in SPLITS if name != "replay"):  # of replay augment chose what is trained on
            # Scores are always of answers.
            loss_on_all = params.loss_on == "all" and split in ("train", "validation")
            if ranges := tokenize.partitions([directory / f"{split}.jsonl" for directory in (documents, variants)]):
                files = _tokenize(base, ranges, loss_on_all, split)
                written[split] = _write_split(split, files, shards, stats, used, max_tokens=params.max_tokens)
        write_index(shards, written, tokenizer=tokenizer.digest, vocabulary=tokenizer.n_vocab)
        _gate(check_files, report, tokenizer.n_vocab)
    shutil.rmtree(WORK)
    methods = Counter(document.method for document in read_documents(variants, "train"))
    samples = _samples(documents, variants) if funnel["public"] else []
    page = data_report.page(funnel, deidentification, stats, methods, samples)
    (report / "data-report.html").write_text(page, encoding="utf-8")
    for path in tokenize.CACHE.iterdir():
        if path.name not in used:
            path.unlink()
    metrics = {f"{count}_{split}": float(_total(of_split, count)) for split, of_split in written.items() for count in COUNTS}
    return StageResult(metrics=metrics, reports=("report",))


def _total(shards: Iterable[Shard], count: str) -> int:
    return sum(getattr(s, count) for s in shards)


def _samples(documents: Path, variants: Path) -> list[Document]:
    """Ten documents: as their ids are digests, the first are as good as any."""
    chosen = [(documents, "train", 5), (documents, "validation", 1), (documents, "test", 2), (variants, "train", 2)]
    return [document for directory, split, count in chosen for document in islice(read_documents(directory, split), count)]


def _tokenize(base: Path, ranges: Mapping[int, list[tokenize.ByteRange]], loss_on_all: bool, split: str) -> Iterator[str]:
    """The names in the cache of the tokenized partitions, in order."""
    few_bytes = sum(r.end - r.start for of_partition in ranges.values() for r in of_partition) < SMALL
    cache = tokenize.CACHE.absolute()
    arguments = [(base.absolute(), of_partition, loss_on_all, cache) for of_partition in ranges.values()]
    # In order, so that what is done is written while the rest is tokenized.
    return in_order(tokenize.tokenize, arguments, desc=f"tokenizing {split}", here=few_bytes)


def _write_split(
    split: str, files: Iterable[str], directory: Path, stats: data_report.ShardStats, used: set[str], *, max_tokens: int
) -> list[Shard]:
    """Write the shards of a split from files of the cache; count the documents, and note which files are ``used``."""

    def counted(metrics: IO[str]) -> Iterator[TokenizedDocument]:
        for name in files:
            used.add(name)
            for document in tokenize.load(tokenize.CACHE / name):
                metrics.write(json.dumps(_row_metrics(document, split)) + "\n")
                stats.add(document.entry.source, split, len(document.tokens))
                yield document

    with open(WORK / f"{split}.jsonl", "w", encoding="utf-8") as metrics:
        shards = write_shards(split, counted(metrics), directory, max_tokens=max_tokens)
    print(f"{split}: {_total(shards, 'documents'):,} documents, {_total(shards, 'tokens'):,} tokens in {len(shards)} shards", flush=True)
    return shards


def _row_metrics(document: TokenizedDocument, split: str) -> RowMetrics:
    supervised = int(document.loss.sum())
    return {
        "id": document.entry.id,
        "split": split,
        "tokens": len(document.tokens),
        "supervised": supervised,
        "largest_token": int(document.tokens.max()),
        "bytes_per_token": round(document.entry.bytes / max(supervised, 1), 3),
    }


def _gate(check_files: CheckFiles, report: Path, vocabulary: int) -> None:
    gate = check_files("sharded-documents", sorted(WORK.glob("*.jsonl")), WORK, report, vocabulary=vocabulary)
    if gate.failed:
        raise ValueError(f"the shards do not pass the gate: {'; '.join(gate.failed)}")


if __name__ == "__main__":
    run_stage(shard)
