"""The processes that train together: joined where torchrun started several, and what they share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from model.llama import Transformer
from model.precision import Precision, use_bf16


@dataclass(frozen=True)
class Team:
    """The processes that train together; one without torchrun."""

    rank: int
    size: int
    device: torch.device

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together)
        return together.tolist()


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that torchrun started, or be alone."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield Team(0, 1, device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def sharded(model: Transformer, us: Team, precision: Precision) -> Transformer:
    """FSDP2: each process keeps its part of the parameters and gathers a layer's when it needs them."""
    mesh = dist.init_device_mesh(us.device.type, (us.size,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    options: dict[str, Any] = {"mesh": mesh} | ({"mp_policy": policy} if use_bf16(us.device, precision) else {})
    for layer in model.layers:
        fully_shard(layer, **options)
    # The output matrix is multiplied outside of the model's forward pass, so what is left stays gathered until backward is done.
    fully_shard(model, reshard_after_forward=False, **options)
    register_fsdp_forward_method(model, "hidden")
    return model


def scatter(model: Transformer) -> None:
    """Have each process keep its part alone again, after a forward pass that no backward pass followed."""
    if isinstance(model, FSDPModule):
        model.reshard()
