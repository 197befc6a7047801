"""Continuations of token ids: prefill, decode, sampling, over a key/value cache with a position per row.

It knows nothing of text. ``python -m model.generate CHECKPOINT --prompt "…"`` is completion.py's command line.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model.llama import KVCache, Transformer


def sample_token(logits_BV: Tensor, *, temperature: float, top_p: float, generator: torch.Generator | None = None) -> Tensor:
    """One id per row, int64 [B]: the likeliest at temperature 0, else drawn from the nucleus (Holtzman et al. 2019,
    arXiv:1904.09751), the smallest set of tokens whose probabilities reach ``top_p``."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    probabilities, order = torch.softmax(logits_BV.float() / temperature, -1).sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)  # the likeliest token has nothing before it and stays
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    return order.gather(-1, drawn).squeeze(-1)


@torch.inference_mode()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    seed: int | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next id of every row, step by step; None for a row that has ended.

    A row ends at a stop id, which is not yielded, after ``max_new_tokens``, or when its context is full. Prompts may differ in
    length. ``ValueError`` for an empty prompt, one that fills the context, or settings out of range.
    """
    check(model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    device = model.norm.weight.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    longest = int(lengths.max())
    capacity = min(longest + max_new_tokens, model.config.max_seq_len)
    cache = KVCache(model.config, len(prompts), capacity, dtype=model.norm.weight.dtype, device=device)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(list(prompt), device=device)
    # Short rows are padded at the end; what the padding leaves in the cache is overwritten before it can be seen.
    positions = torch.arange(longest, device=device).expand(len(prompts), longest)
    hidden = model.hidden(tokens, positions_BT=positions, cache=cache)
    last = hidden[torch.arange(len(prompts)), lengths - 1]
    ended = [False] * len(prompts)
    for _ in range(max_new_tokens):
        ids = sample_token(model.lm_head(last), temperature=temperature, top_p=top_p, generator=generator)
        step: list[int | None] = []
        for row, token in enumerate(ids.tolist()):
            ended[row] = ended[row] or token in stop_ids
            step.append(None if ended[row] else token)
        if all(ended):
            return
        yield step
        full = lengths >= model.config.max_seq_len
        ended = [done or bool(full[row]) for row, done in enumerate(ended)]
        if all(ended):
            return
        where = lengths.clamp(max=capacity - 1)
        last = model.hidden(ids[:, None], positions_BT=where[:, None], cache=cache)[:, 0]
        lengths = lengths + 1


def check(model: Transformer, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, temperature: float, top_p: float) -> None:
    context = model.config.max_seq_len
    if not prompts:
        raise ValueError("no prompt was given")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} is empty")
        if len(prompt) >= context:
            raise ValueError(f"prompt {number} has {len(prompt)} tokens; the model's context of {context} leaves no room for an answer")
        if max(prompt) >= model.config.vocab_size or min(prompt) < 0:
            raise ValueError(f"prompt {number} has token ids outside the vocabulary of {model.config.vocab_size}")
    if max_new_tokens < 1:
        raise ValueError(f"the number of new tokens must be at least 1, is {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 or more and finite, is {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, is {top_p}")


if __name__ == "__main__":
    from model.completion import main  # it builds on this module

    main()
