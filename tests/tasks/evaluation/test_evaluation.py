"""The parts of an evaluation, each against a plain computation of the same, on tiny real models."""

import csv
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import sentences

from model.generation.completion import Llama
from model.generation.generate import generate
from tasks.corpus.documents import Document, content_id
from tasks.corpus.shards.format import Entry, Split
from tasks.evaluation import calibration
from tasks.evaluation.behaviour import BEHAVIOUR, Preferences, pairs, passages
from tasks.evaluation.boilerplate import BoilerplateModel
from tasks.evaluation.choice import Choices, questions
from tasks.evaluation.findings import verdict
from tasks.evaluation.generation import repeated_share, select
from tasks.evaluation.likelihood import ScoringConfig, Text, TokenScores, score_tokens
from tasks.evaluation.memorization import Extraction
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.params import BoilerplateParams, ExtractionParams
from tasks.evaluation.probes import as_text
from tasks.evaluation.report import interval
from tasks.evaluation.scores import Score
from tasks.evaluation.table import MIN_GROUPS, flat, table

SCORING_CONFIG = ScoringConfig(batch_tokens=256, precision="float32")


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Path) -> Llama:
    return Llama.build(tiny_checkpoint)


def split_of(texts: list[Text], category: str = "made-up") -> Split:
    tokens, loss = (np.concatenate([getattr(t, part) for t in texts]) for part in ("tokens", "loss_mask"))
    entries = [Entry(content_id(str(n)), category, "made-up", 10) for n in range(len(texts))]
    return Split([tokens], [loss], [np.cumsum([0, *(len(t.tokens) for t in texts)])], entries, np.array([0, len(texts)]))


def document(index: int, question: str, answer: str, *, group: str = "", topic: str = "", category: str = "made-up") -> Document:
    key = content_id(str(index))
    return Document(key, question, answer, "made-up", category, group or key, str(index), split="test", topic=topic)


def random_text(length: int, seed: int) -> Text:
    random = np.random.default_rng(seed)
    return Text(random.integers(3, 400, length).astype(np.uint32), (random.random(length) < 0.6).astype(np.uint8))


def test_tokens_are_judged_as_the_whole_logits_say_whatever_shares_their_batch(llama: Llama) -> None:
    texts = [random_text(length, length) for length in (2, 9, 40, 40, 120, 31)]
    for text, token_scores in zip(texts, score_tokens(llama, texts, SCORING_CONFIG, label="test"), strict=True):
        with torch.inference_mode():
            scores = torch.log_softmax(llama.model(torch.from_numpy(text.tokens.astype(np.int64))[None])[0].float(), 1)
        positions = text.scored_positions()
        ids = text.tokens[positions].astype(np.int64)
        before = scores[positions - 1].numpy()
        np.testing.assert_allclose(token_scores.nll, -before[np.arange(len(ids)), ids], atol=1e-4)
        np.testing.assert_array_equal(token_scores.is_greedy, before.argmax(1) == ids)
        np.testing.assert_allclose(token_scores.confidence, np.exp(before.max(1)), atol=1e-5)


def test_a_text_longer_than_the_context_is_judged_whole_and_each_token_once(tiny_checkpoint: Path) -> None:
    short = Llama.build(tiny_checkpoint, max_seq_len=16)
    text = random_text(70, 5)
    (token_scores,) = score_tokens(short, [text], SCORING_CONFIG, label="test")
    assert len(token_scores.nll) == len(text.scored_positions())
    (first,) = score_tokens(short, [Text(text.tokens[:16], text.loss_mask[:16])], SCORING_CONFIG, label="test")
    np.testing.assert_allclose(token_scores.nll[: len(first.nll)], first.nll, atol=1e-5)
    (nothing,) = score_tokens(short, [Text(text.tokens, np.zeros(70, np.uint8))], SCORING_CONFIG, label="test")
    assert len(nothing.nll) == 0


def test_boilerplate_and_content_are_told_apart() -> None:
    # A question that ends 5 6 7; the answer: The mode of inheritance of DISEASE is described as autosomal FORM inheritance END
    answers = [[10, 11, 12, 13, 14, 100 + n, 20, 21, 22, 23, 30 + n % 3, 24, 2] for n in range(60)]
    texts = [Text(np.array([100 + n, 5, 6, 7, *a], np.uint32), np.array([0] * 4 + [1] * len(a), np.uint8)) for n, a in enumerate(answers)]
    boilerplate = BoilerplateModel(split_of(texts), BoilerplateParams(share=0.05, certainty=0.9))
    mask = boilerplate.mask("made-up", texts[0].tokens, texts[0].loss_mask)
    fixed = [10, 11, 12, 13, 14, 23, 24, 2]
    assert [int(t) for t, is_fixed in zip(answers[0], mask, strict=True) if is_fixed] == fixed
    # An answer that goes on otherwise where all others agree says something.
    other = texts[0].tokens.copy()
    other[4 + 11] = 99
    assert not boilerplate.mask("made-up", other, texts[0].loss_mask)[11]
    assert not boilerplate.mask("another category", texts[0].tokens, texts[0].loss_mask).any()


