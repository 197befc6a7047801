"""Whether a fine-tuning run fits into the memory of its devices, and what to change where it does not."""

from model.attention import MAX_DENSE
from model.llama import LlamaConfig
from tasks.training.cost import Adapter, TrainingMemory, training_memory
from tasks.training.params import FinetuneParams

# Bytes besides the tensors: the context on a GPU; on a CPU torch and its libraries, oneDNN's compiled products and the heap's
# fragmentation.
RUNTIME = {"cuda": 0.6e9, "cpu": 1.1e9}


def memory_needed(config: LlamaConfig, params: FinetuneParams, *, use_bf16: bool, devices: int, device: str) -> TrainingMemory:
    """Memory on each of the ``devices`` of this type that train together."""
    mode, adapter = params.training_mode, params.adapter
    rows = min(params.micro_batch, -(-params.batch // devices))
    return training_memory(
        config,
        mode=params.mode,
        adapter=Adapter(adapter.rank, adapter.targets, dora=mode.dora) if mode.adapter else None,
        tokens=rows * params.seq_len,
        passes=-(-params.batch // (devices * rows)),
        use_bf16=use_bf16,
        activation_checkpointing=params.activation_checkpointing,
        compiled=params.compiled(device) and not (device == "cpu" and params.seq_len > MAX_DENSE),
        shared_heads=device == "cuda",
        devices=devices,
    )


def check_memory(config: LlamaConfig, params: FinetuneParams, *, use_bf16: bool, devices: int, device: str, memory: float) -> None:
    """``ValueError`` with what to change, where each device has only ``memory`` bytes for what a run needs."""
    need = memory_needed(config, params, use_bf16=use_bf16, devices=devices, device=device).peak + RUNTIME[device]
    if need <= memory:
        return
    smallest: dict[str, object] = {"micro_batch": 1, "activation_checkpointing": True}
    changes_by_advice: dict[str, dict[str, object]] = {
        **{f"finetune.micro_batch: {rows}": {"micro_batch": rows} for rows in (params.micro_batch // 2, 1) if rows},
        "finetune.activation_checkpointing: true": {"activation_checkpointing": True},
        "finetune.mode: lora": {"mode": "lora"},
        **({"finetune.mode: qlora": {"mode": "qlora"}} if devices == 1 else {}),
        "micro_batch: 1 and activation_checkpointing: true": smallest,
        "micro_batch: 1, activation_checkpointing: true and mode: lora": smallest | {"mode": "lora"},
    }
    for advised, changes in changes_by_advice.items():
        changed = params.model_copy(update=changes)
        if memory_needed(config, changed, use_bf16=use_bf16, devices=devices, device=device).peak + RUNTIME[device] <= memory:
            advice = f"it fits with {advised}"
            break
    else:
        advice = "it needs a larger machine, several that share the model (FINETUNE_LAUNCH), a smaller model or a shorter seq_len"
    raise ValueError(
        f"training needs about {need / 1e9:.1f} GB on each device, which has {memory / 1e9:.1f}; {advice}. "
        "'python -m tasks.training plan' shows the parts"
    )
