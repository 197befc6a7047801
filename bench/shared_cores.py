"""Speed on cores that others use too: how long threads spin at a barrier, alone and beside busy loops, alternating in one run.

    python -m bench.shared_cores artifacts/base

Each round runs each setting idle and beside one busy loop per core, in processes of their own: OpenMP reads its settings as it starts.
Decoding is one sequence; reading a prompt of 512 tokens; training a step of 512. The median of the rounds counts, as other work is the
matter here. The last line is one JSON document. Idle columns are worth something on an idle machine only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's default": {"GOMP_SPINCOUNT": "300000"},
    "one thread": {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "300000"},
    "this project's": {},
}
TASKS = ("decode", "prefill", "train")
PREFILL, TRAIN, SECONDS = 512, 512, 4.0
SPIN = "import time\nwhile True: pass"
Speeds = dict[str, float]  # tokens/s by task


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Other processes that take all of a core each."""
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(checkpoint: Path, settings: dict[str, str]) -> Speeds:
    """The speeds in a process with these settings."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")} | settings
    command = [sys.executable, "-m", "bench.shared_cores", str(checkpoint), "--measure"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def measure(checkpoint: Path) -> Speeds:
    """The speeds in this process, of each task for some seconds after a first turn."""
    import model.system.openmp  # noqa: F401, I001  before torch, which reads what it sets
    import torch

    from model.checkpoint.load import load_model
    from model.generation import quantize
    from model.generation.generate import Batch

    trained = load_model(checkpoint, dtype=torch.float32)
    network = quantize.quantize_(load_model(checkpoint, dtype=torch.bfloat16, max_seq_len=1024), "bfloat16")
    prompt = torch.randint(1000, network.config.vocab_size, (PREFILL,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = Batch(network, slots=1, max_len=1024)
    sequence = batch.add(prompt[:16])

    def decode() -> int:
        for _ in range(8):
            batch.sample(sequence)
            batch.step([sequence])
        return 8

    def prefill() -> int:
        reading = Batch(network, slots=1, max_len=PREFILL + 8)
        reading.add(prompt)
        return PREFILL

    def train() -> int:
        ids = torch.tensor(prompt[:TRAIN])[None]
        with torch.autocast("cpu", torch.bfloat16):
            logits = trained.lm_head(trained.hidden(ids)[0, -64:])
        torch.nn.functional.cross_entropy(logits.float(), ids[0, -64:]).backward()
        return TRAIN

    return {name: _speed(task) for name, task in zip(TASKS, (decode, prefill, train), strict=True)}


def _speed(task: Callable[[], int]) -> float:
    task()
    began, tokens = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        tokens += task()
    return tokens / (time.perf_counter() - began)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared_cores")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spin", action="append", default=[], help="another spin count to measure")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.checkpoint)))
        return
    settings = SETTINGS | {f"spin {count}": {"GOMP_SPINCOUNT": count} for count in options.spin}
    cores = len(os.sched_getaffinity(0))
    rounds: dict[str, list[Speeds]] = {}
    for _ in range(options.rounds):
        for name, setting in settings.items():
            rounds.setdefault(f"{name}, idle", []).append(measured(options.checkpoint, setting))
            with busy(cores):
                rounds.setdefault(f"{name}, busy", []).append(measured(options.checkpoint, setting))
            print(".", end="", file=sys.stderr, flush=True)
    medians = {name: {task: statistics.median(speeds[task] for speeds in of) for task in TASKS} for name, of in rounds.items()}
    print(f"\n{'tokens/s':28}" + "".join(f"{task:>10}" for task in TASKS))
    for name, speeds in medians.items():
        print(f"{name:28}" + "".join(f"{speeds[task]:10.1f}" for task in TASKS))
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
