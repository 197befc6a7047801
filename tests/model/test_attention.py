"""Every kernel of packed documents gives the outputs and gradients of a plain mask, in float64."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers.builders import TINY, random_model
from helpers.project import ROOT
from torch import Tensor
from torch.nn.attention import varlen

from model import attention
from model.attention import BACKENDS, PackedSequences, document_mask, packed_sequences

LENGTHS = ((17, 1, 30), (48,), (5, 40, 2, 1))  # of the documents of each row
DOCUMENTS = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in LENGTHS])
PACKED = packed_sequences(DOCUMENTS)


def tensors(dtype: torch.dtype, *, heads: int = 6, kv_heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, h, 48, 16) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def expected(q: Tensor, k: Tensor, v: Tensor, *, grad_out: Tensor) -> list[Tensor]:
    """By softmax over all pairs, hidden ones left out, in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in leaves[1:])
    scores = leaves[0] @ keys.mT / q.shape[-1] ** 0.5
    visible = (DOCUMENTS[:, None, :, None] == DOCUMENTS[:, None, None, :]) & torch.ones(48, 48, dtype=torch.bool).tril()
    out = scores.masked_fill(~visible, -torch.inf).softmax(-1) @ values
    return [out, *torch.autograd.grad(out, leaves, grad_out.double())]


def by_cu_seqlens(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options: object) -> Tensor:
    """What FlashAttention's kernel is documented to do, which runs on a GPU alone: [B x T, H, D]."""
    assert options["window_size"] == (-1, 0) and cu_q.dtype == torch.int32
    lengths = torch.diff(cu_q).tolist()
    assert cu_k is cu_q and max(lengths) <= max_q == max_k and sum(lengths) == len(q)
    out = []
    for one in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        query, key, value = (x.transpose(0, 1) for x in one)
        out.append(F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("backend", ["dense", "documents", "varlen"])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_a_kernel_gives_the_outputs_and_gradients_of_a_mask(backend: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", by_cu_seqlens)
    leaves = q, k, v = tensors(torch.float64, kv_heads=kv_heads)
    grad_out = torch.randn(3, 6, 48, 16, dtype=torch.float64)
    layout: Tensor | PackedSequences = document_mask(PACKED, torch.float64) if backend == "dense" else PACKED
    out = BACKENDS[backend](q, k, v, layout)
    for actual, exact in zip((out, *torch.autograd.grad(out, leaves, grad_out)), expected(*leaves, grad_out=grad_out), strict=True):
        torch.testing.assert_close(actual, exact)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)], ids=str)
def test_compiled_attention_is_torchs_own_with_its_gradients(dtype: torch.dtype, tolerance: float) -> None:
    leaves = q, k, v = tensors(dtype)
    grad_out = torch.randn(3, 6, 48, 16).to(dtype)
    out = torch.compile(attention.attend_dense, dynamic=False)(q, k, v, document_mask(PACKED, dtype))
    for actual, exact in zip((out, *torch.autograd.grad(out, leaves, grad_out)), expected(*leaves, grad_out=grad_out), strict=True):
        assert (actual.float() - exact.float()).norm() <= tolerance * exact.float().norm()


@pytest.mark.parametrize("backend", ["documents", "varlen"])
def test_a_model_has_the_same_loss_and_gradients_with_each(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", by_cu_seqlens)
    model = random_model(TINY)
    ids = torch.randint(TINY.vocab_size, (3, 48), generator=torch.Generator().manual_seed(1))

    def loss_and_gradients(name: str) -> list[Tensor]:
        monkeypatch.setattr("model.llama.choose_backend", lambda *_: name)
        loss = F.cross_entropy(model(ids, packed=PACKED).flatten(0, 1), ids.flatten())
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    for actual, exact in zip(loss_and_gradients(backend), loss_and_gradients("dense"), strict=True):
        torch.testing.assert_close(actual, exact, atol=1e-5, rtol=1e-4)


def test_borders_are_those_of_the_documents() -> None:
    assert PACKED.lengths == (17, 1, 30, 48, 5, 40, 2, 1) and PACKED.max_len == 48
    assert PACKED.cu_seqlens.tolist() == [0, 17, 18, 48, 96, 101, 141, 143, 144]
    longer = packed_sequences(torch.tensor([[0, 0, 0, 1, 2]]))
    assert longer.cu_seqlens.tolist() == [0, 3, 4, 5, 5]  # empty documents fill up


def test_batches_look_alike_to_a_compiler() -> None:
    def shape(*lengths: int) -> tuple[int, int]:
        packed = packed_sequences(torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None])
        assert packed.max_len >= max(packed.lengths) and packed.cu_seqlens[-1] == 4096
        return len(packed.cu_seqlens), packed.max_len

    assert shape(1000, 1000, 1000, 1000, 96) == shape(*[128] * 32) == (65, 1024)
    assert shape(1025, 3071) == shape(4096) == (65, 4096)


def test_long_rows_and_those_of_short_documents_get_no_mask() -> None:
    cpu = torch.device("cpu")
    assert attention.choose_backend(cpu, torch.float32, attention.MAX_DENSE) == "dense"
    assert attention.choose_backend(cpu, torch.float32, attention.MAX_DENSE + 1) == "documents"
    assert attention.choose_backend(cpu, torch.float32, 1024, [900, 124]) == "dense"
    assert attention.choose_backend(cpu, torch.float32, 1024, [256] * 4) == "documents"


PEAK = """
import re, sys, torch
from pathlib import Path
from helpers.builders import TINY, random_model
from dataclasses import replace
from model.attention import packed_sequences
width = int(sys.argv[1])
model = random_model(replace(TINY, max_seq_len=width))
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])  # kB
before = peak()
model.hidden(torch.zeros(1, width, dtype=torch.long), packed=packed_sequences(torch.zeros(1, width, dtype=torch.long))).sum().backward()
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_of_a_row_grows_with_its_length_alone() -> None:
    def peak(width: int) -> int:
        command = [sys.executable, "-c", PEAK, str(width)]
        return int(subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": ".:tests"}, capture_output=True, text=True, check=True).stdout)

    # One document of 16,384 tokens: its mask alone would take 1 GB in float32.
    assert peak(16384) < 2.3 * peak(8192) < 1e6
