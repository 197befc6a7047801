"""The sections ``base`` and ``finetune`` of params.yaml."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tasks.runtime.params import Params

Mode = Literal["full", "norm", "norm_wq", "all_but_embeddings", "lora", "dora", "qlora", "qdora"]
Schedule = Literal["cosine", "linear", "wsd"]
Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class TrainingMode(NamedTuple):
    """What a mode of fine-tuning trains."""

    trains: Callable[[str], bool]  # whether the parameter of this name trains
    adapter: bool = False  # low-rank matrices are added, trained, saved in PEFT's format, and merged into the weights
    dora: bool = False  # the adapter also has a magnitude per output
    quantized: bool = False  # the matrices of the frozen model are in 4 bits (model/nf4.py)
    base_frozen: bool = True  # most matrices of the base model need no gradient


MODES: Mapping[Mode, TrainingMode] = {
    "full": TrainingMode(lambda name: True, base_frozen=False),
    "norm": TrainingMode(lambda name: "norm" in name),
    "norm_wq": TrainingMode(lambda name: "norm" in name or ".q_proj." in name),
    "all_but_embeddings": TrainingMode(lambda name: not name.startswith(("embed_tokens.", "lm_head.")), base_frozen=False),
    "lora": TrainingMode(lambda name: ".lora_" in name, adapter=True),
    "dora": TrainingMode(lambda name: ".lora_" in name, adapter=True, dora=True),
    "qlora": TrainingMode(lambda name: ".lora_" in name, adapter=True, quantized=True),
    "qdora": TrainingMode(lambda name: ".lora_" in name, adapter=True, dora=True, quantized=True),
}


class BaseParams(Params):
    """Where the base model comes from."""

    source: str = Field(min_length=1)  # name==version of a wheel that holds a GGUF file, or a path
    sha256: str = Field(pattern="^([0-9a-f]{64})?$")  # of the wheel, the GGUF file or the directory (tree_sha256)
    chat_template: Literal["chatml", "own"]


class AdapterParams(Params):
    """Of the modes with an adapter: the rank, the scale ``alpha`` / ``rank``, and the matrices that get an adapter."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: tuple[Target, ...] = Field(min_length=1)


class FinetuneParams(Params):
    """How the model is trained; ``params.yaml`` says what each value means."""

    mode: Mode
    adapter: AdapterParams
    seed: int
    seq_len: int = Field(ge=8)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    steps: int = Field(ge=0)
    epochs: float = Field(0.0, ge=0)  # or these, where steps is 0
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
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    weights: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["auto", "bfloat16", "float32"]
    compile: Literal["auto"] | bool
    deterministic: bool = False
    activation_checkpointing: Literal["auto"] | bool
    validate_every: int = Field(ge=1)
    validation_tokens: int = Field(ge=1)
    keep: Literal["best", "last"]
    patience: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> Self:
        if bool(self.steps) == bool(self.epochs):
            both = "both say how long training is" if self.steps else "nothing says how long training is"
            raise ValueError(f"{both}: set steps (as 24) or epochs (as 1 or 0.5), and the other to 0")
        return self

    @model_validator(mode="after")
    def _stochastic_rounding(self) -> Self:
        if self.weights == "bfloat16" and (self.optimizer != "adamw_8bit" or MODES[self.mode].adapter):
            raise ValueError(
                "weights: bfloat16 needs optimizer: adamw_8bit, which rounds them stochastically, and a mode without an adapter"
            )
        return self

    @property
    def training_mode(self) -> TrainingMode:
        """What ``mode`` trains."""
        return MODES[self.mode]

    def compiled(self, device: str) -> bool:
        """Whether layers are compiled on this type of device; ``auto``: on a GPU, where it pays after a minute."""
        return device == "cuda" if self.compile == "auto" else self.compile
