"""The engine: a request gets the same tokens with other requests as alone."""

import queue
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from helpers.builders import TINY, random_model

from model.generation import graphs
from model.generation.generate import SequenceState, Token, generate
from model.generation.quantize import quantize_
from model.generation.sampling import GREEDY, Sampling
from model.llama import Transformer
from serve.engine import CHUNK, Engine, EngineClosed, FinishReason, Progress, QueueFull, Request

TWO_CHUNKS = replace(TINY, max_seq_len=2 * CHUNK)
MODEL = random_model(TWO_CHUNKS)
CONTEXT = TWO_CHUNKS.max_seq_len


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """With "all slots": a step runs every slot, idle ones too, in compiled layers, as on a GPU, where it is also recorded."""
    if getattr(request, "param", "") == "all slots":
        monkeypatch.setattr(graphs, "suits", lambda device: True)
    engine = Engine(MODEL, slots=4, max_len=CONTEXT, max_waiting=100)
    yield engine
    engine.close(0)


class Recorded:
    """A request, and a queue of its events."""

    def __init__(self, prompt: list[int], settings: Sampling = GREEDY, count: int = 20, stop_ids: frozenset[int] = frozenset()):
        self.events: queue.Queue[Token | FinishReason] = queue.Queue()
        self.request = Request(prompt, settings, count, self.events.put, stop_ids=stop_ids)

    def answer(self) -> tuple[list[int], FinishReason]:
        tokens: list[int] = []
        while isinstance(event := self.events.get(timeout=240), Token):
            tokens.append(event.id)
        return tokens, event


def alone(model: Transformer, prompt: list[int], settings: Sampling, count: int, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    steps = generate(model, [prompt], settings, max_new_tokens=count, stop_ids=tuple(stop_ids))
    return [token.id for (token,) in steps if token]


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(TINY.vocab_size) for _ in range(chance.randint(1, 180))] for _ in range(count)]


@pytest.mark.parametrize("engine", ["", "all slots"], indirect=True)
def test_forty_requests_at_once_get_the_tokens_that_they_get_alone(engine: Engine) -> None:
    settings = [Sampling(temperature=0.9, top_p=0.8, seed=n) if n % 2 else GREEDY for n in range(40)]
    requests = [Recorded(prompt, sampling) for prompt, sampling in zip(prompts(40), settings, strict=True)]
    for one in requests:
        engine.submit(one.request)
    for one, sampling in zip(requests, settings, strict=True):
        assert one.answer() == (alone(MODEL, list(one.request.prompt), sampling, 20), "length")
    assert engine.load().running == engine.load().waiting == 0


