"""The regulator's folder as one page, complete in itself: what is measured, what a person states, what is still to be filled in."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.registry.compliance.chai import TO_FILL_IN
from tasks.registry.compliance.document import Compliance
from tasks.registry.compliance.form import questions
from tasks.runtime import html


def page(document: Compliance) -> str:
    """The page as HTML."""
    return _PAGE.render(
        document=document,
        asked=questions(),
        card=list(_rows(document.chai_applied_model_card)),
        to_fill_in=TO_FILL_IN,
        not_measured=lambda sentence: sentence.startswith("not measured"),
    )


def _rows(card: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """The card's texts by the names of their elements, as paragraphs."""
    for name, value in card.items():
        label = f"{path} › {name}" if path else name
        if isinstance(value, Mapping):
            yield from _rows(value, label)
        elif isinstance(value, list):
            yield label, [f"{one['Label']}: {one['ValueJson']}" if isinstance(one, Mapping) else str(one) for one in value]
        elif value:
            yield label, str(value).splitlines()


_PAGE = html.page(
    "Compliance of {{ document.version.name }} version {{ document.version.number }}",
    """{% macro statement(key, text) %}
{% if text %}<p class="person">{{ text }}</p>
{% else %}<p class="empty"><b>To be filled in:</b> {{ asked[key] }} <code>{{ key }}</code></p>
{% endif %}
{% endmacro %}
{% macro evidence(sentences) %}
{% if sentences %}<ul>{% for sentence in sentences %}
<li{% if not_measured(sentence) %} class="unmeasured"{% endif %}>{{ sentence }}
{% endfor %}</ul>{% endif %}
{% endmacro %}
{% macro entries(list) %}
<table class="entries"><tr><th>no.<th>question<th>answer</tr>
{% for entry in list %}
<tr><td class="id">{{ entry.id }}<td>{{ entry.title }}<td>
{% for key, text in entry.statements.items() %}{{ statement(key, text) }}{% endfor %}
{{ evidence(entry.evidence) }}</tr>
{% endfor %}
</table>
{% endmacro %}
<h1>Compliance of {{ document.version.name }} version {{ document.version.number }}</h1>
<p>Registered {{ document.version.registered }}. Lists with dots are measured by the pipeline or follow from the passport; what has a bar at
its side a person stated. What nobody measured says <span class="unmeasured">not measured</span>. This page is no assessment of
conformity by anybody.</p>
{% if document.to_be_filled_in %}
<p class="empty"><b>{{ document.to_be_filled_in | length }} of {{ asked | length }} fields are still to be filled in</b> by a person, in
compliance.yaml.</p>
{% else %}
<p class="person">A person filled in all {{ asked | length }} fields of compliance.yaml.</p>
{% endif %}
<nav><a href="#hazards">Hazards</a> <a href="#changes">Changes</a> <a href="#hti">HTI-1</a> <a href="#act">EU AI Act, Annex IV</a>
<a href="#chai">CHAI's model card</a></nav>

<h2 id="hazards">Hazards</h2>
<p>In the manner of ISO 14971: what may go wrong, what was measured of it, what stands against it. A person says how severe and how
probable the harm is, and whether the risk that stays is acceptable.</p>
<table class="hazards"><tr><th>hazard<th>measured<th>against it<th>assessed by a person</tr>
{% for hazard in document.hazards %}
<tr><td><b>{{ hazard.hazard }}.</b> {{ hazard.situation }}. Harm: {{ hazard.harm }}.<td>{{ evidence(hazard.evidence) }}
<td>{% if hazard.controls %}{{ evidence(hazard.controls) }}{% else %}nothing that the pipeline demands{% endif %}
<td>{% for key, text in hazard.statements.items() %}
{% if text %}<p class="person"><b>{{ key | replace("_", " ") }}:</b> {{ text }}</p>
{% else %}<p class="empty"><b>To be filled in:</b> {{ key | replace("_", " ") }}</p>
{% endif %}
{% endfor %}</tr>
{% endfor %}
</table>

<h2 id="changes">Changes from champion to challenger</h2>
{% set log = document.change_log %}
<p>{{ log.compared_with }}. Decision: <b>{{ log.verdict }}</b>.</p>
{{ evidence(log.reasons) }}
{% if log.scores %}<h3>Scores, challenger less champion</h3>{{ evidence(log.scores) }}{% endif %}
{% if log.changes %}
<table class="changes"><tr><th>what<th>before<th>now</tr>
{% for change in log.changes %}
<tr><td>{{ change.subject }}<td>{{ change.before }}<td>{{ change.now }}</tr>
{% endfor %}
</table>
{% endif %}

<h2 id="hti">Source attributes, 45 CFR 170.315(b)(11)(iv)(B) (HTI-1)</h2>
{{ entries(document.hti_1) }}

<h2 id="act">Technical documentation, Annex IV to Regulation (EU) 2024/1689</h2>
{% for section in document.eu_ai_act_annex_iv %}
<h3>{{ section.number }}. {{ section.title }}</h3>
{{ entries(section.entries) }}
{% endfor %}

<h2 id="chai">CHAI's Applied Model Card</h2>
<p>The same as XML by CHAI's schema v0.2: chai-applied-model-card.xml.</p>
<table class="card"><tr><th>element<th>content</tr>
{% for name, lines in card %}
<tr><td>{{ name }}<td>{% for line in lines %}
<p{% if line.startswith(to_fill_in) %} class="empty"{% elif not_measured(line.removeprefix("* ")) %} class="unmeasured"{% endif %}>
{{- line.replace("* ", "• ", 1) if line.startswith("* ") else line }}</p>
{% endfor %}</tr>
{% endfor %}
</table>
""",
    style="""body { max-width: 76rem } table { table-layout: fixed } td, th { overflow-wrap: anywhere } td p { margin: .2rem 0 }
ul { margin: .2rem 0; padding-left: 1.1rem } nav a { margin-right: 1rem } .id { white-space: nowrap }
.hazards th:first-child { width: 20% } .hazards th:nth-child(2) { width: 35% }
.entries th:first-child { width: 6.5rem } .entries th:nth-child(2), .changes th:first-child, .card th:first-child { width: 32% }
h2 { margin-top: 2.5rem }
.person { border-left: 3px solid #4a7ab5; padding-left: .5rem; white-space: pre-wrap }
.empty { background: #fff3d6; border-left: 3px solid #b07a00; padding: .1rem .5rem }
.unmeasured { color: #6a6a6a; font-style: italic }
@media (max-width: 600px) { body { margin: 1rem auto; padding: 0 .5rem } table, tbody, tr, td { display: block } tr { margin-bottom: .8rem }
th { display: none } }""",
)
