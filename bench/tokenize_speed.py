"""Speed of tokenizing and writing shards: ours, tiktoken's own batch call and Hugging Face tokenizers, on the same text and cores.

    python -m bench.tokenize_speed artifacts/base artifacts/documents

Ours is all that the shard stage does for a split: reading documents, filling the chat template, tokenizing in processes (their start
included), loss masks, writing shards with checksums. The others only turn lists of texts that are in memory into ids. Rounds
alternate, the best of each counts; bytes are those of the questions and answers. The last line is one JSON document.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model.tokenizer.tokenizer import Tokenizer
from model.tokenizer.vocabulary import ByteLevel
from tasks.corpus.documents import content_id, read_documents, write_documents
from tasks.corpus.shards import tokenize
from tasks.corpus.shards.format import write_shards
from tasks.runtime.pool import in_order, workers


def our_stage(base: Path, documents: Path, work: Path) -> None:
    """The train split of ``documents`` to shards, with nothing remembered."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "cache").mkdir(parents=True)
    (work / "shards").mkdir()
    arguments = [
        (base.absolute(), partition, False, (work / "cache").absolute())
        for partition in tokenize.partitions([documents / "train.jsonl"]).values()
    ]
    names = in_order(tokenize.tokenize, arguments, desc="tokenizing")
    documents_of_all = (document for name in names for document in tokenize.load(work / "cache" / name))
    write_shards("train", documents_of_all, work / "shards", max_tokens=1 << 24)


def best(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each contender's fastest round."""
    seconds = {name: float("inf") for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description="Compare the shard stage with tokenizers alone.")
    parser.add_argument("base", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--copies", type=int, default=8, help="of the train split, so that the start of processes counts for less")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from tokenizers import Tokenizer as HuggingFace

    os.environ["RAYON_NUM_THREADS"] = str(workers())
    vocabulary = Tokenizer.from_path(options.base)._vocabulary
    if not isinstance(vocabulary, ByteLevel):
        parser.error("the base model's tokenizer is not one of tiktoken's kind")
    reference = HuggingFace.from_file(str(options.base / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        copies = (
            replace(document, id=content_id(document.id, str(copy)))
            for copy in range(options.copies)
            for document in read_documents(options.documents, "train")
        )
        write_documents(copies, Path(folder))
        texts = [text for document in read_documents(Path(folder), "train") for text in (document.question, document.answer)]
        size = sum(len(text.encode()) for text in texts) / 1e6
        seconds = best(
            {
                "ours": lambda: our_stage(options.base, Path(folder), Path(folder) / "work"),
                "tiktoken": lambda: vocabulary._encoding.encode_ordinary_batch(texts, num_threads=workers()),
                "hugging face": lambda: reference.encode_batch(texts, add_special_tokens=False),
            },
            options.rounds,
        )
    rates = {name: round(size / s, 2) for name, s in seconds.items()}
    ratios = {name: round(rates["ours"] / rate, 3) for name, rate in rates.items() if name != "ours"}
    for name, rate in rates.items():
        print(f"{name:14} {rate:8.2f} MB/s" + (f"   ours is {ratios[name]:.2f} times as fast" if name in ratios else ""))
    print(json.dumps({"megabytes": round(size, 1), "workers": workers(), "mb_per_s": rates, "ratios": ratios}))


if __name__ == "__main__":
    main()
