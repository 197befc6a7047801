from pathlib import Path

import pytest
import torch
from conftest import TINY, random_model

from model.completion import Llama
from model.generate import generate, sample_token

PROMPTS = [[5, 9, 300], [7, 8, 9, 10, 11, 12, 13], [42]]


def rows(prompts: list[list[int]], **settings: object) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in prompts]
    for step in generate(random_model(TINY), prompts, max_new_tokens=12, **settings):  # type: ignore[arg-type]
        for row, token in zip(out, step, strict=True):
            if token is not None:
                row.append(token)
    return out


def test_a_batch_gives_what_each_prompt_gives_alone_and_the_full_forward() -> None:
    model, batch = random_model(TINY), rows(PROMPTS)
    for prompt, found in zip(PROMPTS, batch, strict=True):
        assert rows([prompt]) == [found]
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert ids[len(prompt) :] == found


def test_a_row_ends_at_a_stop_id_while_others_go_on() -> None:
    free = rows(PROMPTS)
    stop = free[0][3]
    stopped = rows(PROMPTS, stop_ids=[stop])
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in free]


def test_a_seed_repeats_a_sample_and_another_changes_it() -> None:
    first, again, other = (rows(PROMPTS, temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_generation_ends_when_the_context_is_full() -> None:
    prompt = [list(range(250))]
    steps = list(generate(random_model(TINY), prompt, max_new_tokens=100))
    assert len(steps) == 256 - 250 + 1  # the last token needs no position of its own


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = sample_token(logits, temperature=1.0, top_p=0.75, generator=generator)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares[2:].sum() == 0
    assert abs(float(shares[0]) - 0.5 / 0.8) < 0.03


@pytest.mark.parametrize(
    ("prompts", "settings", "told"),
    [
        ([], {}, "no prompt"),
        ([[]], {}, "prompt 0 is empty"),
        ([[1], list(range(256))], {}, "prompt 1 has 256 tokens"),
        ([[400]], {}, "outside the vocabulary"),
        ([[1]], {"temperature": -1}, "temperature"),
        ([[1]], {"temperature": float("nan")}, "temperature"),
        ([[1]], {"top_p": 0.0}, "top_p"),
        ([[1]], {"top_p": 1.1}, "top_p"),
    ],
)
def test_impossible_requests_are_refused(prompts: list[list[int]], settings: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        next(generate(random_model(TINY), prompts, max_new_tokens=4, **settings))  # type: ignore[arg-type]


def test_the_real_base_model_continues_as_published(smollm2: Path) -> None:
    llama = Llama.build(smollm2, max_seq_len=64)
    (completion,) = llama.text_completion(["The patient was diagnosed with"], max_gen_len=10, temperature=0.0)
    assert completion.text == " a rare genetic disorder that affects the immune system."


def test_more_prompts_than_the_batch_allows_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="max_batch_size"):
        Llama.build(tiny_checkpoint, max_batch_size=1).text_completion(["a", "b"])
