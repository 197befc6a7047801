"""AdamW with moments in 8 bits, and weights in bfloat16 that are rounded stochastically."""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes import functional
from torch import Tensor, nn
from torch.optim._functional import adamw

BLOCK = 256  # values of a moment that share a scale
SMALLEST = 4096  # values of a parameter whose moments are in 8 bits; those of norms stay in 32
CHUNK = 1 << 24  # values of a bfloat16 weight that are in float32 at a time


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) with both moments in 8 bits by blocks (Dettmers et al. 2021, arXiv:2110.02861), by bitsandbytes.

    Weights may be bfloat16: a step is made in float32 and rounded up or down by chance, so that small steps are not lost
    (arXiv:1502.02551). The chance is drawn from ``seed`` and the number of the step.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], seed: int):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": 0.0})
        self._seed, self._codes = seed, dict[torch.device, tuple[Tensor, Tensor]]()

    def new_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The moments of a parameter before the first step, with the scales of their blocks."""
        moments = ("exp_avg", "exp_avg_sq")
        if parameter.numel() < SMALLEST:
            return {moment: torch.zeros_like(parameter, dtype=torch.float32) for moment in moments}
        blocks = -(-parameter.numel() // BLOCK)
        codes = {moment: torch.zeros_like(parameter, dtype=torch.uint8) for moment in moments}
        return codes | {f"{moment}_scale": torch.zeros(blocks, device=parameter.device) for moment in moments}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update({"step": 0} | self.new_state(parameter))
                state["step"] = int(state["step"]) + 1
                self._update(parameter, state, group)

    def _update(self, parameter: nn.Parameter, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        weights, gradients = parameter.view(-1), parameter.grad.reshape(-1)
        moments = [state[name].view(-1) for name in ("exp_avg", "exp_avg_sq")]
        for begin in range(0, len(weights), CHUNK):
            part = slice(begin, begin + CHUNK)
            wide = weights[part].float()  # the weights themselves where they are float32
            if len(weights) < SMALLEST:
                self._in_32_bits(wide, gradients.float(), moments, state["step"], group)
            else:
                blocks = slice(begin // BLOCK, (begin + CHUNK) // BLOCK)
                scales = [state[f"{name}_scale"][blocks] for name in ("exp_avg", "exp_avg_sq")]
                self._in_8_bits(wide, gradients[part].float(), [moment[part] for moment in moments], scales, state["step"], group)
            if parameter.dtype == torch.bfloat16:
                weights[part] = round_stochastically(wide, self._generator(parameter.device, state["step"]))

    def _in_8_bits(
        self, weights: Tensor, gradients: Tensor, moments: list[Tensor], scales: list[Tensor], step: int, group: dict[str, Any]
    ) -> None:
        (beta1, beta2), (map1, map2) = group["betas"], self._maps(weights.device)
        functional.optimizer_update_8bit_blockwise(
            "adam",
            gradients,
            weights,
            state1=moments[0],
            state2=moments[1],
            beta1=beta1,
            beta2=beta2,
            beta3=0.0,  # of other optimizers, as is alpha
            alpha=0.0,
            eps=group["eps"],
            step=step,
            lr=group["lr"],
            qmap1=map1,
            qmap2=map2,
            absmax1=scales[0],
            absmax2=scales[1],
            weight_decay=group["weight_decay"],
        )

    def _in_32_bits(self, weights: Tensor, gradients: Tensor, moments: list[Tensor], step: int, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        adamw(
            [weights],
            [gradients],
            [moments[0]],
            [moments[1]],
            [],
            [torch.tensor(float(step - 1))],  # which it counts itself
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
        )

    def _maps(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What the 8-bit codes of either moment stand for."""
        if device not in self._codes:
            signed, unsigned = (functional.create_dynamic_map(signed=signed).to(device) for signed in (True, False))
            self._codes[device] = (signed, unsigned)
        return self._codes[device]

    def _generator(self, device: torch.device, step: int) -> torch.Generator:
        if step != self._drawn:
            self._drawn, self._chance = step, torch.Generator(device).manual_seed(self._seed * 1_000_003 + step)
        return self._chance

    _drawn = 0
    _chance: torch.Generator


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """float32 to bfloat16, up or down with the chance that keeps the mean."""
    noise = torch.randint(1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    return ((values.view(torch.int32) + noise) & -(1 << 16)).view(torch.float32).bfloat16()
