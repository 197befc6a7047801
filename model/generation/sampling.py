"""Sampling the next token: settings, the filters on a distribution, log-probabilities.

First biases and penalties change logits; then the filters are applied in transformers' order: temperature, top-k, top-p, min-p.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a sequence is sampled; temperature 0 takes the likeliest token. ``ValueError`` names a setting that is out of range."""

    temperature: float = 0.6
    top_p: float = 0.9  # nucleus: the smallest set of tokens whose probabilities reach this (Holtzman et al. 2019, arXiv:1904.09751)
    top_k: int = 0  # the k likeliest; 0: all
    min_p: float = 0.0  # at least this share of the likeliest token's probability (arXiv:2407.01082)
    repetition_penalty: float = 1.0  # divides the logits of tokens seen before (Keskar et al. 2019, arXiv:1909.05858)
    frequency_penalty: float = 0.0  # subtracted from a token's logit for each time that the answer has it (OpenAI's API)
    presence_penalty: float = 0.0  # subtracted once, if the answer has it (OpenAI's API)
    logit_bias: tuple[tuple[int, float], ...] = ()  # id and what is added to its logit
    seed: int | None = None

    def __post_init__(self) -> None:
        inside = {
            "temperature must be 0 or more and finite": 0 <= self.temperature < float("inf"),
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be 0 (off) or more": self.top_k >= 0,
            "min_p must be at least 0 and at most 1": 0 <= self.min_p <= 1,
            "repetition_penalty must be above 0 and finite": 0 < self.repetition_penalty < float("inf"),
            "frequency_penalty must be finite": math.isfinite(self.frequency_penalty),
            "presence_penalty must be finite": math.isfinite(self.presence_penalty),
            "logit_bias must be finite": all(math.isfinite(bias) for _, bias in self.logit_bias),
        }
        for rule, holds in inside.items():
            if not holds:
                raise ValueError(f"{rule}, is {getattr(self, rule.split(' ', maxsplit=1)[0])}")


GREEDY = Sampling(temperature=0.0)
_CANDIDATES = 256  # a nucleus seldom has more; sorting a whole vocabulary takes longer than the rest of a small model's step


def apply_repetition_penalty(logits_V: Tensor, previous_tokens: Sequence[int], penalty: float) -> Tensor:
    """Logits [V] with those of the tokens in ``previous_tokens`` lowered (arXiv:1909.05858)."""
    if penalty == 1.0 or not previous_tokens:
        return logits_V
    ids = torch.tensor(sorted(set(previous_tokens)), device=logits_V.device)
    values = logits_V[ids]
    return logits_V.scatter(0, ids, torch.where(values < 0, values * penalty, values / penalty))


def changes_logits(settings: Sampling) -> bool:
    """Whether biases or penalties change logits."""
    return settings.repetition_penalty != 1 or bool(settings.frequency_penalty or settings.presence_penalty or settings.logit_bias)


def adjust(logits_V: Tensor, settings: Sampling, previous_tokens: Sequence[int] = (), prompt_length: int = 0) -> Tensor:
    """Logits [V] with the bias added and the penalties taken off.

    ``previous_tokens``: the prompt, of ``prompt_length`` tokens, and the answer so far. The repetition penalty counts both, as in
    transformers, the other two the answer alone, as in OpenAI's API.
    """
    if settings.logit_bias:
        ids, values = zip(*settings.logit_bias, strict=True)
        bias = torch.tensor(values, device=logits_V.device, dtype=logits_V.dtype)
        logits_V = logits_V.index_add(0, torch.tensor(ids, device=logits_V.device), bias)
    logits_V = apply_repetition_penalty(logits_V, previous_tokens, settings.repetition_penalty)
    if (settings.frequency_penalty or settings.presence_penalty) and (counts := Counter(previous_tokens[prompt_length:])):
        lowered = [settings.presence_penalty + settings.frequency_penalty * count for count in counts.values()]
        penalty = torch.tensor(lowered, device=logits_V.device, dtype=logits_V.dtype)
        logits_V = logits_V.index_add(0, torch.tensor(list(counts), device=logits_V.device), -penalty)
    return logits_V


