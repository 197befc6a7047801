"""Which notes are extracted from, with which examples, how they are answered, and what follows from the answers."""

import json
from dataclasses import replace

import pytest
from helpers.builders import TINY, write_tiny_checkpoint
from helpers.evaluation import TASK, notes

from model.generation.completion import Llama
from tasks.corpus.documents import Document
from tasks.evaluation import generation
from tasks.evaluation.decoding import SLOTS, Answer, Request, answer
from tasks.evaluation.fields import field_table
from tasks.evaluation.notes import Examples, Note, by_field, few_shot_values, marks, select, values
from tasks.evaluation.params import StructuredParams
from tasks.evaluation.structured import Counts

PARAMS = StructuredParams(notes=6, examples=2, max_new_tokens=16, rest=1.0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return Llama.build(write_tiny_checkpoint(tmp_path_factory.mktemp("m") / "tiny", replace(TINY, max_seq_len=640)))


def examples(documents: list[Document]) -> Examples:
    collected = Examples([TASK.name])
    for document in documents:
        collected.add(document)
    return collected


def chosen(llama: Llama, documents: list[Document], params: StructuredParams = PARAMS, *, seed: int = 1, context: int = 640) -> list[Note]:
    train = examples(notes("train", 12, first=100))
    return select(documents, {TASK.name: TASK}, train, llama.tokenizer, params, count=params.notes, seed=seed, context=context)


def test_every_patient_has_a_note_before_any_has_two(llama: Llama) -> None:
    documents = notes("test", 20)
    assert len({note.document.group for note in chosen(llama, documents)}) == 6
    more = chosen(llama, documents, PARAMS.model_copy(update={"notes": 15}))
    assert len({note.document.group for note in more[:10]}) == 10 and len(more) == 15
    assert len(chosen(llama, documents, PARAMS.model_copy(update={"notes": 0}))) == 20
    assert chosen(llama, documents[::-1]) == chosen(llama, documents) != chosen(llama, documents, seed=2)


def test_examples_are_answered_train_notes_of_two_patients_before_the_question(llama: Llama) -> None:
    note = chosen(llama, notes("test", 4))[0]
    text, own = (llama.tokenizer.decode(ids) for ids in (note.few_shot, note.prompt))
    assert text.count("assistant") == 3 and own.count("assistant") == 1 and text.endswith(own[-20:])
    shown = [d for d in notes("train", 12, first=100) if d.answer in text]
    assert len({d.group for d in shown}) == 2


def test_examples_are_short_and_have_something_in_every_field() -> None:
    documents = notes("train", 80)
    long, empty = replace(documents[0], question=documents[0].question + "x" * 999), replace(documents[1], answer="{}")
    half = replace(documents[2], question="HR 62.", answer='{"vital_signs":{"heart_rate":62},"medications":[]}')
    collected = examples([long, empty, half, *documents[3:]])
    picked = [d.id for seed in range(40) for d in collected.of(TASK.name, seed=seed, count=2)]
    assert len(picked) == 80 and not {long.id, empty.id, half.id} & set(picked) and len(set(picked)) > 10


def test_a_note_too_long_for_the_context_is_left_out_and_one_too_long_with_examples_goes_without(
    llama: Llama, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = notes("test", 4)
    whole = chosen(llama, documents)
    between = max(len(note.prompt) for note in whole) + PARAMS.max_new_tokens
    assert [note.few_shot for note in chosen(llama, documents, context=between)] == [()] * 4
    assert "4 notes of the task vitals are too long for it with 2 examples" in capsys.readouterr().out
    assert chosen(llama, documents, context=20) == []
    assert "4 notes of the task vitals are too long for the context of 20 tokens" in capsys.readouterr().out


def test_answers_are_those_of_each_prompt_by_itself_whatever_shares_a_slot_or_a_prefix(llama: Llama) -> None:
    selected = chosen(llama, notes("test", 20), PARAMS.model_copy(update={"notes": 13}))
    requests = [Request(note.few_shot, 5 + n % 9, 99) for n, note in enumerate(selected)] + [
        Request(note.prompt, 12, 99) for note in selected
    ]
    assert len(requests) > 3 * SLOTS
    together = answer(llama, requests, label="test")
    for request, given in zip(requests, together, strict=True):
        (by_itself,) = answer(llama, [request], label="test")
        assert by_itself == given and len(given.ids) <= request.max_new_tokens
    dialogs = [generation.dialog(note.document) for note in selected[:8]]
    completions = llama.chat_completion(dialogs, max_gen_len=12, temperature=0.0)
    assert [(c.text, c.ids, c.finish_reason == "stop") for c in completions] == [
        (a.text, a.ids, a.complete) for a in together[len(selected) : len(selected) + 8]
    ]


def test_an_answer_that_is_no_json_from_the_start_ends_early(llama: Llama) -> None:
    prompt = chosen(llama, notes("test", 2))[0].prompt
    (given,) = answer(llama, [Request(prompt, 12, 4)], label="test")
    assert not given.text.lstrip().startswith("{") and len(given.ids) == 4 and not given.complete


def said(note: Note, **changes: object) -> Answer:
    return Answer(json.dumps(json.loads(note.document.answer) | changes), (), True)


def test_metrics_are_sums_over_notes_and_fields_sums_over_values(llama: Llama) -> None:
    first, second, third = chosen(llama, notes("test", 6), PARAMS.model_copy(update={"notes": 3}))
    marked = marks([first, second, third], [said(first), said(second, medications=["Ibuprofen"]), Answer("no", (), True)])
    by_metric = {metric: [v for v in values([first, second, third], marked) if v.metric == metric] for metric in ("field_f1", "exact")}
    assert [(v.weight, v.total) for v in by_metric["field_f1"]] == [(4, 4), (4, 2), (2, 0)]
    assert [v.total for v in by_metric["exact"]] == [1, 0, 0]
    few_shot = [(v.metric, v.weight, v.total) for v in few_shot_values([second], marked[1:2])]
    assert few_shot == [("parsed_few_shot", 1, 1), ("field_f1_few_shot", 4, 2), ("hallucinated_few_shot", 2, 1)]
    fields = by_field([first, second, third], marked)
    assert fields["test"]["vitals"] == {"medications": Counts(3, 2, 1, 2, 1), "vital_signs.heart_rate": Counts(3, 2, 2, 2, 0)}
    rows = field_table(fields, {}, fields)["test"]["vitals"]
    assert rows["medications"]["tuned"] == pytest.approx({"precision": 0.5, "recall": 1 / 3, "f1": 0.4, "hallucinated": 0.5})
    assert rows["all"]["values"] == 6 and rows["all"]["base_few_shot"]["f1"] == 0


def test_a_truth_that_is_no_json_is_an_error_that_quotes_nothing(llama: Llama) -> None:
    (note,) = chosen(llama, notes("test", 2), PARAMS.model_copy(update={"notes": 1}))
    broken = replace(note, document=replace(note.document, answer="Sertraline"))
    with pytest.raises(ValueError, match=r"the answer of document [0-9a-f]{24} \(notes.csv\) of the task vitals is no JSON") as error:
        marks([broken], [said(note)])
    assert "Sertraline" not in str(error.value)


def test_what_the_right_answer_repeats_is_no_repetition() -> None:
    form = [1, 2, 3, 4, 9, 1, 2, 3, 4, 8]
    assert generation.repeated_share(form) == pytest.approx(1 / 7) and generation.repeated_share(form, form) == 0
    assert generation.repeated_share([*form, 1, 2, 3, 4], form) == pytest.approx(1 / 11)
