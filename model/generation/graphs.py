"""The GPU's decoding step: recorded once as CUDA graphs, replayed for every token. Launching its kernels one by one takes longer than
their work. It knows nothing of sampling or text.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.generation.kv_cache import KVCache
from model.generation.sampling import on_device
from model.llama import AttentionContext, Block, LayerCache, Transformer

SHORTEST = 256  # cached positions that the first graph attends to; each further one attends to twice as many
Layer = Callable[[Block, Tensor, AttentionContext, LayerCache], Tensor]


def suits(device: torch.device) -> bool:
    """Whether steps on this device are recorded."""
    return device.type == "cuda"


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
        self._layer: Layer = Block.forward
        self._replays: dict[int, Callable[[], Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._tokens.is_cuda else None
        if compiled:
            self._compile()

    def _compile(self) -> None:
        """Record every span with fused layers, so that no token waits for it later; with plain ones where nothing compiles here."""
        self._layer = torch.compile(Block.forward)
        try:
            span = 1
            while span <= self._len:
                span = self._replay_of(span - 1)[0] + 1
        except Exception as error:  # of many kinds: the C compiler's, Triton's, torch's own
            warnings.warn(f"decoding goes on without compiled layers, slower: {type(error).__name__}", RuntimeWarning, stacklevel=2)
            self._layer = Block.forward
            self._replays.clear()

    def logits(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Logits [N, V] after one token per row, each at its own position in its cache slot."""
        # An idle slot writes where its next token will stand, and overwrite it.
        rows = torch.tensor([[0, min(length, self._len - 1)] for length in self._cache.lengths])
        rows[list(slots)] = torch.tensor([tokens, positions]).T
        self._tokens[:, 0], self._positions[:, 0] = on_device(rows, self._tokens.device).T
        _, replay = self._replay_of(max(positions))
        # A copy: the next step overwrites what the graph wrote.
        return replay().index_select(0, on_device(torch.tensor(slots), self._tokens.device))

    def _replay_of(self, position: int) -> tuple[int, Callable[[], Tensor]]:
        """The shortest span that has this position, and what runs its step; recorded when it is first asked for."""
        span = SHORTEST
        while span <= position:
            span *= 2
        span = min(span, self._len)
        if span not in self._replays:
            self._replays[span] = self._record(span)
        return span, self._replays[span]

    def _record(self, span: int) -> Callable[[], Tensor]:
        """A function that runs the step for this span. On a CPU, as in tests, nothing is recorded."""
        if self._pool is None:
            return lambda: self._run(span)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are chosen and compiled outside of the recording
            self._run(span)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._run(span)

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    @torch.no_grad()
    def _run(self, span: int) -> Tensor:
        model, positions = self._model, self._positions
        x = model.embed(self._tokens)
        visible = (torch.arange(span, device=x.device) <= positions)[:, None, None]
        contexts = model.contexts_by_kind(AttentionContext(positions, *model.rotary(positions, x.dtype), "step", (visible,), None, span))
        for block, kind, cached in zip(model.layers, model.config.kinds, self._cache.layers, strict=True):
            assert isinstance(block, Block)
            x = self._layer(block, x, contexts[kind], cached)
        return model.lm_head(model.normalize(x))[:, 0]
