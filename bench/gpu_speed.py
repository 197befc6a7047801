"""Training and generation on one GPU: ours, and what a practised user of Hugging Face runs there, case by case in one run.

    make gpu-check                           or  python -m bench.gpu_speed --seconds 300

Weights are random, of the shapes of real models, and made on the GPU. Both sides train on the same made-up documents, with lengths like
those of short medical texts or, where it says dense, as long as a row. Ours packs them; Trainer gets them in batches of similar length
with as many tokens, compiled and not. ``generate`` has a static cache, for which it compiles the model, or the one that it has by itself.
Either computes layers twice where it runs out of memory otherwise. Speed is in tokens with loss per second, of a second pass over the
same steps: in the first, kernels are chosen and compiled. Each case and side is a process of its own, ended after SIDE_SECONDS; its line
is printed when it ends, and what is known so far is in the JSON file. After ``--seconds`` no further one is begun.
``--tiny`` has sizes for a CPU, to see that it works.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.gpu_generation import Generation, our_generation, their_generation
from bench.gpu_models import Result, now, the_device
from bench.gpu_training import Training, our_training, their_training
from model.config import SIZES, LlamaConfig

RESULTS = Path("bench/results")
TINY = LlamaConfig(64, 2, 4, 2, 128, 512, 16, 32768)
IN_8_BITS = {"optimizer": "adamw_8bit", "weights": "bfloat16"}
# In the order of what is wanted most, should time run out.
CASES: dict[str, Training | Generation] = {
    "8b lora, 4096": Training("llama-3.1-8b", "lora", 4096, 1, dense=False),
    "1b full, 2048": Training("llama-3.2-1b", "full", 2048, 4, dense=False),
    "8b generation, 1": Generation("llama-3.1-8b", 1),
    "8b qlora, 2048": Training("llama-3.1-8b", "qlora", 2048, 1, dense=False, checkpointing=True),
    "8b lora, 8192 dense": Training("llama-3.1-8b", "lora", 8192, 1, dense=True),
    "135m full, 2048": Training("smollm2-135m", "full", 2048, 16, dense=False),
    "8b generation, 32": Generation("llama-3.1-8b", 32),
    "8b full in 8 bits, 2048": Training("llama-3.1-8b", "full", 2048, 1, dense=False, checkpointing=True, ours_alone=IN_8_BITS),
    "1b full, deterministic": Training("llama-3.2-1b", "full", 2048, 4, dense=False, ours_alone={"deterministic": True}),
    "8b lora, 32768 dense": Training(
        "llama-3.1-8b", "lora", 32768, 1, dense=True, checkpointing=True, steps=2, ours_alone={"activation_checkpointing": True}
    ),
}
SIDES = ("ours", "hugging face")
# What comes last: compiled training is the slowest to begin, and a cache that grows, which ``generate`` has by itself, is slow.
THIRD_SIDE = {Training: "hugging face, compiled", Generation: "hugging face, growing cache"}
SIDE_SECONDS = 75  # that a side of a case may take; compiling an 8B model for batches of many shapes takes longer


def copy_rate(device: torch.device) -> float:
    """Bytes per second that the device's memory reads and writes in a plain copy."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    began = now()
    for _ in range(10):
        target.copy_(source)
    return 20 * source.numel() / (now() - began)


def measure(case: Training | Generation, side: str, *, tiny: bool) -> Result:
    """One side of a case, in this process."""
    config = TINY if tiny else SIZES[case.size]
    if isinstance(case, Training):
        return our_training(case, config) if side == "ours" else their_training(case, config, compiled=side.endswith("compiled"))
    return our_generation(case, config) if side == "ours" else their_generation(case, config, static=not side.endswith("growing cache"))


def in_process(name: str, side: str, *, tiny: bool, seconds: float) -> dict[str, Any]:
    """One side of a case in a process of its own; ``error`` says why there is no result."""
    command = [sys.executable, "-m", "bench.gpu_speed", "--run", name, side, *(["--tiny"] if tiny else [])]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {seconds:.0f} s"}
    if process.returncode:
        return {"error": (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]}
    try:
        result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": "no result in its output"}
    return result


def machine(*, tiny: bool) -> dict[str, Any]:
    """What the results were measured on."""
    cuda = torch.cuda.is_available()
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        commit = ""
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "commit": commit or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
        "tiny": tiny,
        "copy_gb_per_second": copy_rate(the_device()) / 1e9,
    }


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_speed")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, to see that it works")
    parser.add_argument("--seconds", type=float, default=300, help="after which no further case is begun")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, side = options.run
        case = CASES[name]
        if options.tiny and isinstance(case, Training):
            case = replace(case, tokens=256, rows=min(case.rows, 2))
        print(json.dumps(asdict(case) | measure(case, side, tiny=options.tiny)))
        return
    began, results = time.monotonic(), list[dict[str, Any]]()
    about = machine(tiny=options.tiny)
    print(json.dumps(about), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{about['device'].replace(' ', '-').lower()}-{about['date']}-{about['commit']}.json"
    both = [(name, side) for name in options.cases for side in (SIDES[:1] if alone(CASES[name]) else SIDES)]
    last = [(name, THIRD_SIDE[type(CASES[name])]) for name in options.cases if not alone(CASES[name])]
    for name, side in (*both, *last):
        if time.monotonic() - began > options.seconds:
            print(f"{name:26}{side:28}no time left", flush=True)
            continue
        result = in_process(name, side, tiny=options.tiny, seconds=max(SIDE_SECONDS, options.tiny * 600))
        results.append({"case": name, "side": side} | result)
        figures = ((key, value) for key, value in result.items() if isinstance(value, float) or key == "error")
        shown = "".join(f"  {key} {value:.4g}" if isinstance(value, float) else f"  {value}" for key, value in figures)
        print(f"{name:26}{side:28}{shown}", flush=True)
        path.write_text(json.dumps(about | {"results": results}, indent=1) + "\n", encoding="utf-8")
    for name, ratio in ratios(results):
        print(f"{name}: ours / hugging face {ratio:.2f}", flush=True)
    if any("error" in result for result in results):
        sys.exit("a case failed; see above")


def alone(case: Training | Generation) -> bool:
    """Whether a case has no peer."""
    return isinstance(case, Training) and bool(case.ours_alone)


def ratios(results: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Our speed over their best, of each case that both ended."""
    ours = {r["case"]: r["tokens_per_second"] for r in results if r["side"] == "ours" and "error" not in r}
    theirs: dict[str, float] = {}
    for r in results:
        if r["side"] != "ours" and "error" not in r:
            theirs[r["case"]] = max(r["tokens_per_second"], theirs.get(r["case"], 0.0))
    return [(name, ours[name] / theirs[name]) for name in CASES if name in ours and name in theirs]


if __name__ == "__main__":
    main()
