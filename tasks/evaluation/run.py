"""The base and the tuned model on documents that training never saw: the whole evaluation.

    probes (answers.py, choice.py, …) ──► texts ──► score_tokens(base), score_tokens(tuned) ──► values
    generation.py, harness.py ────────────────────────────────────────────────────────────────► values
    values ──► scores.jsonl ──► metrics, report

A pure function of its inputs. Both models are scored on the same tokens, and every item's score is kept, so that a later model can be
compared with this one item by item. Nothing is compared with earlier versions here.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from model.generation.completion import Llama
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document, read_documents
from tasks.corpus.shards.format import Shards, Split
from tasks.evaluation import calibration, generation, harness
from tasks.evaluation.answers import Answers, select
from tasks.evaluation.behaviour import BEHAVIOUR, GENERAL, GeneralText, Preferences, pairs, passages
from tasks.evaluation.boilerplate import BoilerplateModel
from tasks.evaluation.choice import Choices, questions
from tasks.evaluation.likelihood import ScoringConfig, TokenScores, score_tokens
from tasks.evaluation.memorization import Extraction
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.probes import Probe, Value, digest, paired
from tasks.evaluation.report import page
from tasks.evaluation.scores import write_scores
from tasks.evaluation.table import Table, cell, table
from tasks.runtime.digests import code_digest
from tasks.runtime.files import write_whole

TEST, OOD, TRAIN = "test", "ood", "train"
ROOT = Path(__file__).resolve().parents[2]
# The code that decides a score, given the tokens and the weights; more than that does no harm, less would.
SCORING = tuple(ROOT / folder for folder in ("model", "tasks/corpus/shards", "tasks/evaluation"))


@dataclass(frozen=True)
class EvaluationItems:
    """All items of an evaluation; ``answers`` is the probe of the test split's answers."""

    probes: tuple[Probe, ...]
    answers: Answers
    generated: tuple[Document, ...]


@dataclass(frozen=True)
class ModelResult:
    """One model's values on these items, the token scores of the test answers, and its texts for the prompts."""

    values: list[Value]
    answers: list[TokenScores]
    texts: list[str]


def evaluate(base: Path, tuned: Path, documents: Path, cleaning: Path, shards: Path, evaluation: Path, params: ValidateParams) -> Table:
    """Score both models on the same tokens, answer the prompts with both, write scores, metrics and a report.

    ``cleaning`` is preprocess's report; its ``public`` says whether everybody may read the sources. ``ValueError`` where shards,
    documents and tokenizer do not belong together.
    """
    tokenizer = Tokenizer.from_path(tuned)
    opened = Shards(shards)
    if opened.tokenizer != tokenizer.digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {tuned} has; run 'dvc repro shard'")
    public = bool(json.loads((cleaning / "funnel.json").read_bytes())["public"])
    tasks = harness.load(params.tasks)
    items = build_items(documents, opened, tokenizer, params)
    results = {role: run_model(checkpoint, items, tasks, params, role) for role, checkpoint in (("base", base), ("tuned", tuned))}
    scores = paired(results["base"].values, results["tuned"].values)
    reliability = {role: calibration.count_by_confidence(result.answers) for role, result in results.items()}
    metrics = table(scores)
    metrics[TEST]["all"]["calibration_error"] = _calibration(reliability)
    evaluation.mkdir(parents=True)
    write_scores(scores, evaluation)
    write_whole(evaluation / "metrics.json", metrics)
    write_whole(evaluation / "scorer.json", {"scorer": _scorer_digest(params), "items": _items_digest(items, tasks)})
    write_whole(evaluation / "calibration.json", {role: calibration.bins(counts) for role, counts in reliability.items()})
    texts = zip(params.prompts, results["base"].texts, results["tuned"].texts, strict=True)
    # A tuned model may repeat its training text word for word.
    answers = [{"prompt": p, "base": b, "tuned": t if public else None} for p, b, t in texts]
    write_whole(evaluation / "answers.json", answers)
    details = {
        "boilerplate_share": items.answers.boilerplate_share(),
        "max_new_tokens": params.max_new_tokens,
        "target": params.extraction.target,
    }
    (evaluation / "report.html").write_text(page(metrics, reliability, answers, details), encoding="utf-8")
    print(f"validate: {_summary(metrics)}")
    return metrics


