"""Low-rank adapters on the projections of a Transformer: LoRA and DoRA, added to frozen weights, merged into them, in PEFT's files.

It does not know how adapters are trained nor where the base model came from.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model import fused_lora
from model.checkpoint.json_file import read_json, write_json
from model.checkpoint.layout import FUSED
from model.checkpoint.shapes import shape_mismatches
from model.config import MAX_SIZE, PROJECTIONS
from model.llama import Transformer
from model.nf4 import DESCRIPTION, Nf4Linear, digest

TARGETS = tuple(PROJECTIONS)
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
QUANTIZATION = "quantization.json"  # of the base model that the adapter was trained on, where it was quantized
PREFIX = "base_model.model.model."  # in PEFT's files, before the names that the parameters have here
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names

# Settings of adapter_config.json (PEFT 0.21) that must have one of these values.
SUPPORTED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, True),
    "use_rslora": (False, True),
    # Others, such as pissa, olora and corda, also change the weights under the adapter.
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
# Settings that LoraConfig takes, or that change no result. All others must be unset, also those that PEFT has yet to add.
REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")
HARMLESS = {
    *(*REQUIRED, "lora_dropout"),
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("megatron_core", "qalora_group_size"),  # set even where megatron_config and use_qalora are not
}
UNSET: tuple[object, ...] = (None, False, [], {})


@dataclass(frozen=True)
class LoraConfig:
    """Settings of an adapter. ``ValueError`` names the one that is out of range."""

    rank: int
    alpha: float
    dropout: float  # of what enters the low-rank product
    targets: tuple[str, ...]  # of TARGETS
    dora: bool
    rslora: bool = False

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= MAX_SIZE:
            raise ValueError(f"adapter configuration: rank must be a whole number from 1 to {MAX_SIZE}, is {self.rank!r}")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha <= MAX_SIZE:
            raise ValueError(f"adapter configuration: alpha must be a number above 0 and up to {MAX_SIZE}, is {self.alpha!r}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"adapter configuration: dropout must be a number from 0 to below 1, is {self.dropout!r}")
        if unknown := [target for target in self.targets if target not in TARGETS]:
            raise ValueError(f"adapter configuration: unknown targets {unknown[:5]}; known are {', '.join(TARGETS)}")
        if not self.targets:
            raise ValueError(f"adapter configuration: targets is empty; name some of {', '.join(TARGETS)}")

    @property
    def scale(self) -> float:
        """What BA is multiplied by: alpha/r, or alpha/√r with rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraLinear(nn.Module):
    """A frozen linear layer without bias, plain or in 4 bits, adapted.

    LoRA (Hu et al. 2021, arXiv:2106.09685) multiplies by W + sBA. DoRA (Liu et al. 2024, arXiv:2402.09353, equation 5) brings each
    row of that to a learned length m. A, B and m are float32 whatever W is; parameter names are PEFT's.
    """

    def __init__(self, base: nn.Linear | Nf4Linear, config: LoraConfig, generator: torch.Generator):
        super().__init__()
        self.config = config
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, config.rank, bias=False, device="meta")
        self.lora_B = nn.Linear(config.rank, base.out_features, bias=False, device="meta")
        # Sampled on the CPU: the same numbers for every device. The distribution is that of Microsoft's loralib.
        down = nn.init.kaiming_uniform_(torch.empty(config.rank, base.in_features), a=math.sqrt(5), generator=generator)
        device = next(chain(base.parameters(), base.buffers())).device
        self.lora_A.weight = nn.Parameter(down.to(device))
        self.lora_B.weight = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        self.lora_magnitude_vector = nn.Parameter(row_norms(self.direction())) if config.dora else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], in the precision of the base layer's result.

        Dropout acts on what enters A alone, in DoRA too, where PEFT drops some of the base layer's input as well.
        """
        plain = self.base_layer(x)
        dropped = F.dropout(x.to(self.lora_A.weight.dtype), self.config.dropout, self.training)
        out = torch.add(plain, self.lora_B(self.lora_A(dropped)), alpha=self.config.scale)
        if self.lora_magnitude_vector is not None:
            # The length is a constant to the gradient: section 4.3 of the paper.
            out = out * (self.lora_magnitude_vector / row_norms(self.direction()))
        return out.to(plain.dtype)

    @torch.no_grad()
    def direction(self) -> Tensor:
        """W + sBA [out, in] in float32, under autocast too."""
        weight = _weight(self.base_layer)
        with torch.autocast(weight.device.type, enabled=False):
            # Where several processes share A and B, what they gather is bfloat16.
            return torch.addmm(weight.float(), self.lora_B.weight.float(), self.lora_A.weight.float(), alpha=self.config.scale)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer whose weight is what this layer multiplies by, in the base layer's precision."""
        weight = self.direction()
        if self.lora_magnitude_vector is not None:
            weight *= (self.lora_magnitude_vector / row_norms(weight))[:, None]
        if isinstance(self.base_layer, nn.Linear):
            self.base_layer.weight.copy_(weight)
            return self.base_layer
        linear = nn.Linear(self.base_layer.in_features, self.base_layer.out_features, bias=False, device="meta")
        # On the CPU: whole, the model may not fit on a GPU that trained it in 4 bits.
        linear.weight = nn.Parameter(weight.to("cpu", self.base_layer.dtype), requires_grad=False)
        return linear


