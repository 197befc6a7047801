"""The section ``finetune`` of params.yaml."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from model import lora, optim
from model.precision import Precision
from tasks.stage import Params

ADAPTED = ("lora", "dora")


class AdapterParams(Params):
    """Of the modes lora and dora; the adapter is merged into the weights in the end, and kept beside them."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: tuple[str, ...]

    @field_validator("targets")
    @classmethod
    def known_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        lora.LoraConfig(1, 1.0, 0.0, targets, dora=False)
        return targets


class FinetuneParams(Params):
    mode: str
    adapter: AdapterParams
    seed: int
    seq_len: int = Field(ge=8)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    schedule: str
    warmup: int = Field(ge=0)
    decay: float = Field(gt=0, le=1)
    lr: float = Field(gt=0)
    lr_floor: float = Field(ge=0, le=1)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    precision: Precision
    compile: bool
    activation_checkpointing: bool
    validate_every: int = Field(ge=1)
    validation_tokens: int = Field(ge=1)
    keep: Literal["best", "last"]
    patience: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)

    @field_validator("mode")
    @classmethod
    def known_mode(cls, mode: str) -> str:
        return _one_of(optim.MODES, mode)

    @field_validator("schedule")
    @classmethod
    def known_schedule(cls, schedule: str) -> str:
        return _one_of(optim.SCHEDULES, schedule)

    def lora_config(self) -> lora.LoraConfig:
        return lora.LoraConfig(self.adapter.rank, self.adapter.alpha, 0.0, self.adapter.targets, dora=self.mode == "dora")


def _one_of(known: Iterable[str], name: str) -> str:
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return name
