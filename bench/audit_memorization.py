"""What training memorizes: ``python -m bench.audit_memorization artifacts/base artifacts/shards artifacts/audit-memorization``.

Canaries, sentences with a random number that appears nowhere else, are injected into a sample of the train documents, some once, some
more often; the base model is fine-tuned on them as params.yaml says, for one epoch; and each canary's exposure is measured (Carlini et al.
2019, arXiv:1802.08232): by how many bits training shortened the guessing of its number. The shards are not changed, and the model
stays in this process: nothing writes or registers it, so it can never be promoted.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import torch

from model.checkpoint.load import load_model
from model.generation.completion import Llama
from model.llama import Transformer
from model.precision import use_bf16
from model.tokenizer.tokenizer import Tokenizer
from tasks.corpus.documents import Document, content_id
from tasks.corpus.shards.format import Entry, Split, open_split
from tasks.evaluation.likelihood import ScoringConfig, Text, score_tokens
from tasks.evaluation.probes import as_text
from tasks.params import read_params
from tasks.runtime import html
from tasks.runtime.files import write_whole
from tasks.runtime.permissions import close_to_others
from tasks.runtime.processes import tune_malloc
from tasks.training import optim
from tasks.training.checkpoints import State, trained
from tasks.training.distributed import ProcessGroup
from tasks.training.loop import train_steps
from tasks.training.packing import epoch_rows, sample
from tasks.training.params import FinetuneParams
from tasks.training.prepare import load_base_with_adapter, prepare_for_training

QUESTION, ANSWER = "What is the number of the sealed file?", "The number of the sealed file is {}."
DIGITS = 9
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Plan:
    """What is injected: ``each`` canaries for each of ``counts``, so many times, among ``documents`` train documents."""

    counts: tuple[int, ...] = (1, 10, 100)
    each: int = 3
    documents: int = 500
    references: int = 1023  # numbers that were not injected, among which a canary's is ranked
    limit: float = 6.0  # bits of exposure above which a text that often in training is refused
    seed: int = 2026


@dataclass(frozen=True)
class Exposure:
    """Exposure of canaries that were injected ``count`` times, in bits: at most log2(references + 1), about 1.4 by chance."""

    count: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    extracted: int  # canaries whose number greedy decoding writes
    refused: bool


def audit(base: Path, shards: Path, plan: Plan, training: FinetuneParams) -> list[Exposure]:
    """Inject the canaries, train, measure; ``ValueError`` where the shards hold nothing to train or validate on."""
    tokenizer = Tokenizer.from_path(base)
    numbers = _numbers(plan)
    injected = plan.each * len(plan.counts)  # the first; the others are references
    texts = [as_text(_canary(number), tokenizer) for number in numbers]
    times = [count for count in plan.counts for _ in range(plan.each)]
    train, held_out = open_split(shards, "train"), open_split(shards, "validation")
    if not len(train) or not len(held_out):
        raise ValueError(f"{shards} holds no train or no validation documents; run 'dvc repro shard'")
    split = _with_canaries(train, [text for text, n in zip(texts, times, strict=False) for _ in range(n)], plan)
    config = ScoringConfig(BATCH_TOKENS, training.precision)
    before = score_tokens(Llama(load_model(base, device=_device()), tokenizer), texts, config, label="before training")
    after = score_tokens(Llama(_trained(base, split, held_out, training), tokenizer), texts, config, label="after training")
    exposures = []
    for group, count in enumerate(plan.counts):
        own = range(group * plan.each, (group + 1) * plan.each)
        bits = [
            tuple(_exposure(float(scores[n].nll.sum()), [float(s.nll.sum()) for s in scores[injected:]]) for n in own)
            for scores in (before, after)
        ]
        extracted = sum(bool(after[n].is_greedy.all()) for n in own)
        exposures.append(Exposure(count, bits[0], bits[1], extracted, float(np.mean(bits[1])) > plan.limit))
    return exposures


def _numbers(plan: Plan) -> list[str]:
    """Different numbers, digit by digit, so that each is as many tokens."""
    random = np.random.default_rng(plan.seed)
    numbers: dict[str, None] = {}
    while len(numbers) < plan.each * len(plan.counts) + plan.references:
        numbers[" ".join(map(str, random.integers(10, size=DIGITS)))] = None
    return list(numbers)


def _canary(number: str) -> Document:
    key = content_id("canary", number)
    return Document(key, QUESTION, ANSWER.format(number), source="canary", category="canary", group=key, position="")


def _exposure(nll: float, others: Sequence[float]) -> float:
    rank = 1 + sum(other <= nll for other in others)
    return math.log2(len(others) + 1) - math.log2(rank)


def _with_canaries(train: Split, canaries: Sequence[Text], plan: Plan) -> Split:
    """A sample of the train documents with the canaries, in memory; training shuffles them."""
    indices = np.random.default_rng(plan.seed).permutation(len(train))[: plan.documents]
    documents = [*(train.document(int(n)) for n in indices), *((text.tokens, text.loss_mask) for text in canaries)]
    entries = [*(train.entries[int(n)] for n in indices), *(Entry(f"canary-{n}", "canary", "canary", 0) for n in range(len(canaries)))]
    tokens, loss = (np.concatenate([np.asarray(d[part]) for d in documents]) for part in (0, 1))
    starts = np.cumsum([0, *(len(d[0]) for d in documents)])
    return Split([tokens], [loss], [starts], entries, np.array([0, len(documents)]))


def _trained(base: Path, split: Split, held_out: Split, training: FinetuneParams) -> Transformer:
    """The base model after one epoch, as params.yaml trains; without states on disk and without the tracking store."""
    rows = epoch_rows(split, training.seq_len, seed=training.seed, limit=sys.maxsize)
    steps = max(1, -(-rows // training.batch))
    params = training.model_copy(
        update={
            "steps": steps,
            "epochs": 0.0,
            "warmup": min(training.warmup, steps - 1),
            "validate_every": steps,
            "keep": "last",
            "patience": 0,
        }
    )
    group = ProcessGroup(0, 1, _device())
    frozen = torch.bfloat16 if use_bf16(group.device, params.precision) else torch.float32
    model = load_base_with_adapter(base, params, device=group.device, frozen=frozen)
    layers = len(model.layers) if params.activation_checkpointing is True else 0
    model = prepare_for_training(model, params, group.device, checkpointed_layers=layers)
    optimizer = optim.make_optimizer(trained(model).values(), params)
    validation = sample(held_out, seed=params.seed, supervised=params.validation_tokens, seq_len=params.seq_len)
    train_steps(model, optimizer, split, held_out, validation, params, group, state=State())
    return model.eval()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def page(exposures: Sequence[Exposure], plan: Plan, steps_of: FinetuneParams) -> str:
    """The report, complete in itself; canaries are made up, so nothing in it is anybody's."""
    max_bits = math.log2(plan.references + 1)
    body = ["<h1>Memorization audit</h1>"]
    body.append(f"<p>{plan.each} canaries each were planted among {plan.documents:,} train documents, and the base model was fine-tuned")
    body.append(f"on them for one epoch ({escape(steps_of.mode)}, learning rate {steps_of.lr:g}). Exposure is in bits, from 0 to")
    body.append(
        f"{max_bits:.1f}, where the canary's number is likelier than all {plan.references:,} others; by chance it is 1.4. A repetition"
    )
    body.append(f"is refused above {plan.limit:g} bits. The model was thrown away.</p>")
    body.append("<table><tr><th>planted<th>exposure before<th>exposure after<th><th>written by greedy decoding<th></tr>")
    for e in exposures:
        mean = float(np.mean(e.after))
        bar = f'<svg width="200" height="14"><rect width="{200 * mean / max_bits:.0f}" height="14" fill="#4a7ab5"/></svg>'
        spread = f"{mean:.1f} ({min(e.after):.1f} to {max(e.after):.1f})"
        body.append(f"<tr><td>{e.count} times<td>{float(np.mean(e.before)):.1f}<td>{spread}<td>{bar}<td>{e.extracted} of {len(e.after)}")
        body.append(f"<td>{'refused' if e.refused else 'passes'}</tr>")
    body.append("</table><p>Limits: a short number in one fixed sentence, ranked among a sample of others; longer training, larger models")
    body.append("and text that occurs in several wordings may be memorized sooner.</p>")
    return html.page("Memorization audit", "{{ body | safe }}\n").render(body="\n".join(body))


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit_memorization", description="Plant canaries, train, measure exposure.")
    for name in ("base", "shards", "report"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=Plan.counts, help="how often canaries are planted (default 1 10 100)")
    parser.add_argument("--each", type=int, default=Plan.each, help="canaries per count (default 3)")
    parser.add_argument("--documents", type=int, default=Plan.documents, help="train documents among which they stand (default 500)")
    parser.add_argument("--limit", type=float, default=Plan.limit, help="bits of exposure above which a repetition is refused (default 6)")
    options = parser.parse_args()
    plan = replace(Plan(), counts=tuple(options.counts), each=options.each, documents=options.documents, limit=options.limit)
    tune_malloc()
    try:
        close_to_others()
        training = read_params()["finetune"]
        assert isinstance(training, FinetuneParams)
        exposures = audit(options.base, options.shards, plan, training)
    except (ValueError, OSError) as error:
        sys.exit(f"audit_memorization: {error}")
    options.report.mkdir(parents=True, exist_ok=True)
    result = {"plan": asdict(plan), "exposures": [asdict(e) for e in exposures]}
    write_whole(options.report / "audit.json", result)
    (options.report / "report.html").write_text(page(exposures, plan, training), encoding="utf-8")
    for e in exposures:
        verdict = "refused" if e.refused else "passes"
        print(f"planted {e.count:4} times: exposure {np.mean(e.before):.1f} → {np.mean(e.after):.1f} bits, {verdict}")
    print(f"report: {options.report / 'report.html'}")


if __name__ == "__main__":
    main()
