"""The GPU's decoding step: recorded once as CUDA graphs, replayed for every token. Launching its kernels one by one takes longer than
their work. It knows nothing of sampling or text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model.generation.kv_cache import KVCache
from model.generation.sampling import on_device
from model.llama import AttentionContext, Block, LayerCache, Transformer

SHORTEST = 256  # cached positions that the first graph attends to; each further one attends to twice as many
Layer = Callable[[Block, Tensor, AttentionContext, LayerCache], Tensor]


def positions_for(max_len: int) -> int:
    """Positions of a cache for sequences of up to ``max_len`` tokens, rounded up: caches of few sizes share their compiled layers."""
    return -(-max_len // SHORTEST) * SHORTEST


class GraphedStep:
    """A step that decodes one token in every slot of a cache with ``positions_for`` its longest sequence, idle slots included.

    The shapes never change, so a row's result does not depend on which other slots are in use. ``compiled``: with fused layers, which
    takes seconds at the start.
    """

    def __init__(self, model: Transformer, cache: KVCache, *, compiled: bool):
        self._model, self._cache = model, cache
        _, slots, _, self._len, _ = cache.keys.shape
        self._tokens, self._positions = torch.zeros(2, slots, 1, dtype=torch.long, device=cache.keys.device)
        self._layer: Layer = torch.compile(Block.forward) if compiled else Block.forward
        self._replays: list[tuple[int, Callable[[], Tensor]]] = []
        pool, span = torch.cuda.graph_pool_handle() if self._tokens.is_cuda else None, 0
        while span < self._len:
            span = min(2 * span or SHORTEST, self._len)
            self._replays.append((span, self._record(span, pool)))

    def logits(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Logits [N, V] after one token per row, each at its own position in its cache slot."""
        # An idle slot writes where its next token will stand, and overwrite it.
        rows = torch.tensor([[0, min(length, self._len - 1)] for length in self._cache.lengths])
        rows[list(slots)] = torch.tensor([tokens, positions]).T
        self._tokens[:, 0], self._positions[:, 0] = on_device(rows, self._tokens.device).T
        replay = next(replay for span, replay in self._replays if max(positions) < span)
        # A copy: the next step overwrites what the graph wrote.
        return replay().index_select(0, on_device(torch.tensor(slots), self._tokens.device))

    def _record(self, span: int, pool: Any) -> Callable[[], Tensor]:
        """A function that runs the step for this span. On a CPU, as in tests, nothing is recorded."""
        if pool is None:
            return lambda: self._run(span)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are chosen and compiled outside of the recording
            self._run(span)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = self._run(span)

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    @torch.no_grad()
    def _run(self, span: int) -> Tensor:
        model, positions = self._model, self._positions
        x = model.embed_tokens(self._tokens).to(model.norm.weight.dtype)
        visible = (torch.arange(span, device=x.device) <= positions)[:, None, None]
        context = AttentionContext(positions, *model.rotary(positions, x.dtype), "step", (visible,), None, span)
        for block, cached in zip(model.layers, self._cache.layers, strict=True):
            assert isinstance(block, Block)
            x = self._layer(block, x, context, cached)
        return model.lm_head(model.norm(x))[:, 0]
