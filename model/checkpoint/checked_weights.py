"""Weights read in one pass over a safetensors file, with the SHA-256 of the very bytes that were read.

Whoever compares a file with its digest and opens it again afterwards may load another one. Format:
https://huggingface.co/docs/safetensors (8 bytes of length, a JSON header, the tensors' bytes).
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
MAX_HEADER = 100 << 20  # safetensors' own limit, in bytes


class CheckedFile:
    """One file, opened once: ``shapes`` from its header, then ``tensors``, whose end says whether its bytes are those of the digest."""

    def __init__(self, path: Path, sha256: str):
        self.path, self._wanted, self._read = path, sha256, hashlib.sha256()
        # A pipe would keep the reader waiting.
        self._file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115 - tensors() closes it
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise self._changed()
        try:
            length = int.from_bytes(self._next(8), "little")
            header: dict[str, Any] = json.loads(self._next(length)) if length <= MAX_HEADER else {}
            header.pop("__metadata__", None)
            entries = {name: (DTYPES[e["dtype"]], tuple(map(int, e["shape"])), e["data_offsets"]) for name, e in header.items()}
            self._entries = sorted(entries.items(), key=lambda entry: entry[1][2])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._changed() from None
        self.shapes = {name: shape for name, (_, shape, _) in self._entries}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor in the stored precision. ``ValueError`` at the end where the bytes had another digest: what came before is not to
        be used then.
        """
        with self._file:
            at = 0
            for name, (dtype, shape, (begin, end)) in self._entries:
                if begin != at or end - begin != math.prod(shape) * dtype.itemsize:
                    raise self._changed()
                yield (
                    name,
                    torch.frombuffer(self._next(end - begin), dtype=dtype).view(shape) if end > begin else torch.empty(shape, dtype=dtype),
                )
                at = end
            if self._file.read(1) or self._read.hexdigest() != self._wanted:
                raise self._changed()

    def _next(self, count: int) -> bytearray:
        if count > os.fstat(self._file.fileno()).st_size:
            raise self._changed()
        part = bytearray(count)
        if self._file.readinto(part) != count:
            raise self._changed()
        self._read.update(part)
        return part

    def _changed(self) -> ValueError:
        return ValueError(f"{self.path.name} does not have the bytes that it must have")
