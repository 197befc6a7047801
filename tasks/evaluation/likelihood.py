"""What a model thinks of given tokens: negative log-likelihood, whether each was its likeliest, and how sure it was of that.

It knows nothing of what the texts are for. Logits are made only where tokens count, in chunks, as in model/loss.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.generation.completion import Llama
from model.loss import CHUNK
from model.precision import Precision, autocast
from tasks.runtime.progress import progress


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens, and which of them count; the first has nothing before it and never does."""

    tokens: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint8]

    def counted(self) -> npt.NDArray[np.int64]:
        """The places of the tokens that count."""
        return np.flatnonzero(self.counts[1:]) + 1


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each token of a text that counts, in their order."""

    nats: npt.NDArray[np.float64]  # negative log-likelihood
    likeliest: npt.NDArray[np.bool_]  # whether it is the one that greedy decoding takes
    confidence: npt.NDArray[np.float64]  # the probability of the likeliest token, whichever that is

    def mean_nats(self) -> float:
        return float(self.nats.mean())


@dataclass(frozen=True, slots=True)
class Reader:
    """How texts go through a model: positions per pass, padding included, and the precision of the matrix products."""

    batch_tokens: int
    precision: Precision


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens [start, stop) of a text, each of which predicts the next one."""

    text: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@torch.inference_mode()
def judge(llama: Llama, texts: Sequence[Text], reader: Reader, *, what: str) -> list[Judged]:
    """Every text, in the order given. One longer than the context is read in parts, each of which sees nothing of those before it."""
    parts = sorted(_parts(texts, llama.model.config.max_seq_len), key=len)
    found: dict[int, dict[int, tuple[Tensor, ...]]] = {number: {} for number in range(len(texts))}
    bar = progress(total=sum(map(len, parts)), unit="token", desc=what)
    for group in _grouped(parts, reader.batch_tokens):
        for part, columns in zip(group, _read(llama, texts, group, reader), strict=True):
            found[part.text][part.start] = columns
        bar.update(sum(map(len, group)))
    bar.close()
    return [_joined([of_text[start] for start in sorted(of_text)]) for of_text in found.values()]


def _parts(texts: Sequence[Text], context: int) -> Iterator[_Part]:
    for number, text in enumerate(texts):
        places = text.counted()
        # Nothing that counts comes after the last of these.
        end = int(places[-1]) if len(places) else 0
        for start in range(0, end, context):
            stop = min(start + context, end)
            if text.counts[start + 1 : stop + 1].any():
                yield _Part(number, start, stop)


def _grouped(parts: Iterable[_Part], most: int) -> Iterator[list[_Part]]:
    """Parts, sorted by length, in groups that fill at most ``most`` positions when padded to their longest."""
    group: list[_Part] = []
    for part in parts:
        if group and (len(group) + 1) * len(part) > most:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _read(llama: Llama, texts: Sequence[Text], group: list[_Part], reader: Reader) -> Iterator[tuple[Tensor, ...]]:
    """Of each part the three columns of ``Judged``."""
    model = llama.model
    device = model.norm.weight.device
    length = max(map(len, group))
    tokens_BT, next_BT = np.zeros((2, len(group), length), np.int64)
    counts_BT = np.zeros((len(group), length), bool)
    for row, part in enumerate(group):
        text, after = texts[part.text], slice(part.start + 1, part.stop + 1)
        tokens_BT[row, : len(part)] = text.tokens[part.start : part.stop]
        next_BT[row, : len(part)], counts_BT[row, : len(part)] = text.tokens[after], text.counts[after]
    tokens, targets, counts = (torch.from_numpy(array).to(device) for array in (tokens_BT, next_BT, counts_BT))
    with autocast(device, reader.precision):
        pairs = zip(model.hidden(tokens)[counts].split(CHUNK), targets[counts].split(CHUNK), strict=True)
        chunks = [_chunk(llama, *pair) for pair in pairs]
    columns = [torch.cat(column) for column in zip(*chunks, strict=True)]
    return zip(*(column.cpu().split(counts_BT.sum(1).tolist()) for column in columns), strict=True)


def _chunk(llama: Llama, hidden_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Filled up to one shape: oneDNN keeps a compiled product for each (see model/loss.py).
    logits = llama.model.lm_head(F.pad(hidden_NC, (0, 0, 0, CHUNK - len(targets_N))))[: len(targets_N)].float()
    normalizer = logits.logsumexp(1)
    top, likeliest = logits.max(1)
    nats = normalizer - logits.gather(1, targets_N[:, None])[:, 0]
    return nats, likeliest == targets_N, (top - normalizer).exp()


def _joined(parts: list[tuple[Tensor, ...]]) -> Judged:
    if not parts:
        return Judged(np.zeros(0), np.zeros(0, bool), np.zeros(0))
    nats, likeliest, confidence = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Judged(nats.astype(np.float64), likeliest, confidence.astype(np.float64))
