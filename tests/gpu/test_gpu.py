"""What a GPU computes against the CPU, on tiny random models. ``make gpu-check`` runs these on a GPU; in CI they run on the CPU, as far
as they can.

They need what ``bench/gpu-check`` lists, and nothing that orchestrates: no MLflow, DVC or Prefect.
"""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.builders import TINY, random_model
from torch import Tensor

from model import lora
from model.attention import BACKENDS, choose_backend, document_mask, packed_sequences
from model.generation.generate import Batch, generate
from model.generation.sampling import Sampling
from model.llama import Transformer
from model.loss import target_positions, total_loss
from model.nf4 import quantize_
from model.precision import autocast, use_bf16
from tasks.corpus.shards.format import Entry, Split
from tasks.training import checkpoints, loop, optim, prepare
from tasks.training.distributed import ProcessGroup
from tasks.training.packing import training_rows
from tasks.training.params import FinetuneParams, Mode

pytestmark = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what bits that come again need, before the GPU is first used
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
only_cuda = pytest.mark.skipif(not CUDA, reason="needs a GPU")
PARAMS = FinetuneParams.model_validate(
    {
        "mode": "full",
        "adapter": {"rank": 4, "alpha": 8.0, "targets": ("q_proj", "down_proj")},
        "seed": 1,
        "seq_len": 128,
        "batch": 4,
        "micro_batch": 2,
        "steps": 8,
        "schedule": "cosine",
        "warmup": 2,
        "decay": 0.2,
        "lr": 3e-3,
        "lr_floor": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.01,
        "clip": 1.0,
        "unlikelihood": 0.1,
        "precision": "auto",
        "compile": False,
        "activation_checkpointing": False,
        "validate_every": 4,
        "validation_tokens": 200,
        "keep": "last",
        "patience": 0,
        "checkpoint_every": 100,
    }
)


