"""Training steps on a GPU: this project's, and Hugging Face's Trainer with PEFT."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from bench.gpu_models import Result, now, peak_gb, random_weights, reset_peak, the_device, their_model
from bench.train_speed import PARAMS
from model import lora
from model.config import LlamaConfig
from model.lora import TARGETS
from model.nf4 import quantize_
from model.precision import use_bf16
from tasks.corpus.shards.format import Entry, Split
from tasks.training import checkpoints, optim
from tasks.training.distributed import process_group
from tasks.training.hardware import matmul_rate
from tasks.training.loop import OutOfMemory, training_work, update
from tasks.training.packing import Segment, count_supervised, training_rows
from tasks.training.params import MODES, FinetuneParams, Mode
from tasks.training.preflight import Machine
from tasks.training.prepare import lora_config, prepare_for_training, set_determinism

RANK, ALPHA = 16, 32


@dataclass(frozen=True)
class Training:
    """A case of training: one step is one row of ``tokens``, or several."""

    size: str
    mode: Mode
    tokens: int
    rows: int
    dense: bool
    checkpointing: bool = False  # from the start, as on a small card
    steps: int = 6
    ours_alone: dict[str, Any] = field(default_factory=dict)  # params of this project, without a peer


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
    count = 20 + case.steps * case.rows * (1 if case.dense else case.tokens // 100)
    return documents(case.tokens, count, config.vocab_size, dense=case.dense)


def our_training(case: Training, config: LlamaConfig) -> Result:
    """This project's training step; layers are computed twice where it runs out of memory otherwise."""
    return _with_checkpointing_if_needed(case, lambda checkpointing: _our_training(case, config, checkpointing=checkpointing))


def _with_checkpointing_if_needed(case: Training, train: Callable[[bool], Result]) -> Result:
    try:
        return train(case.checkpointing)
    except (torch.cuda.OutOfMemoryError, OutOfMemory):
        if case.checkpointing:
            raise
    reset_peak()  # outside of the exception, which holds the model
    return train(True)


