"""Drawing the next token: settings, the filters on a distribution, log-probabilities.

The filters are applied in transformers' order: repetition penalty, temperature, top-k, top-p, min-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a sequence is drawn; temperature 0 takes the likeliest token. ``ValueError`` names what is out of range."""

    temperature: float = 0.6
    top_p: float = 0.9  # nucleus: the smallest set of tokens whose probabilities reach this (Holtzman et al. 2019, arXiv:1904.09751)
    top_k: int = 0  # the k likeliest; 0: all
    min_p: float = 0.0  # at least this share of the likeliest token's probability (arXiv:2407.01082)
    repetition_penalty: float = 1.0  # divides the logits of tokens seen before (Keskar et al. 2019, arXiv:1909.05858)
    seed: int | None = None

    def __post_init__(self) -> None:
        inside = {
            "temperature must be 0 or more and finite": 0 <= self.temperature < float("inf"),
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be 0 (off) or more": self.top_k >= 0,
            "min_p must be at least 0 and at most 1": 0 <= self.min_p <= 1,
            "repetition_penalty must be above 0 and finite": 0 < self.repetition_penalty < float("inf"),
        }
        for rule, holds in inside.items():
            if not holds:
                raise ValueError(f"{rule}, is {getattr(self, rule.split(' ', maxsplit=1)[0])}")


GREEDY = Sampling(temperature=0.0)
_CANDIDATES = 256  # a nucleus seldom has more; sorting a whole vocabulary takes longer than the rest of a small model's step


def penalized(logits_V: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Logits with those of the tokens in ``seen`` lowered."""
    if penalty == 1.0 or not seen:
        return logits_V
    ids = torch.tensor(sorted(set(seen)), device=logits_V.device)
    values = logits_V[ids]
    return logits_V.scatter(0, ids, torch.where(values < 0, values * penalty, values / penalty))


def candidates(logits_V: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids and probabilities, likeliest first, that the filters leave at a temperature above 0; they sum to 1."""
    vocabulary = logits_V.shape[-1]
    whole = torch.softmax(logits_V.float() / settings.temperature, -1)
    count = min(settings.top_k or _CANDIDATES, vocabulary)
    shares, ids = whole.topk(count)
    if not settings.top_k and float(shares.sum()) < settings.top_p:
        shares, ids = whole.sort(descending=True)
    shares = shares / shares.sum() if settings.top_k else shares
    if settings.top_p < 1:
        before = shares.cumsum(-1) - shares
        before[0] = -1  # the likeliest stays, also where top_p is nothing to a float32
        shares = shares[before < settings.top_p]
    shares = shares[shares >= settings.min_p * shares[0]]
    return ids[: len(shares)], shares / shares.sum()


def draw(logits_V: Tensor, settings: Sampling, *, seen: Sequence[int] = (), generator: torch.Generator | None = None) -> int:
    """The next token's id."""
    logits_V = penalized(logits_V, seen, settings.repetition_penalty)
    if settings.temperature == 0:
        return int(logits_V.argmax())
    ids, shares = candidates(logits_V, settings)
    return int(ids[torch.multinomial(shares, 1, generator=generator)])


@dataclass(frozen=True)
class LogProbability:
    """Natural logarithm of a token's probability under the model, before temperature and filters, and the likeliest tokens'."""

    of_token: float
    top: tuple[tuple[int, float], ...]


def log_probability(logits_V: Tensor, token: int, top: int) -> LogProbability:
    values = torch.log_softmax(logits_V.float(), -1)
    shares, ids = values.topk(top)
    return LogProbability(float(values[token]), tuple(zip(ids.tolist(), shares.tolist(), strict=True)))
