"""What training a model takes: floating-point operations and memory. Arithmetic only; nothing is run.

Letters as in llama.py: L layers, C width, H heads, K key/value heads, D head size, F feed-forward width, V vocabulary; tokens are
those of one forward pass on one device. Kaplan et al. 2020 (arXiv:2001.08361, section 2.1) count operations the same way; memory is
counted as Korthikanti et al. 2022 do (arXiv:2205.05198, section 4), for this model's own operations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from model.checkpoint.shapes import parameter_shapes
from model.config import PROJECTIONS, LlamaConfig
from model.loss import CHUNK
from model.nf4 import BITS
from tasks.training.params import MODES, FinetuneParams, Mode

FP32 = 4  # bytes


def layer_matrices(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of each matrix of a layer."""
    return {name: projection.shape(config) for name, projection in PROJECTIONS.items()}


def training_flops(config: LlamaConfig, *, tokens: float, supervised: float, attended: float, frozen: bool) -> float:
    """Operations of forward and backward passes over ``tokens`` tokens, of which ``supervised`` go through the output matrix.

    ``attended``: keys attended to, summed over the queries of one layer; n(n+1)/2 for a document of n tokens. A multiply and an add
    are two operations. Backward takes twice what forward does; of ``frozen`` matrices, as under adapters, only the input's half.
    Recomputation is not counted, so that what saves memory does not look fast.
    """
    passes = 2 if frozen else 3
    weights = sum(out * inner for out, inner in layer_matrices(config).values()) * config.n_layers
    attention = 4 * config.n_layers * config.n_heads * config.head_dim * attended
    return 2 * passes * (weights * tokens + config.vocab_size * config.dim * supervised) + 3 * attention


def work_per_token(config: LlamaConfig, params: FinetuneParams, *, twice: int) -> float:
    """FLOPs, were every document a row long and all of it with loss: the most it can be; ``twice``: layers that are computed again."""
    n, frozen = params.seq_len, params.training_mode.base_frozen
    work = training_flops(config, tokens=n, supervised=n, attended=n * (n + 1) / 2, frozen=frozen) / n
    return work * (1 + twice / config.n_layers / (2 if frozen else 3))


@dataclass(frozen=True)
class Adapter:
    """What lora.py adds to the matrices of these names in every layer."""

    rank: int
    targets: tuple[str, ...]
    dora: bool


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each device, by part. Gradients are allocated while activations are freed, so the two are not there in full at once,
    except where earlier passes of the same step left their gradients."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    passes: int  # per step

    @property
    def peak(self) -> int:
        """Bytes at the peak of a step."""
        while_training = self.activations + self.logits
        together = self.gradients + while_training if self.passes > 1 else max(self.gradients, while_training)
        return self.weights + self.optimizer + together


def parameters(config: LlamaConfig) -> int:
    """Parameters of the model."""
    return sum(_size(shape) for _, shape in parameter_shapes(config))


def trained_parameters(config: LlamaConfig, mode: Mode, adapter: Adapter | None) -> int:
    """Parameters that ``mode`` trains."""
    if adapter:
        matrices = [layer_matrices(config)[target] for target in adapter.targets]
        return config.n_layers * sum(adapter.rank * (out + inner) + adapter.dora * out for out, inner in matrices)
    return sum(_size(shape) for name, shape in parameter_shapes(config) if MODES[mode].trains(name))


def training_memory(
    config: LlamaConfig,
    *,
    mode: Mode,
    adapter: Adapter | None,
    tokens: int,
    passes: int,
    use_bf16: bool,
    checkpointed_layers: int,
    compiled: bool,
    shared_heads: bool,
    devices: int = 1,
    moment_bytes: float = FP32,
    trained_bytes: int = FP32,
) -> TrainingMemory:
    """Of one step of ``passes`` micro-batches of ``tokens`` tokens on each of ``devices`` that share weights, gradients and moments.

    Weights and gradients have ``trained_bytes`` a parameter that trains, each of both moments ``moment_bytes``. With bfloat16 matrix
    products, a float32 weight's bfloat16 copy is kept until its gradient is made, and frozen matrices, the embedding among them, are
    kept in bfloat16 only; several processes keep copies of the two layers that they gather. ``checkpointed_layers`` keep their input
    and are computed again, one at a time. ``shared_heads``: attention takes keys and values as they are, not one for each query head,
    as on a GPU.
    """
    trained = trained_parameters(config, mode, adapter)
    product_bytes = 2 if use_bf16 else FP32
    layers = max(config.n_layers - checkpointed_layers, 1)  # that hold all that they keep at the same time
    weights = _weight_bytes(
        config,
        mode,
        adapter,
        trained=trained,
        product_bytes=product_bytes,
        layers=layers,
        devices=devices,
        trained_bytes=trained_bytes,
    )
    of_layer = tokens * _saved_per_token(config, mode, adapter, product_bytes=product_bytes, compiled=compiled, shared_heads=shared_heads)
    working = tokens * product_bytes * 6 * config.ffn_dim  # what a layer's backward pass allocates
    saved = checkpointed_layers * tokens * FP32 * config.dim + layers * of_layer
    logits = 2 * product_bytes * min(CHUNK, tokens) * config.vocab_size
    if MODES[mode].trains("embed_tokens.weight"):
        logits += FP32 * config.vocab_size * config.dim
    gradients, moments = trained_bytes * trained // devices, int(2 * moment_bytes * trained / devices)
    return TrainingMemory(weights, gradients, moments, saved + working, logits, passes)


