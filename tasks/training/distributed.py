"""The processes that train together: the process group, where torchrun started several, and FSDP."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from model.llama import Transformer
from model.precision import Precision, use_bf16

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; alone without torchrun."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def single_process(self) -> bool:
        """Whether this process trains alone."""
        return self.world_size == 1

    def gather(self, value: object) -> list[Any]:
        """The values of all processes, by rank."""
        if self.single_process:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes (all-reduce)."""
        if self.single_process:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; a group of one without torchrun."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what finetune.deterministic needs, before a GPU is first used
    cuda = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        if local_rank >= (gpus := torch.cuda.device_count()):
            raise ValueError(f"torchrun started more than {gpus} processes here, one for each GPU; lower --nproc-per-node")
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield ProcessGroup(0, 1, device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def shard(group: ProcessGroup, precision: Precision, module: Module) -> Module:
    """Apply FSDP2 to a layer or, after its layers, to the model: each process keeps its shard of the parameters and gathers what it
    needs when it needs it."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    options: dict[str, Any] = {"mesh": _mesh(group.device.type, group.world_size)}
    options |= {"mp_policy": policy} if use_bf16(group.device, precision) else {}
    if isinstance(module, Transformer):
        # The output matrix is multiplied outside of the model's forward pass, so the rest stays gathered until backward is done.
        fully_shard(module, reshard_after_forward=False, **options)
        register_fsdp_forward_method(module, "hidden")
    else:
        fully_shard(module, **options)
    return module


@cache
def _mesh(device: str, processes: int) -> DeviceMesh:
    return dist.init_device_mesh(device, (processes,))


def reshard(model: Transformer) -> None:
    """Free the gathered parameters after a forward pass that no backward pass followed."""
    if isinstance(model, FSDPModule):
        model.reshard()
