"""Training steps on a GPU: this project's, and Hugging Face's Trainer with PEFT."""

import tempfile
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from bench.gpu_models import Result, now, peak_gb, random_weights, the_device, their_model
from model import lora
from model.llama import LlamaConfig
from model.lora import TARGETS
from model.precision import use_bf16
from tasks.corpus.shards.format import Entry, Split
from tasks.training import checkpoints, optim
from tasks.training.distributed import process_group
from tasks.training.hardware import matmul_rate
from tasks.training.loop import lora_config, prepare_for_training, training_work, update
from tasks.training.packing import count_supervised, training_rows
from tasks.training.params import FinetuneParams

WARMUP, STEPS = 4, 6
PARAMS: dict[str, Any] = {
    "adapter": {"rank": 16, "alpha": 32, "targets": TARGETS},
    "seed": 0,
    "steps": WARMUP + STEPS,
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
    "compile": "auto",
    "activation_checkpointing": False,
    "validate_every": 100,
    "validation_tokens": 1,
    "keep": "last",
    "patience": 0,
    "checkpoint_every": 100,
}


@dataclass(frozen=True)
class Training:
    """A case of training: one step is one row of ``tokens``, or several."""

    size: str
    mode: str
    tokens: int
    rows: int
    dense: bool


def documents(tokens: int, count: int, vocabulary: int, *, dense: bool) -> Split:
    """Random documents in memory, with loss on the last three quarters of each."""
    random = np.random.default_rng(0)
    lengths = np.full(count, tokens) if dense else np.clip(random.lognormal(5.2, 0.8, count), 16, tokens).astype(int)
    starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    loss = np.concatenate([np.arange(n) >= n // 4 for n in lengths]).astype(np.uint8)
    ids = random.integers(vocabulary, size=starts[-1], dtype=np.uint32)
    return Split([ids], [loss], [starts], [Entry(str(n), "", "", 0) for n in range(count)], np.array([0, count]))


def documents_of(case: Training, config: LlamaConfig) -> Split:
    """Enough documents for all steps of a case."""
    count = 20 + (WARMUP + STEPS) * case.rows * (1 if case.dense else case.tokens // 100)
    return documents(case.tokens, count, config.vocab_size, dense=case.dense)


def our_training(case: Training, config: LlamaConfig) -> Result:
    """This project's training step."""
    params = FinetuneParams.model_validate(
        PARAMS | {"mode": case.mode, "seq_len": case.tokens, "batch": case.rows, "micro_batch": case.rows}
    )
    split = documents_of(case, config)
    with process_group() as group:
        model = random_weights(config, group.device, half=case.mode == "lora")
        if params.training_mode.adapter:
            lora.add(model, lora_config(params), seed=0)
        model = prepare_for_training(model, params, group.device)
        optimizer = optim.adamw(checkpoints.trained(model).values(), lr=params.lr, betas=(0.9, 0.999), weight_decay=0.0)
        rows = training_rows(split, params.seq_len, seed=0)
        seconds = supervised = work = 0.0
        for step in range(1, WARMUP + STEPS + 1):
            batch = [row for row, _ in islice(rows, case.rows)]
            began = now()
            update(model, optimizer, step, batch, split, params, group)
            if step > WARMUP:
                seconds += now() - began
                supervised += count_supervised(batch, split)
                work += training_work(model, batch, split, params)
        rate = matmul_rate(config, case.rows * case.tokens, group.device, use_bf16=use_bf16(group.device, "auto"))
    return {"tokens_per_second": supervised / seconds, "peak_gb": peak_gb(), "mfu": work / seconds / rate, "matmul_tflops": rate / 1e12}


def their_training(case: Training, config: LlamaConfig) -> Result:
    """Trainer in bfloat16, adapters by PEFT; first without gradient checkpointing."""
    try:
        return _their_training(case, config, checkpointing=False)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return _their_training(case, config, checkpointing=True)


def _their_training(case: Training, config: LlamaConfig, *, checkpointing: bool) -> Result:
    import transformers
    from torch.utils.data import SequentialSampler

    device = the_device()
    half = case.mode == "lora" and device.type == "cuda"
    model = their_model(config, device, dtype=torch.bfloat16 if half else torch.float32)
    if case.mode == "lora":
        import peft

        adapter = peft.LoraConfig(r=16, lora_alpha=32, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, adapter)
    batches, rows = their_batches(case, documents_of(case, config))
    supervised = [sum(sum(label != -100 for label in row["labels"][1:]) for row in batch) for batch in batches]
    steps: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append(now() - self.began)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(range(len(batches) * rows))

    def collate(items: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in items)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        return {key: torch.tensor([item[key] + [value] * (width - len(item[key])) for item in items]) for key, value in fill.items()}

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=rows,
            max_steps=len(batches),
            learning_rate=1e-5,
            bf16=use_bf16(device, "auto"),
            gradient_checkpointing=checkpointing,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
        )
        dataset: Any = [row for batch in batches for row in batch]
        InOrder(model, options, train_dataset=dataset, data_collator=collate, callbacks=[Clock()]).train()
    speed = sum(supervised[WARMUP:]) / sum(steps[WARMUP:])
    return {"tokens_per_second": speed, "peak_gb": peak_gb(), "gradient_checkpointing": float(checkpointing)}


def their_batches(case: Training, split: Split) -> tuple[list[list[dict[str, list[int]]]], int]:
    """Batches of documents of similar length, as many tokens in each as a step of ours has, and the documents per batch."""
    mean = float(np.mean(split.lengths()))
    rows = case.rows if case.dense else max(1, int(case.rows * case.tokens / mean))
    chosen = np.argsort(split.lengths(), kind="stable")
    batches = [chosen[start : start + rows] for start in range(0, len(chosen) - rows + 1, rows)]
    order = np.random.default_rng(0).permutation(len(batches))[: WARMUP + STEPS]
    return [[_row(split, int(index)) for index in batches[n]] for n in order], rows


def _row(split: Split, index: int) -> dict[str, list[int]]:
    tokens, loss = (part.astype(np.int64) for part in split.document(index))
    return {"input_ids": tokens.tolist(), "attention_mask": [1] * len(tokens), "labels": np.where(loss, tokens, -100).tolist()}
