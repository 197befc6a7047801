"""The base and the tuned model on documents that training never saw: the whole evaluation.

    items.py ──► texts, prompts, notes ──► model_values.py, for base and tuned ──► values
    values ──► scores.jsonl ──► metrics, report

A pure function of its inputs. Both models are scored on the same items, and every item's score is kept, so that a later model can be
compared with this one item by item. Nothing is compared with earlier versions here.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.shards.format import Shards
from tasks.evaluation import calibration, harness
from tasks.evaluation.fields import field_table
from tasks.evaluation.headline import headline
from tasks.evaluation.items import TEST, EvaluationItems, build_items, items_digest
from tasks.evaluation.model_values import CACHE, ModelValues, base_values, score_model
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.probes import paired
from tasks.evaluation.report import page
from tasks.evaluation.scores import Score, write_scores
from tasks.evaluation.table import Table, cell, table
from tasks.runtime.digests import code_digest
from tasks.runtime.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
# The code that decides a score, given the items and the weights; more than that does no harm, less would.
SCORING = tuple(ROOT / folder for folder in ("model", "tasks/corpus/shards", "tasks/evaluation"))
# Params that choose items, or that no score depends on. What is shown for the prompts is no score.
_CHOOSING = ("seed", "max_tokens", "choices", "generations", "batch_tokens", "temperature", "top_p", "prompts", "tasks")
ITEM_PARAMS: dict[str, Any] = dict.fromkeys(_CHOOSING, True) | {
    "structured": dict.fromkeys(("notes", "ood_notes", "examples", "rest"), True)
}


def evaluate(
    base: Path,
    tuned: Path,
    documents: Path,
    cleaning: Path,
    shards: Path,
    evaluation: Path,
    params: ValidateParams,
    *,
    cache: Path = CACHE,
) -> Table:
    """Score both models on the same items, answer the prompts with both, write scores, metrics and a report.

    ``cleaning`` is preprocess's report; its ``public`` says whether everybody may read the sources. ``cache``: where the base model's
    values are kept. ``ValueError`` where shards, documents and tokenizer do not belong together.
    """
    tokenizer = Tokenizer.from_path(tuned)
    opened = Shards(shards)
    if opened.tokenizer != tokenizer.digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {tuned} has; run 'dvc repro shard'")
    public = bool(json.loads((cleaning / "funnel.json").read_bytes())["public"])
    tasks = harness.load(params.tasks)
    items = build_items(documents, opened, base, tokenizer, params)
    scorer, scored = _scorer_digest(params), items_digest(items, tasks)
    results = {
        "base": base_values(base, items, tasks, params, scorer=scorer, scored=scored, cache=cache),
        "tuned": score_model(tuned, items, tasks, params, "tuned"),
    }
    scores = paired(results["base"].values, results["tuned"].values, items.groups)
    evaluation.mkdir(parents=True)
    # The extraction tasks stand there so that a gate can tell a corpus without any from one whose notes went missing.
    write_whole(evaluation / "scorer.json", {"scorer": scorer, "items": scored, "tasks": items.tasks})
    return _write(scores, results, items, evaluation, params, public=public)


def _write(
    scores: list[Score], results: dict[str, ModelValues], items: EvaluationItems, evaluation: Path, params: ValidateParams, *, public: bool
) -> Table:
    """All files that say what was measured; the table of metrics."""
    reliability = {role: result.confidence for role, result in results.items()}
    metrics = table(scores)
    metrics[TEST]["all"]["calibration_error"] = _calibration(reliability, len(items.answers.entries))
    fields = field_table(results["base"].fields, results["base"].few_shot_fields, results["tuned"].fields)
    write_scores(scores, evaluation)
    write_whole(evaluation / "metrics.json", metrics)
    write_whole(evaluation / "headline.json", headline(metrics))
    write_whole(evaluation / "fields.json", fields)
    write_whole(evaluation / "calibration.json", {role: calibration.bins(counts) for role, counts in reliability.items()})
    texts = zip(params.prompts, results["base"].texts, results["tuned"].texts, strict=True)
    # A tuned model may repeat its training text word for word.
    answers = [{"prompt": p, "base": b, "tuned": t if public else None} for p, b, t in texts]
    write_whole(evaluation / "answers.json", answers)
    details = {
        "boilerplate_share": items.answers.boilerplate_share(),
        "max_new_tokens": params.max_new_tokens,
        "target": params.extraction.target,
        "examples": params.structured.examples,
        "fields": fields,
    }
    (evaluation / "report.html").write_text(page(metrics, reliability, answers, details), encoding="utf-8")
    print(f"validate: {_summary(metrics)}")
    return metrics


def _calibration(counts: dict[str, calibration.Counts], documents: int) -> dict[str, Any]:
    """The calibration error as a row of the table."""
    row: dict[str, Any] = {"items": documents, "groups": len(counts["base"]), "weight": float(counts["base"][..., 0].sum())}
    row |= {role: cell(calibration.error(of_role)) for role, of_role in counts.items()}
    return row | {"change": cell(calibration.change(counts["base"], counts["tuned"]))}


def _scorer_digest(params: ValidateParams) -> str:
    """Digest of the scoring code and of the params that change a score; ``items_digest`` covers which items are scored."""
    sha = hashlib.sha256(params.model_dump_json(exclude=ITEM_PARAMS).encode())
    sha.update(code_digest(SCORING).encode())
    return sha.hexdigest()


def _summary(metrics: Table) -> str:
    rows = metrics[TEST]["all"]
    parts = []
    if "field_f1" in rows:
        values = {"base": rows["field_f1"]["base"]["value"], "tuned": rows["field_f1"]["tuned"]["value"]}
        parts.append(f"F1 of extracted fields {_arrow(values, '.2f')}")
        if "field_f1_few_shot" in rows:
            parts.append(f"of the base with examples {rows['field_f1_few_shot']['base']['value']:.2f}")
        parts.append(f"hallucinated {rows['hallucinated']['tuned']['value']:.1%}")
    parts.append(f"answer perplexity {_arrow(rows['answer_nll']['perplexity'], '.2f')}")
    if "choice" in rows:
        parts.append(f"right choices {_arrow({role: rows['choice'][role]['value'] for role in ('base', 'tuned')}, '.0%')}")
    return f"{', '.join(parts)} ({rows['answer_nll']['weight']:,.0f} tokens of {rows['answer_nll']['items']:,} held-out answers)"


def _arrow(values: dict[str, float], spec: str) -> str:
    return f"{values['base']:{spec}} → {values['tuned']:{spec}}"