@pytest.mark.parametrize("engine", ["", "all slots"], indirect=True)
def test_a_cached_prefix_is_not_computed_again(engine: Engine) -> None:
    system = prompts(1, seed=5)[0][:80] * 4
    first, longer = Recorded([*system[:300], 7]), Recorded(prompts(1, seed=6)[0][:60], count=90)
    engine.submit(first.request, longer.request)
    first.answer()
    longer.answer()  # while it was decoded, the first one's slot was idle
    second = Recorded([*system[:300], 9, 11])
    second.request.log_probabilities = 0
    engine.submit(second.request)
    token = second.events.get(timeout=240)
    (exact,) = next(iter(generate(MODEL, [second.request.prompt], max_new_tokens=1, log_probabilities=0)))
    assert isinstance(token, Token) and token.log_probability and exact and exact.log_probability
    # One wrong position of the prefix would hardly change a token, but it changes its probability.
    assert token.id == exact.id
    assert token.log_probability.logprob == pytest.approx(exact.log_probability.logprob, abs=1e-5)
    assert second.answer() == (alone(MODEL, list(second.request.prompt), GREEDY, 20)[1:], "length")
    assert (first.request.cached_tokens, second.request.cached_tokens) == (0, 300 // CHUNK * CHUNK) and CHUNK < 300


def test_a_request_hears_of_its_place_in_the_queue_and_of_the_tokens_that_are_read(engine: Engine) -> None:
    prompt = prompts(1, seed=8)[0][:1] * (CHUNK + 5)
    recorded = [Recorded([n + 1, *prompt], count=40) for n in range(6)]
    progress: list[list[Progress]] = [[] for _ in recorded]
    for one, states in zip(recorded, progress, strict=True):
        one.request.on_progress = states.append
    engine.submit(*(one.request for one in recorded))
    assert all(one.answer()[1] == "length" for one in recorded)
    assert {tuple(state.read_tokens for state in states if not state.queue) for states in progress} == {(0, CHUNK)}
    assert [[state.queue for state in states if state.queue] for states in progress[4:]] in ([[1], [2, 1]], [[1], [2]])


def test_a_receiver_of_progress_that_fails_ends_its_own_request_alone(engine: Engine) -> None:
    def fail(_: Progress) -> None:
        raise RuntimeError

    one, other = Recorded(prompts(1, seed=9)[0]), Recorded(prompts(1, seed=9)[0])
    one.request.on_progress = fail
    engine.submit(one.request, other.request)
    assert one.answer()[1] == "cancelled" and other.answer()[1] == "length"


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_requests_at_once_and_with_cached_prefixes_get_the_tokens_that_they_get_alone(kind: str) -> None:
    model = quantize_(random_model(TWO_CHUNKS), kind)
    engine = Engine(model, slots=3, max_len=CONTEXT, max_waiting=100)
    system = prompts(1, seed=5)[0][:70] * 3
    texts = [[*system, 7], *prompts(6), [*system[:101], 9, 11], system]
    for requests in ([Recorded(text) for text in texts], [Recorded(texts[0])]):  # the last in large chunks
        for one in requests:
            engine.submit(one.request)
        for one in requests:
            assert one.answer() == (alone(model, list(one.request.prompt), GREEDY, 20), "length")
    engine.close()


def test_an_int8_prompt_continues_a_cached_prefix_of_any_length() -> None:
    engine = Engine(quantize_(random_model(TWO_CHUNKS), "int8"), slots=2, max_len=CONTEXT, max_waiting=10)
    first, second = Recorded([*range(101), 7], count=1), Recorded([*range(101), 9, 11], count=1)
    for one in (first, second):
        engine.submit(one.request)
        one.answer()
    assert second.request.cached_tokens == 101
    engine.close()


def test_a_stop_id_ends_a_sequence_and_is_its_last_token(engine: Engine) -> None:
    prompt = prompts(1, seed=1)[0]
    tokens = alone(MODEL, prompt, GREEDY, 20)
    recorded = Recorded(prompt, stop_ids=frozenset({tokens[6]}))
    engine.submit(recorded.request)
    assert recorded.answer() == (tokens[: tokens.index(tokens[6]) + 1], "stop")


def test_a_full_context_ends_a_sequence(engine: Engine) -> None:
    recorded = Recorded(prompts(1, seed=2)[0][:50], count=10_000)
    engine.submit(recorded.request)
    tokens, reason = recorded.answer()
    assert (len(tokens), reason) == (CONTEXT - len(recorded.request.prompt) + 1, "length")


def test_a_long_prompt_lets_the_others_go_on() -> None:
    engine = Engine(MODEL, slots=2, max_len=CONTEXT, max_waiting=10)
    order: list[str] = []
    long = [1] * (CONTEXT - 2)
    done: queue.Queue[object] = queue.Queue()

    def recorded(name: str) -> Request:
        def emit(event: Token | FinishReason) -> None:
            order.append(name)
            if not isinstance(event, Token):
                done.put(event)

        return Request(long if name == "long" else [5], GREEDY, 200 if name == "short" else 1, emit)

    short = recorded("short")
    engine.submit(short)
    while not order:
        time.sleep(0.001)
    engine.submit(recorded("long"))
    for _ in range(2):
        done.get(timeout=240)
    before = order.index("long")
    assert -(-len(long) // CHUNK) >= 2 and before < len(order) - 3
    engine.close()


def test_one_that_is_cancelled_gets_at_most_two_more_tokens_and_frees_its_slot(engine: Engine) -> None:
    requests = [Recorded([n + 1], count=200) for n in range(4)]
    for one in requests:
        engine.submit(one.request)
    for one in requests:
        one.events.get(timeout=240)
    counts = [one.request.new_tokens for one in requests]
    for one in requests:
        one.request.cancel()
        one.request.cancel()
    for one, before in zip(requests, counts, strict=True):
        assert one.answer()[1] == "cancelled" and one.request.new_tokens <= before + 2 + 2
    next_one = Recorded([3], count=3)
    engine.submit(next_one.request)
    assert next_one.answer() == (alone(MODEL, [3], GREEDY, 3), "length")


def test_requests_that_are_too_many_or_invalid_are_refused_as_a_whole() -> None:
    engine = Engine(MODEL, slots=1, max_len=CONTEXT, max_waiting=2)
    with pytest.raises(ValueError, match="empty"):
        engine.submit(Recorded([1]).request, Recorded([]).request)
    with pytest.raises(ValueError, match="4 continuations at once are more than 3"):
        engine.submit(*(Recorded([n]).request for n in range(4)))
    assert engine.load().waiting == 0
    requests = [Recorded([n], count=200) for n in range(3)]
    engine.submit(*(one.request for one in requests))
    with pytest.raises(QueueFull):
        engine.submit(*(Recorded([n]).request for n in range(3)))
    assert engine.close()  # those that are here end first
    assert [one.answer()[1] for one in requests] == ["length"] * 3
    with pytest.raises(EngineClosed):
        engine.submit(Recorded([1]).request)


def test_closing_in_a_hurry_cancels() -> None:
    engine = Engine(MODEL, slots=1, max_len=CONTEXT, max_waiting=9)
    requests = [Recorded([n], count=200) for n in range(8)]
    engine.submit(*(one.request for one in requests))
    assert not engine.close(0.05)
    assert {one.answer()[1] for one in requests} <= {"length", "cancelled"}


def test_a_request_that_fails_ends_alone(engine: Engine) -> None:
    well, ill = Recorded([4], count=60), [Recorded([5], Sampling(temperature=1e-300)), Recorded([6], Sampling(seed=1 << 70))]
    engine.submit(well.request, *(one.request for one in ill))  # logits over nearly nothing are infinite; such a seed is none
    assert [one.answer() for one in ill] == [([], "failed")] * 2
    assert well.answer() == (alone(MODEL, [4], GREEDY, 60), "length")


def test_a_step_that_fails_ends_its_requests_once_and_the_next_find_all_slots(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(rows: list[SequenceState]) -> None:
        raise RuntimeError(f"no memory for {rows[0].tokens}")

    with monkeypatch.context() as broken:
        broken.setattr(engine._batch, "step", out_of_memory)
        for _ in range(3):
            requests = [Recorded([n + 1]) for n in range(4)]
            engine.submit(*(one.request for one in requests))
            assert [one.answer()[1] for one in requests] == ["failed"] * 4
            assert all(one.events.empty() for one in requests)
    assert "RuntimeError" in caplog.text and "no memory for [" not in caplog.text
    again = [Recorded(prompt) for prompt in prompts(4, seed=3)]
    engine.submit(*(one.request for one in again))
    for one in again:
        assert one.answer() == (alone(MODEL, list(one.request.prompt), GREEDY, 20), "length")
    assert sorted(engine._batch.cache._free) == [0, 1, 2, 3]


def test_a_request_that_cannot_receive_tokens_is_cancelled_and_hurts_no_other(engine: Engine) -> None:
    def deaf(event: Token | FinishReason) -> None:
        raise RuntimeError(f"the loop is closed to {event}")

    deaf_one, well = Request([7], GREEDY, 200, deaf), Recorded([8])
    engine.submit(deaf_one, well.request)
    assert well.answer() == (alone(MODEL, [8], GREEDY, 20), "length")
    assert deaf_one.new_tokens <= 2 and engine.load().running == 0
