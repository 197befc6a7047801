"""Base beside tuned on documents that training never saw: ``python -m tasks.validate``.

A pure function of its inputs: perplexity of the answers' tokens on a fixed sample of the test split, of text of another origin where
there is some, per kind, and both models' answers to fixed prompts. Nothing is compared with earlier versions here.
"""

import html
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from model.completion import Llama
from model.loss import perplexity, token_losses
from model.precision import Precision, autocast
from model.tokenizer import Tokenizer
from tasks.documents import share
from tasks.packing import Piece, stacked
from tasks.progress import progress
from tasks.record import write_whole
from tasks.stage import Out, Params, Summary, run_stage
from tasks.tokenfile import Split, open_split, read_index

TEST, OTHER = "test", "other"


class ValidateParams(Params):
    seed: int
    max_tokens: int = Field(ge=0)  # answer tokens per kind; 0: all
    batch_tokens: int = Field(ge=1)
    precision: Precision
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """A document's answer under both models: sums of negative log-likelihood in nats."""

    id: str
    split: str
    kind: str
    tokens: int
    base_nats: float
    tuned_nats: float


def validate(base: Path, tuned: Path, shards: Path, evaluation: Out, *, params: ValidateParams) -> Summary:
    """Score both models on the same tokens, let both answer the prompts, write scores, metrics and a report."""
    if read_index(shards)["tokenizer"] != Tokenizer.from_path(tuned).digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {tuned} has; run 'dvc repro shard'")
    splits = {name: open_split(shards, name) for name in (TEST, OTHER)}
    chosen = {name: select(split, params) for name, split in splits.items()}
    if not chosen[TEST]:
        raise ValueError(f"{shards} holds no test documents; look at the splits in data/ and at preprocess.test_share in params.yaml")
    nats, answers = {}, {}
    for role, directory in (("base", base), ("tuned", tuned)):
        llama = Llama.build(directory, max_batch_size=max(1, len(params.prompts)))
        nats[role] = {name: document_nats(llama, splits[name], chosen[name], params, f"{role}, {name}") for name in splits}
        answers[role] = _answers(llama, params)
    scores = [
        Score(splits[name].entries[n].id, name, splits[name].entries[n].kind, count, nats["base"][name][i][0], tuned_nats)
        for name in splits
        for i, (n, (tuned_nats, count)) in enumerate(zip(chosen[name], nats["tuned"][name], strict=True))
    ]
    metrics = table(scores)
    evaluation.mkdir(parents=True)
    with open(evaluation / "scores.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(score)) + "\n" for score in scores)
    write_whole(evaluation / "metrics.json", metrics)
    pairs = [{"prompt": p, "base": b, "tuned": t} for p, b, t in zip(params.prompts, answers["base"], answers["tuned"], strict=True)]
    write_whole(evaluation / "answers.json", pairs)
    (evaluation / "report.html").write_text(report(metrics, pairs), encoding="utf-8")
    overall = metrics[TEST]["all"]
    print(
        f"validate: answer perplexity {overall['base_perplexity']:.2f} → {overall['tuned_perplexity']:.2f} ({overall['tokens']:,} tokens)"
    )
    return Summary(metrics=flat(metrics), reports=("evaluation",))


def select(split: Split, params: ValidateParams) -> list[int]:
    """Numbers of the documents to score: per kind, in an order that the seed fixes, up to ``max_tokens`` answer tokens."""
    taken: dict[str, int] = {}
    chosen = []
    for number in sorted(range(len(split)), key=lambda n: share(params.seed, split.entries[n].id)):
        kind = split.entries[number].kind
        if params.max_tokens and taken.get(kind, 0) >= params.max_tokens:
            continue
        supervised = int(split.document(number)[1][1:].sum())
        if supervised:
            taken[kind] = taken.get(kind, 0) + supervised
            chosen.append(number)
    return chosen


@torch.inference_mode()
def document_nats(llama: Llama, split: Split, numbers: list[int], params: ValidateParams, what: str) -> list[tuple[float, int]]:
    """Sum of negative log-likelihood and count of supervised tokens of each document, in the order of ``numbers``.

    A document longer than the context is scored in pieces that overlap by one token.
    """
    lengths, context = split.lengths(), llama.model.config.max_seq_len
    parts = [
        Piece(n, start, min(start + context, int(lengths[n])))
        for n in numbers
        for start in range(0, max(1, int(lengths[n]) - 1), context - 1)
    ]
    parts.sort(key=lambda p: p.stop - p.start)
    totals: dict[int, tuple[float, int]] = {}
    bar = progress(total=int(sum(p.stop - p.start for p in parts)), unit="token", what=f"scoring {what}")
    for group in _grouped(parts, params.batch_tokens):
        batch = stacked([[piece] for piece in group], split, max(p.stop - p.start for p in group)).to(llama.model.norm.weight.device)
        with autocast(batch.tokens.device, params.precision):
            losses = token_losses(llama.model.hidden(batch.tokens), llama.model.lm_head, batch.tokens, batch.supervised)
        for piece, of_piece in zip(group, losses.split(batch.supervised.sum(1).tolist()), strict=True):
            nats, count = totals.get(piece.document, (0.0, 0))
            totals[piece.document] = nats + float(of_piece.double().sum()), count + len(of_piece)
        bar.update(sum(p.stop - p.start for p in group))
    bar.close()
    return [totals[n] for n in numbers]


def _grouped(parts: list[Piece], most: int) -> Iterable[list[Piece]]:
    """Pieces, sorted by length, in groups that fill at most ``most`` positions when padded to their longest."""
    group: list[Piece] = []
    for piece in parts:
        if group and (len(group) + 1) * (piece.stop - piece.start) > most:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def table(scores: list[Score]) -> dict[str, dict[str, Any]]:
    """Perplexities by split and kind, and over all of a split's tokens."""
    metrics: dict[str, dict[str, Any]] = {}
    for split in (TEST, OTHER):
        members = [s for s in scores if s.split == split]
        rows = {kind: [s for s in members if s.kind == kind] for kind in sorted({s.kind for s in members})}
        metrics[split] = {kind: _row(of_kind) for kind, of_kind in rows.items()} | ({"all": _row(members)} if members else {})
    return metrics


def _row(scores: list[Score]) -> dict[str, float | int]:
    tokens = sum(s.tokens for s in scores)
    base, tuned = (math.fsum(values) / tokens for values in ((s.base_nats for s in scores), (s.tuned_nats for s in scores)))
    row: dict[str, float | int] = {"documents": len(scores), "tokens": tokens}
    return row | {"base_perplexity": perplexity(base), "tuned_perplexity": perplexity(tuned), "ratio": math.exp(tuned - base)}


def flat(metrics: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The table as single numbers: ``test/all/ratio`` and so on."""
    return {f"{s}/{k}/{n}": float(v) for s, kinds in metrics.items() for k, row in kinds.items() for n, v in row.items()}


def _answers(llama: Llama, params: ValidateParams) -> list[str]:
    if not params.prompts:
        return []
    dialogs = [[{"role": "user", "content": prompt}] for prompt in params.prompts]
    settings = {"max_gen_len": params.max_new_tokens, "temperature": params.temperature, "top_p": params.top_p, "seed": params.seed}
    return [c.text.strip() for c in llama.chat_completion(dialogs, **settings)]  # type: ignore[arg-type]


def report(metrics: dict[str, dict[str, Any]], answers: list[dict[str, str]]) -> str:
    """A page that a person can read, complete in itself."""
    body = ["<h1>Evaluation: base beside tuned</h1>"]
    body.append("<p>Perplexity of the answers' tokens, the same tokens for both models; lower is better. None of the groups that the")
    body.append("documents belong to was trained on. The first thing a short run learns is how answers are worded.</p>")
    for split, title in ((TEST, "Held-out documents"), (OTHER, "Text of another origin")):
        if metrics[split]:
            body += [f"<h2>{title}</h2>", "<table><tr><th>kind<th>documents<th>tokens<th>base<th>tuned<th>tuned / base</tr>"]
            for kind, row in metrics[split].items():
                cells = f"<td>{row['documents']:,}<td>{row['tokens']:,}<td>{row['base_perplexity']:.2f}<td>{row['tuned_perplexity']:.2f}"
                body.append(f"<tr><td>{html.escape(kind)}{cells}<td>{row['ratio']:.2f}</tr>")
            body.append("</table>")
    body.append("<h2>Answers</h2><p>Not medical advice: models of this size make facts up.</p>")
    for pair in answers:
        body.append(f"<h3>{html.escape(pair['prompt'])}</h3><table><tr><th>base<th>tuned</tr>")
        body.append(f"<tr><td>{html.escape(pair['base'])}<td>{html.escape(pair['tuned'])}</tr></table>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
        + "\n".join(body)
        + "</html>\n"
    )


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; table-layout: auto }
td, th { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
"""

if __name__ == "__main__":
    run_stage(validate)
