"""Generation speed on this machine's CPU: ours, transformers and llama.cpp with the same weights, alternating in one run.

    make bench-deps && python -m bench.generate_speed artifacts/base

Prefill is one prompt of 512 tokens up to its first token; decode counts the tokens after it. Every round runs every contender once;
the best of the rounds counts, because other work on the machine can only slow one down, and of transformers the faster precision.
The last line is one JSON document. Absolute figures mean little; read the ratios, and those only from an idle machine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench.llamacpp import LlamaCpp
from model.checkpoint.config import read_config
from model.checkpoint.convert import convert
from model.checkpoint.load import load_model
from model.generation import quantize
from model.generation.generate import Batch

PREFILL, DECODE = 512, 64
THEIRS = ("bfloat16", "float32")  # which is faster depends on the processor; the better counts
Times = dict[str, float]  # tokens/s by task
MEASURED = ("prefill", "decode, batch 1", "decode, batch 8")
Contender = Callable[[], Times]


def prompts(count: int, length: int, vocabulary: int) -> list[list[int]]:
    """Token ids without meaning: speed does not depend on it."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1000, vocabulary, (count, length), generator=generator).tolist()


def our_engine(directory: Path, kind: str) -> Contender:
    """This project's batched generation."""
    model = quantize.quantize_(load_model(directory, dtype=torch.bfloat16, max_seq_len=1024), kind)

    def run() -> Times:
        (long,) = prompts(1, PREFILL, model.config.vocab_size)
        speeds = {"prefill": PREFILL / _seconds(lambda: Batch(model, slots=1, max_len=PREFILL + 8).add(long))}
        for rows in (1, 8):
            batch = Batch(model, slots=rows, max_len=DECODE + 32)
            joined = [batch.add(p) for p in prompts(rows, 16, model.config.vocab_size)]

            def decode(batch: Batch = batch, joined: list = joined) -> None:  # type: ignore[type-arg]
                for _ in range(DECODE):
                    for row in joined:
                        batch.sample(row)
                    batch.step(joined)

            speeds[f"decode, batch {rows}"] = rows * DECODE / _seconds(decode)
        return speeds

    return run


def transformers(directory: Path, dtype: torch.dtype) -> Contender:
    """Hugging Face's generate."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    greedy = {"do_sample": False, "pad_token_id": 0}

    def generate(rows: list[list[int]], count: int) -> float:
        ids = torch.tensor(rows)
        mask = torch.ones_like(ids)
        return _seconds(lambda: model.generate(ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, **greedy))

    def run() -> Times:
        speeds = {"prefill": PREFILL / generate(prompts(1, PREFILL, model.config.vocab_size), 1)}
        for rows in (1, 8):
            short = prompts(rows, 16, model.config.vocab_size)
            speeds[f"decode, batch {rows}"] = rows * DECODE / (generate(short, DECODE + 1) - generate(short, 1))
        return speeds

    return run


def llamacpp(file: Path, vocabulary: int) -> Contender:
    """llama.cpp with a GGUF file."""

    def run() -> Times:
        speeds = {}
        for rows in (1, 8):
            with LlamaCpp(file, threads=torch.get_num_threads(), sequences=rows) as engine:
                if rows == 1:
                    speeds["prefill"] = PREFILL / engine.prefill_seconds(prompts(1, PREFILL, vocabulary)[0])
                speeds[f"decode, batch {rows}"] = rows * DECODE / engine.decode_seconds(prompts(rows, 16, vocabulary), DECODE)
        return speeds

    return run


def contenders(directory: Path, folder: Path) -> Iterator[tuple[str, Contender]]:
    """Everything that is compared, loaded."""
    yield "ours, bfloat16", our_engine(directory, "bfloat16")
    yield "ours, int8", our_engine(directory, "int8")
    for dtype in THEIRS:
        yield f"transformers, {dtype}", transformers(directory, getattr(torch, dtype))
    for kind in ("q8_0", "f16"):
        file = folder / f"{kind}.gguf"
        convert(directory, file, "gguf", kind=kind)
        yield f"llama.cpp, {kind}", llamacpp(file, read_config(directory).vocab_size)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.generate_speed")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        running = dict(contenders(options.checkpoint, Path(folder)))
        best: dict[str, Times] = {name: dict.fromkeys(MEASURED, 0.0) for name in running}
        for _ in range(options.rounds):
            for name, run in running.items():
                for task, speed in run().items():
                    best[name][task] = max(best[name][task], speed)
                print(".", end="", file=sys.stderr, flush=True)
    print(f"\n{'tokens/s':24}" + "".join(f"{task:>18}" for task in MEASURED))
    for name, times in best.items():
        print(f"{name:24}" + "".join(f"{times[task]:18.1f}" for task in MEASURED))
    ratios = dict(_ratios(best))
    for comparison, ratio in ratios.items():
        print(f"{comparison}: {ratio:.2f}")
    print(json.dumps({"threads": options.threads, "tokens_per_second": best, "ratios": ratios}))


def _ratios(best: dict[str, Times]) -> Iterator[tuple[str, float]]:
    for task in MEASURED:
        yield f"{task}: ours bfloat16 / transformers", best["ours, bfloat16"][task] / max(best[f"transformers, {d}"][task] for d in THEIRS)
        yield f"{task}: ours int8 / llama.cpp q8_0", best["ours, int8"][task] / best["llama.cpp, q8_0"][task]


if __name__ == "__main__":
    main()