def _weight_bytes(
    config: LlamaConfig,
    mode: Mode,
    adapter: Adapter | None,
    *,
    trained: int,
    product_bytes: int,
    layers: int,
    devices: int,
    trained_bytes: int,
) -> int:
    """Bytes of the weights on each device, with the copies that matrix products in bfloat16 need."""
    matrices = {name: out * inner for name, (out, inner) in layer_matrices(config).items()}
    head = config.vocab_size * config.dim
    if MODES[mode].quantized:
        packed = int(config.n_layers * sum(matrices.values()) * BITS / 8)
        again = 2 * product_bytes * max(matrices.values())  # the matrix that is multiplied, made from its 4 bits and converted
        norms = FP32 * (2 * config.n_layers + 1) * config.dim
        rest = head * (1 if config.tied else 2)
        shared = norms + FP32 * (trained + (rest if devices > 1 else 0))  # each device has all that is in 4 bits
        return packed + again + shared // devices + product_bytes * rest
    stored = FP32 * (parameters(config) + (trained if adapter else 0))
    if devices > 1:
        return stored // devices + product_bytes * (2 * sum(matrices.values()) + head * (1 if config.tied else 2))
    if product_bytes == FP32:
        return stored
    if trained_bytes < FP32:  # no copies
        return trained_bytes * trained + product_bytes * (parameters(config) - trained)
    trainable = set() if adapter else set(_kept_inputs(mode, None))
    copies = product_bytes * sum(matrices[name] for name in trainable)
    frozen = (FP32 - product_bytes) * sum(size for name, size in matrices.items() if name not in trainable)
    stored += copies * layers - frozen * config.n_layers
    if MODES[mode].trains("embed_tokens.weight"):
        return stored + product_bytes * head
    return stored - (FP32 - product_bytes) * head * (1 if config.tied else 2)


def _saved_per_token(
    config: LlamaConfig, mode: Mode, adapter: Adapter | None, *, product_bytes: int, compiled: bool, shared_heads: bool
) -> int:
    """Bytes per token that a layer keeps for its backward pass. The residual stream is float32."""
    width, queries, inner = config.dim, config.n_heads * config.head_dim, config.ffn_dim
    norms = 2 * FP32 * width  # the input of either
    attention = product_bytes * 2 * (queries + (config.kv_size if shared_heads else queries))  # queries, result; keys, values
    feed_forward = product_bytes * 3 * inner  # both sides of the gate, and its silu
    saved = norms + attention + feed_forward
    matrices, inputs = layer_matrices(config), _kept_inputs(mode, adapter)
    # q, k and v share their input, and so do gate and up; each bfloat16 product of a plain run makes a copy of its own.
    shared = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
    kept = set(inputs) if product_bytes < FP32 and not compiled else {shared.get(name, name) for name in inputs}
    if compiled:
        return saved + product_bytes * width * len(kept & {"q_proj", "gate_proj"})
    if adapter:
        saved += product_bytes * adapter.rank * len(inputs)
        saved += product_bytes * sum(matrices[name][0] for name in inputs) if adapter.dora else 0  # the input of the magnitudes
    else:
        saved += 2 * FP32 * width  # the input of either norm's weight
    return saved + product_bytes * sum(matrices[name][1] for name in kept)


def _kept_inputs(mode: Mode, adapter: Adapter | None) -> tuple[str, ...]:
    """The matrices of a layer whose input a gradient needs."""
    if adapter:
        return adapter.targets
    return tuple(name for name in PROJECTIONS if MODES[mode].trains(f"layers.0.self_attn.{name}.weight"))


def _size(shape: Iterable[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
