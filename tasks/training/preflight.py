"""Whether a fine-tuning run fits into the memory of its devices, and what to change where it does not."""

from dataclasses import dataclass

from model.attention import MAX_DENSE
from model.config import LlamaConfig
from tasks.training.cost import Adapter, TrainingMemory, training_memory
from tasks.training.params import FinetuneParams

# Bytes besides the tensors: the context on a GPU; on a CPU torch and its libraries, oneDNN's compiled products and the heap's
# fragmentation.
RUNTIME = {"cuda": 0.6e9, "cpu": 1.1e9}

MARGIN = 0.95


@dataclass(frozen=True)
class Machine:
    """What trains: one or several devices of a type that share the model, each with so many bytes of memory."""

    device: str
    count: int
    memory: float
    use_bf16: bool

    def needed(self, config: LlamaConfig, params: FinetuneParams, *, checkpointed_layers: int) -> TrainingMemory:
        """Memory on each of the devices."""
        mode, adapter = params.training_mode, params.adapter
        rows = min(params.micro_batch, -(-params.batch // self.count))
        return training_memory(
            config,
            mode=params.mode,
            adapter=Adapter(adapter.rank, adapter.targets, dora=mode.dora) if mode.adapter else None,
            tokens=rows * params.seq_len,
            passes=-(-params.batch // (self.count * rows)),
            use_bf16=self.use_bf16,
            checkpointed_layers=checkpointed_layers,
            compiled=params.compiled(self.device) and not (self.device == "cpu" and params.seq_len > MAX_DENSE),
            shared_heads=self.device == "cuda",
            devices=self.count,
            moment_bytes=1 + 4 / 256 if params.optimizer == "adamw_8bit" else 4,
            trained_bytes=2 if params.weights == "bfloat16" else 4,
        )

    def checkpointed_layers(self, config: LlamaConfig, params: FinetuneParams) -> int | None:
        """How many layers must be computed twice for a run to fit, or are where the params say so; None where it does not fit."""
        setting, layers = params.activation_checkpointing, config.n_layers
        for count in range(layers + 1) if setting == "auto" else [layers if setting else 0]:
            # Memory is planned within some percent, so one layer too few is not chosen while there are more.
            usable = self.memory * (MARGIN if setting == "auto" and count < layers else 1)
            if self.needed(config, params, checkpointed_layers=count).peak + RUNTIME[self.device] <= usable:
                return count
        return None


def fit(config: LlamaConfig, params: FinetuneParams, machine: Machine) -> int:
    """How many layers are computed twice in a run that fits. ``ValueError`` with what to change where it does not."""
    layers = machine.checkpointed_layers(config, params)
    if layers is not None:
        return layers
    smallest: dict[str, object] = {"micro_batch": 1, "activation_checkpointing": "auto"}
    changes_by_advice: dict[str, dict[str, object]] = {
        "finetune.activation_checkpointing: auto": {"activation_checkpointing": "auto"},
        **{f"finetune.micro_batch: {rows}": {"micro_batch": rows} for rows in (params.micro_batch // 2, 1) if rows},
        "micro_batch: 1 and activation_checkpointing: auto": smallest,
    }
    if machine.count == 1 and not params.training_mode.adapter and machine.use_bf16:
        in_8_bits: dict[str, object] = smallest | {"optimizer": "adamw_8bit", "weights": "bfloat16"}
        changes_by_advice["micro_batch: 1, activation_checkpointing: auto, optimizer: adamw_8bit and weights: bfloat16"] = in_8_bits
    for mode in ("lora", "qlora"):
        with_adapter: dict[str, object] = {"mode": mode, "weights": "float32"}
        weights = "" if params.weights == "float32" else ", weights: float32"
        changes_by_advice[f"mode: {mode}{weights}"] = with_adapter
        changes_by_advice[f"micro_batch: 1, activation_checkpointing: auto{weights} and mode: {mode}"] = smallest | with_adapter
    for advised, changes in changes_by_advice.items():
        if machine.checkpointed_layers(config, params.model_copy(update=changes)) is not None:
            advice = f"it fits with {advised}"
            break
    else:
        advice = "it needs a larger machine, several that share the model (FINETUNE_LAUNCH), a smaller model or a shorter seq_len"
    at_least = machine.needed(config, params, checkpointed_layers=0 if params.activation_checkpointing is False else config.n_layers)
    raise ValueError(
        f"training needs about {(at_least.peak + RUNTIME[machine.device]) / 1e9:.1f} GB on each device, which has"
        f" {machine.memory / 1e9:.1f}; {advice}. 'python -m tasks.training plan' shows the parts"
    )
