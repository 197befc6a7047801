"""The validation report: one page, complete in itself, on what got better, what worse, on what, and how sure that is.

It holds numbers, names of categories, fields and files, the prompts of params.yaml and answers to them; no text of a record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tasks.evaluation import calibration
from tasks.evaluation.findings import findings, verdict
from tasks.evaluation.metrics import METRICS, PER_TOKEN, label
from tasks.evaluation.table import MIN_GROUPS, Table
from tasks.runtime import html
from tasks.runtime.svg import svg

BETTER, WORSE, UNCLEAR = "#2b7a4b", "#b3372f", "#888888"
SPLITS = {
    "test": "Held-out documents",
    "ood": "Text of another origin",
    "general": "General text: what was forgotten",
    "behaviour": "Behaviour",
    "task": "Tasks of lm-evaluation-harness",
    "train": "Training documents: what was memorized",
}


def page(
    metrics: Table, reliability: Mapping[str, calibration.Counts], answers: Sequence[Mapping[str, Any]], details: Mapping[str, Any]
) -> str:
    """The page as HTML. ``reliability``: counts by confidence, by role; ``details``: what ``evaluate`` says about the items."""
    return _TEMPLATE.render(
        findings=findings(metrics),
        metrics=metrics,
        splits=SPLITS,
        label=label,
        shares=_shares,
        per_token=PER_TOKEN,
        verdict=verdict,
        interval=interval,
        changes=_changes(metrics),
        reliability=_reliability(reliability),
        answers=answers,
        details=details,
        min_groups=MIN_GROUPS,
        extraction=EXTRACTION,
        titles=BARS | {"parsed": "parse", "exact": "right in all"},
        details_of=BY_CATEGORY,
        extractions=_extractions(metrics),
    )


# What the head of the page shows of extraction: a metric, and the one that has the base model with examples beside the tuned one.
EXTRACTION = {"field_f1": "field_f1_few_shot", "hallucinated": "hallucinated_few_shot", "parsed": "parsed_few_shot", "exact": ""}
BY_CATEGORY = ("field_f1", "hallucinated", "answer_nll", "answer_content_nll", "bits_per_byte", "choice")
BARS = {"field_f1": "F1", "hallucinated": "hallucinated"}
COLORS = {"base": "#999999", "base with examples": "#b58a3a", "tuned": "#4a7ab5"}


def interval(metric: str, of: Mapping[str, float], *, sign: bool = False) -> str:
    """A value with its interval, in the metric's unit; ``of`` is a cell of the table."""
    figures = {name: METRICS[metric].format(value, sign=sign) for name, value in of.items()}
    return f"{figures['value']} ({figures['low']} to {figures['high']})" if "low" in figures else figures["value"]


def _shares(of: Mapping[str, float]) -> str:
    return " · ".join(f"{100 * of[name]:.0f}" for name in ("precision", "recall", "f1", "hallucinated"))