def test_wrong_choices_are_of_the_same_kind_from_other_groups_about_the_questions_topic() -> None:
    documents = [
        document(n, f"What is sign {n}?", f"Sign {n} is a fact of number {n} and more.", group=f"g{n // 2}", topic=f"sign {n}")
        for n in range(30)
    ]
    documents += [document(100 + n, "What else?", f"Another category says {n}.", category="rare") for n in range(3)]
    chosen = questions(documents, seed=1, per_category=5)
    assert len(chosen) == 5 and chosen == questions(documents[::-1], seed=1, per_category=5)
    assert chosen != questions(documents, seed=2, per_category=5)
    by_number = {d.position: d for d in documents}
    for question in chosen:
        assert question.answers[0] == question.document.answer and len(set(question.answers)) == 4
        groups = set()
        for wrong in question.answers[1:]:
            assert wrong.startswith(question.document.topic)
            groups.add(by_number[wrong.split("number ")[1].split()[0]].group)
        assert len(groups) == 3 and question.document.group not in groups
    assert len(questions(documents, seed=1, per_category=0)) == 30


def test_the_chosen_answer_is_that_of_the_least_nats_per_byte(llama: Llama) -> None:
    documents = [document(n, q, a) for n, (q, a) in enumerate(sentences(40))]
    chosen = questions(documents, seed=1, per_category=6)
    probe = Choices(chosen, llama.tokenizer)
    values = list(probe.values(score_tokens(llama, probe.texts, SCORING_CONFIG, label="test")))
    choices = [v for v in values if v.metric == "choice"]
    for question, value in zip(chosen, choices, strict=True):
        texts = [as_text(replace(question.document, answer=answer), llama.tokenizer) for answer in question.answers]
        costs = [
            j.nll.sum() / len(a.encode())
            for j, a in zip(score_tokens(llama, texts, SCORING_CONFIG, label="test"), question.answers, strict=True)
        ]
        assert value.total == float(int(np.argmin(costs)) == 0)
    assert len([v for v in values if v.metric == "consistency"]) == sum(bool(q.rephrased) for q in chosen)


def test_no_fixed_answer_is_right_on_more_than_half_of_the_behaviour_items() -> None:
    rows = list(csv.DictReader(BEHAVIOUR.read_text(encoding="utf-8").splitlines()))
    for metric in ("negation", "dose"):
        of_metric = [r for r in rows if r["metric"] == metric]
        right, wrong = (Counter(r[which] for r in of_metric) for which in ("right", "wrong"))
        assert right == wrong and len(of_metric) >= 20
    assert len({p.id for p in pairs()}) == len(rows) and len({d.id for d in passages()}) >= 30


def test_a_preference_is_right_where_the_right_answer_is_likelier(llama: Llama) -> None:
    probe = Preferences(pairs()[:3], llama.tokenizer)
    cheap, dear = (TokenScores(np.full(3, nats), np.zeros(3, bool), np.zeros(3)) for nats in (0.1, 9.0))
    totals = [v.total for v in probe.values([cheap, dear, dear, cheap, cheap, cheap])]
    assert totals[:2] == [1.0, 0.0]


def test_extraction_is_what_greedy_decoding_writes(llama: Llama) -> None:
    params = ExtractionParams(documents=10, prefix=6, target=5)
    texts = []
    for seed in range(6):
        prompt = random_text(6, seed).tokens.tolist()
        written = [t[0].id for t in generate(llama.model, [prompt], max_new_tokens=5) if t[0]]
        other = [*written[:4], (written[4] + 1) % 400] if seed % 2 else written
        texts.append(Text(np.array([*prompt, *other], np.uint32), np.array([0] * 6 + [1] * 5, np.uint8)))
    texts.append(Text(texts[0].tokens[:9], texts[0].loss_mask[:9]))  # too short
    probe = Extraction("train", split_of(texts), params, seed=1)
    preferred = {v.item.id: v.total for v in probe.values(score_tokens(llama, probe.texts, SCORING_CONFIG, label="test"))}
    assert preferred == {content_id(str(n)): float(n % 2 == 0) for n in range(6)}


