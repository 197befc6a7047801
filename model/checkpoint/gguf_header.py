"""Whether a GGUF file's header keeps to the file: every count, length and offset in it, before anything believes them.

The layout is that of ggml's docs/gguf.md. It gives no values; the ``gguf`` package reads those.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import gguf

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a scalar, by its type
_STRING, _ARRAY = 8, 9
_NESTED = 4  # arrays in arrays
_DIMENSIONS = 4


class _Header:
    def __init__(self, file: BinaryIO, size: int, path: Path):
        self.file, self.size, self.path = file, size, path

    def wrong(self, what: str) -> ValueError:
        return ValueError(f"{self.path} is not a whole GGUF file: {what}, at byte {self.file.tell()} of {self.size}")

    def number(self, form: str, what: str) -> int:
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise self.wrong(f"it ends inside {what}")
        value: int = struct.unpack("<" + form, data)[0]
        return value

    def skip(self, count: int, what: str) -> None:
        if count > self.size - self.file.tell():
            raise self.wrong(f"{what} of {count} bytes reaches beyond its end")
        self.file.seek(count, 1)

    def string(self, what: str) -> bytes:
        length = self.number("Q", what)
        at = self.file.tell()
        self.skip(length, what)
        self.file.seek(at)
        return self.file.read(length)

    def value(self, kind: int, what: str, depth: int = 0) -> None:
        if kind in _SIZES:
            self.skip(_SIZES[kind], what)
        elif kind == _STRING:
            self.skip(self.number("Q", what), what)
        elif kind == _ARRAY and depth < _NESTED:
            inner, count = self.number("I", what), self.number("Q", what)
            if inner in _SIZES:
                self.skip(_SIZES[inner] * count, what)
                return
            for _ in range(count):  # each takes at least its length's bytes, so a lying count ends at the end of the file
                self.value(inner, what, depth + 1)
        else:
            raise self.wrong(f"{what} has the unknown type {kind}")

    def tensor(self) -> tuple[str, int, int]:
        """Name, size and offset of a tensor's data, in bytes."""
        name = self.string("a tensor's name").decode(errors="replace")
        dimensions = self.number("I", name)
        if not 1 <= dimensions <= _DIMENSIONS:
            raise self.wrong(f"tensor {name} has {dimensions} dimensions")
        shape = [self.number("Q", name) for _ in range(dimensions)]
        kind, offset = self.number("I", name), self.number("Q", name)
        try:
            block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise self.wrong(f"tensor {name} has the unknown type {kind}") from None
        if not all(shape) or shape[0] % block:
            raise self.wrong(f"tensor {name} has the shape {shape}, which type {kind} cannot have")
        return name, math.prod(shape) * width // block, offset


def check_header(path: Path) -> None:
    """``ValueError`` names the place where the header and the file do not fit together."""
    with open(path, "rb") as file:
        header = _Header(file, path.stat().st_size, path)
        if file.read(4) != b"GGUF":
            raise header.wrong("it does not begin with 'GGUF'")
        version, tensors, keys = header.number("I", "the version"), header.number("Q", "the counts"), header.number("Q", "the counts")
        if version not in (2, 3):
            raise header.wrong(f"its version is {version}; 2 and 3 can be read")
        if max(tensors, keys) > header.size:
            raise header.wrong(f"it counts {tensors} tensors and {keys} keys")
        alignment = gguf.GGUF_DEFAULT_ALIGNMENT
        for _ in range(keys):
            key, kind = header.string("a key"), header.number("I", "a value's type")
            if key == b"general.alignment" and kind == 4:
                alignment = header.number("I", "the alignment")
                continue
            header.value(kind, key.decode(errors="replace"))
        found = [header.tensor() for _ in range(tensors)]
        if not alignment or alignment & (alignment - 1):
            raise header.wrong(f"its alignment is {alignment}")
        start = -(-file.tell() // alignment) * alignment
        for name, size, offset in found:
            if start + offset + size > header.size:
                raise header.wrong(f"the data of tensor {name} reaches beyond its end")
