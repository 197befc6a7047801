"""The model card: ``README.md`` of a version's checkpoint, from facts alone: what the corpus' manifest, the base model's directory,
the records of the stages and the scores say. What they do not say stands there as not stated. It reads nothing but what it is given.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from jinja2 import Environment

from tasks.corpus.annotation.figures import Figures, sentences
from tasks.evaluation.metrics import METRICS, PER_TOKEN
from tasks.evaluation.metrics import label as metric_label
from tasks.registry.base_terms import BaseTerms
from tasks.registry.gate import MetricRow


def card(
    *,
    name: str,
    terms: BaseTerms,
    corpus: Sequence[Mapping[str, Any]],
    raw: Sequence[str],
    records: Mapping[str, Mapping[str, Any]],
    table: Sequence[MetricRow],
    findings: Mapping[str, Sequence[str]],
    annotation: Figures | None,
    checkpoint: str,
    code: Mapping[str, Any],
) -> str:
    """The card as Markdown. ``corpus``: the entries of data/manifest.json; ``raw``: the names of all raw files."""
    stated = {entry["path"]: entry for entry in corpus}
    return _TEMPLATE.render(
        name=name,
        terms=terms,
        files=[{"path": path, **stated.get(path, {})} for path in raw],
        credits=sorted({entry["credit"] for entry in corpus if entry.get("credit")}),
        shard=records.get("shard", {}).get("metrics", {}),
        finetune=records.get("finetune", {}),
        trained=trained_on(records),
        rows=[_cells(row) for row in table],
        findings=findings,
        annotation=list(sentences(annotation)),
        checkpoint=checkpoint,
        code=code,
    )


def trained_on(records: Mapping[str, Mapping[str, Any]]) -> str:
    """How much the model saw of the train split, in words: of a model whose record does not say, that it does not."""
    metrics, shard_metrics = records.get("finetune", {}).get("metrics", {}), records.get("shard", {}).get("metrics", {})
    if "documents_seen" not in metrics:
        return "fine-tuned; how much of the train split training came to is not stated"
    epochs, whole = metrics["epochs_seen"], shard_metrics.get("documents_train", 0)
    share = f"{epochs:.2f} epochs" if epochs >= 1 else f"{100 * epochs:.2g} % of one epoch"
    sentence = (
        f"trained on {metrics['documents_seen']:,.0f} documents, {metrics['tokens_seen']:,.0f} tokens "
        f"({metrics['tokens_with_loss_seen']:,.0f} of them with loss): {share} of the {whole:,.0f} documents in the train split"
    )
    if metrics["step_kept"] < metrics["steps_taken"]:
        sentence += (
            f"; these are the weights of step {metrics['step_kept']:.0f} of {metrics['steps_taken']:.0f}, in all of which training came to "
            f"{metrics['documents_fed']:,.0f} documents, {metrics['tokens_fed']:,.0f} tokens"
        )
    return sentence


def _cells(row: MetricRow) -> dict[str, Any]:
    def interval(of: Any) -> str:
        return f"{of.value:.4f} ({of.low:.4f} to {of.high:.4f})"

    ratio = f"{exp(row.change.value):.3f}" if row.metric in PER_TOKEN else ""
    return {
        "metric": metric_label(row.metric),
        "better": "more" if METRICS[row.metric].higher_is_better else "less",
        "split": row.split,
        "count": row.items,
        "base": interval(row.base),
        "tuned": interval(row.tuned),
        "change": interval(row.change),
        "ratio": ratio,
    }


_TEMPLATE = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False).from_string("""---
license: {{ terms.tag }}
language: en
pipeline_tag: text-generation
tags: [medical, not-a-medical-device]
---
# {{ name }}

A language model fine-tuned on medical text. **It is not a medical device.** It answers in the manner of its training text, makes facts up,
and must not be used for diagnosis, treatment, triage or advice to patients, nor to decide on anybody's care.

## Intended use

Research on and evaluation of fine-tuned language models on medical text, by people who check what it says. Text that it was not made
for: other languages than its training text's, dosing, emergencies, questions about a particular patient.

## Base model

* {{ terms.title }}
* Licence: {{ terms.licence }}
* Duties: {{ terms.duties }}

## Training data

| file | title | version | licence | public |
|---|---|---|---|---|
{% for file in files %}
{% set stated = [file.title, file.version, file.licence] | map("default", "not stated", true) | join(" | ") %}
| {{ file.path }} | {{ stated }} | {{ "yes" if file.public else "no" }} |
{% endfor %}

{% if shard %}
The model was {{ trained }}. There are {{ "{:,.0f}".format(shard.documents_train or 0) }} documents in the train split
({{ "{:,.0f}".format(shard.tokens_train or 0) }} tokens), {{ "{:,.0f}".format(shard.documents_validation or 0) }} in validation,
{{ "{:,.0f}".format(shard.documents_test or 0) }} in test. Groups of documents (a patient, a disease, a term) are in one split only.
Identifiers were replaced as far as the recognizers find them, which assists de-identification and does not make text anonymous.
{% endif %}

Recall and damage of the cleaning, as a person of the site marked them in its own notes:

{% for sentence in annotation %}
* {{ sentence }}
{% endfor %}

{% if credits %}
### Credits

{% for credit in credits %}
* {{ credit }}
{% endfor %}
{% endif %}

## Training

{% if finetune %}
{% set params = finetune.params %}
Mode {{ params.mode }}, {{ finetune.metrics.get("steps_taken", params.steps) | int }} steps of
{{ params.batch }} rows of {{ params.seq_len }} tokens, learning rate {{ params.lr }}, seed {{ params.seed }};
{{ "%.0f" | format(finetune.seconds) }} s on {{ finetune.machine.processor }}.
Code: commit {{ code.commit or "unknown" }}{{ " with uncommitted changes" if code.dirty }}.
{% endif %}

## Evaluation

On documents of groups that training never saw, the same items for both models, with 95 % intervals (bootstrap over groups of items, such
as the notes of a patient). Better or worse is what changed by the whole interval. Extracted fields are compared with the structured
record of the note's encounter; beside "base with examples" stands the base model that saw answered examples first.

{% for name, listed in findings.items() %}
**{{ name | capitalize }}:**{% if not listed %} nothing{% endif %}


{% for sentence in listed %}
* {{ sentence }}
{% endfor %}

{% endfor %}

| metric | better | split | items | base | tuned | tuned less base | ratio of perplexities |
|---|---|---|---:|---|---|---|---|
{% for row in rows %}
| {{ row.metric }} | {{ row.better }} | {{ row.split }} | {{ row.count }} | {{ row.base }} | {{ row.tuned }} | {{ row.change -}}
 | {{ row.ratio }} |
{% endfor %}

## Limits

* Extraction was scored on notes whose record agrees with them; others were not asked about.
* A lower loss says that held-out answers are less surprising, above all in how they are worded; it does not say that answers are true.
* The test documents come from the same corpora as training, except those of the split "ood", if any.
* Text may have been memorized. Bias in the sources is kept.
* No clinician has rated its answers.

## Provenance

`passport.json` beside this file names every digest behind this version; `python -m tasks.registry verify` compares. Checkpoint
`{{ checkpoint }}`.
""")
