"""The CPU's decoding step in C (decode.c): compiled once per machine with the system's C compiler, called through ctypes.

gcc and clang do, on x86-64 and ARM64. Without a compiler everything runs through torch, slower. It knows nothing of sampling or text.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from model.generation.adapters import Adapter, LowRank
from model.generation.kv_cache import KVCache
from model.generation.quantize import QuantizedLinear
from model.llama import PROJECTIONS, Block, Transformer, rotary_frequencies
from model.system import ownership

SOURCE = Path(__file__).with_name("decode.c")
_MAC = platform.system() == "Darwin"
FLAGS = (
    "-O3",
    "-march=native" if platform.machine() == "x86_64" else "-mcpu=native",
    "-fPIC",
    *(("-Xclang", "-fopenmp") if _MAC else ("-fopenmp",)),  # Apple's clang hides the option
)
# Without -fopenmp here, OpenMP's functions are those that torch loaded: one pool of threads for both. What clang compiles calls others
# than torch's Linux builds bring, and takes them from the library that comes with clang.
LINKS = (("-undefined", "dynamic_lookup"),) if _MAC else ((), ("-fopenmp",))
BLOCK = 4  # as in decode.c
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class _Matrix(Structure):
    _fields_ = (("weight", c_void_p), ("scale", c_void_p), ("kind", c_int32), ("outs", c_int32), ("ins", c_int32))


class _Layer(Structure):
    _fields_ = (
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        *((name, _Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    )


class _Model(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim")),
        ("eps", c_float),
        ("layer", POINTER(_Layer)),
        *((name, c_void_p) for name in ("norm", "cos", "sin")),
    )


class _LowRank(Structure):
    _fields_ = (("down", c_void_p), ("up", c_void_p), ("magnitude", c_void_p), ("rank", c_int64))


class _Cache(Structure):
    _fields_ = (("keys", c_void_p), ("values", c_void_p), ("slots", c_int64), ("len", c_int64))


@cache
def library() -> ctypes.CDLL | str:
    """The compiled library, or a sentence that says why there is none."""
    compiler = os.environ.get("CC", "cc")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama-decode"
    # -march=native: a home directory may be shared by machines with different processors.
    key = "\0".join((SOURCE.read_text(), compiler, repr((FLAGS, LINKS)), _processor()))
    built = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (problem := ownership.problem(built)) and not built.exists():
            with tempfile.TemporaryDirectory(dir=folder) as partial:
                _build(compiler, Path(partial)).rename(built)
        if problem := problem or ownership.problem(built):
            warnings.warn(f"decoding goes on in torch, slower: {problem}", RuntimeWarning, stacklevel=2)
            return f"a library that another account could have written is not loaded: {problem}"
        return ctypes.CDLL(str(built))
    except subprocess.CalledProcessError as error:
        return f"{compiler} could not compile {SOURCE.name}: {error.stderr.strip()[:200] or f'status {error.returncode}'}"
    except OSError as error:
        return f"no C library for decoding: {error}"


def _build(compiler: str, folder: Path) -> Path:
    """The compiled library, linked in the first way in which it can be loaded."""
    objects = folder / "decode.o"
    _run(compiler, *FLAGS, "-c", str(SOURCE), "-o", str(objects))
    problem = OSError()
    for number, link in enumerate(LINKS):
        out = folder / f"{number}.so"  # the loader knows a library by its name
        _run(compiler, "-shared", str(objects), "-lm", *link, "-o", str(out))
        try:
            ctypes.CDLL(str(out))
            return out
        except OSError as error:
            problem = error
    raise problem


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


class Native:
    """A model's weights as decode.c reads them, by pointers to the tensors. ``ValueError`` says which of them does not fit."""

    def __init__(self, model: Transformer):
        loaded = library()
        if isinstance(loaded, str):
            raise ValueError(loaded)
        self._library = loaded
        config = model.config
        self._keep_alive: list[object] = [model]
        angles = torch.arange(config.max_seq_len)[:, None].float() * rotary_frequencies(config)
        layers = (_Layer * config.n_layers)(*map(self._layer, model.layers))
        sizes = (config.n_layers, config.dim, config.n_heads, config.n_kv_heads, config.head_dim, config.ffn_dim)
        tables = (self._floats(model.norm.weight), self._floats(angles.cos()), self._floats(angles.sin()))
        self._model = _Model(*sizes, config.norm_eps, layers, *tables)
        self._output = self._matrix(model.lm_head)
        self._embed = model.embed_tokens
        # Per row: normed, q and k and v, mixed heads, inner; see step() in decode.c.
        heads = (2 * config.n_heads + 2 * config.n_kv_heads) * config.head_dim
        self._per_row = config.dim + heads + config.ffn_dim
        self._scratch = torch.empty(0)
        self._adapters: WeakKeyDictionary[Adapter, _NativeAdapter] = WeakKeyDictionary()

    @classmethod
    def of(cls, model: Transformer) -> "Native | None":
        """None unless the model is on the CPU and decode.c supports all of its layers."""
        try:
            return cls(model)
        except ValueError:
            return None

    @torch.inference_mode()
    def step(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        kv: KVCache,
        adapters: Sequence[Adapter | None] = (),
    ) -> Tensor:
        """Hidden states [N, C], float32, of one token per row, each at its own position in its cache slot.

        ``adapters``: that of each row, or none at all.
        """
        rows, threads = len(tokens), torch.get_num_threads()
        # C does not check an index as torch does.
        if min(positions) < 0 or max(positions) >= kv.keys.shape[3] or min(slots) < 0 or max(slots) >= kv.keys.shape[1]:
            raise ValueError(f"positions up to {max(positions)} in slots up to {max(slots)} exceed the cache {list(kv.keys.shape)}")
        x = self._embed(torch.tensor(tokens)).float().contiguous()
        rank = max((_whole_blocks(adapter.rank) for adapter in adapters if adapter), default=0)
        scratch_size = rows * self._per_row + threads * kv.keys.shape[3] + 3 * rows * rank * BLOCK
        if self._scratch.numel() < scratch_size:
            self._scratch = torch.empty(scratch_size)
        integers = c_int32 * rows
        view = _Cache(kv.keys.data_ptr(), kv.values.data_ptr(), kv.keys.shape[1], kv.keys.shape[3])
        indices = (integers(*slots), integers(*positions))
        by_row = (c_void_p * rows)(*map(self._adapter, adapters)) if rank else None
        scratch = _pointer(self._scratch)
        self._library.step(byref(self._model), byref(view), rows, *indices, by_row, rank, _pointer(x), scratch, threads)
        return x

    def _adapter(self, adapter: Adapter | None) -> int | None:
        if adapter is None:
            return None
        if adapter not in self._adapters:
            self._adapters[adapter] = _NativeAdapter(adapter, self._model.layers)
        return ctypes.addressof(self._adapters[adapter].projections)

    @torch.inference_mode()
    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Hidden states [N, C] to logits [N, V], float32."""
        hidden_NC = hidden_NC.contiguous()
        out = torch.empty(hidden_NC.shape[0], self._output.outs)
        self._library.product(byref(self._output), _pointer(hidden_NC), len(out), _pointer(out), torch.get_num_threads())
        return out

    def _layer(self, block: nn.Module) -> _Layer:
        assert isinstance(block, Block)
        linears = (block.get_submodule(projection.path) for projection in PROJECTIONS.values())
        norms = (self._floats(block.input_layernorm.weight), self._floats(block.post_attention_layernorm.weight))
        return _Layer(*norms, *map(self._matrix, linears))

    def _matrix(self, linear: nn.Module) -> _Matrix:
        if type(linear) not in (nn.Linear, QuantizedLinear):
            raise ValueError(f"decode.c knows no {type(linear).__name__}")
        weight, scale = linear.weight, getattr(linear, "scale", None)
        if weight.device.type != "cpu" or weight.dtype not in DTYPE_CODES or not weight.is_contiguous():
            raise ValueError(f"decode.c does not take {weight.dtype} weights on {weight.device}")
        return _Matrix(weight.data_ptr(), None if scale is None else scale.data_ptr(), DTYPE_CODES[weight.dtype], *weight.shape)

    def _floats(self, values: Tensor) -> int:
        floats = values.detach().float().contiguous()
        self._keep_alive.append(floats)
        return floats.data_ptr()


class _NativeAdapter:
    """An adapter as decode.c reads it: of each layer its seven projections."""

    def __init__(self, adapter: Adapter, layers: int):
        self._keep_alive: list[Tensor] = []
        names = [f"layers.{layer}.{projection.path}" for layer in range(layers) for projection in PROJECTIONS.values()]
        self.projections = (_LowRank * len(names))(*(self._low_rank(adapter.projections.get(name)) for name in names))

    def _low_rank(self, low_rank: LowRank | None) -> _LowRank:
        if low_rank is None:
            return _LowRank(None, None, None, 0)
        (outs, rank), magnitude = low_rank.up.shape, low_rank.magnitude
        down = nn.functional.pad(low_rank.down, (0, 0, 0, _whole_blocks(rank) - rank))
        up = nn.functional.pad(low_rank.up, (0, _whole_blocks(rank) - rank, 0, _whole_blocks(outs) - outs))
        up = up.unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()
        self._keep_alive += [down, up, *([] if magnitude is None else [magnitude])]
        return _LowRank(down.data_ptr(), up.data_ptr(), None if magnitude is None else magnitude.data_ptr(), len(down))


def _whole_blocks(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _pointer(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())
