"""Weights read in one pass over a safetensors file, with the SHA-256 of the same bytes.

A file that is compared with its digest first and opened again afterwards may be another one by then. Format:
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
    """One file, opened once: ``shapes`` from its header, then ``tensors``, which compares the digest at its end."""

    def __init__(self, path: Path, sha256: str):
        self.path, self._expected_sha256, self._digest = path, sha256, hashlib.sha256()
        # Without O_NONBLOCK the opening of a pipe would wait.
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
        """Each tensor in the stored precision.

        ``ValueError`` at the end where the digest differs: the tensors that came before must not be used then.
        """
        with self._file:
            offset = 0
            for name, (dtype, shape, (begin, end)) in self._entries:
                if begin != offset or end - begin != math.prod(shape) * dtype.itemsize:
                    raise self._changed()
                yield (
                    name,
                    torch.frombuffer(self._next(end - begin), dtype=dtype).view(shape) if end > begin else torch.empty(shape, dtype=dtype),
                )
                offset = end
            if self._file.read(1) or self._digest.hexdigest() != self._expected_sha256:
                raise self._changed()

    def _next(self, count: int) -> bytearray:
        if count > os.fstat(self._file.fileno()).st_size:
            raise self._changed()
        part = bytearray(count)
        if self._file.readinto(part) != count:
            raise self._changed()
        self._digest.update(part)
        return part

    def _changed(self) -> ValueError:
        return ValueError(f"{self.path.name} does not have the bytes that it must have")