def _extractions(metrics: Table) -> str:
    """F1 and hallucinated values of base, base with examples and tuned, on both splits, with intervals; empty without tasks."""
    bars = [(split, metric) for split in ("test", "ood") for metric in BARS if metric in metrics.get(split, {}).get("all", {})]
    if not bars:
        return ""
    figure = Figure(figsize=(8, 0.62 * len(bars) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    for offset, (role, color) in enumerate(COLORS.items()):
        for index, (split, metric) in enumerate(bars):
            of_split, with_examples = metrics[split]["all"], role == "base with examples"
            row = of_split.get(EXTRACTION[metric] if with_examples else metric)
            if row is not None:
                of = {name: 100 * figure for name, figure in row["base" if with_examples else role].items()}
                spread = [[of["value"] - of.get("low", of["value"])], [of.get("high", of["value"]) - of["value"]]]
                axes.barh(index + 0.26 * (offset - 1), of["value"], height=0.24, color=color, xerr=spread, ecolor="#444")
    axes.legend([Patch(color=color) for color in COLORS.values()], COLORS, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set_yticks(range(len(bars)), [f"{BARS[metric]} ({split})" for split, metric in bars])
    axes.invert_yaxis()
    axes.set(xlabel="percent, with 95 % intervals", xlim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure, salt="validation report")


def _changes(metrics: Table) -> str:
    """Change of the answers' likelihood per category, with intervals: the first thing to look at."""
    changes = [
        (f"{name} ({split})", rows["answer_nll"]["change"])
        for split in ("test", "ood")
        for name, rows in [*metrics.get(split, {}).get("category", {}).items(), ("all", metrics.get(split, {}).get("all", {}))]
        if "answer_nll" in rows
    ]
    figure = Figure(figsize=(8, 0.34 * len(changes) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="#999", linewidth=1)
    for index, (_, change) in enumerate(changes):
        color = {"better": BETTER, "worse": WORSE, "unclear": UNCLEAR}[verdict("answer_nll", {"change": change})]
        if "low" in change:
            axes.plot([change["low"], change["high"]], [index, index], color=color, linewidth=2)
        axes.plot(change["value"], index, "o", color=color)
    axes.set_yticks(range(len(changes)), [name for name, _ in changes])
    axes.invert_yaxis()
    axes.set_xlabel("tuned less base, nats per answer token; left is better")
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure, salt="validation report")


def _reliability(counts: Mapping[str, calibration.Counts]) -> str:
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    for role, color in (("base", "#888888"), ("tuned", "#4a7ab5")):
        bins = calibration.bins(counts[role])
        axes.plot([b["confidence"] for b in bins], [b["right"] for b in bins], "o-", color=color, label=role)
    axes.set(xlabel="probability of the likeliest next token", ylabel="share of them that is right", xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    return svg(figure, salt="validation report")


_TEMPLATE = html.page(
    "Validation report",
    """{% macro header(first) %}<tr><th>{{ first }}<th>items<th>base<th>tuned<th>change<th></tr>{% endmacro %}
{% macro line(name, metric, row, class="") %}
<tr{% if class %} class="{{ class }}"{% endif %}><td>{{ name }}<td class="n">{{ "{:,}".format(row["items"]) }}
<td class="n">{{ interval(metric, row.base) }}<td class="n">{{ interval(metric, row.tuned) }}
<td class="n">{{ interval(metric, row.change, sign=True) }}
<td class="{{ verdict(metric, row) }}">{{ verdict(metric, row) }}</tr>
{% endmacro %}
<h1>Validation report: base and tuned</h1>
<p>Not a medical device. Values extracted from notes are compared with the structured record; the other scores say how likely a model
holds texts, and which of given answers it prefers, and none of those says that what it writes is true. Both models saw the same items.
Intervals hold 95 % of bootstrap resamples over groups of items (the notes of a patient); fewer than {{ min_groups }} groups get none.
<b>Better</b> and <b>worse</b> are said where the interval of the change leaves out zero: of so many rows some do by chance.</p>
{% if extractions %}
<h2>Extraction from notes</h2>
<p>Answers in JSON by the schemas of the tasks {{ details.fields.values() | map("list") | sum(start=[]) | unique | join(", ") }}, beside the
truth of the structured record. With examples the base model saw {{ details.examples }} answered questions about train notes first, so
what is left of the gain is not that of a format alone. A hallucinated value is one that the note states nowhere. An answer that does not
parse has no values.</p>
<div class="pictures">{{ extractions | safe }}</div>
<table class="extraction"><tr><th>metric<th>split<th>notes (patients)<th>base<th>base, examples<th>tuned
<th>tuned less base<th>tuned less base, examples</tr>
{% for split in ("test", "ood") if split in metrics and "field_f1" in metrics[split]["all"] %}
{% for metric, shot in extraction.items() %}
{% set rows = metrics[split]["all"] %}
<tr{% if loop.first %} class="all"{% endif %}><td>{{ titles[metric] }}<td>{{ split }}
<td class="n">{{ rows[metric]["items"] }} ({{ rows[metric]["groups"] }})
<td class="n">{{ interval(metric, rows[metric].base) }}<td class="n">{{ interval(shot, rows[shot].base) if shot in rows }}
<td class="n">{{ interval(metric, rows[metric].tuned) }}
<td class="{{ verdict(metric, rows[metric]) }}">{{ interval(metric, rows[metric].change, sign=True) }}
<td class="{{ verdict(shot, rows[shot]) if shot in rows }}">{{ interval(shot, rows[shot].change, sign=True) if shot in rows }}</tr>
{% endfor %}
{% endfor %}
</table>
{% endif %}
<h2>In short</h2>
<ul>
{% for name, listed in findings.items() %}
<li class="{{ name }}"><b>{{ name }}</b>: {% if not listed %}nothing{% endif %}

<ul>{% for sentence in listed %}<li>{{ sentence }}{% endfor %}</ul>
{% endfor %}
</ul>
<div class="pictures">{{ changes | safe }}{{ reliability | safe }}</div>
{% if details.fields %}
<h2>Extracted fields</h2>
<p>Each cell: precision, recall, F1 and the share of hallucinated values, in percent.</p>
{% for split, by_task in details.fields.items() %}
{% for task, rows in by_task.items() %}
<h3>{{ task }} ({{ split }})</h3>
<table><tr><th>field<th>values<th>base<th>base, examples<th>tuned</tr>
{% for path, row in rows.items() %}
<tr{% if path == "all" %} class="all"{% endif %}><td>{{ path }}<td class="n">{{ row["values"] }}
{% for role in ("base", "base_few_shot", "tuned") %}
<td class="n">{{ shares(row[role]) }}
{% endfor %}
</tr>
{% endfor %}
</table>
{% endfor %}
{% endfor %}
{% endif %}
{% for split, title in splits.items() if split in metrics %}
<h2>{{ title }}</h2>
{% if split == "test" %}
<p>None of the groups that these documents belong to was trained on. {{ "%.0f" | format(100 * details.boilerplate_share) }} % of the
answers' tokens are boilerplate, which the tokens before them decide in training answers of the category
(tasks/evaluation/boilerplate.py); content is the rest, and what a short run learns first is boilerplate. The four choices are the
right answer and three of the same category from other held-out groups, put about the question's topic; chance is 25 %. Generated
answers were greedy and at most {{ details.max_new_tokens }} tokens long.</p>
{% elif split == "train" %}
<p>Given the beginning of a text, are its next {{ details.target }} tokens the likeliest ones, each? Boilerplate is continued without having
been memorized: compare with the same row of the held-out documents.</p>
{% elif split == "behaviour" %}
<p>A few dozen questions that are written down in tasks/evaluation/behaviour.csv, balanced so that a model that always prefers the same
answer is right on half; chance is 50 %.</p>
{% elif split == "general" %}
<p>Passages on everyday subjects (tasks/evaluation/general.csv) and, where the corpus holds general text, what of it was not trained on.</p>
{% endif %}
<table>{{ header("metric") }}
{% for metric, row in metrics[split]["all"].items() %}
{{ line(label(metric), metric, row) }}
{% endfor %}
</table>
{% for metric in details_of if metric in metrics[split]["all"] %}
<h3>{{ label(metric) | capitalize }}</h3>
<table>{{ header("category, source") }}
{% for part in ("category", "source") %}
{% for name, rows in metrics[split][part].items() if metric in rows %}
{{ line(name + (" (source)" if part == "source" else ""), metric, rows[metric]) }}
{% endfor %}
{% endfor %}
{{ line("all", metric, metrics[split]["all"][metric], "all") }}
</table>
{% endfor %}
{% set perplexities = metrics[split]["all"].items() | selectattr("0", "in", per_token) | list %}
{% if perplexities %}
<p>As perplexity:
{% for metric, row in perplexities %}
{{ label(metric) | replace("nats per ", "per ") }} {{ "%.2f" | format(row.perplexity.base) }} →
{{ "%.2f" | format(row.perplexity.tuned) }}{{ ", " if not loop.last }}
{%- endfor %}.</p>
{% endif %}
{% endfor %}
<h2>Answers to the prompts</h2>
<p>Models of this size make facts up. One answer each, sampled as params.yaml says.</p>
{% for pair in answers %}
<h3>{{ pair.prompt }}</h3>
<table class="answers"><tr><th>base<th>tuned</tr><tr><td>{{ pair.base }}<td>
{%- if pair.tuned is none %}<i>withheld: not every source of the training text is public, and a model may say by heart what it was
trained on</i>
{%- else %}{{ pair.tuned }}{% endif %}</tr></table>
{% else %}
<p>params.yaml lists no prompts.</p>
{% endfor %}
<h2>Limits</h2>
<ul>
<li>Extraction is scored where record and note agree on the truth; notes that contradict their record are not asked about.</li>
<li>The documents are a sample of one corpus and of its fixed forms; other hospitals, languages and ways of asking are not measured.</li>
<li>A likelihood rewards the corpus's wording. Content tokens leave boilerplate out, and still hold names copied from the question.</li>
<li>Wrong choices come from the same corpus; some may be true in part, and some are easy to tell.</li>
<li>Exact continuation is one form of memorization; texts may be leaked in others. <code>make audit-memorization</code> plants
canaries.</li>
<li>The behaviour questions are few, in English, and test form more than knowledge.</li>
</ul>
""",
    style="""th, td.better, td.worse, td.unclear { white-space: nowrap } .answers td { width: 50%; white-space: pre-wrap }
.all td { font-weight: 600 } table.extraction td { white-space: normal; min-width: 5rem }
@media (min-width: 44rem) { .pictures { display: flex; flex-wrap: wrap; align-items: start; gap: 1rem } }
@media (max-width: 44rem) { table.extraction td { min-width: 9rem } }""",
)
