"""What is scored: probes with texts, prompts to answer, notes to extract from. The seed, the documents and the shards alone decide.

Nothing is scored here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.config import read_config
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document, read_documents
from tasks.corpus.extraction.definitions import read_tasks
from tasks.corpus.shards.format import Shards, Split
from tasks.evaluation import generation, harness, notes
from tasks.evaluation.answers import Answers, select
from tasks.evaluation.behaviour import BEHAVIOUR, GENERAL, GeneralText, Preferences, pairs, passages
from tasks.evaluation.boilerplate import BoilerplateModel
from tasks.evaluation.choice import Choices, questions
from tasks.evaluation.memorization import Extraction
from tasks.evaluation.notes import Examples, Note
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.probes import Probe, digest

TEST, OOD, TRAIN = "test", "ood", "train"


@dataclass(frozen=True)
class Prompted:
    """A document whose question is answered, as text of any form."""

    document: Document
    prompt: tuple[int, ...]


@dataclass(frozen=True)
class EvaluationItems:
    """All items of an evaluation; ``answers`` is the probe of the test split's answers, which comes first."""

    probes: tuple[Probe, ...]
    answers: Answers
    generated: tuple[Prompted, ...]
    notes: tuple[Note, ...]
    tasks: tuple[str, ...]  # the extraction tasks of the corpus, whether notes of them are held out or not
    groups: Mapping[str, str]  # by id of a document


@dataclass
class _TrainPass:
    """What one pass over the train documents collects: examples, and by id the groups of those in ``ids``."""

    examples: Examples
    groups: dict[str, str]

    @classmethod
    def over(cls, documents: Iterable[Document], tasks: Iterable[str], ids: set[str]) -> "_TrainPass":
        collected = cls(Examples(tasks), {})
        for document in documents:
            collected.examples.add(document)
            if document.id in ids:
                collected.groups[document.id] = document.group
        return collected


def build_items(documents: Path, shards: Shards, checkpoint: Path, tokenizer: Tokenizer, params: ValidateParams) -> EvaluationItems:
    """Choose and build all items. ``checkpoint``: the model whose context the prompts must fit.

    ``ValueError`` where documents and shards do not belong together.
    """
    splits = {name: shards.open(name) for name in (TEST, OOD, TRAIN)}
    tasks = read_tasks(documents)
    of_tasks = frozenset(task.category for task in tasks.values())
    # Choices and behaviour say little beside extraction and take as long.
    preferences = not tasks or params.structured.rest == 1
    params = params.beside_tasks() if tasks else params
    chosen = {name: select(splits[name], seed=params.seed, max_tokens=params.max_tokens, whole=of_tasks) for name in (TEST, OOD)}
    if not chosen[TEST]:
        raise ValueError(
            f"{shards.directory} holds no test documents; look at the splits in data/ and at preprocess.test_share in params.yaml"
        )
    held_out = list(read_documents(documents, TEST))
    if {d.id for d in held_out} != {entry.id for entry in splits[TEST].entries}:
        raise ValueError(f"{documents} and {shards.directory} hold different test documents; run 'dvc repro shard'")
    foreign = list(read_documents(documents, OOD))
    # What a note states is copied from it, not known by heart, and answers that follow from a note are no choices.
    untied = [document for document in held_out if document.task not in tasks]
    memorized = [Extraction(name, splits[name], params.extraction, seed=params.seed, without=of_tasks) for name in (TRAIN, TEST)]
    train = _TrainPass.over(read_documents(documents, TRAIN), tasks, {entry.id for entry in memorized[0].entries})
    boilerplate = BoilerplateModel(splits[TRAIN], params.boilerplate)
    answers = {name: Answers(name, splits[name], chosen[name], boilerplate) for name in (TEST, OOD)}
    probes: tuple[Probe, ...] = (
        answers[TEST],
        answers[OOD],
        Choices(questions(untied, seed=params.seed, per_category=params.choices) if preferences else [], tokenizer),
        Preferences(pairs() if tokenizer.template and preferences else [], tokenizer),  # questions need a chat template
        GeneralText([*passages(), *_general_documents(documents, splits[TRAIN], params)], tokenizer),
        *memorized,
    )
    generated = generation.select(untied, seed=params.seed, count=params.generations)
    return EvaluationItems(
        probes,
        answers[TEST],
        tuple(Prompted(document, tuple(tokenizer.chat_prompt(generation.dialog(document)))) for document in generated),
        tuple(
            note
            for split, count in ((held_out, params.structured.notes), (foreign, params.structured.of_ood))
            for note in notes.select(
                split,
                tasks,
                train.examples,
                tokenizer,
                params.structured,
                count=count,
                seed=params.seed,
                context=read_config(checkpoint).max_seq_len,
            )
        ),
        tuple(sorted(tasks)),
        train.groups | {document.id: document.group for document in (*held_out, *foreign)},
    )


def _general_documents(documents: Path, train: Split, params: ValidateParams) -> list[Document]:
    """Documents of the split replay that augment did not mix into training, up to ``max_tokens`` characters' worth of text."""
    mixed_in = {entry.id for entry in train.entries}
    chosen, characters = [], 0
    for document in read_documents(documents, "replay"):
        if params.max_tokens and characters > 4 * params.max_tokens:  # about four characters are a token
            break
        if document.id not in mixed_in:
            characters += len(document.answer)
            chosen.append(document)
    return chosen


def items_digest(items: EvaluationItems, tasks: harness.Tasks) -> str:
    """Digest of what is scored: the texts of all probes and what of them is content, the tables here, the prompts with the truth about
    their notes, and the harness's tasks."""
    sha = hashlib.sha256()
    for part in _parts(items, tasks):
        sha.update(f"{part}\n".encode())
    return sha.hexdigest()


def _parts(items: EvaluationItems, tasks: harness.Tasks) -> Iterator[str]:
    for probe in items.probes:
        yield f"{type(probe).__name__} {digest(probe.texts)}"
        if isinstance(probe, Answers):
            yield probe.content_digest()
    for path in (BEHAVIOUR, GENERAL):
        yield path.read_text(encoding="utf-8")
    for prompted in items.generated:
        yield f"{prompted.document.id} {prompted.prompt}"
    for note in items.notes:
        yield f"{note.document.id} {note.prompt} {note.few_shot} {note.document.answer!r} {note.task.schema}"
    for key, group in sorted(items.groups.items()):
        yield f"{key} {group}"
    for task in tasks:
        yield task.sha256