def random_documents(count: int) -> Split:
    """Random documents of 5 to 120 tokens in memory, the second half of each with loss."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 120, count)
    starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    loss = np.concatenate([np.arange(n) >= n // 2 for n in lengths]).astype(np.uint8)
    tokens = random.integers(TINY.vocab_size, size=starts[-1], dtype=np.uint32)
    return Split([tokens], [loss], [starts], [Entry(str(n), "made-up", "random", 0) for n in range(count)], np.array([0, count]))


class Run:
    """A tiny random model in training."""

    def __init__(self, mode: Mode, device: torch.device, *, documents: int = 60, **changes: Any):
        self.params, self.group = PARAMS.model_copy(update={"mode": mode, **changes}), ProcessGroup(0, 1, device)
        model = random_model(TINY)
        if self.params.weights == "bfloat16":
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data if prepare.is_norm(name) else parameter.data.bfloat16()
        if self.params.training_mode.quantized:
            model = quantize_(model, device)
        if self.params.training_mode.adapter:
            lora.add(model, prepare.lora_config(self.params), seed=self.params.seed)
        self.model = prepare.prepare_for_training(model.to(device), self.params, device)
        self.optimizer = optim.make_optimizer(checkpoints.trained(self.model).values(), self.params)
        self.split = random_documents(documents)
        self.rows = training_rows(self.split, self.params.seq_len, seed=self.params.seed)
        self.steps = 0

    def step(self) -> dict[str, float]:
        """One step; its metrics."""
        self.steps += 1
        batch = []
        for _ in range(self.params.batch):
            row, self.place = next(self.rows)
            batch.append(row)
        return loop.update(self.model, self.optimizer, self.steps, batch, self.split, self.params, self.group)


def trained(mode: Mode, device: torch.device, *, steps: int, **changes: Any) -> tuple[Transformer, list[dict[str, float]]]:
    """A model after some steps, with their metrics."""
    run = Run(mode, device, **changes)
    metrics = [run.step() for _ in range(steps)]
    return run.model, metrics


@pytest.mark.parametrize("mode", ["full", "lora", "dora", "qlora", "qdora", "norm_wq"])
def test_losses_and_gradient_norms_are_those_of_the_cpu(mode: Mode) -> None:
    _, exact = trained(mode, torch.device("cpu"), steps=4, precision="float32")
    for precision, tolerance in (("float32", 1e-3), ("auto", 3e-2)):
        _, actual = trained(mode, DEVICE, steps=4, precision=precision)
        for a, e in zip(actual, exact, strict=True):
            assert abs(a["loss"] - e["loss"]) <= tolerance * e["loss"], precision
            assert abs(a["gradient_norm"] - e["gradient_norm"]) <= 10 * tolerance * e["gradient_norm"], precision


@pytest.mark.parametrize("mode", ["full", "lora", "qlora", "qdora"])
def test_compiled_layers_give_the_same_losses(mode: Mode) -> None:
    plain, compiled = (trained(mode, DEVICE, steps=3, compile=value)[1] for value in (False, True))
    for a, e in zip(compiled, plain, strict=True):
        assert abs(a["loss"] - e["loss"]) <= 1e-2 * e["loss"]


@only_cuda
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (9, 3)])
@pytest.mark.parametrize("size", [64, 128])
def test_the_varlen_kernel_gives_the_outputs_and_gradients_of_a_mask(heads: tuple[int, int], size: int) -> None:
    lengths = [[700, 1, 323], [1024], [5, 500, 2, 517]]
    ids = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths])
    packed = packed_sequences(ids).to(DEVICE)
    assert choose_backend(DEVICE, torch.bfloat16, 1024) == "varlen"
    leaves = [
        torch.randn(3, h, 1024, size, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for h in (heads[0], heads[1], heads[1])
    ]
    grad_out = torch.randn(3, heads[0], 1024, size, device=DEVICE, dtype=torch.bfloat16)
    out = BACKENDS["varlen"](*leaves, packed)
    exact_leaves = [x.detach().double().requires_grad_() for x in leaves]
    q, k, v = exact_leaves
    keys, values = (x.repeat_interleave(heads[0] // heads[1], 1) for x in (k, v))
    exact = (q @ keys.mT / size**0.5 + document_mask(packed, torch.float64)).softmax(-1) @ values
    actual_gradients, exact_gradients = (
        torch.autograd.grad(out, leaves, grad_out),
        torch.autograd.grad(exact, exact_leaves, grad_out.double()),
    )
    for a, e in zip((out, *actual_gradients), (exact, *exact_gradients), strict=True):
        assert (a.double() - e).norm() <= 1e-2 * e.norm()


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_same_steps_give_the_same_bits_where_params_say_so(mode: Mode) -> None:
    prepare.set_determinism(PARAMS.model_copy(update={"deterministic": True}))
    try:
        models = [trained(mode, DEVICE, steps=3)[0] for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


@only_cuda
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_host_waits_once_in_a_step(mode: Mode) -> None:
    run = Run(mode, DEVICE)
    run.step()  # what is done once is done
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    assert len(places) == 4, places


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_moments_in_8_bits_train_as_on_the_cpu(weights: str) -> None:
    changes = {"optimizer": "adamw_8bit", "weights": weights, "precision": "bfloat16"}
    exact, actual = (trained("full", device, steps=6, **changes)[1] for device in (torch.device("cpu"), DEVICE))
    for a, e in zip(actual, exact, strict=True):
        assert abs(a["loss"] - e["loss"]) <= 3e-2 * e["loss"]


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("full", {"compile": CUDA}),
        ("lora", {}),
        ("qlora", {}),
        ("full", {"optimizer": "adamw_8bit", "weights": "bfloat16", "precision": "bfloat16"}),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    mode: Mode, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = changes | {"deterministic": True}
    prepare.set_determinism(PARAMS.model_copy(update={"deterministic": True}))
    try:
        whole, before, after = (Run(mode, DEVICE, **changes) for _ in range(3))
        for _ in range(6):
            whole.step()
        for _ in range(3):
            before.step()
        checkpoints.save("key", checkpoints.State(step=3, loader=before.place), before.model, before.optimizer)
        state = checkpoints.resume("key", after.model, after.optimizer)
        after.steps, after.rows = state.step, training_rows(after.split, PARAMS.seq_len, seed=PARAMS.seed, start=state.loader)
        for _ in range(3):
            after.step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), after.model.parameters(), strict=True))


@only_cuda
def test_a_pass_that_memory_does_not_hold_is_made_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    def peak(rows: int, limit: float = 0.0) -> tuple[float, dict[str, float]]:
        run = Run("full", DEVICE, seq_len=8192, batch=8, micro_batch=rows, documents=2000)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(DEVICE).total_memory if limit else 1.0)
        try:
            metrics = run.step()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return torch.cuda.max_memory_reserved(), metrics

    (most, exact), (least, _) = peak(8), peak(2)
    assert least < 0.6 * most
    _, metrics = peak(8, limit=(least + most) / 2)
    assert metrics["micro_batch"] < 8
    assert metrics["loss"] == pytest.approx(exact["loss"], rel=1e-3)
    assert "no memory for 8 rows a pass; going on with 4" in capsys.readouterr().out


def test_the_32768_tokens_of_a_row_take_memory_for_tokens_alone() -> None:
    """With a mask of all pairs a layer would take 2 GiB."""
    width = 32768 if CUDA else 4096
    model = random_model(replace(TINY, max_seq_len=width)).to(DEVICE)
    ids = torch.zeros(1, width, dtype=torch.long)
    packed = packed_sequences(torch.arange(width)[None] // 1000)
    if CUDA:
        packed = packed.to(DEVICE)
        torch.cuda.reset_peak_memory_stats()
    with autocast(DEVICE, "auto"):
        hidden = model.hidden(ids.to(DEVICE), packed=packed)
        total_loss(hidden, model.lm_head, ids.to(DEVICE), target_positions(ids == 0).to(DEVICE)).backward()
    assert not CUDA or torch.cuda.max_memory_allocated() < 1.5e9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_generation_is_that_of_the_uncached_model(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not use_bf16(DEVICE, "auto"):
        pytest.skip("no bfloat16 products here")
    model = random_model(TINY).to(DEVICE, dtype)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11]]
    steps = list(generate(model, prompts, Sampling(temperature=0), max_new_tokens=12))
    for index, prompt in enumerate(prompts):
        tokens = [*prompt]
        for step in steps:
            token = step[index]
            assert token is not None
            logits: Tensor = model(torch.tensor([tokens], device=DEVICE))[0, -1].float()
            # In half precision two may be likely alike: the one that was taken is as likely as any, within rounding.
            assert logits[token.id] >= logits.max() - (1e-4 if dtype == torch.float32 else 0.05)
            tokens.append(token.id)


@pytest.mark.parametrize("compiled", [False, True])
def test_decoding_all_slots_at_once_gives_each_sequence_what_it_gets_alone(compiled: bool) -> None:
    model = random_model(replace(TINY, max_seq_len=600)).to(DEVICE, torch.bfloat16 if CUDA else torch.float32)
    prompts = [[1, 2, 3], [n % 400 for n in range(250)], [11]]
    settings = [
        Sampling(temperature=0),
        Sampling(temperature=1.3, seed=4),
        Sampling(temperature=0.8, top_k=20, repetition_penalty=1.2, seed=5),
    ]

    def decoded(numbers: list[int]) -> list[list[int]]:
        batch = Batch(model, slots=5, max_len=600, compiled=compiled)
        sequences = [batch.add(prompts[n], settings[n]) for n in numbers]
        for _ in range(20):  # over the end of a span
            for sequence in sequences:
                batch.sample(sequence)
            batch.step(sequences)
        return [sequence.tokens for sequence in sequences]

    together = decoded([0, 1, 2])
    assert [decoded([n])[0] for n in range(3)] == together
    assert decoded([2, 0, 1]) == [together[2], together[0], together[1]]


@only_cuda
def test_the_host_waits_once_for_the_tokens_of_a_whole_batch() -> None:
    batch = Batch(random_model(TINY).to(DEVICE, torch.bfloat16), slots=4, max_len=200)
    sequences = [batch.add([n], Sampling(seed=n)) for n in range(4)]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                for sequence in sequences:
                    batch.sample(sequence)
                batch.step(sequences)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    assert len(places) == 3, places
