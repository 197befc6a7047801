"""The data report: one page that shows what became of the raw records, with pictures, complete in itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from tasks.corpus.deidentify.policy import DAMAGE, TYPES
from tasks.corpus.documents import Document
from tasks.runtime import html
from tasks.runtime.files import by_folder
from tasks.runtime.svg import svg

# What the removing steps of the funnel mean to a reader.
STEPS = {
    "skipped": "no text to train on by their kind or state",
    "read": "could not be read",
    "clean": "rejected by a rule",
    "duplicates": "duplicates",
    "leakage": "overlap with evaluation",
    "examples": "few examples",
    "withdrawn": "withdrawn",
}
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass
class ShardStats:
    """What the shards hold, counted while they are written."""

    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)  # by source and split
    documents: Counter[tuple[str, str]] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)  # by split, documents by the first of LENGTHS that they do not exceed

    def add(self, source: str, split: str, tokens: int) -> None:
        """Count a document of so many tokens."""
        self.tokens[source, split] += tokens
        self.documents[source, split] += 1
        self.lengths.setdefault(split, Counter())[next((limit for limit in LENGTHS if tokens <= limit), 0)] += 1


def page(
    funnel: Mapping[str, Any],
    deidentification: Mapping[str, Any],
    shards: ShardStats,
    variants: Mapping[str, int],
    samples: Sequence[Document],
) -> str:
    """The page as HTML, complete in itself.

    ``funnel`` and ``deidentification`` are preprocess's reports, ``variants`` counts by method, ``samples`` documents that anybody may
    read.
    """
    return _TEMPLATE.render(
        **_funnel_section(funnel["rows"]),
        notes=funnel.get("notes", []),
        **_shard_section(shards),
        **_deidentification_section(deidentification, funnel["rows"]),
        **_damage_section(deidentification),
        entity_model=deidentification.get("entity_model"),
        decontamination=_bars([f"{10 * i}-{10 * i + 10} %" for i in range(10)], funnel["decontamination"], log=True),
        variants=sorted(variants.items()),
        samples=samples,
    )


def _funnel_section(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many records are left after each removing step, and the rules that removed or repaired them."""
    records = Counter[str]()
    for row in rows:
        records[row["step"]] += row["records"]
    total = records["records"] + records["read"] + records["skipped"]
    left, bars = total, [("raw records", total)]
    for step, title in STEPS.items():
        left -= records[step]
        bars.append((f"after: {title}", left))
    return {
        "funnel_picture": _bars([label for label, _ in bars], [count for _, count in bars]),
        "removed": [row for row in rows if row["step"] in STEPS],
        "titles": STEPS,
        "skipped": [row for row in rows if row["step"] == "skipped"],
        "encodings": [row for row in rows if row["step"] == "encodings"],
        "copied": [row for row in rows if row["step"] == "copy-forward"],
        "repaired": [row for row in rows if row["step"] == "repairs"],
    }


def _shard_section(shards: ShardStats) -> dict[str, Any]:
    names = by_folder({source for source, _ in shards.tokens})
    tokens, documents = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for (source, split), count in shards.tokens.items():
        tokens[names[source], split] += count
        documents[names[source], split] += shards.documents[source, split]
    return {
        "splits": sorted({split for _, split in tokens}),
        "sources": sorted({source for source, _ in tokens}),
        "tokens": tokens,
        "documents": documents,
        "lengths": _histogram(shards.lengths),
    }


