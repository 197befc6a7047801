"""Training speed on this machine: ours, and what a user of Hugging Face would run instead, alternating in one run.

    make train-speed                        or  python -m bench.train_speed artifacts/base artifacts/shards

Every contender trains the same weights on the same documents in a process of its own, several times by turns; the best round counts,
because other work on the machine can only slow one down. Dense: four documents of 512 random tokens per step, loss on all of them.
Documents: the train split of the given shards with loss as it stands there, four rows of 512 per step; Trainer gets the documents
one per row, cut at 512 and padded to the longest of the four. Speed is in tokens with loss per second. The last line is one JSON
document. Read the ratios, and those only from an idle machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint.config import read_config
from model.lora import TARGETS
from model.precision import use_bf16
from tasks.corpus.shards.format import Entry, Split, TokenizedDocument, open_split, write_index, write_shards
from tasks.runtime.processes import tune_malloc
from tasks.training import checkpoints, optim
from tasks.training.distributed import process_group
from tasks.training.hardware import matmul_rate
from tasks.training.loop import training_work, update
from tasks.training.packing import collate, count_supervised, training_rows
from tasks.training.params import FinetuneParams
from tasks.training.prepare import load_base_with_adapter, prepare_for_training

ROWS, LENGTH = 4, 512
WARMUP, STEPS = 4, 8
CONTENDERS = ("ours", "ours, compiled", "trainer", "trainer, compiled")
DATA = ("dense", "documents")
MODES = ("full", "lora")
RANK, ALPHA = 8, 16
PARAMS = FinetuneParams.model_validate(
    {
        "mode": "full",
        "adapter": {"rank": RANK, "alpha": ALPHA, "targets": TARGETS},
        "seed": 0,
        "seq_len": LENGTH,
        "batch": ROWS,
        "micro_batch": ROWS,
        "steps": WARMUP + STEPS,
        "epochs": 0.0,
        "schedule": "linear",
        "warmup": 0,
        "decay": 1.0,
        "lr": 1e-5,
        "lr_floor": 1.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.0,
        "clip": 1.0,
        "precision": "auto",
        "compile": False,
        "activation_checkpointing": False,
        "validate_every": 100,
        "validation_tokens": 1,
        "keep": "last",
        "patience": 0,
        "checkpoint_every": 100,
    }
)
Result = dict[str, float]


def our_trainer(base: Path, shards: Path, mode: str, *, compiled: bool) -> Result:
    """This project's training step."""
    tune_malloc()
    params = PARAMS.model_copy(update={"mode": mode, "compile": compiled})
    split = open_split(shards, "train")
    with process_group() as group:
        model = prepare_for_training(load_base_with_adapter(base, params, device=group.device), params, group.device)
        optimizer = optim.make_optimizer(checkpoints.trained(model).values(), params)
        rows = training_rows(split, LENGTH, seed=0)
        steps: list[tuple[float, float]] = []
        supervised = work = loading = 0.0
        for step in range(1, WARMUP + STEPS + 1):
            loaded = time.perf_counter()
            batch = [row for row, _ in islice(rows, ROWS)]
            began = time.perf_counter()
            update(model, optimizer, step, batch, split, params, group)
            steps.append((began, time.perf_counter()))
            if step > WARMUP:
                supervised += count_supervised(batch, split)
                work += training_work(model, batch, split, params)
                stacking = time.perf_counter()
                collate(batch, split, LENGTH)  # as update does
                loading += began - loaded + time.perf_counter() - stacking
        rate = matmul_rate(model.config, ROWS * LENGTH, group.device, use_bf16=use_bf16(group.device, params.precision))
    shares = {"mfu": work / _seconds(steps) / rate, "loader": loading / _seconds(steps)}
    return _result(steps, supervised) | shares | {"matmul_tflops": rate / 1e12}