def _our_training(case: Training, config: LlamaConfig, *, checkpointing: bool) -> Result:
    settings = {
        "mode": case.mode,
        "seq_len": case.tokens,
        "batch": case.rows,
        "micro_batch": case.rows,
        "steps": 2 * case.steps,
        "epochs": 0.0,
    }
    settings |= {"adapter": {"rank": RANK, "alpha": ALPHA, "targets": TARGETS}, "compile": "auto"} | case.ours_alone
    params = FinetuneParams.model_validate(PARAMS.model_dump() | settings)
    split = documents_of(case, config)
    with process_group() as group:
        set_determinism(params)
        model = random_weights(config, group.device, half=params.training_mode.base_frozen or params.weights == "bfloat16")
        if params.training_mode.quantized:
            model = quantize_(model, group.device)
            reset_peak()
        if params.training_mode.adapter:
            lora.add(model, lora_config(params), seed=0)
        layers = config.n_layers if checkpointing else 0
        model = prepare_for_training(model, params, group.device, checkpointed_layers=layers)
        optimizer = optim.make_optimizer(checkpoints.trained(model).values(), params)
        rows = training_rows(split, params.seq_len, seed=0)
        batches = [[row for row, _ in islice(rows, case.rows)] for _ in range(case.steps)]
        seconds, supervised, work = list[float](), 0.0, 0.0
        for step, batch in enumerate((*batches, *batches), 1):  # the first time kernels are chosen and compiled
            began = now()
            if "micro_batch" in update(model, optimizer, step, batch, split, params, group):
                raise OutOfMemory
            if step > case.steps:
                seconds.append(now() - began)
                supervised += count_supervised(batch, split)
                work += training_work(model, batch, split, params)
        peak = peak_gb()
        planned = Machine(group.device.type, 1, 0, use_bf16=True).needed(config, params, checkpointed_layers=layers).peak
        rate = matmul_rate(config, case.rows * case.tokens, group.device, use_bf16=use_bf16(group.device, "auto"))
    shares = {"mfu": work / sum(seconds) / rate, "matmul_tflops": rate / 1e12, "checkpointing": float(checkpointing)}
    more = {"planned_gb": planned / 1e9, "slowest_to_median_step": max(seconds) / sorted(seconds)[len(seconds) // 2]}
    return {"tokens_per_second": supervised / sum(seconds), "peak_gb": peak} | shares | more


def their_training(case: Training, config: LlamaConfig, *, compiled: bool) -> Result:
    """Trainer in bfloat16, adapters by PEFT; gradient checkpointing where it runs out of memory otherwise."""
    return _with_checkpointing_if_needed(
        case, lambda checkpointing: _their_training(case, config, compiled=compiled, checkpointing=checkpointing)
    )


def _their_training(case: Training, config: LlamaConfig, *, compiled: bool, checkpointing: bool) -> Result:
    import transformers
    from torch.utils.data import SequentialSampler

    device = the_device()
    adapted = MODES[case.mode].adapter
    model = their_model(config, device, dtype=torch.bfloat16 if adapted and device.type == "cuda" else torch.float32)
    if MODES[case.mode].quantized:
        quantize_theirs(model, device)
    if adapted:
        import peft

        if MODES[case.mode].quantized:
            model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
        adapter = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, adapter)
    batches = their_batches(case, documents_of(case, config))
    batches = [*batches, *batches]  # the first time kernels are chosen and compiled
    supervised = [sum(sum(label != -100 for label in row["labels"][1:]) for row in batch) for batch in batches]
    steps: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append(now() - self.began)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(range(len(batches)))

    def collate(items: list[list[dict[str, list[int]]]]) -> dict[str, torch.Tensor]:
        (batch,) = items
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        return {key: torch.tensor([row[key] + [value] * (width - len(row[key])) for row in batch]) for key, value in fill.items()}

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=1,
            max_steps=len(batches),
            learning_rate=1e-5,
            bf16=use_bf16(device, "auto"),
            gradient_checkpointing=checkpointing,
            torch_compile=compiled,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
        )
        dataset: Any = batches
        InOrder(model, options, train_dataset=dataset, data_collator=collate, callbacks=[Clock()]).train()
    speed = sum(supervised[len(batches) // 2 :]) / sum(steps[len(batches) // 2 :])
    return {"tokens_per_second": speed, "peak_gb": peak_gb(), "checkpointing": float(checkpointing)}


def quantize_theirs(model: Any, device: torch.device) -> None:
    """Put bitsandbytes' 4-bit layers, as ``from_pretrained`` with a BitsAndBytesConfig does, where there is no file to load from."""
    import bitsandbytes

    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    new = bitsandbytes.nn.Linear4bit(
                        linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
                    )
                    weight = linear.weight.data
                    new.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
                    setattr(part, name, new.to(device))  # which quantizes
    model.is_loaded_in_4bit = True  # for PEFT
    reset_peak()


def their_batches(case: Training, split: Split) -> list[list[dict[str, list[int]]]]:
    """Our steps' documents, in batches of similar length whose padded rows have at most as many tokens as a step of ours."""
    rows = training_rows(split, case.tokens, seed=0)
    steps = [[row for row, _ in islice(rows, case.rows)] for _ in range(case.steps)]
    segments = sorted((segment for step in steps for row in step for segment in row), key=lambda s: s.stop - s.start)
    batches: list[list[dict[str, list[int]]]] = [[]]
    for segment in segments:
        width = segment.stop - segment.start  # the longest so far
        if batches[-1] and (len(batches[-1]) + 1) * width > case.rows * case.tokens:
            batches.append([])
        batches[-1].append(_row(split, segment))
    order = np.random.default_rng(0).permutation(len(batches))
    return [batches[n] for n in order]


def _row(split: Split, segment: Segment) -> dict[str, list[int]]:
    tokens, loss = (part[segment.start : segment.stop].astype(np.int64) for part in split.document(segment.document))
    return {"input_ids": tokens.tolist(), "attention_mask": [1] * len(tokens), "labels": np.where(loss, tokens, -100).tolist()}