def _deidentification_section(deidentification: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    identifiers = Counter[str]()
    for row in rows:
        identifiers[row["rule"]] += row["records"] * (row["step"] == "identifiers")
    return {
        "recall": _by_half(deidentification["recall"], "name"),
        "known": {row["name"]: row for row in deidentification.get("known", []) if row["half"] == "all"},
        "known_in_documents": deidentification.get("without_known", {}).get("recall", []),
        "languages": _by_half(deidentification.get("languages", []), "language"),
        "identifiers": identifiers,
        "types": TYPES,
        "hard_negatives": _by_half(deidentification["hard_negatives"], "name"),
    }


def _damage_section(deidentification: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing of a report that has no damage: of an older run."""
    damage = deidentification.get("damage", {})
    rules_alone = {row["name"]: row for row in deidentification.get("without_known", {}).get("damage", [])}
    rows = [row | {"trials": row["documents"]} for row in damage.get("by_type", []) if row["spans"]]
    for row in deidentification.get("all_hard_negatives", []):
        name = "hard_negatives" if row["half"] == "all" else f"hard_negatives, {row['half']}"
        rows.append(row | {"name": name, "spans": row["injections"], "trials": row["templates"]})
    return {
        "damage": rows,
        "damage_alone": rules_alone,
        "damage_by_rule": damage.get("by_rule", []),
        "damage_sample": damage.get("sample"),
        "damage_names": DAMAGE | {"hard_negatives, held-out": "those that nobody who wrote a rule has seen"},
        "max_damage": deidentification.get("limits", {}).get("max_damage", {}),
    }


def _by_half(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    halves: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        halves.setdefault(row[key], {})[row["half"]] = row
    return halves


def _bars(labels: Sequence[str], values: Sequence[int], *, log: bool = False) -> str:
    figure = Figure(figsize=(8, 0.32 * len(labels) + 0.6), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(range(len(labels)), values, color="#4a7ab5")
    axes.bar_label(bars, [f"{value:,}" for value in values], padding=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xscale("symlog" if log else "linear")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure, salt="data report")


def _histogram(lengths: Mapping[str, Counter[int]]) -> str:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    classes = [*LENGTHS, 0]
    width = 0.8 / max(len(lengths), 1)
    for i, (split, counts) in enumerate(sorted(lengths.items())):
        count = sum(counts.values())
        shares = [counts[length] / count for length in classes]
        axes.bar([x + i * width for x in range(len(classes))], shares, width, label=split)
    axes.set_xticks([x + 0.4 - width / 2 for x in range(len(classes))], [*(f"≤ {length}" for length in LENGTHS), "longer"])
    axes.set(xlabel="tokens", ylabel="share of documents")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    return svg(figure, salt="data report")


_TEMPLATE = html.page(
    "Data report",
    """<h1>Data report</h1>
<h2>From raw records to documents</h2>
<div class="pictures">{{ funnel_picture | safe }}</div>
<table><tr><th>source<th>why<th>rule<th>records<th>for example</tr>
{% for row in removed %}
<tr><td>{{ row.source }}<td>{{ titles[row.step] }}<td>{{ row.rule }}<td class="n">{{ "{:,}".format(row.records) }}
<td>{{ row.examples | join(", ") }}</tr>
{% endfor %}
</table>
<p>Examples are ids of records, or positions in files where a record has none; the records themselves are in artifacts/rejected.jsonl.</p>
{% if notes %}
<h2>To know of this corpus</h2>
<ul>{% for note in notes %}<li>{{ note }}{% endfor %}</ul>
{% endif %}
{% if encodings %}
<h2>Encodings that were found out</h2>
<table><tr><th>file<th>read in</tr>
{% for row in encodings %}
<tr><td>{{ row.source }}<td>{{ row.rule }}</tr>
{% endfor %}
</table>
{% endif %}
{% if skipped %}
<h2>Left out, as no text to train on</h2>
<table><tr><th>file<th>what it is<th>records<th>for example</tr>
{% for row in skipped %}
<tr><td>{{ row.source }}<td>{{ row.rule }}<td class="n">{{ "{:,}".format(row.records) }}<td>{{ row.examples | join(", ") }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Repairs</h2>
<table><tr><th>source<th>rule<th>documents<th>places in them</tr>
{% for row in repaired %}
<tr><td>{{ row.source }}<td>{{ row.rule }}<td class="n">{{ "{:,}".format(row.records) }}
<td class="n">{{ "{:,}".format(row.changes) if row.changes }}</tr>
{% endfor %}
</table>
{% if copied %}
<h2>Paragraphs copied from note to note</h2>
<p>Notes with a paragraph that another note of the same group has too; preprocess.copy_forward can limit how many keep it.</p>
<table><tr><th>source<th>notes</tr>
{% for row in copied %}
<tr><td>{{ row.source }}<td class="n">{{ "{:,}".format(row.records) }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Tokens by source and split</h2>
<table><tr><th>source{% for split in splits %}<th>{{ split }}{% endfor %}</tr>
{% for source in sources %}
<tr><td>{{ source }}{% for split in splits %}<td class="n">
{{- "{:,} in {:,} documents".format(tokens[source, split], documents[source, split]) if (source, split) in tokens }}{% endfor %}</tr>
{% endfor %}
</table>
<div class="pictures">{{ lengths | safe }}</div>
{% if variants %}
<h2>Variants</h2>
<table><tr><th>method<th>documents, all in training</tr>
{% for method, count in variants %}
<tr><td>{{ method }}<td class="n">{{ "{:,}".format(count) }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>De-identification</h2>
<p>It assists de-identification and does not make text anonymous. Recall was measured on this run: identifiers were injected by many
templates into copies of the run's own text. Whoever wrote the recognizers has not seen the held-out templates. Intervals are Wilson's
at 95 %, with a template as a trial.</p>
{% macro share(of) %}
<td class="n">{{ "%.3f" | format(of.share) }} ({{ "%.2f" | format(of.low) }} to {{ "%.2f" | format(of.high) }}),
{{ of.templates }} templates
{%- endmacro %}
<table><tr><th>type<th>documents with it<th>recall, all templates<th>held-out templates
{%- if known %}<th>all templates, where the data names the person{% endif %}</tr>
{% for type, of in recall.items() %}
<tr><td>{{ type }}: {{ types[type] }}<td class="n">{{ "{:,}".format(identifiers.get(type, 0)) }}
{% for half in ("all", "held-out") if half in of %}{{ share(of[half]) }}{% endfor %}
{% if known %}<td class="n">{{ "%.3f" | format(known[type].share) if type in known }}{% endif %}</tr>
{% endfor %}
</table>
{% if known_in_documents %}
<p>Patients and staff whom the data names, in this run's own documents: all of these places are replaced. So many of them the rules
alone would have found, a document as a trial:</p>
<table><tr><th>type<th>documents<th>places<th>found by the rules alone</tr>
{% for row in known_in_documents %}
<tr><td>{{ row.name }}<td class="n">{{ "{:,}".format(row.documents) }}<td class="n">{{ "{:,}".format(row.spans) }}
<td class="n">{{ "%.3f" | format(row.share) }} ({{ "%.2f" | format(row.low) }} to {{ "%.2f" | format(row.high) }})</tr>
{% endfor %}
</table>
{% endif %}
{% if languages %}
<p>Names by language, in notes in English; of German, French, Spanish, Italian, Polish and Turkish also behind the language's own
titles, labels and words for kin. Measured: {{ languages | join(", ") }}; other languages: not measured.</p>
<table><tr><th>names<th>recall, all templates<th>held-out templates</tr>
{% for language, of in languages.items() %}
<tr><td>{{ language }}{% for half in ("all", "held-out") if half in of %}{{ share(of[half]) }}{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if hard_negatives %}
<p>Hard negatives look like identifiers and identify nobody. The share that was touched:</p>
<table><tr><th>reason<th>all templates<th>held-out templates</tr>
{% for reason, of in hard_negatives.items() %}
<tr><td>{{ reason }}{% for half in ("all", "held-out") if half in of %}{{ share(of[half]) }}{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if damage_sample %}
<h2>Damage</h2>
<p>What is clinical must outlive cleaning. Every rule was applied once more to {{ "{:,}".format(damage_sample.documents) }} raw documents of
this run with {{ "{:,}".format(damage_sample.words) }} words: the share of clinical spans that a rule changed or lost. What patterns do not
recognize as clinical is not counted. Intervals are Wilson's at 95 %, with a document as a trial; of hard negatives, which were injected,
with a template. The stage fails above a limit.</p>
<table><tr><th>what<th>in documents or templates<th>spans<th>changed or lost
{%- if damage_alone %}<th>without known people{% endif %}<th>limit</tr>
{% for row in damage %}
<tr><td>{{ row.name }}: {{ damage_names[row.name] }}
<td class="n">{{ "{:,}".format(row.trials) }}<td class="n">{{ "{:,}".format(row.spans) }}
<td class="n">{{ "%.4f" | format(row.share) }} ({{ "%.3f" | format(row.low) }} to {{ "%.3f" | format(row.high) }})
{%- if damage_alone %}<td class="n">{{ "%.4f" | format(damage_alone[row.name].share) if row.name in damage_alone }}{% endif %}
<td class="n">{{ max_damage[row.name] if row.name in max_damage }}</tr>
{% endfor %}
</table>
<table><tr><th>step<th>rule<th>documents that it changed<th>places<th>per 1,000 words<th>clinical spans among them</tr>
{% for row in damage_by_rule %}
<tr><td>{{ row.step }}<td>{{ row.rule }}
<td class="n">{{ "{:,}".format(row.documents) }} ({{ "%.3f" | format(row.low) }} to {{ "%.3f" | format(row.high) }} of all)
<td class="n">{{ "{:,}".format(row.changes) }}<td class="n">{{ "%.2f" | format(row.per_1000_words) }}
<td>{% for type in row.clinical %}{{ type.name }} {{ "{:,}".format(type.changed) }} of {{ "{:,}".format(type.spans) }}
{{- " (%.3f to %.3f)" | format(type.low, type.high) }}{{ ", " if not loop.last }}{% endfor %}</tr>
{% endfor %}
</table>
<p>What was changed, in words: artifacts/changes.csv on the machine of the run, which its owner alone may read.</p>
{% endif %}
{% if entity_model %}
<h2>Entity model</h2>
<p>Each template was injected once, with English names where it is in English; the lists of words are asked before each of its marks.</p>
<table><tr><th>type<th>recall of the model by itself<th>of the rules alone<th>of both</tr>
{% for of in entity_model.recall.model %}
<tr><td>{{ of.name }}: {{ types[of.name] }}{{ share(of) }}{{ share(entity_model.recall.rules[loop.index0]) }}
{{ share(entity_model.recall.both[loop.index0]) }}</tr>
{% endfor %}
</table>
<p>What its marks alone change, beyond what the rules change; the stage fails above a limit. What they would change if no list were asked
shows what may become of clinical words that no list and no pattern knows.</p>
<table><tr><th>what<th>in documents or templates<th>spans<th>changed or lost<th>without the lists<th>limit</tr>
{% for row in entity_model.damage.by_type + entity_model.hard_negatives if row.spans != 0 %}
<tr><td>{{ row.name }}{{ ", held-out" if row.half == "held-out" }}: {{ damage_names[row.name] }}
<td class="n">{{ "{:,}".format(row.documents or row.templates) }}<td class="n">{{ "{:,}".format(row.spans or row.injections) }}
<td class="n">{{ "%.4f" | format(row.share) }} ({{ "%.3f" | format(row.low) }} to {{ "%.3f" | format(row.high) }})
<td class="n">{{ "%.4f" | format(row.unlisted) if "unlisted" in row }}
<td class="n">{{ max_damage[row.name] if row.name in max_damage and row.half != "held-out" }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Decontamination: overlap of training with evaluation</h2>
<p>Train documents by the greatest share of their 13-grams that is in one evaluation document, before those above the limit left.
13-grams that are in many train documents do not count. Evaluation stays whole.</p>
<div class="pictures">{{ decontamination | safe }}</div>
<h2>Samples</h2>
{% for document in samples %}
<div class="sample">
<p><small>{{ document.source }}, {{ document.position }}, {{ document.split }}{{ ", " + document.method if document.method }}</small>
<p><b>{{ document.question }}</b><p>{{ document.answer[:600] }}{{ "…" if document.answer | length > 600 }}</div>
{% else %}
<p>None are shown: not every source is marked as public in data/manifest.json.</p>
{% endfor %}
""",
    style=""".sample { border-left: 3px solid #4a7ab5; padding-left: .8rem; margin: 1rem 0; overflow-wrap: anywhere }""",
)
