"""The notes from which both models extract, and their answers marked: documents of extraction tasks, as structured.py reads them.

The base model is asked a second time with answered examples from the train split before the question, so that a gain which is no more
than a learnt format can be told from one that is.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from model.tokenizer.tokenizer import Message, Tokenizer
from tasks.corpus.documents import Document, share
from tasks.corpus.extraction.definitions import Task, note_of
from tasks.evaluation.decoding import Answer
from tasks.evaluation.generation import dialog
from tasks.evaluation.params import StructuredParams
from tasks.evaluation.probes import Item, Value
from tasks.evaluation.structured import Counts, Marks, mark, parse_json

CANDIDATES = 32  # train documents of a task among which examples are chosen

Fields = dict[str, dict[str, dict[str, Counts]]]  # split → task → path of the property


@dataclass(frozen=True)
class Note:
    """A document of a task, with its prompt and the one that begins with examples: none where that does not fit the context."""

    document: Document
    task: Task
    prompt: tuple[int, ...]
    few_shot: tuple[int, ...]


class Examples:
    """Collects train documents of every task as examples; ``of`` chooses among them.

    Those whose answers have something in the most fields come first, as they show the schema; of them the shortest, as with long ones
    few notes fit the context.
    """

    def __init__(self, tasks: Iterable[str]):
        self._best: dict[str, list[tuple[tuple[int, int], str, Document]]] = {task: [] for task in tasks}

    def add(self, document: Document) -> None:
        """Take a train document into account."""
        if (heap := self._best.get(document.task)) is None or not (fields := _filled(document)):
            return
        entry = ((fields, -len(document.question) - len(document.answer)), document.id, document)
        (heapq.heappush if len(heap) < CANDIDATES else heapq.heappushpop)(heap, entry)

    def of(self, task: str, *, seed: int, count: int) -> list[Document]:
        """Examples of a task, of different groups, in an order that the seed fixes; fewer where there are not so many."""
        chosen: dict[str, Document] = {}
        for _, _, document in sorted(self._best[task], key=lambda entry: share(seed, "example", entry[1])):
            chosen.setdefault(document.group, document)
        return list(chosen.values())[:count]


def _filled(document: Document) -> int:
    """How many fields of a document's answer have something in them; 0 where it is no JSON object, which is an error elsewhere."""
    try:
        answer = parse_json(document.answer)
    except ValueError:
        return 0
    return sum(map(bool, answer.values())) if isinstance(answer, dict) else 0


def select(
    documents: Iterable[Document],
    tasks: Mapping[str, Task],
    examples: Examples,
    tokenizer: Tokenizer,
    params: StructuredParams,
    *,
    count: int,
    seed: int,
    context: int,
) -> list[Note]:
    """Up to ``count`` of each task (0: all), in an order that the seed fixes, the first of every group before the second of any.

    A note that fills the model's context together with its answer is left out, one that does so with examples is asked about without
    them only, and both are said.
    """
    by_task: dict[str, list[Document]] = {task: [] for task in sorted(tasks)}
    for document in documents:
        if document.task in by_task:
            by_task[document.task].append(document)
    chosen: list[Note] = []
    used: Counter[str] = Counter()  # groups, so that each task has notes of others
    for task, of_task in by_task.items():
        before = [m for d in examples.of(task, seed=seed, count=params.examples) for m in (*dialog(d), _said(d.answer))]
        room = context - params.max_new_tokens
        notes = (_note(document, tasks[task], before, tokenizer, room) for document in _spread(of_task, seed, used))
        taken = list(islice(filter(None, notes), count or None))
        if left_out := min(count or len(of_task), len(of_task)) - len(taken):
            print(f"validate: {left_out} notes of the task {task} are too long for the context of {context} tokens", flush=True)
        if without := sum(not note.few_shot for note in taken):
            print(f"validate: {without} notes of the task {task} are too long for it with {params.examples} examples", flush=True)
        used.update(note.document.group for note in taken)
        chosen += taken
    return chosen


def _spread(documents: Iterable[Document], seed: int, used: Counter[str]) -> list[Document]:
    """The first document of every group, then the second of every group, and so on; ``used``: documents of it that were taken before."""
    rank = Counter(used)
    ranked = []
    for document in sorted(documents, key=lambda d: share(seed, "structured", d.id)):
        ranked.append((rank[document.group], document))
        rank[document.group] += 1
    return [document for _, document in sorted(ranked, key=lambda pair: pair[0])]


def _note(document: Document, task: Task, before: Sequence[Message], tokenizer: Tokenizer, room: int) -> Note | None:
    """None where the prompt has more than ``room`` tokens."""
    prompt, few_shot = (tuple(tokenizer.chat_prompt(messages)) for messages in (dialog(document), [*before, *dialog(document)]))
    if len(prompt) > room:
        return None
    return Note(document, task, prompt, few_shot if before and len(few_shot) <= room else ())


def _said(answer: str) -> Message:
    return {"role": "assistant", "content": answer}


def marks(notes: Sequence[Note], answers: Sequence[Answer]) -> list[Marks]:
    """The marks of each answer. ``ValueError`` names a document whose own answer is no JSON."""
    marked = []
    for note, given in zip(notes, answers, strict=True):
        document = note.document
        try:
            marked.append(mark(given.text, document.answer, note_of(document), note.task.schema, complete=given.complete))
        except ValueError:
            raise ValueError(
                f"the answer of document {document.id} ({document.source}) of the task {note.task.name} is no JSON; run 'dvc repro "
                "--force preprocess'"
            ) from None
    return marked


def values(notes: Sequence[Note], marked: Sequence[Marks]) -> Iterator[Value]:
    """What the marks say of each note."""
    for note, of_note in zip(notes, marked, strict=True):
        item, total = _item(note), of_note.total()
        yield Value("parsed", item, 1, float(of_note.parsed))
        yield Value("exact", item, 1, float(of_note.exact))
        yield Value("field_precision", item, total.predicted, total.right)
        yield Value("field_recall", item, total.true, total.right)
        yield _f1("field_f1", item, total)
        yield Value("hallucinated", item, total.checked, total.unstated)


def few_shot_values(notes: Sequence[Note], marked: Sequence[Marks]) -> Iterator[Value]:
    """The same of notes with examples, of which the base model's are those with examples and the tuned model's those without."""
    for note, of_note in zip(notes, marked, strict=True):
        item, total = _item(note), of_note.total()
        yield Value("parsed_few_shot", item, 1, float(of_note.parsed))
        yield _f1("field_f1_few_shot", item, total)
        yield Value("hallucinated_few_shot", item, total.checked, total.unstated)


def _f1(metric: str, item: Item, total: Counts) -> Value:
    """F1 as a sum over a sum: twice the right values, over those of the truth and those predicted."""
    return Value(metric, item, total.true + total.predicted, 2 * total.right)


def _item(note: Note) -> Item:
    document = note.document
    return Item(document.id, document.split, document.category, document.source)


def by_field(notes: Sequence[Note], marked: Sequence[Marks]) -> Fields:
    """The counts of each property, over the notes of a split and task."""
    fields: Fields = {}
    for note, of_note in zip(notes, marked, strict=True):
        of_task = fields.setdefault(note.document.split, {}).setdefault(note.task.name, {})
        for path, counts in of_note.fields.items():
            of_task[path] = of_task.get(path, Counts()).plus(counts)
    return fields