def candidates(logits_V: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids and probabilities, likeliest first, that the filters leave at a temperature above 0; they sum to 1."""
    vocab_size = logits_V.shape[-1]
    all_probs = torch.softmax(logits_V.float() / settings.temperature, -1)
    count = min(settings.top_k or _CANDIDATES, vocab_size)
    probs, ids = all_probs.topk(count)
    if not settings.top_k and float(probs.sum()) < settings.top_p:
        probs, ids = all_probs.sort(descending=True)
    probs = probs / probs.sum() if settings.top_k else probs
    if settings.top_p < 1:
        mass_before = probs.cumsum(-1) - probs
        mass_before[0] = -1  # keeps the likeliest, even where top_p rounds to 0 in float32
        probs = probs[mass_before < settings.top_p]
    probs = probs[probs >= settings.min_p * probs[0]]
    return ids[: len(probs)], probs / probs.sum()


def sample(
    logits_V: Tensor,
    settings: Sampling,
    *,
    previous_tokens: Sequence[int] = (),
    prompt_length: int = 0,
    generator: torch.Generator | None = None,
) -> int:
    """The next token's id. ``logits_V`` are raw; ``previous_tokens`` and ``prompt_length`` are those of ``adjust``."""
    logits_V = adjust(logits_V, settings, previous_tokens, prompt_length)
    if settings.temperature == 0:
        return int(logits_V.argmax())
    ids, probs = candidates(logits_V, settings)
    return int(ids[torch.multinomial(probs, 1, generator=generator)])


def sample_rows(logits_NV: Tensor, settings: Sequence[Sampling], uniform: Sequence[float]) -> list[int]:
    """The next token's id of every row, -1 where its logits are not finite. What a row draws does not depend on the others.

    ``logits_NV`` are adjusted already. ``uniform``: a random number in [0, 1) per row, which picks from the distribution that
    ``candidates`` gives, likeliest token first. On a GPU the host waits once.
    """
    likeliest = torch.where(logits_NV.amax(-1) < math.inf, logits_NV.argmax(-1), -1)
    if all(s.temperature == 0 for s in settings):
        return likeliest.tolist()
    greedy = on_device(torch.tensor([s.temperature == 0 for s in settings]), likeliest.device)
    return torch.where(greedy | (likeliest < 0), likeliest, _draw(logits_NV, settings, uniform)).tolist()


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, which need not have finished what it does."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


def _draw(logits_NV: Tensor, settings: Sequence[Sampling], uniform: Sequence[float]) -> Tensor:
    """The filters of ``candidates`` on every row; ids drawn [N]."""
    vocab_size = logits_NV.shape[-1]
    numbers = [[s.temperature or 1, s.top_k or vocab_size, s.top_p, s.min_p, u] for s, u in zip(settings, uniform, strict=True)]
    temperature, top_k, top_p, min_p, draw = on_device(torch.tensor(numbers), logits_NV.device).T[..., None]
    # All of them: half precision has many ties, and a sort that is not stable, or of the largest alone, orders them by its own size.
    probs, ids = torch.softmax(logits_NV.float() / temperature, -1).sort(stable=True, dim=-1, descending=True)
    probs = torch.where(torch.arange(vocab_size, device=probs.device) < top_k, probs, 0)
    probs = probs / torch.where(top_k < vocab_size, probs.sum(-1, keepdim=True), 1)
    mass_before = probs.cumsum(-1) - probs
    mass_before[:, 0] = -1  # as in candidates
    kept = ((mass_before < top_p) | (top_p == 1)) & (probs >= min_p * probs[:, :1]) & (probs > 0)
    mass = (probs * kept).cumsum(-1)
    index = torch.searchsorted(mass, draw * mass[:, -1:], right=True).minimum(kept.sum(-1, keepdim=True) - 1)
    return ids.gather(-1, index.clamp(min=0))[:, 0]


@dataclass(frozen=True)
class LogProbability:
    """Natural logarithm of a token's probability, before temperature and filters, and those of the likeliest tokens."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # id and log-probability, likeliest first


def log_probability(logits_V: Tensor, token: int, top: int) -> LogProbability:
    """Of ``token`` and of the ``top`` likeliest tokens."""
    values = torch.log_softmax(logits_V.float(), -1)
    top_values, ids = values.topk(top)
    return LogProbability(float(values[token]), tuple(zip(ids.tolist(), top_values.tolist(), strict=True)))
