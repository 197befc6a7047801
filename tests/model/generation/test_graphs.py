"""The step that is recorded on a GPU, run here without a recording; tests/gpu has it with one."""

from dataclasses import replace

import pytest
import torch
from helpers.builders import TINY, random_model

from model.generation.generate import Batch
from model.generation.graphs import SHORTEST, GraphedStep, positions_for
from model.generation.kv_cache import KVCache


@pytest.mark.parametrize("compiled", [False, True])
@torch.inference_mode()
def test_a_step_over_all_slots_gives_each_sequence_what_it_gets_alone(compiled: bool) -> None:
    config = replace(TINY, max_seq_len=700)
    model = random_model(config)
    prompts = [list(range(3, 9)), list(range(253)), [n % 400 for n in range(510)], [7]]  # steps go over the ends of spans
    assert positions_for(700) == 3 * SHORTEST
    cache = KVCache(config, 5, positions_for(700), dtype=torch.float32, device=torch.device("cpu"))
    step = GraphedStep(model, cache, compiled=compiled)
    alone = Batch(model, slots=4, max_len=700)
    sequences = [alone.add(prompt) for prompt in prompts]
    slots = [cache.allocate() for _ in prompts]
    for slot, sequence in zip(slots, sequences, strict=True):
        count = len(sequence.tokens)
        cache.keys[:, slot, :, :count], cache.values[:, slot, :, :count] = (
            kv[:, sequence.slot, :, :count] for kv in (alone.cache.keys, alone.cache.values)
        )
        cache.lengths[slot] = count
    waiting = slots.pop(1)  # its cached positions must stay as they are while others go on
    others = [sequences[0], *sequences[2:]]
    for turn in range(8):
        if turn == 4:
            slots, others = [*slots, waiting], [*others, sequences[1]]
        for sequence in others:
            alone.sample(sequence)
        alone.step(others)
        logits = step.logits([s.tokens[-1] for s in others], slots, [cache.lengths[slot] for slot in slots])
        for slot, row, sequence in zip(slots, logits, others, strict=True):
            cache.lengths[slot] += 1
            torch.testing.assert_close(row, sequence.logits, atol=1e-5, rtol=1e-5)
