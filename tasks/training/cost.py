"""What training a model takes: floating-point operations and memory. Arithmetic only; nothing is run.

Letters as in llama.py: L layers, C width, H heads, K key/value heads, D head size, F feed-forward width, V vocabulary; tokens are
those of one forward pass on one device. Kaplan et al. 2020 (arXiv:2001.08361, section 2.1) count operations the same way; memory is
counted as Korthikanti et al. 2022 do (arXiv:2205.05198, section 4), for this model's own operations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from model.llama import PROJECTIONS, LlamaConfig, parameter_shapes
from model.loss import CHUNK
from tasks.training.optim import MODES


def layer_matrices(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of each matrix of a layer."""
    return {name: projection.shape(config) for name, projection in PROJECTIONS.items()}


def training_flops(config: LlamaConfig, *, tokens: float, supervised: float, attended: float, frozen: bool) -> float:
    """Operations of forward and backward passes over ``tokens`` tokens, of which ``supervised`` go through the output matrix.

    ``attended`` is the number of keys seen, summed over the queries of one layer: n(n+1)/2 for a document of n tokens. A multiply and
    an add are two. Backward takes twice what forward does; of ``frozen`` matrices, as under adapters, only the input's half.
    Recomputation is not counted, so that what saves memory does not look fast.
    """
    passes = 2 if frozen else 3
    weights = sum(out * inner for out, inner in layer_matrices(config).values()) * config.n_layers
    attention = 4 * config.n_layers * config.n_heads * config.head_dim * attended
    return 2 * passes * (weights * tokens + config.vocab_size * config.dim * supervised) + 3 * attention


@dataclass(frozen=True)
class Adapter:
    """What lora.py adds to the matrices of these names in every layer."""

    rank: int
    targets: tuple[str, ...]
    dora: bool


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each device, by part. Gradients come as activations go, so both are not there in full at once, but where earlier
    passes of the same step left their gradients."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    passes: int  # per step

    @property
    def peak(self) -> int:
        while_training = self.activations + self.logits
        together = self.gradients + while_training if self.passes > 1 else max(self.gradients, while_training)
        return self.weights + self.optimizer + together


def parameters(config: LlamaConfig) -> int:
    return sum(_size(shape) for _, shape in parameter_shapes(config))


def trained_parameters(config: LlamaConfig, mode: str, adapter: Adapter | None) -> int:
    if adapter:
        matrices = [layer_matrices(config)[target] for target in adapter.targets]
        return config.n_layers * sum(adapter.rank * (out + inner) + adapter.dora * out for out, inner in matrices)
    return sum(_size(shape) for name, shape in parameter_shapes(config) if MODES[mode](name))


def training_memory(
    config: LlamaConfig,
    *,
    mode: str,
    adapter: Adapter | None,
    tokens: int,
    passes: int,
    narrow: bool,
    recompute: bool,
    compiled: bool,
    devices: int = 1,
) -> TrainingMemory:
    """Of one step of ``passes`` micro-batches of ``tokens`` tokens on each of ``devices`` that share weights, gradients and moments.

    Weights, gradients and moments are float32. With ``narrow`` matrix products, a trained weight's bfloat16 copy is kept until its
    gradient is made, and frozen matrices are bfloat16 alone; several processes keep copies of the two layers that they gather.
    """
    trained, wide = trained_parameters(config, mode, adapter), 4
    small = 2 if narrow else 4
    shapes = layer_matrices(config)
    matrices = {name: out * inner for name, (out, inner) in shapes.items()}
    free = set() if adapter else set(_kept_inputs(mode, None))
    head = config.vocab_size * config.dim
    if devices > 1:
        gathered = small * (2 * sum(matrices.values()) + head * (1 if config.tied else 2))
        weights = wide * (parameters(config) + (trained if adapter else 0)) // devices + gathered
    else:
        copies = small * sum(matrices[name] for name in free) if narrow else 0
        frozen = (wide - small) * sum(size for name, size in matrices.items() if name not in free)
        weights = wide * (parameters(config) + (trained if adapter else 0))
        weights += (copies if recompute else copies * config.n_layers) - frozen * config.n_layers
        if config.tied or mode == "full":
            weights += small * head if narrow else 0
        else:
            weights -= (wide - small) * head
    of_layer = tokens * _saved_per_token(config, mode, adapter, small=small, compiled=compiled)
    working = tokens * small * 6 * config.ffn_dim  # what a layer's backward pass makes on its way
    entering = tokens * wide * config.dim
    kept = config.n_layers * entering + of_layer if recompute else config.n_layers * of_layer
    some = min(CHUNK, tokens)
    logits = 2 * small * some * config.vocab_size
    if mode == "full":
        logits += wide * config.vocab_size * config.dim
    return TrainingMemory(weights, wide * trained // devices, 2 * wide * trained // devices, kept + working, logits, passes)


def _saved_per_token(config: LlamaConfig, mode: str, adapter: Adapter | None, *, small: int, compiled: bool) -> int:
    """Bytes per token that a layer keeps for its backward pass. The residual stream is float32."""
    width, queries, inner, wide = config.dim, config.n_heads * config.head_dim, config.ffn_dim, 4
    norms = 2 * wide * width  # what enters either
    attention = small * 4 * queries  # queries, keys and values of every head, and the result
    feed_forward = small * 3 * inner  # both sides of the gate, and its silu
    saved = norms + attention + feed_forward
    matrices, inputs = layer_matrices(config), _kept_inputs(mode, adapter)
    # q, k and v share their input, and so do gate and up; each bfloat16 product of a plain run makes a copy of its own.
    shared = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
    kept = set(inputs) if small < wide and not compiled else {shared.get(name, name) for name in inputs}
    if compiled:
        return saved + small * width * len(kept & {"q_proj", "gate_proj"})
    if adapter:
        saved += small * adapter.rank * len(inputs)
        saved += small * sum(matrices[name][0] for name in inputs) if adapter.dora else 0  # what the lengths multiply
    else:
        saved += 2 * wide * width  # what either norm's weight multiplies
    return saved + small * sum(matrices[name][1] for name in kept)


def _kept_inputs(mode: str, adapter: Adapter | None) -> tuple[str, ...]:
    """The matrices of a layer whose input a gradient needs."""
    if adapter:
        return adapter.targets
    return tuple(name for name in PROJECTIONS if MODES[mode](f"layers.0.self_attn.{name}.weight"))


def _size(shape: Iterable[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