def _weight(layer: nn.Linear | Nf4Linear) -> Tensor:
    """[out, in]."""
    return layer.weight if isinstance(layer, nn.Linear) else layer.dequantized()


def row_norms(weight: Tensor) -> Tensor:
    """Euclidean length of each row. Models with added layers have rows of zeros (LLaMA Pro, arXiv:2401.02415): not quite 0."""
    return torch.linalg.vector_norm(weight, dim=1).clamp_min(torch.finfo(weight.dtype).tiny)


def add(model: nn.Module, config: LoraConfig, *, seed: int | torch.Generator) -> None:
    """Put an adapter that changes nothing yet on every targeted projection of a model, or of its layers one after the other with the
    same generator. ``ValueError`` where there are adapters already.
    """
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    for name, linear in _targeted(model, config).items():
        model.set_submodule(name, LoraLinear(linear, config, generator))


def merge(model: Transformer) -> None:
    """Work the adapters into the weights, in float32 and then back in the weights' precision; plain linear layers remain, also of
    weights in 4 bits without an adapter.
    """
    for name, layer in adapters(model).items():
        model.set_submodule(name, layer.merged())
    for name, quantized in [(name, module) for name, module in model.named_modules() if isinstance(module, Nf4Linear)]:
        linear = nn.Linear(quantized.in_features, quantized.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(quantized.dequantized().cpu(), requires_grad=False)
        model.set_submodule(name, linear)


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by the names of the projections that they replace."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def _targeted(model: nn.Module, config: LoraConfig) -> dict[str, nn.Linear | Nf4Linear]:
    if adapters(model):
        raise ValueError("the model has adapters already; merge them first")
    targeted = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in config.targets:
            if not isinstance(module, nn.Linear | Nf4Linear):
                raise ValueError(f"{name} is a {type(module).__name__}; adapters go on plain weights and on those of nf4.py")
            targeted[name] = module
    return targeted


def save(model: Transformer, directory: Path, *, base: str) -> None:
    """Write the adapters as PEFT does; ``directory`` appears whole or not at all.

    ``base`` names the base model (PEFT's ``base_model_name_or_path``); it may not be a path of this machine.
    """
    layers = adapters(model)
    if not layers:
        raise ValueError("the model has no adapters to save")
    if Path(base).is_absolute():
        raise ValueError(f"the base model's name {base} is a path of this machine; give a name that means something on others")
    if directory.exists():
        raise ValueError(f"{directory} exists; give a name that does not")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors, config = {name: p.detach().cpu().contiguous() for name, p in _parameters(layers)}, next(iter(layers.values())).config
    targets: Iterable[str] = config.targets
    if model.config.family.name in FUSED:
        rank = config.rank * fused_lora.MAX_PARTS
        config = replace(config, rank=rank, alpha=config.scale * (math.sqrt(rank) if config.rslora else rank))
        tensors, targets = fused_lora.fuse(tensors), fused_lora.fused_targets(config.targets)
    save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
    write_json(partial / CONFIG, _config_json(config, base) | {"target_modules": list(targets)})
    if any(isinstance(layer.base_layer, Nf4Linear) for layer in layers.values()):
        write_json(partial / QUANTIZATION, DESCRIPTION | {"sha256": digest(model)})
    partial.rename(directory)


def _parameters(layers: dict[str, LoraLinear]) -> Iterator[tuple[str, nn.Parameter]]:
    """Adapter parameters by their names in the file."""
    for name, layer in layers.items():
        yield from ((f"{PREFIX}{name}.{own}", p) for own, p in layer.named_parameters() if own.startswith("lora_"))


def _config_json(config: LoraConfig, base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "use_dora": config.dora,
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def read_config(directory: Path) -> LoraConfig:
    """The settings in ``adapter_config.json``; ``ValueError`` names one that is missing or that this module does not have."""
    path = directory / CONFIG
    raw = read_json(path)
    if missing := [name for name in REQUIRED if name not in raw]:
        raise ValueError(f"{path}: {', '.join(missing)} missing")
    for name, value in raw.items():
        if name in SUPPORTED and value not in SUPPORTED[name]:
            raise ValueError(f"{path}: {name} is {value!r}; supported are {', '.join(map(repr, SUPPORTED[name]))}")
        if name not in HARMLESS.union(SUPPORTED) and value not in UNSET:
            raise ValueError(f"{path}: {name} is {value!r}, which is not supported; train or save the adapter without it")
    targets = TARGETS if raw["target_modules"] == "all-linear" else raw["target_modules"]
    if not isinstance(targets, list | tuple):
        raise ValueError(f"{path}: target_modules is {targets!r}; supported are a list of names and 'all-linear', patterns are not")
    try:
        return LoraConfig(
            rank=raw["r"],
            alpha=raw["lora_alpha"],
            dropout=raw.get("lora_dropout", 0.0),
            # PEFT may write whole names; if those leave layers out, the tensors do not fit later.
            targets=tuple(dict.fromkeys(fused_lora.part_targets(str(name).rpartition(".")[2] for name in targets))),
            dora=raw.get("use_dora", False),
            rslora=raw.get("use_rslora", False),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load(model: Transformer, directory: Path) -> LoraConfig:
    """Put the adapters of a directory, written by ``save`` or PEFT, on the model. Returns their settings.

    ``ValueError`` names settings that are not supported and tensors that are missing, unexpected, of another shape, or no finite
    floats; the model is not changed then. Shapes are compared before a tensor is read.
    """
    config = read_config(directory)
    tensors = read_tensors(directory, config, _targeted(model, config))
    add(model, config, seed=0)
    with torch.no_grad():
        for name, parameter in _parameters(adapters(model)):
            parameter.copy_(tensors[name])
    return config


def read_tensors(directory: Path, config: LoraConfig, layers: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a directory by PEFT's names. ``layers``: the linear layers that they must fit, by name. Errors as of ``load``."""
    stored: Mapping[str, Any] = fused_lora.fused_layers(layers) if _is_fused(directory) else layers
    expected = {name: shape for module, linear in stored.items() for name, shape in _shapes(module, linear, config)}
    tensors = _read(directory / WEIGHTS, expected)
    return fused_lora.split(tensors, layers, PREFIX) if stored is not layers else tensors


def _is_fused(directory: Path) -> bool:
    """Whether the file holds several projections in one matrix; PEFT names these then."""
    targets = read_json(directory / CONFIG)["target_modules"]
    return any(str(target).rpartition(".")[2] in fused_lora.PARTS for target in targets)


def _shapes(name: str, linear: Any, config: LoraConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{PREFIX}{name}.lora_A.weight", (config.rank, linear.in_features)
    yield f"{PREFIX}{name}.lora_B.weight", (linear.out_features, config.rank)
    if config.dora:
        yield f"{PREFIX}{name}.lora_magnitude_vector", (linear.out_features,)


def _read(path: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    if not path.exists():
        raise ValueError(f"{path} is missing; adapters in a pickle (.bin) are not read: save them as safetensors")
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            if mismatches := shape_mismatches({name: tuple(part.get_shape()) for name, part in slices.items()}, expected):
                raise ValueError(f"the tensors in {path} do not fit its {CONFIG} and the model: {mismatches}")
            if not_floats := ", ".join(f"{name} ({part.get_dtype()})" for name, part in slices.items() if part.get_dtype() not in FLOATS):
                raise ValueError(f"{path}: not floats: {not_floats}")
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if not_finite := ", ".join(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise ValueError(f"{path}: not finite everywhere: {not_finite}")
    return tensors