def test_repeated_4_grams_are_counted() -> None:
    assert repeated_share([1, 2, 3]) == 0 and repeated_share([1, 2, 3, 4, 5]) == 0
    assert repeated_share([7] * 9) == pytest.approx(5 / 6)


def test_questions_to_generate_from_are_of_every_kind() -> None:
    documents = [document(n, f"What is {n}?", "It is.", category=f"category {n % 3}") for n in range(20)]
    documents.append(document(50, "", "Running text asks nothing.", category="text"))
    documents.append(document(51, "Rare?", "It is.", category="rare"))
    assert Counter(d.category for d in select(documents, seed=1, count=13)) == {f"category {n}": 4 for n in range(3)} | {"rare": 1}
    # A corpus of one category is asked as often.
    assert len(select([d for d in documents if d.category == "category 1"], seed=1, count=6)) == 6
    assert len(select(documents, seed=1, count=500)) == 21
    assert select(documents, seed=1, count=9) == select(documents[::-1], seed=1, count=9)


def test_calibration_error_is_the_distance_between_confidence_and_share_right() -> None:
    random = np.random.default_rng(1)
    token_scores = []
    for _ in range(40):
        confidence = random.random(200)
        token_scores.append(TokenScores(np.zeros(200), random.random(200) < confidence, confidence))
    groups = list(map(str, range(40)))
    honest = calibration.count_by_confidence(token_scores, groups)
    sure = calibration.count_by_confidence([TokenScores(j.nll, j.is_greedy, np.full(200, 0.95)) for j in token_scores], groups)
    assert calibration.error(honest).value < 0.03
    interval = calibration.error(sure)
    assert (
        interval.value == pytest.approx(0.95 - np.mean([j.is_greedy.mean() for j in token_scores]))
        and interval.low < interval.value < interval.high
    )
    assert calibration.change(honest, sure).low > 0


def scores(metric: str, count: int, base: float, tuned: float, **of: str) -> list[Score]:
    item = {"split": "test", "category": "k", "source": "s"} | of
    return [Score(metric, str(n), base_weight=2.0, tuned_weight=2.0, base=base + n % 3, tuned=tuned + n % 3, **item) for n in range(count)]


def test_the_table_tells_values_per_kind_and_source_and_intervals_where_there_are_enough_items() -> None:
    metrics = table([*scores("answer_nll", 30, 4, 2, category="a"), *scores("answer_nll", 5, 4, 6, category="b", source="t")])
    row = metrics["test"]["all"]["answer_nll"]
    assert row["items"] == 35 and row["weight"] == 70 and row["perplexity"]["base"] == pytest.approx(math.exp(row["base"]["value"]))
    few = metrics["test"]["category"]["b"]["answer_nll"]
    assert len(few) and few["items"] < MIN_GROUPS and "low" not in few["change"] and few["change"]["value"] == pytest.approx(1)
    assert set(metrics["test"]["source"]) == {"s", "t"}
    assert flat(metrics)["test/category/a/answer_nll/tuned"] == pytest.approx(
        metrics["test"]["category"]["a"]["answer_nll"]["tuned"]["value"]
    )


def test_what_was_never_seen_is_not_taken_for_impossible() -> None:
    of_nothing = [Score("extraction", str(n), "train", "k", "s", base_weight=1, tuned_weight=1, base=0, tuned=0) for n in range(60)]
    row = table(of_nothing)["train"]["all"]["extraction"]
    assert row["tuned"] == {"value": 0, "low": 0, "high": pytest.approx(3 / 60, rel=0.05)}
    assert row["change"]["low"] == -row["change"]["high"] < 0
    of_all = [replace(score, metric="stop", base=1.0, tuned=1.0) for score in of_nothing]
    row = table(of_all)["train"]["all"]["stop"]
    assert row["tuned"]["high"] == 1 and row["tuned"]["low"] == pytest.approx(1 - 3 / 60, rel=0.05)


def test_a_verdict_needs_an_interval_without_zero_and_knows_what_is_better() -> None:
    assert verdict("answer_nll", {"change": {"value": -1, "low": -2, "high": -0.5}}) == "better"
    assert verdict("choice", {"change": {"value": -1, "low": -2, "high": -0.5}}) == "worse"
    assert verdict("calibration_error", {"change": {"value": -1, "low": -2, "high": -0.5}}) == "better"
    assert verdict("choice", {"change": {"value": 1, "low": -0.1, "high": 2}}) == verdict("choice", {"change": {"value": 1}}) == "unclear"
    assert (
        METRICS["choice"].format(0.25) == "25.0 %"
        and interval("answer_nll", {"value": 1.0, "low": 0.5, "high": 2.0}) == "1.000 (0.500 to 2.000)"
    )
