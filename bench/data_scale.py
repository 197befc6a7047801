"""How time and memory of the stages on data grow with the corpus: 1, 3 and 30 times the default one, extrapolated to 100 times.

    python -m bench.data_scale artifacts/base data --times 1 3 30

Each copy of the corpus's documents has other words, names and numbers, by a seed, so that all are distinct as documents of a larger
corpus are. Memory is the sum over the process and its workers of what is theirs alone and their part of what they share (PSS), at its
highest; time is that of preprocess, augment and shard. Absolute figures mean little; read the ratios. The last line is one JSON document.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import psutil

from tasks.augment import augment
from tasks.corpus.documents import Document, share
from tasks.corpus.params import AugmentParams, PreprocessParams, ShardParams
from tasks.corpus.readers.files import raw_files, read_file
from tasks.params import read_params
from tasks.preprocess import preprocess
from tasks.shard import shard

STAGES = ("preprocess", "augment", "shard")
_WORD = re.compile(r"[A-Za-z]{4,}|\d")
_SYLLABLES = [a + b for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]


@lru_cache(maxsize=1 << 18)
def _other_word(word: str, copy: int) -> str:
    """Another word of about the same length for each copy, the same for the same word."""
    fraction = share(copy, word.lower())
    if word.isdigit():
        return str(int(fraction * 10)) if word != "0" else "0"
    other = ""
    while len(other) < len(word):
        fraction = fraction * len(_SYLLABLES) % len(_SYLLABLES)
        other += _SYLLABLES[int(fraction)]
        fraction -= int(fraction)
    return other.capitalize() if word[0].isupper() else other


def write_corpus(data: Path, target: Path, times: int) -> int:
    """A corpus of so many times the documents of ``data``; how many it has."""
    target.mkdir(parents=True)
    documents = [d for name in raw_files(data) for d in read_file(data, name) if isinstance(d, Document)]
    for copy in range(times):
        with open(target / f"copy{copy:03d}.jsonl", "w", encoding="utf-8") as file:
            for document in documents:

                def changed(text: str, copy: int = copy) -> str:
                    return _WORD.sub(lambda match: _other_word(match.group(), copy), text) if copy else text

                row = {
                    "question": changed(document.question),
                    "answer": changed(document.answer),
                    "topic": changed(document.topic),
                    "group": f"{document.group} {copy}",
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return times * len(documents)


def run_stages(base: Path, folder: Path, params: Path, send: "multiprocessing.connection.Connection") -> None:
    """The three stages in ``folder``; sends the name of each as it begins."""
    sections = read_params(params)
    os.chdir(folder)
    preprocessing, augmentation, sharding = (sections[stage] for stage in STAGES)
    assert isinstance(preprocessing, PreprocessParams) and isinstance(augmentation, AugmentParams) and isinstance(sharding, ShardParams)
    # The copies' sentences are facts in a fixed form, as those of the corpus that they come from.
    loose = preprocessing.model_copy(update={"boilerplate": preprocessing.boilerplate.model_copy(update={"exempt": ("*",)})})
    send.send("preprocess")
    preprocess(Path("data"), Path("documents"), Path("report"), Path("rejected.jsonl"), params=loose)
    send.send("augment")
    augment(Path("data"), Path("documents"), Path("variants"), Path("augment-report"), params=augmentation)
    send.send("shard")
    shard(base, Path("documents"), Path("report"), Path("variants"), Path("shards"), Path("shard-report"), params=sharding)


def measure(base: Path, folder: Path, params: Path) -> dict[str, dict[str, float]]:
    """Seconds and highest memory in MB by stage."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=run_stages, args=(base.absolute(), folder, params.absolute(), send))
    process.start()
    send.close()
    by_stage: dict[str, dict[str, float]] = {}
    stage, began = "", time.perf_counter()
    while process.is_alive():
        if receive.poll(0.25):
            try:
                stage, began = receive.recv(), time.perf_counter()
            except EOFError:
                process.join()
                break
        if stage:
            row = by_stage.setdefault(stage, {"seconds": 0.0, "memory_mb": 0.0})
            row["seconds"] = round(time.perf_counter() - began, 1)
            row["memory_mb"] = max(row["memory_mb"], round(_memory(process.pid)))
    if process.exitcode:
        raise SystemExit(f"{stage} failed at this size")
    return by_stage


def _memory(pid: int | None) -> float:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass  # it ended between being listed and being looked at
    return total / 1e6


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description="Measure how the stages on data grow.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 30])
    options = parser.parse_args()
    results = []
    for times in options.times:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            records = write_corpus(options.data, folder / "data", times)
            stages = measure(options.base, folder, Path("params.yaml"))
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
            results.append({"times": times, "records": records, "disk_mb": round(size), "stages": stages})
            shutil.rmtree(folder / "data")
        summary = "; ".join(f"{stage} {row['seconds']:.0f} s, {row['memory_mb']:.0f} MB" for stage, row in stages.items())
        print(f"{times:3} times, {records:,} records: {summary}", flush=True)
    first, last = results[0], results[-1]
    growth = {
        stage: {
            "memory_ratio": round(last["stages"][stage]["memory_mb"] / first["stages"][stage]["memory_mb"], 2),
            "seconds_per_copy_ratio": round(
                (last["stages"][stage]["seconds"] / last["times"]) / (first["stages"][stage]["seconds"] / first["times"]), 2
            ),
            "hours_at_100_times": round(last["stages"][stage]["seconds"] / last["times"] * 100 / 3600, 2),
        }
        for stage in STAGES
    }
    print(json.dumps({"results": results, "growth": growth}))


if __name__ == "__main__":
    main()