def build_items(documents: Path, shards: Shards, tokenizer: Tokenizer, params: ValidateParams) -> EvaluationItems:
    """Choose and build all items; the seed, the documents and the shards alone decide which."""
    splits = {name: shards.open(name) for name in (TEST, OOD, TRAIN)}
    chosen = {name: select(splits[name], seed=params.seed, max_tokens=params.max_tokens) for name in (TEST, OOD)}
    if not chosen[TEST]:
        raise ValueError(
            f"{shards.directory} holds no test documents; look at the splits in data/ and at preprocess.test_share in params.yaml"
        )
    held_out = list(read_documents(documents, TEST))
    if {d.id for d in held_out} != {entry.id for entry in splits[TEST].entries}:
        raise ValueError(f"{documents} and {shards.directory} hold different test documents; run 'dvc repro shard'")
    boilerplate = BoilerplateModel(splits[TRAIN], params.boilerplate)
    answers = {name: Answers(name, splits[name], chosen[name], boilerplate) for name in (TEST, OOD)}
    probes: tuple[Probe, ...] = (
        answers[TEST],
        answers[OOD],
        Choices(questions(held_out, seed=params.seed, per_category=params.choices), tokenizer),
        Preferences(pairs() if tokenizer.template else [], tokenizer),  # questions need a chat template
        GeneralText([*passages(), *_general_documents(documents, splits[TRAIN], params)], tokenizer),
        *(Extraction(name, splits[name], params.extraction, seed=params.seed) for name in (TRAIN, TEST)),
    )
    generated = generation.select(held_out, seed=params.seed, count=params.generations)
    return EvaluationItems(probes, answers[TEST], tuple(generated))


def run_model(checkpoint: Path, items: EvaluationItems, tasks: harness.Tasks, params: ValidateParams, role: str) -> ModelResult:
    """Score all items under one model; all likelihoods in one call, so that texts of similar length share a forward pass."""
    llama = Llama.build(checkpoint, max_batch_size=max(generation.BATCH_SIZE, len(params.prompts)))
    config = ScoringConfig(params.batch_tokens, params.precision)
    texts = [text for probe in items.probes for text in probe.texts]
    scores = iter(score_tokens(llama, texts, config, label=f"scoring {role}"))
    by_probe = [list(islice(scores, len(probe.texts))) for probe in items.probes]
    values = [value for probe, of_probe in zip(items.probes, by_probe, strict=True) for value in probe.values(of_probe)]
    values += generation.generate(llama, items.generated, max_new_tokens=params.max_new_tokens, label=f"generating, {role}")
    values += harness.values(llama, tasks, config)
    return ModelResult(values, by_probe[0], _prompt_texts(llama, params))


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


def _prompt_texts(llama: Llama, params: ValidateParams) -> list[str]:
    if not params.prompts:
        return []
    dialogs = [[{"role": "user", "content": prompt}] for prompt in params.prompts]
    settings = {"max_gen_len": params.max_new_tokens, "temperature": params.temperature, "top_p": params.top_p, "seed": params.seed}
    return [c.text.strip() for c in llama.chat_completion(dialogs, **settings)]  # type: ignore[arg-type]


def _calibration(counts: dict[str, calibration.Counts]) -> dict[str, Any]:
    """The calibration error as a row of the table."""
    row: dict[str, Any] = {"items": len(counts["base"]), "weight": float(counts["base"][..., 0].sum())}
    row |= {role: cell(calibration.error(of_role)) for role, of_role in counts.items()}
    return row | {"change": cell(calibration.change(counts["base"], counts["tuned"]))}


def _scorer_digest(params: ValidateParams) -> str:
    """Digest of the scoring code and of the params that change a score; ``_items_digest`` covers which items are scored."""
    of_items = {"seed", "max_tokens", "choices", "generations", "batch_tokens", "temperature", "top_p", "prompts", "tasks"}
    sha = hashlib.sha256(params.model_dump_json(exclude=of_items).encode())
    sha.update(code_digest(SCORING).encode())
    return sha.hexdigest()


def _items_digest(items: EvaluationItems, tasks: harness.Tasks) -> str:
    """Digest of what is scored: the texts of all probes, the tables here, the generated documents and the harness's tasks."""
    sha = hashlib.sha256()
    for probe in items.probes:
        sha.update(f"{type(probe).__name__} {digest(probe.texts)}\n".encode())
    for path in (BEHAVIOUR, GENERAL):
        sha.update(path.read_bytes())
    sha.update("\n".join([*(d.id for d in items.generated), *(task.sha256 for task in tasks)]).encode())
    return sha.hexdigest()


def _summary(metrics: Table) -> str:
    rows = metrics[TEST]["all"]
    parts = [f"answer perplexity {_arrow(rows['answer_nll']['perplexity'], '.2f')}"]
    if "choice" in rows:
        parts.append(f"right choices {_arrow({role: rows['choice'][role]['value'] for role in ('base', 'tuned')}, '.0%')}")
    return f"{', '.join(parts)} ({rows['answer_nll']['weight']:,.0f} tokens of {rows['answer_nll']['items']:,} held-out answers)"


def _arrow(values: dict[str, float], spec: str) -> str:
    return f"{values['base']:{spec}} → {values['tuned']:{spec}}"
