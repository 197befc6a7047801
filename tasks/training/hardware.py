"""The machine that trains: its measured rate of matrix products, its memory, and an estimate of energy."""

import math
import os
import time
from pathlib import Path

import torch

from model.config import LlamaConfig
from tasks.training.cost import layer_matrices

RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # of the processor's package; root may read it
DRIVER = Path("/proc/driver/nvidia/version")
CGROUP = Path("/sys/fs/cgroup/memory.max")
WATTS_PER_CORE = 10.0  # where nothing can be read: a server processor's 100 to 300 W over its cores
WATTS_OF_A_GPU = 400.0  # likewise
SECONDS = 0.15  # per shape


def matmul_rate(config: LlamaConfig, tokens: int, device: torch.device, *, use_bf16: bool) -> float:
    """Operations per second of bare matrix products, at the shapes of the model's layers, forward and both products of backward,
    weighted by their work; each at its best, as what else starts with the stage takes the processor for a while."""
    dtype = torch.bfloat16 if use_bf16 else torch.float32
    seconds = work = 0.0
    at_once = 20 if device.type == "cuda" else 1  # a product may take less time than asking for its end
    for out, inner in layer_matrices(config).values():
        x = torch.randn(tokens, inner, device=device).to(dtype)
        weight = torch.randn(out, inner, device=device).to(dtype)
        y = x @ weight.T
        products = (lambda x=x, w=weight: x @ w.T, lambda y=y, w=weight: y @ w, lambda x=x, y=y: y.T @ x)
        for product in products:
            product()
            times: list[float] = []
            while len(times) < 2 or sum(times) < SECONDS / 3:
                began = _now(device)
                for _ in range(at_once):
                    product()
                times.append(_now(device) - began)
            seconds += min(times) / at_once
            work += 2.0 * tokens * out * inner
    return work / seconds


def memory_mb(device: torch.device) -> float:
    """Megabytes in use by this process: on a GPU at the peak, else resident now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def memory_of(device: torch.device, *, whole: bool = False) -> float:
    """Bytes that the device has for this process: of a GPU what others leave, or the ``whole``; else what the machine or its control
    group has, shared by the processes that torchrun started on it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return float(total if whole else free + torch.cuda.memory_reserved(device))
    import psutil

    try:
        limit = float(CGROUP.read_text())
    except (OSError, ValueError):  # not limited
        limit = math.inf
    return min(psutil.virtual_memory().total, limit) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def unused_gpu() -> str:
    """Why torch does not use a GPU that is there, in a sentence; empty where there is none, or where the user hides it."""
    if torch.cuda.is_available() or not DRIVER.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ""
    why = "this torch was built without CUDA: install the build for your driver, as docs/scale.md says"
    if torch.version.cuda:
        try:
            torch.cuda.init()
            why = "torch sees none: is it in CUDA_VISIBLE_DEVICES, and not in use by another process alone?"
        except (RuntimeError, AssertionError) as error:
            why = str(error).split(". ")[0]
    return f"this machine has an NVIDIA GPU, but {why}"


class Energy:
    """Watt-hours since this was created, added to ``before``: by the processor's own counter where it can be read, by a GPU's power
    draw, else an estimate."""

    def __init__(self, device: torch.device, *, before: float = 0.0):
        self._before = before
        self._device, self._began, self._counter = device, time.monotonic(), _counter()

    def watt_hours(self) -> float:
        """Up to now, ``before`` included."""
        return self._before + self._since()

    def _since(self) -> float:
        hours = (time.monotonic() - self._began) / 3600
        if self._device.type == "cuda":
            try:
                return hours * torch.cuda.power_draw(self._device) / 1000
            except (ModuleNotFoundError, RuntimeError):  # without NVML's Python package
                return hours * WATTS_OF_A_GPU
        now = _counter()
        if now is not None and self._counter is not None and now >= self._counter:
            return (now - self._counter) / 3.6e9
        return hours * WATTS_PER_CORE * torch.get_num_threads()


def _counter() -> int | None:
    try:
        return int(RAPL.read_text())
    except (OSError, ValueError):
        return None


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
