"""What one model gets on all items: values by item, confidence, counts by field, answers to the prompts of params.yaml; kept for the base.

The base model's values are the same for every tuned model, so they are kept under a digest of all that decides them. A kept file holds
numbers, ids of documents, names of categories and files, and the base model's answers to the prompts of params.yaml; no text of a record.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.generation.completion import Llama
from model.generation.grammar import JsonSchema
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.extraction.definitions import note_of
from tasks.evaluation import calibration, generation, harness, notes
from tasks.evaluation.decoding import Request, answer
from tasks.evaluation.items import EvaluationItems
from tasks.evaluation.likelihood import ScoringConfig, score_tokens
from tasks.evaluation.notes import Fields, Note
from tasks.evaluation.params import StructuredParams, ValidateParams
from tasks.evaluation.probes import Item, Value
from tasks.evaluation.structured import Counts
from tasks.runtime.digests import tree_sha256
from tasks.runtime.files import whole

CACHE = Path(".cache/evaluation")
KEPT = 8  # files; each is some hundred kB
PROMPT_SLOTS = 8


@dataclass(frozen=True)
class ModelValues:
    """One model's values on the items; the other parts are those of the test answers, of the notes and of the prompts."""

    values: list[Value]
    confidence: calibration.Counts
    fields: Fields
    few_shot_fields: Fields  # empty of a tuned model, which is not asked with examples
    texts: list[str]


def score_model(checkpoint: Path, items: EvaluationItems, tasks: harness.Tasks, params: ValidateParams, role: str) -> ModelValues:
    """Score all items under one model; all likelihoods in one call, so that texts of similar length share a forward pass.

    ``role``: the base model is asked about notes twice, with examples the second time.
    """
    llama = Llama.build(checkpoint, max_batch_size=max(PROMPT_SLOTS, len(params.prompts)))
    config = ScoringConfig(params.batch_tokens, params.precision)
    texts = [text for probe in items.probes for text in probe.texts]
    scores = iter(score_tokens(llama, texts, config, label=f"scoring {role}"))
    by_probe = [list(islice(scores, len(probe.texts))) for probe in items.probes]
    values = [value for probe, of_probe in zip(items.probes, by_probe, strict=True) for value in probe.values(of_probe)]
    groups = [items.groups[entry.id] for entry in items.answers.entries]
    from_answers, fields, few_shot_fields = _from_answers(llama, items, params, role)
    values += from_answers
    values += harness.values(llama, tasks, config)
    return ModelValues(values, calibration.count_by_confidence(by_probe[0], groups), fields, few_shot_fields, _prompt_texts(llama, params))


def _from_answers(llama: Llama, items: EvaluationItems, params: ValidateParams, role: str) -> tuple[list[Value], Fields, Fields]:
    """Values of generated answers, and the counts by field without and with examples."""
    prose, limit = params.max_new_tokens, params.structured.max_new_tokens
    requests = [Request(prompted.prompt, prose, prose) for prompted in items.generated]
    schemas = {note.document.id: _schema(note, llama.tokenizer, params.structured) for note in items.notes}
    requests += [Request(note.prompt, limit, prose, schemas[note.document.id]) for note in items.notes]
    answers = answer(llama, requests, label=f"generating, {role}")
    of_notes = answers[len(items.generated) :]
    documents = [*(prompted.document for prompted in items.generated), *(note.document for note in items.notes)]
    forms = [*([] for _ in items.generated), *(llama.tokenizer.encode(note.document.answer) for note in items.notes)]
    marked = notes.marks(items.notes, of_notes)
    values = [*generation.values(documents, answers, forms), *notes.values(items.notes, marked)]
    fields, few_shot_fields = notes.by_field(items.notes, marked), Fields()
    with_examples = [note for note in items.notes if note.few_shot]
    if role == "base":
        requests = [Request(note.few_shot, limit, prose, schemas[note.document.id]) for note in with_examples]
        few_shot = notes.marks(with_examples, answer(llama, requests, label="generating, base with examples"))
        few_shot_fields = notes.by_field(with_examples, few_shot)
    else:
        few_shot = [of_note for note, of_note in zip(items.notes, marked, strict=True) if note.few_shot]
    return [*values, *notes.few_shot_values(with_examples, few_shot)], fields, few_shot_fields


def _schema(note: Note, tokenizer: Tokenizer, params: StructuredParams) -> JsonSchema | None:
    """What the answer about a note must fit; None: it may be any text."""
    if not params.constrained:
        return None
    try:
        return JsonSchema(note.task.schema, tokenizer, grounded_in=note_of(note.document) if params.grounded else None)
    except ValueError as error:
        key = "params.yaml: validate.structured.grounded must be false"
        raise ValueError(f"{key}: {error} ({note.document.id}, {note.document.source})" if params.grounded else str(error)) from None


def _prompt_texts(llama: Llama, params: ValidateParams) -> list[str]:
    if not params.prompts:
        return []
    dialogs = [[{"role": "user", "content": prompt}] for prompt in params.prompts]
    settings = {"max_gen_len": params.max_new_tokens, "temperature": params.temperature, "top_p": params.top_p, "seed": params.seed}
    return [c.text.strip() for c in llama.chat_completion(dialogs, **settings)]  # type: ignore[arg-type]


def base_values(
    base: Path, items: EvaluationItems, tasks: harness.Tasks, params: ValidateParams, *, scorer: str, scored: str, cache: Path
) -> ModelValues:
    """The base model's values: kept ones, or computed and then kept. ``scorer``, ``scored``: digests of the code and of the items."""
    key = _key(base, params, scorer, scored)
    path = cache / f"{key}.json"
    if (kept := _read(path)) is not None:
        print("validate: the base model was scored on these items before; its values are kept in .cache", flush=True)
        os.utime(path)
        return kept
    values = score_model(base, items, tasks, params, "base")
    _keep(path, values)
    return values


def _key(base: Path, params: ValidateParams, scorer: str, scored: str) -> str:
    """Digest of all that decides a value's bits: weights, items, scorer, params, and what computes here."""
    machine = [torch.__version__, torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]
    machine += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    parts = [tree_sha256(base), scorer, scored, params.model_dump_json(), *machine]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(path: Path) -> ModelValues | None:
    """None where there is no such file, or one that was not written whole by this version."""
    try:
        raw = json.loads(path.read_bytes())
        return ModelValues(
            values=[Value(metric, Item(*item), weight, total) for metric, item, weight, total in raw["values"]],
            confidence=np.array(raw["confidence"], np.float64).reshape(-1, calibration.BINS, 3),
            fields=_fields(raw["fields"]),
            few_shot_fields=_fields(raw["few_shot_fields"]),
            texts=[str(text) for text in raw["texts"]],
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _fields(raw: dict[str, Any]) -> Fields:
    return {
        split: {task: {path: Counts(*counts) for path, counts in paths.items()} for task, paths in by_task.items()}
        for split, by_task in raw.items()
    }


def _keep(path: Path, result: ModelValues) -> None:
    """Write a file that its owner alone may read; the oldest go."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = [(value.metric, value.item, value.weight, value.total) for value in result.values]
    content = asdict(result) | {"values": values, "confidence": result.confidence.tolist()}
    with whole(path, unique=True) as partial, open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file)
    oldest = sorted(path.parent.glob("*.json"), key=lambda kept: kept.stat().st_mtime)
    for surplus in oldest[:-KEPT]:
        surplus.unlink(missing_ok=True)
