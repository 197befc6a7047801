"""Speed of the code here against that of another commit, alternating in one run: decoding, reading a prompt, training.

    python -m bench.commits COMMIT artifacts/base [--rounds 6] [--turns 20] [--only "16 rows"]

In each round both are loaded in processes of their own and measure the same work by turns; a round's figure is the ratio of the best
times. Processes of the same code differ by a few percent (where their memory lies), hence several rounds. Printed are the medians of
the rounds' ratios, above 1 where the code here is faster, with the smallest and the largest. The last line is one JSON document. Read
them only from an idle machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model.generation.completion import Llama
from model.generation.generate import Batch
from tasks.runtime.processes import tune_malloc

HERE = Path(__file__).resolve().parent.parent
ROWS, PROMPT, POSITION, TRAINED = 16, 512, 64, 512
Work = Callable[[], object]


def work(base: Path) -> dict[str, Work]:
    """What is measured, each below a second or so."""
    works: dict[str, Work] = {}
    for name, quantize in (("bf16", None), ("int8", "int8")):
        llama = Llama.build(base, max_seq_len=2 * PROMPT, dtype=None if quantize else torch.bfloat16, quantize=quantize)
        batch = Batch(llama.model, slots=ROWS, max_len=PROMPT, drafts=False)
        for rows in (1, ROWS):
            works[f"{name}, {rows} rows"] = steps(batch, rows)
        tokens_BT = random_tokens(llama, PROMPT)
        works[f"{name}, {PROMPT} tokens read"] = torch.inference_mode()(lambda m=llama.model, t=tokens_BT: m.hidden(t))
    llama = Llama.build(base, max_seq_len=TRAINED, dtype=torch.float32)
    model, tokens_BT = llama.model.requires_grad_(True), random_tokens(llama, TRAINED)

    def train() -> None:
        with torch.inference_mode(False), torch.autocast("cpu", torch.bfloat16):
            hidden = model.hidden(tokens_BT.clone())
        hidden.float().square().mean().backward()

    works[f"{TRAINED} tokens, forward and backward"] = train
    return works


def steps(batch: Batch, rows: int) -> Work:
    """Twenty steps in C."""
    native = batch._native
    if native is None:
        sys.exit("needs a C compiler: without one the step in C is not used")
    tokens, slots, positions = [5] * rows, list(range(rows)), [POSITION] * rows

    def run() -> None:
        for _ in range(20):
            native.step(tokens, slots, positions, batch.cache)

    return run


def random_tokens(llama: Llama, length: int) -> torch.Tensor:
    """Ids [1, length]."""
    return torch.randint(0, llama.model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))


def answer(base: Path) -> None:
    """Do the work whose name stands in a line of standard input; print its seconds."""
    tune_malloc()  # as stages do
    works = work(base)
    print(json.dumps(list(works)), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        works[line.strip()]()
        print(time.perf_counter() - began, flush=True)


@contextmanager
def loaded(tree: Path, base: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of the tree's code that waits for names."""
    command = [sys.executable, str(tree / "bench" / Path(__file__).name), "--answer", str(base)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], name: str) -> float:
    """Seconds that the work takes there."""
    assert process.stdin
    process.stdin.write(name + "\n")
    process.stdin.flush()
    return float(_line(process))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def compare(first_tree: Path, second_tree: Path, base: Path, turns: int, only: str) -> dict[str, float]:
    """How many times as fast the code of the first tree is, in the works whose names hold ``only``."""
    with loaded(first_tree, base) as first, loaded(second_tree, base) as second:
        names, _ = (json.loads(_line(process)) for process in (first, second))
        ratios = {}
        for name in (name for name in names if only in name):
            best = {first: float("inf"), second: float("inf")}
            for turn in range(turns):
                for process in (first, second) if turn % 2 else (second, first):
                    best[process] = min(best[process], ask(process, name))
            ratios[name] = best[second] / best[first]
    return ratios


def main() -> None:
    """Parse the options, measure, print."""
    if sys.argv[1:2] == ["--answer"]:
        answer(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.commits")
    parser.add_argument("commit")
    parser.add_argument("base", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", default="", help="measure works whose names hold this")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(other), options.commit], cwd=HERE, check=True)
        try:
            (other / "bench" / Path(__file__).name).write_bytes(Path(__file__).read_bytes())  # measures both alike
            for number in range(options.rounds):  # the one that is loaded first may have the better memory
                trees = (HERE, other) if number % 2 else (other, HERE)
                ratios = compare(*trees, options.base.resolve(), options.turns, options.only)
                rounds.append(ratios if number % 2 else {name: 1 / ratio for name, ratio in ratios.items()})
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=HERE, check=True)
    by_name = {name: [of_round[name] for of_round in rounds] for name in rounds[0]}
    for name, values in by_name.items():
        print(f"{name:36} {statistics.median(values):5.3f}  ({min(values):.3f} to {max(values):.3f})")
    print(json.dumps({"commit": options.commit, "cpu": os.uname().machine, "threads": torch.get_num_threads(), "ratios": by_name}))


if __name__ == "__main__":
    main()
