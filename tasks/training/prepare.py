"""What is ready before the first step: the devices, and the model as its mode and params say."""

from collections.abc import Callable
from pathlib import Path

import torch

from model import lora
from model.attention import choose_backend
from model.checkpoint.load import load_model, weights_dtype
from model.llama import Block, Transformer
from model.nf4 import quantize_layer_
from model.precision import use_bf16
from tasks.training import optim
from tasks.training.distributed import ProcessGroup
from tasks.training.hardware import unused_gpu
from tasks.training.params import FinetuneParams


def check_gpus(group: ProcessGroup, params: FinetuneParams) -> None:
    """Say what is unusual about the devices; ``ValueError`` where they cannot train together."""
    if params.optimizer == "adamw_8bit" and not group.single_process:
        raise ValueError("finetune.optimizer: adamw_8bit trains in one process; several share the moments of adamw")
    if params.weights == "bfloat16" and not use_bf16(group.device, params.precision):
        raise ValueError("finetune.weights: bfloat16 needs matrix products in bfloat16; set precision: bfloat16, or weights: float32")
    cuda = group.device.type == "cuda"
    names = group.gather(torch.cuda.get_device_name(group.device) if cuda else "")
    if not group.single_process and any("MIG" in name for name in names):
        raise ValueError("slices of a GPU (MIG) cannot train together; take one of them, or whole GPUs")
    if group.rank:
        return
    if problem := unused_gpu():
        print(f"finetune: {problem}; training on the CPU", flush=True)
    if len(set(names)) > 1:
        print(f"finetune: the GPUs differ ({', '.join(sorted(set(names)))}): the smallest and the slowest decide", flush=True)
    if cuda and params.precision == "auto" and not use_bf16(group.device, "auto"):
        print(f"finetune: {names[0]} has no bfloat16 products; they run in float32", flush=True)


def set_determinism(params: FinetuneParams) -> None:
    """Let torch take deterministic kernels where the params ask for them, for the rest of this process."""
    torch.use_deterministic_algorithms(params.deterministic)


def load_base_with_adapter(
    base: Path,
    params: FinetuneParams,
    *,
    device: torch.device,
    frozen: torch.dtype = torch.float32,
    quantize_on: torch.device | None = None,
    each_layer: Callable[[Block], None] = lambda layer: None,
) -> Transformer:
    """The base model, with an adapter where the mode has one, loaded layer by layer: ``each_layer`` is called with every one.

    What trains is in the precision that params say, the rest in float32 but for matrices, which are ``frozen``: float32 might not fit
    on the device. Matrices that are quantized are loaded in the precision that they are stored in, and quantized on the device or on
    ``quantize_on``; another kind of device may round otherwise.
    """
    mode, generator = params.training_mode, torch.Generator().manual_seed(params.seed)
    stored = weights_dtype(base)

    def precision_of(name: str) -> torch.dtype:
        if mode.trains(name):
            return torch.bfloat16 if params.weights == "bfloat16" and not is_norm(name) else torch.float32
        if mode.quantized and name.endswith("_proj.weight"):
            return stored
        return frozen if is_matrix(name) else torch.float32

    def finish(layer: Block) -> None:
        if mode.quantized:
            quantize_layer_(layer, quantize_on or device)
        if mode.adapter:
            lora.add(layer, lora_config(params), seed=generator)
        each_layer(layer)

    return load_model(base, device=device, dtype=precision_of, each_layer=finish)


def is_norm(name: str) -> bool:
    """Whether a parameter scales the residual stream, which is float32."""
    return "norm" in name


def is_matrix(name: str) -> bool:
    """Whether a parameter is multiplied by; the embedding and the norms make the residual stream, which is float32."""
    return name.endswith(("_proj.weight", "lm_head.weight"))


def lora_config(params: FinetuneParams) -> lora.LoraConfig:
    """The adapter of the modes that have one."""
    adapter = params.adapter
    return lora.LoraConfig(adapter.rank, adapter.alpha, 0.0, adapter.targets, dora=params.training_mode.dora)


def prepare_for_training(
    model: Transformer, params: FinetuneParams, device: torch.device, *, checkpointed_layers: int = 0, single_process: bool = True
) -> Transformer:
    """Freeze, cast and compile the model for ``device`` as its mode and params say; ``single_process``: not to be sharded."""
    optim.freeze(model, params.mode)
    if single_process and use_bf16(device, params.precision):
        # A frozen matrix that multiplies in bfloat16 needs no float32 copy. The embedding starts the float32 residual stream: only where
        # it loses nothing.
        embedding = model.embed_tokens.weight
        if not embedding.requires_grad and all(torch.equal(rows.bfloat16().float(), rows) for rows in embedding.float().split(4096)):
            model.embed_tokens.to(torch.bfloat16)
        for layer in (m for m in model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad):
            if layer.weight is not model.embed_tokens.weight:
                layer.to(torch.bfloat16)
    model.checkpointed_layers = checkpointed_layers
    # Document by document the kernels have the lengths of each batch, and would be compiled for each.
    if params.compiled(device.type) and attention_backend(params, device) != "documents":
        torch._dynamo.config.recompile_limit = 64  # a few for each shape of batch, and those are few
        model.compiled = True
        for block in model.layers:
            block.compile(dynamic=False)
    return model


def attention_backend(params: FinetuneParams, device: torch.device) -> str:
    """The attention kernel that training runs (``model.attention.BACKENDS``)."""
    return choose_backend(device, torch.bfloat16 if use_bf16(device, params.precision) else torch.float32, params.seq_len)
