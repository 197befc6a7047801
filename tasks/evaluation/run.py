"""Base beside tuned on documents that training never saw: the whole evaluation.

    probes (evaluation/, memorization.py) ──► texts ──► judge(base), judge(tuned) ──► values ──► scores.jsonl ──► metrics, report
    generation.py, harness.py ─────────────────────────────────────────────────────────►

A pure function of its inputs. Both models see the same tokens, and every item's score is kept, so that a later model can be compared
with this one item by item. Nothing is compared with earlier versions here.
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
from tasks.corpus.shards.format import Split, open_split, read_index
from tasks.evaluation import calibration, generation, harness
from tasks.evaluation.answers import Answers, select
from tasks.evaluation.behaviour import BEHAVIOUR, GENERAL, GeneralText, Preferences, pairs, passages
from tasks.evaluation.choice import Choices, questions
from tasks.evaluation.likelihood import Judged, Reader, judge
from tasks.evaluation.memorization import Extraction
from tasks.evaluation.params import ValidateParams
from tasks.evaluation.probes import Probe, Value, digest, paired
from tasks.evaluation.report import page
from tasks.evaluation.scores import write_scores
from tasks.evaluation.table import Table, table, told
from tasks.evaluation.wording import Wording
from tasks.runtime.digests import code_digest
from tasks.runtime.files import write_whole

TEST, OTHER, TRAIN = "test", "other", "train"
ROOT = Path(__file__).resolve().parents[2]
# The code that decides a score, given the tokens and the weights; more than that does no harm, less would.
SCORING = tuple(ROOT / folder for folder in ("model", "tasks/corpus/shards", "tasks/evaluation"))


@dataclass(frozen=True)
class Questions:
    """Everything that is asked of a model; ``answers`` are the test split's."""

    probes: tuple[Probe, ...]
    answers: Answers
    generated: tuple[Document, ...]


@dataclass(frozen=True)
class Replies:
    """What one model made of them."""

    values: list[Value]
    answers: list[Judged]
    texts: list[str]  # to the prompts


def evaluate(base: Path, tuned: Path, documents: Path, cleaning: Path, shards: Path, evaluation: Path, params: ValidateParams) -> Table:
    """Score both models on the same tokens, let both answer the prompts, write scores, metrics and a report.

    ``cleaning`` is preprocess's report, which knows whether everybody may read what the sources say.
    """
    tokenizer = Tokenizer.from_path(tuned)
    if read_index(shards)["tokenizer"] != tokenizer.digest:
        raise ValueError(f"{shards} was made with another tokenizer or chat template than {tuned} has; run 'dvc repro shard'")
    public = bool(json.loads((cleaning / "funnel.json").read_bytes())["public"])
    tasks = harness.load(params.tasks)
    asked = ask(documents, shards, tokenizer, params)
    replies = {role: reply(directory, asked, tasks, params, role) for role, directory in (("base", base), ("tuned", tuned))}
    scores = paired(replies["base"].values, replies["tuned"].values)
    reliability = {role: calibration.counted(of_role.answers) for role, of_role in replies.items()}
    metrics = table(scores)
    metrics[TEST]["all"]["calibration_error"] = _calibration(reliability)
    evaluation.mkdir(parents=True)
    write_scores(scores, evaluation)
    write_whole(evaluation / "metrics.json", metrics)
    write_whole(evaluation / "scorer.json", {"scorer": _scorer(params), "items": _items(asked, tasks)})
    write_whole(evaluation / "calibration.json", {role: calibration.bins(counts) for role, counts in reliability.items()})
    texts = zip(params.prompts, replies["base"].texts, replies["tuned"].texts, strict=True)
    # A tuned model may say by heart what it was trained on.
    answers = [{"prompt": p, "base": b, "tuned": t if public else None} for p, b, t in texts]
    write_whole(evaluation / "answers.json", answers)
    facts = {"wording_share": asked.answers.wording_share(), "max_new_tokens": params.max_new_tokens, "target": params.extraction.target}
    (evaluation / "report.html").write_text(page(metrics, reliability, answers, facts), encoding="utf-8")
    print(f"validate: {_in_short(metrics)}")
    return metrics


