"""The key/value cache of the sequences that are being generated."""

import torch

from model.config import LlamaConfig
from model.llama import LayerCache


class KVCache:
    """Keys and values [layers, slots, K, S, D] of the sequences that are being generated.

    Each sequence has a slot of its own until it is released; ``lengths`` counts the cached positions of each slot. It is for passes
    without gradients.
    """

    def __init__(self, config: LlamaConfig, slots: int, max_len: int, *, dtype: torch.dtype, device: torch.device):
        shape = (config.n_layers, slots, config.n_kv_heads, max_len, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.layers: list[LayerCache] = [(self.keys[n], self.values[n]) for n in range(config.n_layers)]
        self.lengths = [0] * slots
        self._free = list(reversed(range(slots)))

    def allocate(self) -> int:
        """An empty slot; ``IndexError`` where none is free."""
        slot = self._free.pop()
        self.lengths[slot] = 0
        return slot

    def free(self, slot: int) -> None:
        """Give a slot back; its keys and values are overwritten by the next sequence."""
        self._free.append(slot)

    def clear(self, slot: int) -> None:
        """Overwrite a slot with zeros."""
        self.keys[:, slot] = 0
        self.values[:, slot] = 0

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first ``count`` positions, a prefix that both sequences share, from one slot to another."""
        self.keys[:, target, :, :count] = self.keys[:, source, :, :count]
        self.values[:, target, :, :count] = self.values[:, source, :, :count]
        self.lengths[target] = count
