"""Which parameters train, how they are grouped for AdamW, and the learning-rate schedule."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tasks.training.params import MODES, FinetuneParams, Mode


def freeze(model: nn.Module, mode: Mode) -> list[str]:
    """Let only the parameters of ``mode`` train; returns their names. ``ValueError`` where there is none, as without an adapter."""
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(MODES[mode].trains(name))
        if parameter.requires_grad:
            trained.append(name)
    if not trained:
        raise ValueError(f"mode {mode!r} trains no parameter of this model; a mode with an adapter needs it to be added first")
    return trained


def make_optimizer(parameters: Iterable[nn.Parameter], params: FinetuneParams) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) that decays matrices and leaves vectors, here the norms, alone."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups, betas = [g for g in groups if g["params"]], (params.beta1, params.beta2)
    if params.optimizer == "adamw_8bit":
        from tasks.training.adamw_8bit import AdamW8bit  # imports bitsandbytes, for seconds

        return AdamW8bit(groups, lr=params.lr, betas=betas, seed=params.seed)
    return torch.optim.AdamW(groups, lr=params.lr, betas=betas, fused=True)


def new_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimizer keeps of a parameter, besides the number of steps, before the first of them."""
    if isinstance(optimizer, torch.optim.AdamW):
        return {moment: torch.zeros_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
    state: dict[str, Tensor] = optimizer.new_state(parameter)  # type: ignore[attr-defined]
    return state


# Share of the way from the peak (1) to the floor (0), by the share of the steps after warmup that are done.
SCHEDULES = {
    "cosine": lambda progress, decay: 0.5 * (1 + math.cos(math.pi * progress)),  # SGDR, arXiv:1608.03983
    "linear": lambda progress, decay: 1 - progress,
    "wsd": lambda progress, decay: min(1.0, (1 - progress) / decay),  # warmup, stable, decay: MiniCPM, arXiv:2404.06395
}


def lr_factor(schedule: str, step: int, *, steps: int, warmup: int, floor: float, decay: float = 1.0) -> float:
    """Share of the peak learning rate at ``step`` (from 0): a linear rise over ``warmup`` steps, then down to ``floor`` at the
    last step as ``schedule`` says; "wsd" falls in the last ``decay`` of what follows warmup."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return floor + (1 - floor) * SCHEDULES[schedule](progress, decay)
