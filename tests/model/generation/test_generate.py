"""Continuations of token ids, through torch and through the C step, against the full forward and transformers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import TINY, random_model
from transformers import AutoModelForCausalLM

from model.checkpoint.load import load_model
from model.config import LlamaConfig
from model.generation import compiled, quantize
from model.generation.generate import Batch, SequenceState, generate, prompt_log_probabilities
from model.generation.sampling import GREEDY, Sampling
from model.llama import Transformer
from model.tokenizer.tokenizer import Tokenizer

PROMPTS = [[5, 9, 300], [7, 8, 9, 10, 11, 12, 13], [42], list(range(40))]
MEDICAL = (
    "The patient was diagnosed with",
    "Symptoms of iron deficiency include",
    "Asthma is a disease of",
    "A fever above 39 degrees may",
    "The most common cause of chest pain in young adults is",
    "Type 2 diabetes is treated with",
    "Before surgery, patients should",
    "High blood pressure can damage",
    "The liver breaks down",
    "A rash that spreads quickly can be a sign of",
    "Children with measles often",
    "The thyroid gland makes",
    "An electrocardiogram shows",
    "Antibiotics do not help against",
    "Marfan syndrome affects the",
    "Kidney stones are formed when",
    "The side effects of aspirin include",
    "A stroke happens when blood",
    "Vaccines train the immune system to",
    "Chronic pain that lasts for more than three months",
)


def rows(prompts: list[list[int]], settings: Sampling = GREEDY, model: Transformer | None = None, **options: object) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in prompts]
    for step in generate(model or random_model(TINY), prompts, settings, **{"max_new_tokens": 12, **options}):  # type: ignore[arg-type]
        for row, token in zip(out, step, strict=True):
            if token is not None:
                row.append(token.id)
    return out


@pytest.mark.usefixtures("path")
class TestAllPaths:
    def test_a_batch_gives_what_each_prompt_gives_alone_and_the_full_forward(self) -> None:
        model, batch = random_model(TINY), rows(PROMPTS)
        for prompt, continuation in zip(PROMPTS, batch, strict=True):
            assert rows([prompt]) == [continuation]
            ids = list(prompt)
            for _ in range(12):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            assert ids[len(prompt) :] == continuation

    def test_sequences_join_and_leave_while_others_go_on(self) -> None:
        alone = rows(PROMPTS)
        batch = Batch(random_model(TINY), slots=2, max_len=64)
        sampled: list[list[int]] = [[] for _ in PROMPTS]
        waiting, active = list(range(len(PROMPTS))), dict[int, SequenceState]()
        while waiting or active:
            if waiting and len(active) < 2:
                index = waiting.pop(0)
                active[index] = batch.add(PROMPTS[index])
            for index, row in list(active.items()):
                sampled[index].append(batch.sample(row).id)
                if len(sampled[index]) == 3 * (index + 1):
                    batch.release(active.pop(index))
            if active:
                batch.step(list(active.values()))
        assert sampled == [row[: 3 * (index + 1)] for index, row in enumerate(alone)]

    def test_a_row_ends_at_a_stop_id_while_others_go_on(self) -> None:
        free = rows(PROMPTS)
        stop = free[0][3]
        assert rows(PROMPTS, stop_ids=[stop]) == [row[: row.index(stop)] if stop in row else row for row in free]

    def test_generation_ends_when_the_context_is_full(self) -> None:
        (continuation,) = rows([list(range(250))], max_new_tokens=100)
        assert len(continuation) == 256 - 250 + 1  # the last token needs no position of its own

    def test_what_a_sequence_draws_does_not_depend_on_its_batch(self) -> None:
        settings = Sampling(temperature=1.5, seed=3)
        together = rows(PROMPTS, settings)
        assert [rows([prompt], settings)[0] for prompt in PROMPTS] == together


def test_a_seed_repeats_a_sample_and_another_changes_it() -> None:
    first, again, other = (rows(PROMPTS, Sampling(temperature=1.5, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_log_probabilities_are_those_of_the_full_forward() -> None:
    model = random_model(TINY)
    tokens = [step[0] for step in generate(model, PROMPTS[:1], max_new_tokens=5, log_probabilities=3)]
    ids = PROMPTS[0] + [t.id for t in tokens if t]
    expected = torch.log_softmax(model(torch.tensor([ids]))[0], -1)
    for at, token in enumerate(tokens, start=len(PROMPTS[0]) - 1):
        assert token is not None and token.log_probability is not None
        assert token.log_probability.logprob == pytest.approx(float(expected[at, token.id].detach()), abs=1e-4)
        assert [i for i, _ in token.log_probability.top] == expected[at].topk(3).indices.tolist()
    values = prompt_log_probabilities(model, ids, 1)
    assert values[0] is None
    assert [t.logprob for t in values if t] == pytest.approx([float(expected[i, n].detach()) for i, n in enumerate(ids[1:])], abs=1e-4)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("config", [TINY, replace(TINY, head_dim=6, ffn_dim=37, vocab_size=401, tied=False, n_kv_heads=1)])
def test_the_c_step_computes_what_torch_computes(kind: str, config: LlamaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "multiplies_bfloat16", lambda device: False)  # in float32, on every processor
    model = random_model(config)
    if kind != "float32":
        quantize.quantize_(model, kind)
    batch, reference = Batch(model, slots=3, max_len=50), Batch(model, slots=3, max_len=50)
    assert batch._native
    reference._native = None
    # A last digit may round an activation to the next of 255 values.
    atol = 5e-3 if kind in ("int8", "int4") else 2e-5
    hidden = [b._forward(b.cache.allocate(), list(range(3, 17))) for b in (batch, reference)]
    torch.testing.assert_close(*hidden, atol=atol, rtol=1e-5)
    torch.testing.assert_close(*(b._logits(h) for b, h in zip((batch, reference), hidden, strict=True)), atol=atol, rtol=1e-5)
    torch.testing.assert_close(batch.cache.keys, reference.cache.keys, atol=atol, rtol=1e-5)


def test_a_rows_result_does_not_depend_on_the_others_bit_for_bit() -> None:
    model = random_model(replace(TINY, vocab_size=401))
    together = Batch(model, slots=9, max_len=50)
    assert together._native
    positions = [0, 1, 2, 0, 0, 5, 0, 0, 9]
    for slot, at in enumerate(positions):
        together._native.step(list(range(at + 1)), [slot] * (at + 1), list(range(at + 1)), together.cache)
    after = [at + 1 for at in positions]
    all_nine = together._native.step(range(20, 29), range(9), after, together.cache)
    for row in range(9):
        alone = together._native.step([20 + row], [row], [after[row]], together.cache)
        assert torch.equal(alone[0], all_nine[row])
        assert torch.equal(together._native.logits(alone)[0], together._native.logits(all_nine)[row])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt"),
        ([[]], "prompt 0 is empty"),
        ([[1], list(range(256))], "prompt 1 has 256 tokens"),
        ([[400]], "outside the vocabulary"),
        ([[-1]], "outside the vocabulary"),
    ],
)
def test_impossible_prompts_are_refused(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(generate(random_model(TINY), prompts, max_new_tokens=4))


def test_no_new_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(generate(random_model(TINY), [[1]], max_new_tokens=0))


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no-such-compiler" in str(compiled.library.__wrapped__())
    monkeypatch.setenv("CC", "false")
    assert "could not compile decode.c" in str(compiled.library.__wrapped__())
    assert not list((tmp_path / "llama-decode").iterdir())


class TestTheRealModel:
    @pytest.fixture(scope="class")
    def prompts(self, smollm2: Path) -> list[list[int]]:
        tokenizer = Tokenizer.from_path(smollm2)
        return [tokenizer.encode(text) for text in MEDICAL]

    @pytest.fixture(scope="class")
    def greedy(self, smollm2: Path, prompts: list[list[int]]) -> list[list[int]]:
        """64 tokens after each prompt; bfloat16 weights, as stored, are widened exactly, so this is the float32 model."""
        model = quantize.quantize_(load_model(smollm2, dtype=torch.bfloat16, max_seq_len=128), "bfloat16")
        return rows(prompts, model=model, max_new_tokens=64)

    @pytest.mark.slow
    def test_it_continues_greedily_as_transformers_does_in_float32(
        self, smollm2: Path, prompts: list[list[int]], greedy: list[list[int]]
    ) -> None:
        reference = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
        ties = []
        for index, (prompt, continuation) in enumerate(zip(prompts, greedy, strict=True)):
            assert len(continuation) == 64
            # One forward over prompt and continuation shows what greedy decoding would choose at each place.
            with torch.inference_mode():
                logits = reference(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1 : -1]
            for at, (token, row) in enumerate(zip(continuation, logits, strict=True)):
                if token != int(row.argmax()):
                    best = row.topk(2).values
                    ties.append((index, at, float(best[0] - best[1])))
                    break
        print(f"places where the first two tokens are closer than 1e-4: {ties}")
        assert all(gap < 1e-4 for _, _, gap in ties)

    @pytest.mark.slow
    def test_a_batch_is_each_prompt_alone(self, smollm2: Path, prompts: list[list[int]], greedy: list[list[int]]) -> None:
        model = quantize.quantize_(load_model(smollm2, dtype=torch.bfloat16, max_seq_len=128), "bfloat16")
        for index in (0, 4, 19):
            assert rows([prompts[index]], model=model, max_new_tokens=64) == [greedy[index]]

    @pytest.mark.slow
    def test_int8_stays_close(self, smollm2: Path, prompts: list[list[int]], greedy: list[list[int]]) -> None:
        reference, other = (quantize.quantize_(load_model(smollm2, dtype=torch.bfloat16, max_seq_len=128), k) for k in ("bfloat16", "int8"))
        tokens = torch.tensor([(p + g)[:64] for p, g in zip(prompts[:8], greedy, strict=False)])
        difference = quantize.difference(reference, other, tokens)
        print(difference)
        assert difference["kl"] < 0.02
        assert difference["greedy_agreement"] > 0.9