def ask(documents: Path, shards: Path, tokenizer: Tokenizer, params: ValidateParams) -> Questions:
    """Choose and make all items; which, follows from the seed, the documents and the shards."""
    splits = {name: open_split(shards, name) for name in (TEST, OTHER, TRAIN)}
    chosen = {name: select(splits[name], seed=params.seed, max_tokens=params.max_tokens) for name in (TEST, OTHER)}
    if not chosen[TEST]:
        raise ValueError(f"{shards} holds no test documents; look at the splits in data/ and at preprocess.test_share in params.yaml")
    held_out = list(read_documents(documents, TEST))
    if {d.id for d in held_out} != {entry.id for entry in splits[TEST].entries}:
        raise ValueError(f"{documents} and {shards} hold different test documents; run 'dvc repro shard'")
    wording = Wording(splits[TRAIN], params.wording)
    answers = {name: Answers(name, splits[name], chosen[name], wording) for name in (TEST, OTHER)}
    probes: tuple[Probe, ...] = (
        answers[TEST],
        answers[OTHER],
        Choices(questions(held_out, seed=params.seed, per_kind=params.choices), tokenizer),
        Preferences(pairs() if tokenizer.template else [], tokenizer),  # running text needs no chat template
        GeneralText([*passages(), *_general(documents, splits[TRAIN], params)], tokenizer),
        *(Extraction(name, splits[name], params.extraction, seed=params.seed) for name in (TRAIN, TEST)),
    )
    generated = generation.asked(held_out, seed=params.seed, count=params.generations)
    return Questions(probes, answers[TEST], tuple(generated))


def reply(directory: Path, asked: Questions, tasks: harness.Tasks, params: ValidateParams, role: str) -> Replies:
    """All that is asked of one model; all likelihoods in one go, so that texts of like length share a pass."""
    llama = Llama.build(directory, max_batch_size=max(generation.TOGETHER, len(params.prompts)))
    reader = Reader(params.batch_tokens, params.precision)
    texts = [text for probe in asked.probes for text in probe.texts]
    judged = iter(judge(llama, texts, reader, what=f"scoring {role}"))
    of_probes = [list(islice(judged, len(probe.texts))) for probe in asked.probes]
    values = [value for probe, some in zip(asked.probes, of_probes, strict=True) for value in probe.values(some)]
    values += generation.generate(llama, asked.generated, max_new_tokens=params.max_new_tokens, what=f"generating, {role}")
    values += harness.values(llama, tasks, reader)
    return Replies(values, of_probes[0], _texts(llama, params))


def _general(documents: Path, train: Split, params: ValidateParams) -> list[Document]:
    """Documents of the split replay that augment did not mix into training, up to ``max_tokens`` characters' worth of text."""
    mixed_in = {entry.id for entry in train.entries}
    found, characters = [], 0
    for document in read_documents(documents, "replay"):
        if params.max_tokens and characters > 4 * params.max_tokens:  # about four characters are a token
            break
        if document.id not in mixed_in:
            characters += len(document.answer)
            found.append(document)
    return found


def _texts(llama: Llama, params: ValidateParams) -> list[str]:
    if not params.prompts:
        return []
    dialogs = [[{"role": "user", "content": prompt}] for prompt in params.prompts]
    settings = {"max_gen_len": params.max_new_tokens, "temperature": params.temperature, "top_p": params.top_p, "seed": params.seed}
    return [c.text.strip() for c in llama.chat_completion(dialogs, **settings)]  # type: ignore[arg-type]


def _calibration(counts: dict[str, calibration.Counts]) -> dict[str, Any]:
    """In the form of a row of the table."""
    row: dict[str, Any] = {"items": len(counts["base"]), "weight": float(counts["base"][..., 0].sum())}
    row |= {role: told(calibration.errors(of_role)) for role, of_role in counts.items()}
    return row | {"change": told(calibration.change(counts["base"], counts["tuned"]))}


def _scorer(params: ValidateParams) -> str:
    """Digest of the scoring code and of the params that change a score; which items are scored is another digest's matter."""
    which = {"seed", "max_tokens", "choices", "generations", "batch_tokens", "temperature", "top_p", "prompts", "tasks"}
    sha = hashlib.sha256(params.model_dump_json(exclude=which).encode())
    sha.update(code_digest(SCORING).encode())
    return sha.hexdigest()


def _items(asked: Questions, tasks: harness.Tasks) -> str:
    sha = hashlib.sha256()
    for probe in asked.probes:
        sha.update(f"{type(probe).__name__} {digest(probe.texts)}\n".encode())
    for path in (BEHAVIOUR, GENERAL):
        sha.update(path.read_bytes())
    sha.update("\n".join([*(d.id for d in asked.generated), *(task.sha256 for task in tasks)]).encode())
    return sha.hexdigest()


def _in_short(metrics: Table) -> str:
    rows = metrics[TEST]["all"]
    told = [f"answer perplexity {_arrow(rows['answer_nll']['perplexity'], '.2f')}"]
    if "choice" in rows:
        told.append(f"right choices {_arrow({role: rows['choice'][role]['value'] for role in ('base', 'tuned')}, '.0%')}")
    return f"{', '.join(told)} ({rows['answer_nll']['weight']:,.0f} tokens of {rows['answer_nll']['items']:,} held-out answers)"


def _arrow(values: dict[str, float], form: str) -> str:
    return f"{values['base']:{form}} → {values['tuned']:{form}}"
