"""Checks a GGUF file's header: that every count, length and offset in it stays within the file.

The layout is that of ggml's docs/gguf.md. The ``gguf`` package reads the values afterwards.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import gguf

from model.checkpoint.json_file import check_no_pointer

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a scalar, by its type
_STRING, _ARRAY = 8, 9
_NESTED = 4  # arrays in arrays
_DIMENSIONS = 4


class _Header:
    def __init__(self, file: BinaryIO, size: int, path: Path):
        self.file, self.size, self.path = file, size, path

    def error(self, field: str) -> ValueError:
        return ValueError(f"{self.path} is not a whole GGUF file: {field}, at byte {self.file.tell()} of {self.size}")

    def integer(self, form: str, field: str) -> int:
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise self.error(f"it ends inside {field}")
        value: int = struct.unpack("<" + form, data)[0]
        return value

    def skip(self, count: int, field: str) -> None:
        if count > self.size - self.file.tell():
            raise self.error(f"{field} of {count} bytes reaches beyond its end")
        self.file.seek(count, 1)

    def string(self, field: str) -> bytes:
        length = self.integer("Q", field)
        at = self.file.tell()
        self.skip(length, field)
        self.file.seek(at)
        return self.file.read(length)

    def value(self, kind: int, field: str, depth: int = 0) -> None:
        if kind in _SIZES:
            self.skip(_SIZES[kind], field)
        elif kind == _STRING:
            self.skip(self.integer("Q", field), field)
        elif kind == _ARRAY and depth < _NESTED:
            inner, count = self.integer("I", field), self.integer("Q", field)
            if inner in _SIZES:
                self.skip(_SIZES[inner] * count, field)
                return
            for _ in range(count):  # each takes at least its length's bytes, so a false count ends at the end of the file
                self.value(inner, field, depth + 1)
        else:
            raise self.error(f"{field} has the unknown type {kind}")

    def tensor(self) -> tuple[str, int, int]:
        """Name, size and offset of a tensor's data, in bytes."""
        name = self.string("a tensor's name").decode(errors="replace")
        dimensions = self.integer("I", name)
        if not 1 <= dimensions <= _DIMENSIONS:
            raise self.error(f"tensor {name} has {dimensions} dimensions")
        shape = [self.integer("Q", name) for _ in range(dimensions)]
        kind, offset = self.integer("I", name), self.integer("Q", name)
        try:
            block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise self.error(f"tensor {name} has the unknown type {kind}") from None
        if not all(shape) or shape[0] % block:
            raise self.error(f"tensor {name} has the shape {shape}, which type {kind} cannot have")
        return name, math.prod(shape) * width // block, offset


def check_header(path: Path) -> None:
    """``ValueError`` names the byte where the header is damaged or reaches beyond the file."""
    with open(path, "rb") as file:
        header = _Header(file, path.stat().st_size, path)
        if file.read(4) != b"GGUF":
            check_no_pointer(path)
            raise header.error("it does not begin with 'GGUF'")
        version, tensors, keys = header.integer("I", "the version"), header.integer("Q", "the counts"), header.integer("Q", "the counts")
        if version not in (2, 3):
            raise header.error(f"its version is {version}; 2 and 3 can be read")
        if max(tensors, keys) > header.size:
            raise header.error(f"it counts {tensors} tensors and {keys} keys")
        alignment = gguf.GGUF_DEFAULT_ALIGNMENT
        for _ in range(keys):
            key, kind = header.string("a key"), header.integer("I", "a value's type")
            if key == b"general.alignment" and kind == 4:
                alignment = header.integer("I", "the alignment")
                continue
            header.value(kind, key.decode(errors="replace"))
        tensor_infos = [header.tensor() for _ in range(tensors)]
        if not alignment or alignment & (alignment - 1):
            raise header.error(f"its alignment is {alignment}")
        start = -(-file.tell() // alignment) * alignment
        for name, size, offset in tensor_infos:
            if start + offset + size > header.size:
                raise header.error(f"the data of tensor {name} reaches beyond its end")
