"""The C of generation (decode.c, int8.h) as a library: compiled once per machine with the system's C compiler, loaded through ctypes.

gcc and clang do, on x86-64 and ARM64. Without a compiler everything runs through torch, slower.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
import warnings
from ctypes import Structure, c_int32, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.system import ownership

SOURCE = Path(__file__).with_name("decode.c")
INCLUDED = SOURCE.with_name("int8.h")
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
PANEL, GROUP = 16, 32  # as in int8.h
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2, torch.uint8: 3}  # the last: int4, two in a byte


class Matrix(Structure):
    """A weight as decode.c reads it."""

    _fields_ = (("weight", c_void_p), ("scale", c_void_p), ("kind", c_int32), ("outs", c_int32), ("ins", c_int32))

    @classmethod
    def of(cls, weight: Tensor, scale: Tensor | None, shape: tuple[int, int]) -> "Matrix":
        """``shape``: (out, in). ``ValueError`` for a weight that decode.c does not take."""
        if weight.device.type != "cpu" or weight.dtype not in DTYPE_CODES or not weight.is_contiguous():
            raise ValueError(f"decode.c does not take {weight.dtype} weights on {weight.device}")
        return cls(weight.data_ptr(), None if scale is None else scale.data_ptr(), DTYPE_CODES[weight.dtype], *shape)


@cache
def library() -> ctypes.CDLL | str:
    """The compiled library, or a sentence that says why there is none."""
    compiler = os.environ.get("CC", "cc")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama-decode"
    # -march=native: a home directory may be shared by machines with different processors.
    key = "\0".join((SOURCE.read_text(), INCLUDED.read_text(), compiler, repr((FLAGS, LINKS)), _processor()))
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


def rounded_rows(rows: int, ins: int) -> Tensor:
    """Memory for so many rows of ``ins`` activations that are rounded to int8, as int8.h keeps them."""
    loaded = library()
    assert not isinstance(loaded, str)
    return torch.empty(rows * -(-ins // GROUP) * c_int32.in_dll(loaded, "group_floats").value)


def pointer(tensor: Tensor) -> c_void_p:
    """The address of the tensor's first element."""
    return c_void_p(tensor.data_ptr())
