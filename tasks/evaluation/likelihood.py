"""Scores of given tokens under a model: negative log-likelihood, whether greedy decoding takes the token, and the confidence in that.

It knows nothing of what the texts are for. Logits are made only where ``loss_mask`` is set, in chunks, as in model/loss.py.
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
    """Tokens [T], and which of them are scored; the first has no context and never is."""

    tokens: npt.NDArray[np.uint32]
    loss_mask: npt.NDArray[np.uint8]

    def scored_positions(self) -> npt.NDArray[np.int64]:
        """Positions of the tokens that are scored, in order."""
        return np.flatnonzero(self.loss_mask[1:]) + 1


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Scores of a text's N scored tokens, in order; each array is [N]."""

    nll: npt.NDArray[np.float64]  # negative log-likelihood in nats
    is_greedy: npt.NDArray[np.bool_]  # whether greedy decoding takes this token
    confidence: npt.NDArray[np.float64]  # the probability of the likeliest token, whichever that is

    def mean_nll(self) -> float:
        """Nats per scored token."""
        return float(self.nll.mean())


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """How texts go through a model: positions per forward pass, padding included, and the precision of the matrix products."""

    batch_tokens: int
    precision: Precision


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Tokens [start, stop) of a text, each of which predicts the next one."""

    text: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@torch.inference_mode()
def score_tokens(llama: Llama, texts: Sequence[Text], config: ScoringConfig, *, label: str) -> list[TokenScores]:
    """Scores of every text, in the order given; ``label`` names the progress bar.

    A text longer than the model's context is scored in chunks, each without the ones before it.
    """
    chunks = sorted(_chunks(texts, llama.model.config.max_seq_len), key=len)
    columns_by_start: dict[int, dict[int, tuple[Tensor, ...]]] = {index: {} for index in range(len(texts))}
    bar = progress(total=sum(map(len, chunks)), unit="tokens", desc=label)
    for batch in _batches(chunks, config.batch_tokens):
        for chunk, columns in zip(batch, _forward(llama, texts, batch, config), strict=True):
            columns_by_start[chunk.text][chunk.start] = columns
        bar.update(sum(map(len, batch)))
    bar.close()
    return [_joined([of_text[start] for start in sorted(of_text)]) for of_text in columns_by_start.values()]


def _chunks(texts: Sequence[Text], context: int) -> Iterator[_Chunk]:
    for index, text in enumerate(texts):
        positions = text.scored_positions()
        # No token after the last scored one is needed.
        end = int(positions[-1]) if len(positions) else 0
        for start in range(0, end, context):
            stop = min(start + context, end)
            if text.loss_mask[start + 1 : stop + 1].any():
                yield _Chunk(index, start, stop)


def _batches(chunks: Iterable[_Chunk], max_positions: int) -> Iterator[list[_Chunk]]:
    """Chunks, sorted by length, in batches of at most ``max_positions`` when padded to their longest."""
    batch: list[_Chunk] = []
    for chunk in chunks:
        if batch and (len(batch) + 1) * len(chunk) > max_positions:
            yield batch
            batch = []
        batch.append(chunk)
    if batch:
        yield batch


def _forward(llama: Llama, texts: Sequence[Text], batch: list[_Chunk], config: ScoringConfig) -> Iterator[tuple[Tensor, ...]]:
    """The three columns of ``TokenScores`` for each chunk."""
    model = llama.model
    device = model.norm.weight.device
    length = max(map(len, batch))
    tokens_BT, next_BT = np.zeros((2, len(batch), length), np.int64)
    mask_BT = np.zeros((len(batch), length), bool)
    for row, chunk in enumerate(batch):
        text, after = texts[chunk.text], slice(chunk.start + 1, chunk.stop + 1)
        tokens_BT[row, : len(chunk)] = text.tokens[chunk.start : chunk.stop]
        next_BT[row, : len(chunk)], mask_BT[row, : len(chunk)] = text.tokens[after], text.loss_mask[after]
    tokens, targets, mask = (torch.from_numpy(array).to(device) for array in (tokens_BT, next_BT, mask_BT))
    with autocast(device, config.precision):
        pairs = zip(model.hidden(tokens)[mask].split(CHUNK), targets[mask].split(CHUNK), strict=True)
        scored = [_score(llama, *pair) for pair in pairs]
    columns = [torch.cat(column) for column in zip(*scored, strict=True)]
    return zip(*(column.cpu().split(mask_BT.sum(1).tolist()) for column in columns), strict=True)


def _score(llama: Llama, hidden_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Negative log-likelihood, whether the target is the argmax, and the argmax's probability; each [N]."""
    # Padded to one shape: oneDNN keeps a compiled product for each (see model/loss.py).
    logits = llama.model.lm_head(F.pad(hidden_NC, (0, 0, 0, CHUNK - len(targets_N))))[: len(targets_N)].float()
    normalizer = logits.logsumexp(1)
    top, argmax = logits.max(1)
    nll = normalizer - logits.gather(1, targets_N[:, None])[:, 0]
    return nll, argmax == targets_N, (top - normalizer).exp()


def _joined(chunks: list[tuple[Tensor, ...]]) -> TokenScores:
    """The scores of a text from the columns of its chunks."""
    if not chunks:
        return TokenScores(np.zeros(0), np.zeros(0, bool), np.zeros(0))
    nll, is_greedy, confidence = (torch.cat(column).numpy() for column in zip(*chunks, strict=True))
    return TokenScores(nll.astype(np.float64), is_greedy, confidence.astype(np.float64))