def trainer(base: Path, shards: Path, mode: str, *, compiled: bool) -> Result:
    """Hugging Face's Trainer with its defaults, bfloat16 autocast where the processor has such products, the usual collator; adapters by
    PEFT."""
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if mode == "lora":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    split = open_split(shards, "train")
    supervised: list[int] = []
    collate = transformers.DataCollatorForSeq2Seq(tokenizer)

    def counted(rows: list[dict[str, Any]]) -> Any:
        supervised.append(sum(sum(label != -100 for label in row["labels"][1:]) for row in rows))
        return collate(rows)

    steps: list[tuple[float, float]] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append((self.began, time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            max_steps=WARMUP + STEPS,
            learning_rate=PARAMS.lr,
            bf16=use_bf16(torch.device("cpu"), "auto"),
            torch_compile=compiled,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        transformers.Trainer(model, options, train_dataset=_rows(split), data_collator=counted, callbacks=[Clock()]).train()
    return _result(steps, sum(supervised[WARMUP : WARMUP + STEPS]))


def _rows(split: Split) -> list[dict[str, list[int]]]:
    """The documents in a shuffled order, as many as are needed, cut; those without loss left out, as they would give NaN."""
    rows = []
    for index in np.random.default_rng(0).permutation(len(split)):
        tokens, loss = (part[:LENGTH].astype(np.int64) for part in split.document(int(index)))
        if loss[1:].any():
            labels = np.where(loss, tokens, -100).tolist()
            rows.append({"input_ids": tokens.tolist(), "attention_mask": [1] * len(tokens), "labels": labels})
        if len(rows) == ROWS * (WARMUP + STEPS):
            break
    return rows


def _seconds(steps: list[tuple[float, float]]) -> float:
    return sum(ended - began for began, ended in steps[WARMUP:])


def _result(steps: list[tuple[float, float]], supervised: float) -> Result:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e6
    return {"tokens_per_second": supervised / _seconds(steps), "peak_mb": peak}


def dense_shards(directory: Path, vocabulary: int) -> Path:
    """Documents of random tokens that each fill a row, all of them with loss."""
    generator = np.random.default_rng(0)

    def documents() -> Iterator[TokenizedDocument]:
        for index in range(ROWS * (WARMUP + STEPS)):
            tokens = generator.integers(vocabulary, size=LENGTH, dtype=np.uint32)
            yield TokenizedDocument(Entry(str(index), "text", "random", 0), tokens, np.ones(LENGTH, np.uint8))

    directory.mkdir()
    written = write_shards("train", documents(), directory, max_tokens=1 << 20)
    write_index(directory, {"train": written}, tokenizer="", vocabulary=vocabulary)
    return directory


def run(contender: str, base: Path, shards: Path, mode: str) -> Result:
    """A contender in a process of its own."""
    command = [sys.executable, "-m", "bench.train_speed", str(base), str(shards), "--run", contender, mode]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{contender}, {mode}: {process.stderr}")
    result: Result = json.loads(process.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.train_speed")
    parser.add_argument("base", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        contender, mode = options.run
        train = our_trainer if contender.startswith("ours") else trainer
        print(json.dumps(train(options.base, options.shards, mode, compiled=contender.endswith("compiled"))))
        return
    best: dict[tuple[str, str, str], Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        dense = dense_shards(Path(folder) / "dense", read_config(options.base).vocab_size)
        for _ in range(options.rounds):
            for mode in options.modes:
                for data in options.data:
                    for contender in options.contenders:
                        result = run(contender, options.base, dense if data == "dense" else options.shards, mode)
                        before = best.get((mode, data, contender), result)
                        best[mode, data, contender] = max(result, before, key=lambda r: r["tokens_per_second"])
                        print(".", end="", file=sys.stderr, flush=True)
    report(best)


def report(best: dict[tuple[str, str, str], Result]) -> None:
    """Print the table, the ratios and the JSON document."""
    print(f"\n{'':38}{'tokens/s':>10}{'peak MB':>10}{'of matmul rate':>16}")
    for name, result in best.items():
        share = f"{result['mfu']:16.2f}" if "mfu" in result else ""
        print(f"{', '.join(name):38}{result['tokens_per_second']:10.0f}{result['peak_mb']:10.0f}{share}")
    comparisons = dict(ratios(best))
    for comparison, ratio in comparisons.items():
        print(f"{comparison}: {ratio:.2f}")
    rows = [dict(zip(("mode", "data", "contender"), name, strict=True)) | result for name, result in best.items()]
    print(json.dumps({"threads": torch.get_num_threads(), "cpu": os.uname().machine, "results": rows, "ratios": comparisons}))


def ratios(best: dict[tuple[str, str, str], Result]) -> Iterable[tuple[str, float]]:
    """Our fastest trainer against each of Hugging Face's."""
    for mode, data, contender in best:
        if contender.startswith("trainer"):
            mine = [r["tokens_per_second"] for (m, d, c), r in best.items() if (m, d) == (mode, data) and c.startswith("ours")]
            if mine:
                yield f"{mode}, {data}: ours / {contender}", max(mine) / best[mode, data, contender]["tokens_per_second"]


if __name__ == "__main__":
    main()
